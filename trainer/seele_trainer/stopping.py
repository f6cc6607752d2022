"""What a stop costs: how long it takes, whether the pod lives that long, and what is lost if it does not."""

import math
from collections.abc import Sequence

from seele_trainer.formatting import duration
from seele_trainer.learner.learner import UpdateStats

SAVE_BYTES_PER_SECOND = 200e6
"""Assumed until a save was measured: all ranks write to a network volume, read back what they wrote, and flush it."""
FIELD = "runPolicy.terminationGracePeriodSeconds"


class StopCost:
    """How long a stop takes at most, by the model's size at first and then as measured; times in seconds."""

    def __init__(self, grace: float, updates_per_step: int) -> None:
        """`grace` is the time from a stop until the pod is killed; infinite if it is never killed."""
        self.grace = grace
        self._updates_per_step = updates_per_step
        self._save = self._micro_batch = self._finish = 0.0
        self._measured = False
        self._warned: set[bool] = set()

    def expect(self, checkpoint_bytes: int) -> None:
        """A save will write this much."""
        self._save = checkpoint_bytes / SAVE_BYTES_PER_SECOND

    def saved(self, seconds: float) -> None:
        """A save took this long."""
        self._save, self._measured = seconds, True

    def trained(self, updates: Sequence[UpdateStats], sync_seconds: float) -> None:
        """A step had these updates, and then the weights were pushed in `sync_seconds`."""
        self._micro_batch = max(update.seconds / max(1, update.micro_batches) for update in updates)
        slowest = max(update.seconds for update in updates)
        self._finish = (self._updates_per_step - 1) * slowest + sync_seconds

    def seconds(self, *, finish: bool) -> float:
        """Of a stop between steps or within a micro-batch or, with `finish`, of one that has to finish its step."""
        return self._save + (self._finish if finish else self._micro_batch)

    @property
    def longest(self) -> float:
        """Of a stop at the worst moment."""
        return max(self.seconds(finish=finish) for finish in (True, False))

    def warning(self) -> str | None:
        """What to change if a stop may take longer than the grace period. Once by the model's size, and once as measured."""
        if self.longest <= self.grace or self._measured in self._warned:
            return None
        self._warned.add(self._measured)
        basis = "as measured" if self._measured else f"if {SAVE_BYTES_PER_SECOND / 1e6:.0f} MB are saved a second"
        return (
            f"a stop may take {duration(self.longest)}, {basis}, and pods are killed after {duration(self.grace)}; what "
            f"is not saved by then is lost, back to the last checkpoint: set {FIELD} to {math.ceil(1.5 * self.longest)}"
        )

    def fate(self, boundary: int, saved: int, *, ahead: bool) -> str:
        """What a stop does. `boundary` is the last finished step; with `ahead`, weights have changed since."""
        if not ahead and boundary <= saved:
            return f"there is nothing new to save; {where_it_resumes(saved)}"
        what = (
            f"step {boundary + 1} is finished and saved first, because some of its updates are in the weights"
            if ahead
            else f"step {boundary} is saved; what came after it is discarded"
        )
        time = f"{what}. This takes {'about' if self._measured else 'at most about'} {duration(self.seconds(finish=ahead))}"
        if self.seconds(finish=ahead) > self.grace:
            time = f"{time}, and pods are killed after {duration(self.grace)} ({FIELD})"
        return f"{time}. If it is killed before, {where_it_resumes(saved)}"


def where_it_resumes(saved: int) -> str:
    """Where the run resumes if `saved` is the last step that is saved; 0 if none is."""
    if saved == 0:
        return "the same command starts again from the beginning: no step is saved"
    return f"the same command resumes after step {saved}, which is saved"
