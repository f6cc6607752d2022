"""Prepare problems for training, once: a later attempt at the run has them in seconds, from a file in the run's folder."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from seele_trainer.config import Dataset, Verifier
from seele_trainer.data.golds import without_unsatisfiable
from seele_trainer.data.problem import BadRows, BadTokenizerError, Problem, TokenizedProblem
from seele_trainer.data.tokenize import Dropped, ProblemTokenizer, tokenize_all
from seele_trainer.run_folder.durable import write_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PREPARED_FILE = "prepared-problems"
MAX_BYTES = 2 << 30
"""Larger files are not written: they would hold some million problems."""

_LISTS = ("prompt", "solution", "step_ends", "inside_characters")
"""The fields of a problem that are numbers of any count."""

_LIBRARIES = ("jinja2", "math-verify", "sympy", "tokenizers", "transformers")
_SEAL_BYTES = 32
_CODE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Prepared:
    """Problems to train on, in their order; those that were left out as too long, and as unusable."""

    problems: list[TokenizedProblem]
    dropped: Dropped
    bad_rows: BadRows


@dataclass(frozen=True)
class Preparer:
    """Leaves out the problems whose answer nothing can match, and tokenises the others.

    `vocabulary` is the number of tokens that the model has an embedding for.
    """

    tokenizer: PreTrainedTokenizerBase
    dataset: Dataset
    verifier: Verifier
    vocabulary: int | None = None

    def prepare(
        self,
        problems: Sequence[Problem],
        checking: Callable[[int], None] = lambda done: None,
        tokenizing: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None,
    ) -> Prepared:
        """Prepare all problems. `checking` gets the number of answers checked; `tokenizing` gets the number of problems,
        and what it returns gets the number of those done.

        Raises BadDataError, and VerifierError if the verifier does not start.
        """
        satisfiable, unsatisfiable = without_unsatisfiable(problems, self.verifier, checking)
        bad_rows = BadRows(self.dataset.on_bad_row)
        kept, dropped = tokenize_all(
            satisfiable, self.tokenizer, self.dataset, bad_rows, tokenizing(len(satisfiable)), self.vocabulary
        )
        bad_rows.include(unsatisfiable)
        return Prepared(kept, dropped, bad_rows)

    def key(self, fingerprint: str) -> str:
        """SHA-256 (hex) of everything that the result depends on, down to the source code that computes it."""
        parts = ProblemTokenizer.of(self.tokenizer, self.dataset.prompt_template, self.vocabulary)
        render = parts.prompts.render
        inputs = [
            fingerprint,
            self.dataset.model_dump_json(),
            self.verifier.method,
            self.vocabulary,
            [parts.model, parts.end, parts.prompts.beginning],
            [getattr(self.tokenizer, "chat_template", None), render("question") if render else None],
            [platform.python_version(), *map(version, _LIBRARIES)],
        ]
        digest = hashlib.sha256(json.dumps(inputs).encode())
        digest.update(parts.prompts.text.backend.to_str().encode())
        for file in sorted(file for part in ("data", "verify") for file in (_CODE / part).glob("*.py")):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()


def write_prepared(
    path: Path, key: str, problems: Sequence[Problem], prepared: Prepared, before_rename: Callable[[], None]
) -> None:
    """Write what was prepared from `problems`. A full disk is only logged; what `before_rename` raises is raised."""
    kept, bad_rows = prepared.problems, prepared.bad_rows
    if 4 * sum(len(problem.prompt) + len(problem.solution) for problem in kept) > MAX_BYTES:
        return
    places = {problem.id: place for place, problem in enumerate(problems)}
    left_out = [asdict(prepared.dropped), bad_rows.count, list(map(str, bad_rows.first))]

    def fill(stream: BinaryIO) -> None:
        stream.write(bytes(_SEAL_BYTES))
        # One array at a time: together they would take hundreds of megabytes.
        np.save(stream, np.frombuffer(json.dumps(left_out).encode(), np.uint8), allow_pickle=False)
        _save(stream, (places[problem.problem.id] for problem in kept))
        _save(stream, (problem.revealable for problem in kept))
        for name in _LISTS:
            _save(stream, chain.from_iterable(getattr(problem, name) for problem in kept))
            _save(stream, (len(getattr(problem, name)) for problem in kept))
        seal = _seal(stream, key)
        stream.seek(0)
        stream.write(seal)

    try:
        write_file(path, fill, before_rename)
    except OSError as error:
        logger.warning("the prepared problems are not kept for a later attempt: %s", error)


def read_prepared(path: Path, key: str, problems: Sequence[Problem]) -> Prepared | None:
    """What was prepared from `problems` under the same key; None without a file, or if it is damaged or another's."""
    try:
        with path.open("rb") as stream:
            if stream.read(_SEAL_BYTES) != _seal(stream, key):
                return None
            stream.seek(_SEAL_BYTES)
            left_out, places, revealable, *lists = (
                np.load(stream, allow_pickle=False) for _ in range(3 + 2 * len(_LISTS))
            )
    except OSError:
        return None
    dropped, count, first = json.loads(left_out.tobytes())
    # Equal numbers are one object, as from the tokenizer.
    objects = np.arange(1 + max(int(values.max(initial=0)) for values in lists)).astype(object)
    fields = (_split(values, counts, objects) for values, counts in zip(lists[::2], lists[1::2], strict=True))
    rows = zip(places.tolist(), revealable.tolist(), *fields, strict=True)
    return Prepared(
        [
            TokenizedProblem(problems[place], prompt, solution, revealable, step_ends, frozenset(inside))
            for place, revealable, prompt, solution, step_ends, inside in rows
        ],
        Dropped(**dropped),
        BadRows("skip", count, [BadTokenizerError(message) for message in first]),
    )


def _split(values: NDArray[np.int32], counts: NDArray[np.int32], objects: NDArray[Any]) -> Iterator[tuple[int, ...]]:
    start = 0
    for count in counts.tolist():
        yield tuple(objects[values[start : start + count]].tolist())
        start += count


def _save(stream: BinaryIO, numbers: Iterable[int]) -> None:
    np.save(stream, np.fromiter(numbers, np.int32), allow_pickle=False)


def _seal(stream: BinaryIO, key: str) -> bytes:
    """SHA-256 of the key and of everything after the seal, so that nothing else of the file needs to be checked."""
    stream.seek(_SEAL_BYTES)
    return hashlib.file_digest(stream, lambda: hashlib.sha256(key.encode())).digest()  # type: ignore[arg-type]
