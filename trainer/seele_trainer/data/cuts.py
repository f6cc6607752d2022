"""Finds how much of many solutions may be shown, with all cores: a cut takes a hundred times as long as the tokens."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeAlias

from seele_trainer.data.problem import Problem
from seele_trainer.data.reveal import revealable_characters
from seele_trainer.verify.process import available_cores

FEW = 2000
"""Problems that are cut before new processes would have started."""
MAX_PROCESSES = 16
_PER_TASK = 16

Cuts: TypeAlias = Callable[[Sequence[Problem]], list[int]]
"""Leading characters of each problem's solution that hints may show."""


def cut_here(problems: Sequence[Problem]) -> list[int]:
    """The cuts, found by this process."""
    return [_cut(problem) for problem in problems]


@contextmanager
def cuts_for(count: int) -> Iterator[Cuts]:
    """What finds the cuts of so many problems: this process for a few, and otherwise one process for each core."""
    processes = min(available_cores(), MAX_PROCESSES)
    if count < FEW or processes == 1:
        yield cut_here
        return
    # Not forked: this process has threads, whose locks would stay locked in a copy.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_end_with_parent) as pool:
        yield lambda problems: list(pool.map(_cut, problems, chunksize=_PER_TASK))


def _cut(problem: Problem) -> int:
    return revealable_characters(problem.question, problem.solution, problem.answer)


def _end_with_parent() -> None:
    """Leave signals from the terminal to the parent, and outlive it no longer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
