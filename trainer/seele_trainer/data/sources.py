"""Load problems from the Hugging Face hub or from a local JSONL, JSON or Parquet file."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from seele_trainer.config import DatasetSource, Fields
from seele_trainer.data.problem import BadDataError, BadRows, Problem
from seele_trainer.verify.extract import marked_answer


def answer_text(value: object) -> str | None:
    """A text, a number or a list of one of them as text; None for anything else and for empty values.

    A number is written in plain decimals without trailing zeros: 27.0 is "27", 1e-3 is "0.001".
    """
    if isinstance(value, list) and len(value) == 1:
        return answer_text(value[0])
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        plain = format(Decimal(str(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    return None


GSM8K_FIELDS = Fields(problem="question", solution="answer")
"""Columns of GSM8K's format; the final answer is part of the solution."""

_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNDECODED = re.compile(r"[\udc80-\udcff]")
"""What a byte that is not UTF-8 is read as."""

_BYTE_ORDER_MARK = "\ufeff"

PARQUET_ROWS = 256
"""Rows of a Parquet file in memory at a time."""

_GSM8K_ANSWER = re.compile(r"^####\s*(\S.*)$", re.MULTILINE)


ROWS_PER_SIGN = 1000
"""Rows read between two signs of life."""


@dataclass(frozen=True)
class Row:
    """One row of a data set, and its name in error messages (`data.jsonl, line 3`).

    `fault` is why the row cannot be read, if so. `names` are all columns of the data set, if only some were read.
    """

    place: str
    columns: Mapping[str, Any]
    fault: BadDataError | None = None
    names: Sequence[str] = ()


def load_problems(
    source: DatasetSource,
    *,
    need_solution: bool,
    bad_rows: BadRows | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Problem]:
    """Read all problems of a source, or its first `limit`.

    With `need_solution` every problem must have a worked solution; otherwise a missing one is "". Rows that cannot be used
    go to `bad_rows`; by default they are refused. `progress` gets the number of rows read, about every thousand. Raises
    BadDataError that names the file, the row, the field and the remedy.
    """
    bad_rows = bad_rows or BadRows()
    problems: list[Problem] = []
    places: dict[str, str] = {}
    with closing(_rows(source)) as rows:
        for number, row in enumerate(rows, start=1):
            if number % ROWS_PER_SIGN == 0:
                progress(number)
            try:
                problem = _problem(row, number, source, need_solution)
                _check_id(problem.id, row, places)
            except BadDataError as error:
                bad_rows.add(error)
                continue
            places[problem.id] = row.place
            problems.append(problem)
            if len(problems) == source.limit:
                break
    if not problems:
        reason = f": {bad_rows}" if bad_rows.count else ""
        raise BadDataError(f"{source.path or source.name} has no problems{reason}")
    return problems


def fingerprint(problems: list[Problem]) -> str:
    """SHA-256 (hex) of the problems in their order, by which a resumed run detects changed data."""
    digest = hashlib.sha256()
    for problem in problems:
        row = [problem.id, problem.question, problem.solution, problem.answer]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _check_id(identifier: str, row: Row, places: Mapping[str, str]) -> None:
    if identifier in places:
        raise BadDataError(
            f"{row.place}: the id {identifier!r} is also that of {places[identifier]}; "
            "make ids unique, or omit fields.id to number the rows"
        )


def _problem(row: Row, number: int, source: DatasetSource, need_solution: bool) -> Problem:
    if row.fault is not None:
        raise row.fault
    if source.format == "gsm8k":
        return _gsm8k_problem(row, number)
    fields = source.fields
    question = _text(row, "problem", fields.problem)
    solution = _solution(row, fields, need_solution)
    return Problem(
        id=_identifier(row, fields.id) if fields.id else str(number),
        question=question,
        solution=solution,
        answer=_answer(row, fields, solution),
    )


def _gsm8k_problem(row: Row, number: int) -> Problem:
    assert GSM8K_FIELDS.solution is not None
    worked = _text(row, "solution", GSM8K_FIELDS.solution)
    answers = _GSM8K_ANSWER.findall(worked)
    if not answers:
        raise BadDataError(
            f"{row.place}: the column 'answer' has no line `#### N`, from which format: gsm8k takes the final answer; "
            "for other formats set dataset.format: generic and dataset.fields"
        )
    return Problem(
        id=str(number),
        question=_text(row, "problem", GSM8K_FIELDS.problem),
        solution=_CALCULATOR_MARK.sub("", worked),
        answer=re.sub(r"(?<=\d),(?=\d{3})", "", answers[-1].strip()),
    )


