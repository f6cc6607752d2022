"""A trainer with the hub that HF_ENDPOINT names, which is informed when all parts have started."""

import asyncio
import os
import sys
import urllib.request
from pathlib import Path

from seele_trainer.loop import Loop
from seele_trainer.main import train
from tests.support.fake_hub import STARTED


class ReportingLoop(Loop):
    async def _start(self) -> None:
        await super()._start()
        await asyncio.to_thread(urllib.request.urlopen, os.environ["HF_ENDPOINT"] + STARTED)


if __name__ == "__main__":
    import seele_trainer.loop

    seele_trainer.loop.Loop = ReportingLoop  # type: ignore[misc]
    sys.exit(train(Path(sys.argv[1])))
