"""Rows in the shape of public data sets: each is read with its columns named, or refused with its row and the remedy.

`tests/unit/data/datasets` has one or a few made rows of each. `validate` and a run read them by the same function.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seele_operator.cli import app
from seele_trainer.config import DatasetSource, Fields
from seele_trainer.data.problem import BadDataError, BadRows
from seele_trainer.data.sources import load_problems
from tests.support import REPOSITORY

FOLDER = REPOSITORY / "tests/unit/data/datasets"
WORKED = "We have $2+3=5$.\nThen $5\\cdot 2=10$.\nThe final answer is $\\boxed{10}$."


@dataclass(frozen=True)
class Case:
    """`read` are the id, solution and answer of each row read with `fields`; `refused` is said about the first bad row."""

    file: str
    fields: dict[str, str] = field(default_factory=dict)
    read: tuple[tuple[str, str, str], ...] = ()
    refused: str = ""
    need_solution: bool = True


CASES = [
    Case("bigmath.jsonl", {"answer": "answer"}, refused="line 1: no column 'solution'; set fields.solution"),
    Case("bigmath.jsonl", {"answer": "answer"}, (("1", "", "10"), ("2", "", "3")), need_solution=False),
    Case("bom.jsonl", read=(("1", "b\n#### 1", "1"),)),
    Case("crlf.jsonl", read=tuple((number, "b\n#### 1", "1") for number in "123")),
    Case(
        "dapo.jsonl",
        {"problem": "prompt"},
        refused="line 1: the column 'prompt' (fields.problem) must be a text, but is [",
    ),
    Case(
        "dapo.jsonl",
        refused="line 1: no column 'problem'; set fields.problem to one it has (it has 'data_source', 'prompt'",
    ),
    Case(
        "deepmath.jsonl",
        {"problem": "question", "solution": "r1_solution_2", "answer": "final_answer"},
        (("1", WORKED, "10"), ("2", "a", "Yes")),
    ),
    Case("dups.jsonl", read=tuple((number, "b = 1\n#### 1", "1") for number in "1234")),
    Case("limo.jsonl", {"problem": "question", "answer": "answer"}, (("1", WORKED, "10"),)),
    Case("math.jsonl", read=(("1", WORKED, "10"),)),
    Case("nulls.jsonl", read=(("1", "b\n#### 1", "1"), ("2", "d\n#### 2", "2"))),
    Case(
        "nulls.jsonl",
        {"id": "id"},
        refused="line 1: the column 'id' (fields.id) must be a text or a number, but is missing",
    ),
    Case(
        "numina.jsonl",
        read=(("1", WORKED, "10"), ("3", "Counting gives ten.\n$\\boxed{\\textbf{(A)}\\ 10}$", "\\textbf{(A)}\\ 10")),
        refused="line 2: no final answer (\\boxed{…} or `#### …`) in the solution; set fields.answer",
    ),
    Case(
        "olymp.jsonl",
        {"problem": "question", "answer": "final_answer"},
        refused="line 1: the column 'solution' (fields.solution) must be a text, but is ['Sol a\\nso 2',",
    ),
    Case(
        "olymp.jsonl",
        {"problem": "question", "answer": "final_answer", "steps": "solution", "id": "id"},
        (("1", "Sol a so 2\nSol b", "2"),),
        "line 2: the column 'final_answer' (fields.answer) must be a text, a number or a list of one",
    ),
    Case(
        "omath.jsonl",
        {"solution": "generated_solution", "answer": "expected_answer"},
        (("1", f"<think>hm</think>\n{WORKED}", "10"),),
    ),
    Case("openr1.jsonl", {"answer": "answer"}, (("1", WORKED, "10"), ("2", "Proof.", "proof"))),
    Case(
        "openr1.jsonl",
        {"answer": "answer", "id": "uuid"},
        (("a-b", WORKED, "10"),),
        "line 2: the column 'uuid' (fields.id)",
    ),
    Case("orz.json", refused="row 1: a row must be an object with named columns, but is [{'from': 'human'"),
    Case(
        "s1k.jsonl", {"problem": "question", "solution": "attempt", "answer": "solution"}, (("1", "Answer: 10", "10"),)
    ),
    Case(
        "skywork.jsonl",
        {"problem": "prompt"},
        refused="line 1: the column 'prompt' (fields.problem) must be a text, but is [",
    ),
    Case(
        "surrogate.jsonl",
        read=(("2", "b\n#### 1", "1"),),
        refused="line 1: the column 'problem' has an unpaired UTF-16 surrogate",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}-{'-'.join(case.fields.values())}")
def test_a_row_is_read_or_refused_with_the_remedy(case: Case) -> None:
    source = DatasetSource(path=str(FOLDER / case.file), fields=Fields(**case.fields))
    rows = BadRows("skip")
    if case.read:
        problems = load_problems(source, need_solution=case.need_solution, bad_rows=rows)
        assert tuple((problem.id, problem.solution, problem.answer) for problem in problems) == case.read
        assert bool(rows.count) == bool(case.refused)
    if case.refused:
        with pytest.raises(BadDataError) as refused:
            load_problems(source, need_solution=case.need_solution)
        assert f"{case.file}, {case.refused}" in str(refused.value)


def test_every_file_has_a_case() -> None:
    assert {case.file for case in CASES} == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.refused and case.need_solution], ids=lambda case: case.file
)
def test_validate_refuses_the_same_with_code_2(case: Case, tmp_path: Path) -> None:
    dataset = {"path": str(FOLDER / case.file), "fields": case.fields}
    spec = {"model": {"name": "some/model"}, "dataset": dataset}
    run = {"apiVersion": "seele.dev/v1alpha1", "kind": "SeeleRun", "metadata": {"name": "shapes"}, "spec": spec}
    (tmp_path / "run.yaml").write_text(json.dumps(run), encoding="utf-8")
    ended = CliRunner().invoke(app, ["validate", "-f", str(tmp_path / "run.yaml")])
    problems = [line for line in ended.stderr.splitlines() if not line.startswith("warning: ")]
    assert ended.exit_code == 2
    assert problems
    # It looks at the columns of the first row itself, and has the trainer's words for everything else.
    assert all(line.startswith(("spec.dataset.path: ", "spec.dataset.fields.")) for line in problems), problems
