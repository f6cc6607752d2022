"""One rank of a gang that runs out of disk and ends like `seele train`; started by torchrun."""

import asyncio
import os
import resource
import sys
from functools import partial
from pathlib import Path

from seele_trainer.learner.learner import Learner
from seele_trainer.learner.thread import LearnerThread
from tests.integration.learner_cases import Case, config_of


def fill_the_disk() -> None:
    """From here on this process cannot write files of more than a kilobyte."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))


async def drive(learner: LearnerThread, what: str, folder: Path) -> None:
    try:
        await learner.start()
        if what == "export":
            await learner.export(folder / "model", untie=False)
        else:
            await learner.save(folder / "checkpoint")
    finally:
        await learner.close()


def main(what: str, failing_rank: str, folder: Path) -> None:
    build = partial(Learner, config_of(Case("failing", zero_stage=1), folder), 1, 7)
    if os.environ["RANK"] == failing_rank:
        fill_the_disk()
    if os.environ["RANK"] == "0":
        asyncio.run(drive(LearnerThread(build), what, folder))
    else:
        build().follow()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
