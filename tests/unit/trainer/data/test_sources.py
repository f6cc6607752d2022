"""Problems are read unchanged from every kind of file, and a bad file is named with its remedy."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from seele_trainer.config import DatasetSource, Fields
from seele_trainer.data.problem import BadDataError, BadRows, Problem
from seele_trainer.data.sources import fingerprint, load_problems

ROWS = [
    {"problem": "1+1?", "solution": "Add.\nSo \\boxed{2}.", "answer": "2"},
    {"problem": "2+2?", "solution": "Add.\nSo \\boxed{4}.", "answer": "4"},
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Path, *, need_solution: bool = True, **source: Any) -> list[Problem]:
    return load_problems(DatasetSource(path=str(path), **source), need_solution=need_solution)


def test_the_same_rows_are_read_from_jsonl_json_and_parquet(tmp_path: Path) -> None:
    as_json = tmp_path / "rows.json"
    as_json.write_text(json.dumps(ROWS, indent=1))
    as_parquet = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), as_parquet)
    from_lines = load(write_lines(tmp_path / "rows.jsonl", ROWS))
    assert from_lines == load(as_json) == load(as_parquet)
    assert from_lines[1] == Problem("2", "2+2?", "Add.\nSo \\boxed{4}.", "4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.json", "rows.jsonl", "rows.parquet"]


def test_a_hugging_face_data_set_is_loaded_by_name_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    write_lines(folder / "train.jsonl", ROWS)
    write_lines(folder / "test.jsonl", ROWS[1:])
    trained = load_problems(DatasetSource(name=str(folder)), need_solution=True)
    tested = load_problems(DatasetSource(name=str(folder), split="test"), need_solution=True)
    assert [problem.answer for problem in trained] == ["2", "4"]
    assert [problem.answer for problem in tested] == ["4"]


def test_a_data_set_or_split_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_lines(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(BadDataError, match=r"split 'nothing'.*check the name, the split"):
        load_problems(DatasetSource(name=str(tmp_path), split="nothing"), need_solution=True)


def test_gsm8k_loses_its_calculator_marks_and_its_thousands_commas(tmp_path: Path) -> None:
    worked = "He pays 500*3=$<<500*3=1500>>1,500 in all.\n#### 1,500"
    path = write_lines(tmp_path / "g.jsonl", [{"question": "How much?", "answer": worked}])
    assert load(path, format="gsm8k") == [Problem("1", "How much?", "He pays 500*3=$1,500 in all.\n#### 1,500", "1500")]


def test_columns_are_found_by_their_mapped_names_and_steps_become_lines(tmp_path: Path) -> None:
    row = {"q": "1+1?", "parts": ["One.\nTwo.", "So 2."], "final": 2, "key": "first"}
    fields = Fields(problem="q", steps="parts", answer="final", id="key")
    assert load(write_lines(tmp_path / "x.jsonl", [row]), fields=fields) == [
        Problem("first", "1+1?", "One. Two.\nSo 2.", "2")
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Decimal("27.50"), "27.5"),
        (27.0, "27"),
        (-0.5, "-0.5"),
        (0.001, "0.001"),
        (3, "3"),
        (["$2n$"], "$2n$"),
        ([4.0], "4"),
        (" 1/2 ", "1/2"),
    ],
)
def test_an_answer_may_be_a_text_a_number_or_a_list_of_one(tmp_path: Path, given: object, expected: str) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"problem": "?", "answer": given}]), path)
    (problem,) = load(path, fields=Fields(answer="answer"), need_solution=False)
    assert (problem.answer, problem.solution) == (expected, "")


def test_without_an_answer_column_the_answer_is_taken_from_the_solution(tmp_path: Path) -> None:
    rows = [{"problem": "?", "solution": "So \\boxed{\\frac{1}{2}}."}, {"problem": "?", "solution": "So\n#### 7"}]
    assert [problem.answer for problem in load(write_lines(tmp_path / "x.jsonl", rows))] == ["\\frac{1}{2}", "7"]


def test_only_as_many_problems_as_the_limit_are_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", ROWS)
    path.write_text(path.read_text() + '{"problem": "a third row without a solution"}\n')
    assert len(load(path, limit=2)) == 2


BAD_FILES = [
    ("", {}, r"bad\.jsonl has no problems"),
    ('{"problem": "1"}\n', {}, r"bad\.jsonl, line 1: no column 'solution'.*fields\.solution"),
    ('{"question": "1"}\n', {}, r"line 1: no column 'problem'; set fields\.problem"),
    ('{"problems": "1", "solution": "x"}\n', {}, r"did you mean 'problems'\?"),
    ('\n{"problem": "1", \n', {}, r"bad\.jsonl, line 2: broken JSON at column 17"),
    ('["a", "b"]\n', {}, r"line 1: a row must be an object"),
    ('{"problem": "1", "solution": "who knows"}\n', {}, r"line 1: no final answer .*fields\.answer"),
    ('{"problem": "1", "solution": ["a", "b"]}\n', {}, r"'solution' .* must be a text.*fields\.steps"),
    ('{"problem": " ", "solution": "x"}\n', {}, r"'problem' \(fields\.problem\) must be a text"),
    (
        '{"problem": "1", "solution": "x", "a": [1, 2]}\n',
        {"fields": Fields(answer="a")},
        r"'a' \(fields\.answer\) must be .* but is \[1, 2\]",
    ),
    (
        '{"problem": "1", "solution": "\\\\boxed{1}", "k": 5}\n{"problem": "2", "solution": "\\\\boxed{1}", "k": 5}\n',
        {"fields": Fields(id="k")},
        r"line 2: the id '5' is also that of .*line 1",
    ),
    (
        '{"problem": "1", "s": "x"}\n',
        {"fields": Fields(steps="s", answer="s")},
        r"fields\.steps.* must be a list of texts",
    ),
    ('{"question": "1", "answer": "7"}\n', {"format": "gsm8k"}, r"line 1: .* no line `#### N`"),
]


@pytest.mark.parametrize(("text", "source", "message"), BAD_FILES, ids=[message for _, _, message in BAD_FILES])
def test_a_bad_file_is_refused_with_its_row_its_field_and_a_remedy(
    tmp_path: Path, text: str, source: dict[str, Any], message: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(BadDataError, match=message):
        load(path, **source)


def test_files_that_are_missing_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"none\.jsonl does not exist"):
        load(tmp_path / "none.jsonl")
    (tmp_path / "x.parquet").write_text("not parquet")
    with pytest.raises(BadDataError, match=r"x\.parquet is not a readable Parquet file"):
        load(tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadDataError, match=r"x\.jsonl, line 1: is not UTF-8 text; save the file as UTF-8"):
        load(tmp_path / "x.jsonl")


def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    joined, twice = text.replace("\n", "\n\ufeff", 1), "\ufeff" + text
    lists = {"b.json": json.dumps(ROWS), "d.json": "\ufeff\n" + json.dumps(ROWS)}
    for name, content in {
        "a.jsonl": text,
        "a.json": text,
        "c.json": "\n " + text,
        "j.jsonl": joined,
        "t.jsonl": twice,
        **lists,
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        assert [problem.question for problem in load(tmp_path / name)] == ["1+1?", "2+2?"]


@pytest.mark.parametrize("column", ["problem", "solution", "answer", "key"])
def test_an_unpaired_surrogate_is_named_with_its_row_and_column(tmp_path: Path, column: str) -> None:
    row = {**ROWS[0], "key": "k", column: "é\ud83d"}
    path = write_lines(tmp_path / "x.jsonl", [{**ROWS[1], "key": "j"}, row])
    message = rf"x\.jsonl, line 2: the column '{column}' has an unpaired UTF-16 surrogate, '\\ud83d', at character 2"
    with pytest.raises(BadDataError, match=message) as refused:
        load(path, fields=Fields(answer="answer", id="key"))
    str(refused.value).encode()


def test_an_unpaired_surrogate_among_steps_is_found(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"problem": "1", "s": ["a", "b \ud83d"], "answer": "1"}])
    with pytest.raises(BadDataError, match="'s' has an unpaired UTF-16 surrogate"):
        load(path, fields=Fields(steps="s", answer="answer"))


def test_whole_characters_beyond_the_first_plane_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"problem": "\\ud83e\\udd86?", "solution": "#### 1"}')
    assert load(tmp_path / "x.jsonl")[0].question == "🦆?"


@pytest.mark.parametrize("value", [None, "", " ", True, [], ["a"], {}, float("nan")])
def test_an_id_that_identifies_nothing_is_refused(tmp_path: Path, value: object) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{**ROWS[0], "id": value}])
    with pytest.raises(
        BadDataError, match=r"line 1: the column 'id' \(fields\.id\) must be a text or a number, .*omit"
    ):
        load(path, fields=Fields(id="id"))


@pytest.mark.parametrize(("value", "expected"), [(7, "7"), (7.0, "7"), ("a/7", "a/7"), (0, "0")])
def test_ids_are_texts_or_numbers(tmp_path: Path, value: object, expected: str) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{**ROWS[0], "id": value}])
    assert load(path, fields=Fields(id="id"))[0].id == expected


def test_bad_rows_are_skipped_and_counted_and_the_first_are_named(tmp_path: Path) -> None:
    good, bad = (
        json.dumps(ROWS[0]),
        ["{", "[]", '{"problem": "1"}', '{"problem": "\\udc00", "solution": "#### 1"}', "9" * 5000],
    )
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([b"\xff\xfe", *map(str.encode, bad), good.encode(), good.encode()]))
    rows = BadRows("skip")
    problems = load_problems(DatasetSource(path=str(path)), need_solution=True, bad_rows=rows)
    assert [problem.id for problem in problems] == ["7", "8"]
    assert rows.count == 6
    assert [str(error).split(": ")[0][-6:] for error in rows.first] == [f"line {number}" for number in range(1, 6)]
    assert str(rows).startswith("6 bad rows: ")
    assert str(rows).endswith("; and 1 more")


def test_only_bad_rows_are_still_an_error_that_names_the_first(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"question": "1"}] * 3)
    with pytest.raises(BadDataError, match=r"x\.jsonl has no problems: 3 bad rows: .*line 1: no column 'problem'"):
        load_problems(DatasetSource(path=str(path)), need_solution=True, bad_rows=BadRows("skip"))


def test_skipped_rows_do_not_count_for_the_limit(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{}, *ROWS, {}])
    problems = load_problems(DatasetSource(path=str(path), limit=2), need_solution=True, bad_rows=BadRows("skip"))
    assert [problem.question for problem in problems] == ["1+1?", "2+2?"]


@pytest.mark.parametrize("solution", [{}, {"solution": None}, {"solution": ["a"]}, {"solution": "half \ud83d"}])
def test_without_need_a_missing_or_unusable_solution_is_empty(tmp_path: Path, solution: dict[str, Any]) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"problem": "1+1?", "answer": "2", **solution}])
    assert load(path, need_solution=False, fields=Fields(answer="answer"))[0].solution == ""


def test_parquet_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**ROWS[0], "traces": "x" * 100} for _ in range(2000)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    read: list[pyarrow.RecordBatch] = []
    iter_batches = parquet.ParquetFile.iter_batches

    def counted(self: parquet.ParquetFile, **options: Any) -> Any:
        for batch in iter_batches(self, **options):
            read.append(batch)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counted)
    assert len(load(tmp_path / "x.parquet", limit=10)) == 10
    assert sum(batch.num_rows for batch in read) == 10
    assert read[0].schema.names == ["problem", "solution"]
    with pytest.raises(BadDataError, match=r"no column 'solutions'; .*did you mean 'solution'"):
        load(tmp_path / "x.parquet", fields=Fields(solution="solutions"))
    with pytest.raises(BadDataError, match="it has 'problem', 'solution', 'answer', 'traces'"):
        load(tmp_path / "x.parquet", fields=Fields(solution="zzz"))


def test_texts_of_a_parquet_file_that_are_not_utf_8_are_the_fault_of_their_rows(tmp_path: Path) -> None:
    texts = pyarrow.array([b"1?", b"\xff\xfe", b"3?", b"\x80"], pyarrow.binary())
    problem = pyarrow.Array.from_buffers(pyarrow.string(), 4, texts.buffers())
    parquet.write_table(pyarrow.table({"problem": problem, "solution": ["#### 1"] * 4}), tmp_path / "x.parquet")
    with pytest.raises(BadDataError, match=r"x\.parquet, row 2: is not UTF-8 text; write the file again in UTF-8"):
        load(tmp_path / "x.parquet")
    source, bad_rows = DatasetSource(path=str(tmp_path / "x.parquet")), BadRows("skip")
    problems = load_problems(source, need_solution=True, bad_rows=bad_rows)
    assert [(each.id, each.question) for each in problems] == [("1", "1?"), ("3", "3?")]
    assert bad_rows.count == 2


def test_reading_gives_signs_of_life(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", ROWS * 1250)
    signs: list[int] = []
    load_problems(DatasetSource(path=str(path)), need_solution=True, progress=signs.append)
    assert signs == [1000, 2000]


def test_the_fingerprint_changes_with_every_text_and_with_the_order() -> None:
    first, second = Problem("1", "q", "s", "a"), Problem("2", "q", "s", "a")
    prints = {
        fingerprint(problems)
        for problems in (
            [first, second],
            [second, first],
            [first],
            [Problem("1", "qs", "", "a")],
            [Problem("1", "q", "s", "b")],
        )
    }
    assert len(prints) == 5
    assert fingerprint([first, second]) == fingerprint([first, second])


def test_all_of_gsm8k_is_read(shared_data: Path) -> None:
    problems = load(shared_data / "gsm8k" / "train.jsonl", format="gsm8k")
    assert len(problems) == 7473
    assert all("<<" not in problem.solution and "," not in problem.answer for problem in problems)
    assert all(float(problem.answer) is not None for problem in problems)
