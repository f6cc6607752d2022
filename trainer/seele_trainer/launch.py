"""torchrun without its page of words at the end: what failed is said by the process that failed, and its exit code stays.

Takes torchrun's own arguments.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from seele_trainer.termination import write_termination_message


def launch(arguments: Sequence[str]) -> int:
    """Run this pod's part of a gang; returns its exit code, that of the process that failed first or 128 + a signal."""
    try:
        run(parse_args(list(arguments)))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode >= 0:
            write_termination_message(f"rank {rank} ended with exit code {failure.exitcode}")
            return failure.exitcode
        # It had no time for a word of its own.
        write_termination_message(f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}")
        return 128 - failure.exitcode
    except SignalException as stopped:
        return 128 + stopped.sigval
    except Exception as error:
        write_termination_message(f"the gang could not be started: {type(error).__name__}: {error}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