def _identifier(row: Row, column: str) -> str:
    value = _column(row, "id", column)
    identifier = None if isinstance(value, list) else answer_text(value)
    if identifier is None:
        raise BadDataError(
            f"{row.place}: the column {column!r} (fields.id) must be a text or a number, but is {_shortened(value)}; "
            "omit fields.id to number the rows"
        )
    return _readable(row, column, identifier)


def _solution(row: Row, fields: Fields, need_solution: bool) -> str:
    if fields.steps is not None:
        steps = _column(row, "steps", fields.steps)
        if (
            not isinstance(steps, list)
            or not steps
            or not all(isinstance(step, str) and step.strip() for step in steps)
        ):
            raise BadDataError(
                f"{row.place}: the column {fields.steps!r} (fields.steps) must be a list of texts, "
                f"but is {_shortened(steps)}; for a solution in one text use fields.solution"
            )
        # One line per step, so that the ends of steps can be found in the text.
        return _readable(row, fields.steps, "\n".join(" ".join(step.split("\n")) for step in steps))
    if need_solution:
        if fields.solution is None:
            raise BadDataError("training needs worked solutions to cut hints from: set dataset.fields.solution")
        return _text(row, "solution", fields.solution)
    solution = row.columns.get(fields.solution) if fields.solution else None
    # An unreadable one that is not needed does no harm.
    return solution if isinstance(solution, str) and not _SURROGATE.search(solution) else ""


def _answer(row: Row, fields: Fields, solution: str) -> str:
    if fields.answer is not None:
        value = _column(row, "answer", fields.answer)
        answer = answer_text(value)
        if answer is None:
            raise BadDataError(
                f"{row.place}: the column {fields.answer!r} (fields.answer) must be a text, a number or a list of one "
                f"of them, but is {_shortened(value)}"
            )
        return _readable(row, fields.answer, answer)
    extracted = marked_answer(solution)
    if extracted is None:
        raise BadDataError(
            f"{row.place}: no final answer (\\boxed{{…}} or `#### …`) in the solution; "
            "set fields.answer to the column that contains it"
        )
    return extracted


def _text(row: Row, field: str, column: str) -> str:
    value = _column(row, field, column)
    if not isinstance(value, str) or not value.strip():
        remedy = "; use fields.steps for a list of steps" if isinstance(value, list) and field == "solution" else ""
        raise BadDataError(
            f"{row.place}: the column {column!r} (fields.{field}) must be a text, but is {_shortened(value)}{remedy}"
        )
    return _readable(row, column, value)


def _readable(row: Row, column: str, text: str) -> str:
    """The text, if it is one. Half of a pair of UTF-16 codes, as JSON's `\\ud83d` alone, encodes nothing."""
    half = None if text.isascii() else _SURROGATE.search(text)
    if half is not None:
        raise BadDataError(
            f"{row.place}: the column {column!r} has an unpaired UTF-16 surrogate, {half[0]!a}, "
            f"at character {half.start() + 1}; write the whole character, or delete it"
        )
    return text


def _column(row: Row, field: str, column: str) -> Any:
    if column in row.columns:
        return row.columns[column]
    names = row.names or list(row.columns)
    nearest = get_close_matches(column, names, n=1, cutoff=0.7)
    remedy = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(map(repr, names))}"
    raise BadDataError(f"{row.place}: no column {column!r}; set fields.{field} to one it has ({remedy})")


def _shortened(value: object) -> str:
    shown = "missing" if value is None else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"


def _rows(source: DatasetSource) -> Generator[Row, None, None]:
    if source.path is None:
        yield from _hub_rows(source)
        return
    path = Path(source.path)
    if not path.is_file():
        raise BadDataError(f"{path} does not exist or is not a file: check dataset.path (relative to {Path.cwd()})")
    try:
        yield from _parquet_rows(path, source) if path.suffix == ".parquet" else _json_rows(path)
    except OSError as error:
        raise BadDataError(f"{path} cannot be read: {error}") from error


