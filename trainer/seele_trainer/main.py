"""Entry point of trainer pods: one driver, and followers on the other ranks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import yaml

from seele_trainer.config import TrainerConfig

logger = logging.getLogger(__name__)

INTERRUPTED = 130


def train(config_path: Path) -> int:
    """Train as this pod's part of the gang; returns the exit code (0 done, 1 failed, 130 stopped and saved).

    Where the run has several processes this one becomes `torchrun`, which starts them with this same module.
    """
    config = TrainerConfig.model_validate(yaml.safe_load(config_path.read_text()))
    if config.trainer.world_size > 1 and "LOCAL_RANK" not in os.environ:
        _become_torchrun(config, config_path)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    for chatty in ("httpx", "matplotlib", "filelock", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if int(os.environ.get("RANK", "0")) == 0:
        return asyncio.run(_drive(config))
    return _follow(config)


def _become_torchrun(config: TrainerConfig, config_path: Path) -> None:
    from seele_trainer.assemble import Surroundings

    surroundings = Surroundings.from_environment()
    arguments = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={config.trainer.replicas}",
        f"--nproc-per-node={config.trainer.processes_per_replica}",
        f"--node-rank={surroundings.node_rank}",
        f"--rdzv-endpoint={surroundings.rendezvous}",
        "--max-restarts=0",
        "-m",
        "seele_trainer.main",
        str(config_path),
    ]
    os.execv(sys.executable, arguments)


def _follow(config: TrainerConfig) -> int:
    """Run the driver's learner calls on this rank. The driver decides when to stop, so signals are left to it."""
    from seele_trainer.assemble import build_learner
    from seele_trainer.gang import follow

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    follow(build_learner(config))
    return 0


async def _drive(config: TrainerConfig) -> int:
    from seele_trainer.assemble import Surroundings
    from seele_trainer.metrics import Recorder

    surroundings = Surroundings.from_environment()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with Recorder(surroundings.run_dir, config, port=surroundings.http_port) as recorder:
        return await _drive_recorded(config, surroundings, recorder, stop)
