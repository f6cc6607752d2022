"""A trainer that is a gang of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

JOINS_TWICE = """
import json, os, psutil
import torch.distributed as dist
from seele_trainer.distributed import join

def listens():
    port = int(os.environ["MASTER_PORT"])
    return any(one.laddr.port == port and one.status == "LISTEN" for one in psutil.Process().net_connections())

first = join()
seen = [first.world_size, listens()]
first.barrier()
dist.destroy_process_group()
seen += [join().world_size, listens()]
print(json.dumps(seen))
"""


def test_it_has_a_port_of_its_own_and_can_be_joined_again_when_it_was_left() -> None:
    # What is left in an environment without a rank is no gang.
    environment = {name: value for name, value in os.environ.items() if name != "RANK"} | {"MASTER_PORT": "1"}
    done = subprocess.run([sys.executable, "-c", JOINS_TWICE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [1, True, 1, True]
