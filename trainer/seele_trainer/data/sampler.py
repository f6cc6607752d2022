"""The order of problems in training: random, without gaps or repeats, and the same after every restart."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seele_trainer.data.problem import BadDataError


class ProblemSampler:
    """Draws batches of problem indices in [0, size): each pass over the data is a fresh permutation.

    A batch may contain the end of one pass and the beginning of the next, but never a problem twice. The order depends
    on (size, batch, seed) alone, so the position in it is the whole state. Raises BadDataError if batch > size.
    """

    def __init__(self, size: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= size:
            raise BadDataError(
                f"a step needs {batch} different problems, but there are {size}: "
                "lower training.problemsPerStep, or add problems"
            )
        self._size, self._batch, self._seed = size, batch, seed
        self._pass = 0
        self._position = 0
        self._order = self._permutation(0)
        self._order_pass = 0

    @property
    def passes(self) -> float:
        """Passes over the data so far, including the fraction of the current one."""
        return self._pass + self._position / self._size

    def next_batch(self) -> list[int]:
        """Indices of the next `batch` problems, all different."""
        self._go_to(self._pass)
        chosen = self._order[self._position : self._position + self._batch]
        self._position += len(chosen)
        missing = self._batch - len(chosen)
        if missing:
            self._go_to(self._pass + 1)
            chosen = np.concatenate([chosen, self._order[:missing]])
            self._pass, self._position = self._pass + 1, missing
        if self._position == self._size:
            self._pass, self._position = self._pass + 1, 0
        return [int(index) for index in chosen]

    def state_dict(self) -> dict[str, Any]:
        """The position in the order, and what the order depends on. JSON-serialisable."""
        order = {"size": self._size, "batch": self._batch, "seed": self._seed}
        return {"pass": self._pass, "position": self._position, **order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of `state_dict`. Raises BadDataError if it belongs to another order."""
        for key, present in (("size", self._size), ("batch", self._batch), ("seed", self._seed)):
            if state[key] != present:
                raise BadDataError(
                    f"the checkpoint orders the problems with {key} {state[key]}, this run with {present}: "
                    "keep the data set, problemsPerStep and seed, or start in a new folder"
                )
        self._pass, self._position = int(state["pass"]), int(state["position"])

    def _go_to(self, number: int) -> None:
        """Make `_order` the order of a pass. Each depends on the end of the previous one, so they are made in turn."""
        if number < self._order_pass:
            self._order, self._order_pass = self._permutation(0), 0
        while self._order_pass < number:
            shared = (self._order_pass + 1) * self._size % self._batch
            tail = self._order[self._size - shared :]
            self._order_pass += 1
            head = self._batch - shared if shared else 0
            self._order = _without_at_start(self._permutation(self._order_pass), tail, head)

    def _permutation(self, number: int) -> NDArray[np.int64]:
        return np.random.Generator(np.random.Philox(key=[self._seed, number])).permutation(self._size)


def _without_at_start(order: NDArray[np.int64], excluded: NDArray[np.int64], head: int) -> NDArray[np.int64]:
    """Swap `excluded` values in the first `head` places with the next values that are not excluded."""
    is_excluded = np.isin(order, excluded)
    clashes = np.flatnonzero(is_excluded[:head])
    free = head + np.flatnonzero(~is_excluded[head:])[: len(clashes)]
    order[clashes], order[free] = order[free], order[clashes]
    return order