def _json_rows(path: Path) -> Iterator[Row]:
    # utf-8-sig: some editors put a byte-order mark first. Bytes that are not UTF-8 become halves of pairs, so that
    # they are the fault of their row alone.
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        if path.suffix == ".json" and _first_character(stream) == "[":
            values = _json(stream.read().lstrip(_BYTE_ORDER_MARK), str(path))
            yield from (_row(value, f"{path}, row {number}") for number, value in enumerate(values, start=1))
            return
        for number, line in enumerate(stream, start=1):
            # Files that were joined may have a byte-order mark in the middle.
            if stripped := line.strip().lstrip(_BYTE_ORDER_MARK):
                yield _json_row(stripped, f"{path}, line {number}")


def _first_character(stream: TextIO) -> str:
    """The first character that is not white space; the stream is back at its start."""
    texts = (line.strip().lstrip(_BYTE_ORDER_MARK) for line in stream)
    first = next((text[0] for text in texts if text), "")
    stream.seek(0)
    return first


def _json_row(line: str, place: str) -> Row:
    try:
        if not line.isascii() and _UNDECODED.search(line):
            raise BadDataError(f"{place}: is not UTF-8 text; save the file as UTF-8")
        return _row(_json(line, place), place)
    except BadDataError as error:
        return Row(place, {}, fault=error)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise BadDataError(f"{place}: broken JSON at {where}: {error.msg}; correct or delete it") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or brackets nested as deeply.
        raise BadDataError(f"{place}: unusable JSON: {error}; correct or delete it") from error


def _row(value: object, place: str) -> Row:
    if isinstance(value, dict):
        return Row(place, value)
    fault = BadDataError(f"{place}: a row must be an object with named columns, but is {_shortened(value)}")
    return Row(place, {}, fault=fault)


def _wanted(source: DatasetSource, names: Sequence[str]) -> list[str]:
    """The columns, among those of a data set, that problems are made of; solutions may be megabytes in others."""
    fields = GSM8K_FIELDS if source.format == "gsm8k" else source.fields
    named = {fields.problem, fields.solution, fields.answer, fields.steps, fields.id}
    return [name for name in names if name in named]


def _parquet_rows(path: Path, source: DatasetSource) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        # Neither the whole file nor a whole group of rows in memory: groups may hold gigabytes.
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            size = min(PARQUET_ROWS, source.limit or PARQUET_ROWS)
            batches = file.iter_batches(batch_size=size, columns=_wanted(source, names), use_threads=False)
            for number, value in enumerate((value for batch in batches for value in _values(batch)), start=1):
                place = f"{path}, row {number}"
                undecoded = BadDataError(f"{place}: is not UTF-8 text; write the file again in UTF-8")
                yield Row(place, value or {}, fault=undecoded if value is None else None, names=names)
    except pyarrow.ArrowException as error:
        raise BadDataError(f"{path} is not a readable Parquet file: {error}") from error


def _values(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of a batch; None for one with a text that is not UTF-8."""
    try:
        rows: list[dict[str, Any] | None] = batch.to_pylist()
    except UnicodeDecodeError:
        half = batch.num_rows // 2
        return [*_values(batch.slice(0, half)), *_values(batch.slice(half))] if half else [None]
    return rows


def _hub_rows(source: DatasetSource) -> Iterator[Row]:
    # Imported here: `datasets` takes a second, and local files do not need it.
    import datasets
    from datasets.exceptions import DatasetsError

    assert source.name is not None
    try:
        loaded = datasets.load_dataset(source.name, source.subset, split=source.split, revision=source.revision)
    except (DatasetsError, OSError, ValueError) as error:
        named = ", ".join(
            f"{key} {value!r}" for key in ("subset", "split", "revision") if (value := getattr(source, key))
        )
        raise BadDataError(
            f"the Hugging Face data set {source.name!r} ({named}) cannot be loaded: {error}; "
            "check the name, the split and the network, or download it and set dataset.path"
        ) from error
    names = list(loaded.column_names)
    for number, value in enumerate(loaded.select_columns(_wanted(source, names)), start=1):
        yield Row(f"{source.name}, row {number}", value, names=names)
