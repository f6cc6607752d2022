"""Find the answers of a data set that no completion can match, so that their problems would only waste rollouts."""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from seele_trainer.config import Verifier
from seele_trainer.data.problem import BadDataError, BadRows, Problem
from seele_trainer.verify.check import is_correct
from seele_trainer.verify.normalise import normalised
from seele_trainer.verify.pool import VerifierPool

_NUMBER = re.compile(r"-?\d{1,50}(?:\.\d{1,50})?", re.ASCII)
"""An answer that needs no check."""

_SPELLINGS = ("\\boxed{%s}", "\\boxed{$%s$}", "The answer is %s.", "#### %s")
"""Completions that mark the answer as they usually do."""

PER_SIGN = 256
"""Answers checked between two signs of life."""

MAX_TIMEOUTS = 16
"""Checks that time out before the remaining answers are taken for good: the start must end in minutes."""

SHOWN_CHARACTERS = 80


def without_unsatisfiable(
    problems: Sequence[Problem], verifier: Verifier, progress: Callable[[int], None] = lambda done: None
) -> tuple[list[Problem], BadRows]:
    """The problems whose answer the verifier accepts in at least one usual spelling, and the others as bad rows.

    The others are always skipped: unlike a broken row, a row that only the verifier cannot use need not end a run. An
    answer whose check times out is kept. `progress` gets the number of answers done. Raises BadDataError if no problem is
    left, and VerifierError if the verifier does not start.
    """
    golds = list(dict.fromkeys(problem.answer for problem in problems if not _NUMBER.fullmatch(problem.answer)))
    doubtful: list[str] = []
    for done, gold in enumerate(golds, start=1):
        if not _accepted_as_text(gold):
            doubtful.append(gold)
        if done % PER_SIGN == 0:
            progress(done)
    lost = set(doubtful)
    checked = [gold for gold in doubtful if normalised(gold)]
    if checked and verifier.method == "math":
        # In a thread, because the caller may be in an event loop of its own.
        with ThreadPoolExecutor(1) as thread:
            lost -= thread.submit(asyncio.run, _not_refused(checked, verifier, progress)).result()
    skipped = BadRows("skip")
    for problem in problems:
        if problem.answer in lost:
            skipped.add(BadDataError(_reason(problem)))
    if skipped.count == len(problems):
        raise BadDataError(f"no problem can be trained on: {skipped}")
    return [problem for problem in problems if problem.answer not in lost], skipped


def _accepted_as_text(gold: str) -> bool:
    """Whether the answer matches itself without mathematics. What it consists of must not all be ignored, as in `$$`."""
    return bool(normalised(gold)) and any(is_correct(spelling % gold, gold, "exact") for spelling in _SPELLINGS)


async def _not_refused(golds: Sequence[str], verifier: Verifier, progress: Callable[[int], None]) -> set[str]:
    """The answers that match themselves as mathematics, and those whose check does not end."""
    pool = VerifierPool(verifier)
    await pool.start()
    found: set[str] = set()
    try:
        for start in range(0, len(golds), PER_SIGN):
            if pool.timeouts > MAX_TIMEOUTS:
                found.update(golds[start:])
                break
            part = golds[start : start + PER_SIGN]
            pairs = [(spelling % gold, gold) for gold in part for spelling in _SPELLINGS]
            verdicts = zip(pairs, await pool.check(pairs), strict=True)
            found.update(gold for (_, gold), verdict in verdicts if verdict is not False)
            progress(start + len(part))
    finally:
        await pool.close()
    return found


def _reason(problem: Problem) -> str:
    gold = problem.answer
    shown = gold if len(gold) <= SHOWN_CHARACTERS else gold[:SHOWN_CHARACTERS] + "…"
    return f"problem {problem.id}: no completion can match the answer {shown!r}; correct it"
