"""Entry point of trainer pods: one driver, and followers on the other ranks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from seele_trainer.config import TrainerConfig
from seele_trainer.termination import write_termination_message

if TYPE_CHECKING:
    # Imported where they are used: torchrun's own process, which replaces this one, needs none of it.
    from seele_trainer.assemble import PodEnvironment
    from seele_trainer.telemetry.recorder import Recorder

logger = logging.getLogger(__name__)

INTERRUPTED = 130
TORCHRUN_PATIENCE_SECONDS = 7 * 24 * 3600
"""How long torchrun waits for its processes after a signal. Whoever sent it, such as a kubelet, knows how long they have."""


def train(config_path: Path) -> int:
    """Train as this pod's part of the gang; returns the exit code (0 done, 1 failed, 2 bad input, 130 stopped and saved).

    Where the run has several processes this one becomes `torchrun`, which starts them with this same module.
    """
    config = TrainerConfig.model_validate(yaml.safe_load(config_path.read_text()))
    if config.trainer.world_size > 1 and "LOCAL_RANK" not in os.environ:
        _become_torchrun(config, config_path)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    for chatty in ("httpx", "matplotlib", "filelock", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    rank = int(os.environ.get("RANK", "0"))
    try:
        return asyncio.run(_drive(config, config_path)) if rank == 0 else _follow(config)
    except Exception as error:
        # Nobody expected it, so the log has the trace.
        write_termination_message(f"rank {rank}: {type(error).__name__}: {error}")
        raise


def _become_torchrun(config: TrainerConfig, config_path: Path) -> None:
    from seele_trainer.assemble import PodEnvironment

    environment = PodEnvironment.from_environment()
    if "OMP_NUM_THREADS" in os.environ:
        # What is there is meant for the pod; its processes share it.
        threads = int(os.environ["OMP_NUM_THREADS"]) // config.trainer.processes_per_replica
        os.environ["OMP_NUM_THREADS"] = str(max(1, threads))
    # By default it kills them after 30 s, in the middle of the step that they are to finish and save.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(TORCHRUN_PATIENCE_SECONDS))
    arguments = [
        sys.executable,
        "-m",
        "seele_trainer.launch",
        f"--nnodes={config.trainer.replicas}",
        f"--nproc-per-node={config.trainer.processes_per_replica}",
        f"--node-rank={environment.node_rank}",
        f"--rdzv-endpoint={environment.rendezvous}",
        "--max-restarts=0",
        "-m",
        "seele_trainer.main",
        str(config_path),
    ]
    os.execv(sys.executable, arguments)


def _follow(config: TrainerConfig) -> int:
    """Run the driver's learner calls on this rank. The driver decides when to stop, so signals are left to it."""
    from seele_trainer.assemble import build_learner
    from seele_trainer.failures import EXPECTED_FAILURES

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        build_learner(config).follow()
    except EXPECTED_FAILURES as failure:
        return _failed(failure)
    return 0


def _failed(failure: Exception) -> int:
    """One clear line: these errors say what happened and what to do, and a trace would only hide it."""
    from seele_trainer.failures import exit_code

    logger.error("%s", failure)
    write_termination_message(str(failure))
    return exit_code(failure)


async def _drive(config: TrainerConfig, config_path: Path) -> int:
    from seele_trainer.assemble import PodEnvironment
    from seele_trainer.failures import EXPECTED_FAILURES
    from seele_trainer.loop import Interrupted
    from seele_trainer.telemetry.recorder import Recorder
    from seele_trainer.telemetry.server import TelemetryServer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        environment = PodEnvironment.from_environment()
        environment.attempt.claim()
        environment.attempt.keep_config(config_path.read_text())
        with (
            Recorder(environment.run_dir, config, attempt=environment.attempt.number) as recorder,
            TelemetryServer(recorder, environment.bind_host, environment.http_port),
        ):
            return await _train(config, environment, recorder, stop)
    except Interrupted:
        logger.info("stopped on request; the same command goes on from the last checkpoint")
        return INTERRUPTED
    except EXPECTED_FAILURES as failure:
        return _failed(failure)


async def _train(config: TrainerConfig, environment: PodEnvironment, recorder: Recorder, stop: asyncio.Event) -> int:
    from seele_trainer.assemble import assemble
    from seele_trainer.failures import EXPECTED_FAILURES
    from seele_trainer.loop import Interrupted, Loop

    try:
        parts = assemble(config, environment, recorder)
        recorder.watch_servers(parts.engine.servers)
        try:
            await Loop(parts, stop).run()
        except Interrupted:
            _leave_progress(recorder)
            raise
        finally:
            await parts.engine.close()
            await parts.verifier.close()
            await parts.learner.close()
    except ExceptionGroup as group:
        # Several parts start at once; when one cannot, the others are cancelled and its reason is what counts.
        reason = group.exceptions[0]
        recorder.set_phase("failed", str(reason))
        raise reason from reason.__cause__
    except EXPECTED_FAILURES as failure:
        recorder.set_phase("failed", str(failure))
        raise
    recorder.set_phase("done")
    _leave_progress(recorder)
    return 0


def _leave_progress(recorder: Recorder) -> None:
    """Say with the last words where the run stands: nobody can ask for /progress any more."""
    write_termination_message(recorder.progress().model_dump_json(by_alias=True, exclude={"message"}))


if __name__ == "__main__":
    sys.exit(train(Path(sys.argv[1])))
