"""Entry point of trainer pods: one process drives the run, and the other ranks follow it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from seele_trainer.config import TrainerConfig
from seele_trainer.run_folder.attempt import PodEnvironment, read_config
from seele_trainer.termination import ExitCode, ExpectedFailure, write_termination_message

if TYPE_CHECKING:
    # Imported where they are used: the process that only launches the others needs none of it.
    from seele_trainer.telemetry.recorder import Recorder

logger = logging.getLogger(__name__)

EXPECTED_FAILURES = (ExpectedFailure, OSError)
"""Their messages say what happened; that of an OSError, such as a full disk, names the file."""
TORCHRUN_PATIENCE_SECONDS = 7 * 24 * 3600
"""How long torchrun waits for its processes after a signal. The sender, such as a kubelet, knows how long they have."""


def train(config_path: Path) -> int:
    """Train as this pod's part of the gang; returns the exit code.

    If the pod has several processes, this one launches them with torchrun, each running this module.
    """
    rank = int(os.environ.get("RANK", "0"))
    try:
        config = read_config(config_path)
        if config.trainer.world_size > 1 and "LOCAL_RANK" not in os.environ:
            return _launch_ranks(config, config_path)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout
        )
        for chatty in ("httpx", "httpx2", "matplotlib", "filelock", "fsspec"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        return asyncio.run(_drive(config, config_path)) if rank == 0 else _follow(config)
    except EXPECTED_FAILURES as failure:
        logger.error("%s", failure)
        write_termination_message(str(failure))
        return exit_code(failure)
    except Exception as error:
        # Unexpected: the traceback goes to the log.
        write_termination_message(f"rank {rank}: {type(error).__name__}: {error}")
        raise


def exit_code(failure: Exception) -> ExitCode:
    """The exit code of an expected failure. A disk or hub that did not answer may answer the next attempt."""
    if isinstance(failure, ExpectedFailure) and not isinstance(failure.__cause__, OSError):
        return failure.exit_code
    return ExitCode.FAILED


def _launch_ranks(config: TrainerConfig, config_path: Path) -> int:
    environment = PodEnvironment.from_environment()
    if "OMP_NUM_THREADS" in os.environ:
        # The value is meant for the whole pod, whose processes share it.
        threads = int(os.environ["OMP_NUM_THREADS"]) // config.trainer.processes_per_replica
        os.environ["OMP_NUM_THREADS"] = str(max(1, threads))
    # The default kills them after 30 s, in the middle of the step that they should finish and save.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(TORCHRUN_PATIENCE_SECONDS))
    return launch(
        [
            f"--nnodes={config.trainer.replicas}",
            f"--nproc-per-node={config.trainer.processes_per_replica}",
            f"--node-rank={environment.node_rank}",
            f"--rdzv-endpoint={environment.rendezvous}",
            "--max-restarts=0",
            "-m",
            "seele_trainer.main",
            str(config_path),
        ]
    )


def launch(arguments: Sequence[str]) -> int:
    """Run torchrun without the report that it prints at the end: the process that failed has said why.

    Returns the exit code of the process that failed first, or 128 + the signal that killed it.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(list(arguments)))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode >= 0:
            write_termination_message(f"rank {rank} ended with exit code {failure.exitcode}")
            return failure.exitcode
        # It had no time to write a message.
        write_termination_message(f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}")
        return 128 - failure.exitcode
    except SignalException as stopped:
        return 128 + stopped.sigval
    except Exception as error:
        write_termination_message(f"the gang could not be started: {type(error).__name__}: {error}")
        raise
    return ExitCode.DONE


def _follow(config: TrainerConfig) -> int:
    """Run the driver's learner calls on this rank. Signals are ignored: the driver decides when to stop."""
    from seele_trainer.assemble import build_learner

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    build_learner(config).follow()
    return ExitCode.DONE


async def _drive(config: TrainerConfig, config_path: Path) -> int:
    from seele_trainer.telemetry.recorder import Recorder
    from seele_trainer.telemetry.server import TelemetryServer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    environment = PodEnvironment.from_environment()
    environment.attempt.claim()
    environment.attempt.keep_config(config_path.read_text())
    with (
        Recorder(environment.run_dir, config, attempt=environment.attempt.number) as recorder,
        TelemetryServer(recorder, environment.bind_host, environment.http_port),
    ):
        return await _train(config, environment, recorder, stop)


async def _train(config: TrainerConfig, environment: PodEnvironment, recorder: Recorder, stop: asyncio.Event) -> int:
    from seele_trainer.assemble import assemble
    from seele_trainer.loop import Interrupted, Loop

    try:
        parts = assemble(config, environment, recorder)
        recorder.watch_servers(parts.engine.servers)
        try:
            await Loop(parts, stop, grace_seconds=environment.grace_seconds).run()
        except Interrupted:
            _leave_progress(recorder)
            raise
        finally:
            await parts.engine.close()
            await parts.verifier.close()
            await parts.learner.close()
    except Interrupted as interrupted:
        logger.info("%s", interrupted)
        return ExitCode.INTERRUPTED
    except ExceptionGroup as group:
        # Several parts start at once; if one fails, the others are cancelled, and its error is the reason.
        reason = group.exceptions[0]
        recorder.set_phase("failed", str(reason))
        raise reason from reason.__cause__
    except EXPECTED_FAILURES as failure:
        recorder.set_phase("failed", str(failure))
        raise
    recorder.set_phase("done")
    _leave_progress(recorder)
    return ExitCode.DONE


def _leave_progress(recorder: Recorder) -> None:
    """Make the progress the termination message: /progress is about to become unreachable."""
    write_termination_message(recorder.progress().model_dump_json(by_alias=True, exclude={"message"}))


def end_at_once(code: int) -> NoReturn:
    """End this process without unloading the interpreter.

    Threads of gloo live on in groups that DeepSpeed keeps; one that releases a tensor meanwhile would abort the process.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        outcome = train(Path(sys.argv[1]))
    except Exception:
        # As the interpreter would report it, which does not get to.
        logger.exception("this process failed")
        outcome = ExitCode.FAILED
    end_at_once(outcome)
