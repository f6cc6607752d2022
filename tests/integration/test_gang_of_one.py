"""A trainer with a single rank."""

import json
import os
import subprocess
import sys

JOINS_TWICE = """
import json, sys
import torch.distributed as dist
from seele_trainer.learner.ranks import Ranks

# The rendezvous of several ranks, whose port may be taken by the time it is bound.
sys.modules["torch.distributed.rendezvous"].TCPStore = None

first = Ranks.join()
first.barrier()
dist.destroy_process_group()
second = Ranks.join()
print(json.dumps([first.rank, first.world_size, second.rank, second.world_size]))
"""


def test_it_needs_no_port_and_can_be_joined_again_after_it_was_left() -> None:
    # Without RANK the other variables do not count.
    environment = {name: value for name, value in os.environ.items() if name != "RANK"} | {"MASTER_PORT": "1"}
    done = subprocess.run([sys.executable, "-c", JOINS_TWICE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 1, 0, 1]
