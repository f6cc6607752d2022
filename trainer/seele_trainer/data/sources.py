"""Load problems from the Hugging Face hub or from a local JSONL, JSON or Parquet file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from seele_trainer.config import DatasetSource, Fields
from seele_trainer.data.problem import BadDataError, Problem
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
    if isinstance(value, float) and math.isfinite(value):
        plain = format(Decimal(repr(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    return None


GSM8K_FIELDS = Fields(problem="question", solution="answer")
"""Columns of GSM8K's format; the final answer is part of the solution."""

_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")

_GSM8K_ANSWER = re.compile(r"^####\s*(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One row of a data set, and its name in error messages (`data.jsonl, line 3`)."""

    place: str
    columns: Mapping[str, Any]


def load_problems(source: DatasetSource, *, need_solution: bool) -> list[Problem]:
    """Read all problems of a source, or its first `limit`.

    With `need_solution` every problem must have a worked solution; otherwise a missing one is "". Raises BadDataError
    that names the file, the row, the field and the remedy.
    """
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for number, row in enumerate(_rows(source), start=1):
        problem = _problem(row, number, source, need_solution)
        if problem.id in places:
            raise BadDataError(
                f"{row.place}: the id {problem.id!r} is also that of {places[problem.id]}; "
                "make ids unique, or omit fields.id to number the rows"
            )
        places[problem.id] = row.place
        problems.append(problem)
        if len(problems) == source.limit:
            break
    if not problems:
        raise BadDataError(f"{source.path or source.name} has no problems")
    return problems


def fingerprint(problems: list[Problem]) -> str:
    """SHA-256 (hex) of the problems in their order, by which a resumed run detects changed data."""
    digest = hashlib.sha256()
    for problem in problems:
        row = [problem.id, problem.question, problem.solution, problem.answer]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _problem(row: Row, number: int, source: DatasetSource, need_solution: bool) -> Problem:
    if source.format == "gsm8k":
        return _gsm8k_problem(row, number)
    fields = source.fields
    question = _text(row, "problem", fields.problem)
    solution = _solution(row, fields, need_solution)
    return Problem(
        id=str(_column(row, "id", fields.id)) if fields.id else str(number),
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
        return "\n".join(" ".join(step.split("\n")) for step in steps)
    if need_solution:
        if fields.solution is None:
            raise BadDataError("training needs worked solutions to cut hints from: set dataset.fields.solution")
        return _text(row, "solution", fields.solution)
    solution = row.columns.get(fields.solution) if fields.solution else None
    return solution if isinstance(solution, str) else ""


def _answer(row: Row, fields: Fields, solution: str) -> str:
    if fields.answer is not None:
        value = _column(row, "answer", fields.answer)
        answer = answer_text(value)
        if answer is None:
            raise BadDataError(
                f"{row.place}: the column {fields.answer!r} (fields.answer) must be a text, a number or a list of one "
                f"of them, but is {_shortened(value)}"
            )
        return answer
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
    return value


def _column(row: Row, field: str, column: str) -> Any:
    if column in row.columns:
        return row.columns[column]
    nearest = get_close_matches(column, row.columns, n=1, cutoff=0.7)
    remedy = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(map(repr, row.columns))}"
    raise BadDataError(f"{row.place}: no column {column!r}; set fields.{field} to one it has ({remedy})")


def _shortened(value: object) -> str:
    shown = "missing" if value is None else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"


def _rows(source: DatasetSource) -> Iterator[Row]:
    if source.path is None:
        return _hub_rows(source)
    path = Path(source.path)
    if not path.is_file():
        raise BadDataError(f"{path} does not exist or is not a file: check dataset.path (relative to {Path.cwd()})")
    try:
        if path.suffix == ".parquet":
            return iter(list(_parquet_rows(path)))
        return iter(list(_json_rows(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataError(f"{path} cannot be read: {error}") from error


def _json_rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".json":
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            for number, value in enumerate(_json(text, str(path)), start=1):
                yield _row(value, f"{path}, row {number}")
            return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield _row(_json(line.rstrip(), place), place)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise BadDataError(f"{place}: broken JSON at {where}: {error.msg}; correct or delete it") from error


def _row(value: object, place: str) -> Row:
    if not isinstance(value, dict):
        raise BadDataError(f"{place}: a row must be an object with named columns, but is {_shortened(value)}")
    return Row(place, value)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise BadDataError(f"{path} is not a readable Parquet file: {error}") from error
    for number, value in enumerate(table.to_pylist(), start=1):
        yield Row(f"{path}, row {number}", value)


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
    for number, value in enumerate(loaded, start=1):
        yield Row(f"{source.name}, row {number}", value)
