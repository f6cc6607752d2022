"""The files of a SeeleRun are checked before anything starts."""

import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from seele_operator.api.types import BadRunError
from seele_operator.validation.load import parse_run, validate_file
from seele_operator.validation.local_files import local_files
from tests.support.spec_data import patched, small_run

ROW = {"problem": "1 + 1?", "question": "1 + 1?", "solution": "1 + 1 = 2\n#### 2", "answer": "2"}
STEP = 256
"""Default number of problems per step."""

SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "~"}
EMPTY_SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a data file, and a model that has every file it needs."""
    (tmp_path / "train.jsonl").write_text(lines([ROW] * STEP))
    model = tmp_path / "model"
    model.mkdir()
    config = {"max_position_embeddings": 6000, "tie_word_embeddings": False, "vocab_size": 256}
    (model / "config.json").write_text(json.dumps(config))
    (model / "model.safetensors").write_bytes(EMPTY_SAFETENSORS)
    byte_level().save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    return tmp_path


def byte_level() -> Tokenizer:
    """A tokenizer of single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def problems(folder: Path, spec: dict[str, Any]) -> list[str]:
    """Problems of the smallest run with a local model and the changes in `spec`."""
    body = patched(small_run(), {"spec": patched({"model": {"name": "model"}}, spec)})
    return [line for check in local_files(folder) for line in check(parse_run(body).spec)]


def only_problem(folder: Path, spec: dict[str, Any]) -> str:
    (problem,) = problems(folder, spec)
    assert "\n" not in problem
    return problem


def test_a_run_with_all_its_files_is_accepted(folder: Path) -> None:
    assert problems(folder, {}) == []


def test_names_on_the_hub_are_not_looked_up(folder: Path) -> None:
    assert problems(folder, {"model": {"name": "unknown/nothing"}}) == []
    assert problems(folder, {"dataset": {"path": None, "name": "unknown/nothing"}}) == []


def test_problems_whose_answer_nothing_can_match_are_a_warning_and_do_not_count_for_a_step(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "odd.jsonl").write_text(lines([*[ROW] * STEP, ROW | {"answer": r"\boxed{3} and \boxed{4}"}]))
    dataset = {"path": "odd.jsonl", "fields": {"answer": "answer"}}
    assert problems(folder, {"dataset": dataset}) == []
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith(f"warning: spec.dataset.path: 1 bad row: problem {STEP + 1}: no completion can match")
    assert warning.endswith("; a run skips them")
    (folder / "odd.jsonl").write_text(lines([*[ROW] * (STEP - 1), ROW | {"answer": "$$"}]))
    assert f"has {STEP - 1} problems" in only_problem(folder, {"dataset": dataset})
    (folder / "odd.jsonl").write_text(lines([ROW | {"answer": "$$"}] * STEP))
    assert "no problem can be trained on: 256 bad rows" in only_problem(folder, {"dataset": dataset})


def test_a_missing_data_file_is_named_with_its_neighbour(folder: Path) -> None:
    problem = only_problem(folder, {"dataset": {"path": "trian.jsonl"}})
    assert problem.startswith('spec.dataset.path: "trian.jsonl" does not exist (there is train.jsonl); ')


def test_benchmark_files_are_checked_too(folder: Path) -> None:
    problem = only_problem(folder, {"evaluation": {"benchmarks": [{"title": "a", "path": "no/such.jsonl"}]}})
    assert problem.startswith('spec.evaluation.benchmarks[0].path: "no/such.jsonl" does not exist; ')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n  \n", "is empty"),
        (b"not json\n", "does not begin with a JSON object"),
        (b"[1]\n", "does not begin with a JSON object"),
        (b"\xff\xfe\n", "is not UTF-8"),
        (b"[" * 100_000, "begins with brackets nested too deeply"),
    ],
)
def test_a_data_file_that_holds_no_problems_is_refused(folder: Path, content: bytes, says: str) -> None:
    (folder / "bad.jsonl").write_bytes(content)
    assert says in only_problem(folder, {"dataset": {"path": "bad.jsonl"}})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"problem": "1 +', "line 257: broken JSON at column 13: "),
        ('{"problem": "1 + 1?", "answer": "2"}', "line 257: no column 'solution'; "),
        ('{"problem": "1 + 1?", "solution": "two"}', "line 257: no final answer "),
    ],
)
def test_a_row_that_the_trainer_would_refuse_is_refused_before_anything_starts(
    folder: Path, row: str, says: str
) -> None:
    (folder / "late.jsonl").write_text(lines([ROW] * STEP) + row + "\n")
    problem = only_problem(folder, {"dataset": {"path": "late.jsonl"}})
    assert problem.startswith(f"spec.dataset.path: {folder / 'late.jsonl'}, {says}")


def test_rows_of_benchmarks_are_checked_too(folder: Path) -> None:
    (folder / "late.jsonl").write_text(lines([ROW]) + "[]\n")
    problem = only_problem(folder, {"evaluation": {"benchmarks": [{"title": "a", "path": "late.jsonl"}]}})
    assert problem.startswith(f"spec.evaluation.benchmarks[0].path: {folder / 'late.jsonl'}, line 2: a row must be ")


def test_duplicate_ids_are_refused(folder: Path) -> None:
    (folder / "twice.jsonl").write_text(lines([{**ROW, "id": number % STEP} for number in range(STEP + 1)]))
    problem = only_problem(folder, {"dataset": {"path": "twice.jsonl", "fields": {"id": "id"}}})
    assert "line 257: the id '0' is also that of " in problem


def test_fewer_problems_than_a_step_takes_are_refused(folder: Path) -> None:
    (folder / "few.jsonl").write_text(lines([ROW] * (STEP - 1)))
    problem = only_problem(folder, {"dataset": {"path": "few.jsonl"}})
    assert problem.startswith('spec.dataset.path: "few.jsonl" has 255 problems, and a step takes 256 different ones; ')


def test_a_folder_instead_of_a_data_file_is_refused(folder: Path) -> None:
    (folder / "data.jsonl").mkdir()
    assert "is a folder" in only_problem(folder, {"dataset": {"path": "data.jsonl"}})


def test_a_json_list_is_accepted(folder: Path) -> None:
    (folder / "list.json").write_text(json.dumps([{**ROW, "problem": "?"}] * STEP, indent=1))
    assert problems(folder, {"dataset": {"path": "list.json"}}) == []
    (folder / "none.json").write_text("[]")
    assert "does not begin with a JSON object" in only_problem(folder, {"dataset": {"path": "none.json"}})


def test_the_nearest_column_is_suggested(folder: Path) -> None:
    fields = {"problem": "problems", "answer": "anwser"}
    assert problems(folder, {"dataset": {"fields": fields}}) == [
        'spec.dataset.fields.problem: the file has no column "problems", '
        "only answer, problem, question, solution; did you mean problem?",
        'spec.dataset.fields.answer: the file has no column "anwser", '
        "only answer, problem, question, solution; did you mean answer?",
    ]


def test_a_problem_column_of_numbers_is_refused(folder: Path) -> None:
    (folder / "numbers.jsonl").write_text(json.dumps({**ROW, "problem": 7}))
    assert '"problem" is not text' in only_problem(folder, {"dataset": {"path": "numbers.jsonl"}})


def test_benchmarks_need_solutions_only_for_their_answers(folder: Path) -> None:
    (folder / "plain.jsonl").write_text(json.dumps({"problem": "?", "answer": 2}))
    plain = {"path": "plain.jsonl", "fields": {"answer": "answer"}}
    assert only_problem(folder, {"dataset": plain}).startswith("spec.dataset.fields.solution: ")
    assert problems(folder, {"evaluation": {"benchmarks": [{"title": "a", **plain}]}}) == []
    unmarked = {"title": "a", "path": "plain.jsonl"}
    assert "fields.solution" in only_problem(folder, {"evaluation": {"benchmarks": [unmarked]}})


def test_gsm8k_format_names_its_columns(folder: Path) -> None:
    (folder / "gsm8k.jsonl").write_text(lines([{"question": "?", "answer": "#### 1"}] * STEP))
    assert problems(folder, {"dataset": {"path": "gsm8k.jsonl", "format": "gsm8k"}}) == []
    (folder / "other.jsonl").write_text(json.dumps({"problem": "?", "answer": "1"}))
    problem = only_problem(folder, {"dataset": {"path": "other.jsonl", "format": "gsm8k"}})
    assert problem.startswith("spec.dataset.format: gsm8k needs a column question, and the file has answer, problem; ")


def test_parquet_columns_come_from_its_schema(folder: Path) -> None:
    table = arrow.table({"problem": ["?"], "solution": ["#### 1"], "number": [1]}).take([0] * STEP)
    parquet.write_table(table, folder / "train.parquet")
    assert problems(folder, {"dataset": {"path": "train.parquet"}}) == []
    texts = arrow.table({name: table[name].dictionary_encode() for name in ("problem", "solution")})
    parquet.write_table(texts, folder / "encoded.parquet")
    assert problems(folder, {"dataset": {"path": "encoded.parquet"}}) == []
    fields = {"problem": "number", "answer": "answers"}
    found = problems(folder, {"dataset": {"path": "train.parquet", "fields": fields}})
    assert [line.split(":")[0] for line in found] == ["spec.dataset.fields.answer", "spec.dataset.fields.problem"]


def test_parquet_files_without_rows_or_of_another_kind_are_refused(folder: Path) -> None:
    parquet.write_table(arrow.table({"problem": arrow.array([], arrow.string())}), folder / "none.parquet")
    assert "has no rows" in only_problem(folder, {"dataset": {"path": "none.parquet"}})
    (folder / "text.parquet").write_text("not parquet at all")
    assert "is not a Parquet file" in only_problem(folder, {"dataset": {"path": "text.parquet"}})
    (folder / "empty.parquet").write_text("")
    assert "is empty" in only_problem(folder, {"dataset": {"path": "empty.parquet"}})


@pytest.mark.parametrize("name", ["./model2", "/no/such/model", "a/b/c", ".cache/base", "~/model"])
def test_a_path_without_a_folder_is_refused(folder: Path, name: str) -> None:
    assert "is neither a folder here nor a Hugging Face ID" in only_problem(folder, {"model": {"name": name}})


@pytest.mark.parametrize(
    ("file", "says"),
    [("config.json", "config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_a_model_folder_that_lacks_a_file_is_refused(folder: Path, file: str, says: str) -> None:
    (folder / "model" / file).unlink()
    assert says in only_problem(folder, {})


@pytest.mark.parametrize("content", [b"junk" * 100, EMPTY_SAFETENSORS[:9], (2).to_bytes(8, "little") + b"[]"])
def test_weights_in_another_format_are_refused(folder: Path, content: bytes) -> None:
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(content)
    problem = only_problem(folder, {})
    assert problem.startswith(f"spec.model.name: {weights} ")
    assert problem.endswith("download or export it again")


def test_a_tokenizer_that_changes_the_problems_is_refused_with_the_place(folder: Path) -> None:
    garbling = byte_level()
    garbling.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    garbling.save(str(folder / "model" / "tokenizer.json"))
    assert only_problem(folder, {}).startswith(
        "spec.model.name: model.name is 'model', whose tokenizer changes the prompt of problem 1: character 2, "
        "'1 + 1?\\n' becomes '1+1?'. "
    )


def test_a_tokenizer_whose_class_puts_it_right_is_accepted(folder: Path) -> None:
    backend = byte_level()
    backend.decoder = decoders.Fuse()
    backend.save(str(folder / "model" / "tokenizer.json"))
    settings = {"tokenizer_class": "GPT2TokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "gpt2", "max_position_embeddings": 6000}))
    assert problems(folder, {}) == []


CHAT = {"dataset": {"promptTemplate": "chat"}}
QUESTION = "{{ messages[0].content }}"


@pytest.mark.parametrize("template", ["<absent>", None, [], [{"name": "rag", "template": "x"}]])
def test_chat_needs_a_template_in_the_models_folder(folder: Path, template: Any) -> None:
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(patched(SETTINGS, {"chat_template": template})))
    assert only_problem(folder, CHAT) == (
        'spec.dataset.promptTemplate: chat needs a chat template, and "model" has none in tokenizer_config.json or '
        "chat_template.jinja; use r1-zero for a base model, or add the template"
    )
    (folder / "model" / "chat_template.jinja").write_text(QUESTION)
    assert problems(folder, CHAT) == []


@pytest.mark.parametrize("template", [QUESTION, [{"name": "default", "template": QUESTION}]])
def test_a_chat_template_may_be_in_the_tokenizers_settings(folder: Path, template: Any) -> None:
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, "chat_template": template}))
    assert problems(folder, CHAT) == []


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("chat_template.jinja", "{{ raise_exception('no system message') }}", "cannot be used: no system message; "),
        ("chat_template.jinja", "{{ messages[0].content + 1 }}", "cannot be used: can only concatenate"),
        ("chat_template.jinja", "{{ messages[0].content[:30] }}", "does not repeat the question as it is"),
        ("tokenizer.json", "{}", 'spec.model.name: tokenizer.json in "model" cannot be read: '),
        ("tokenizer_config.json", "{}", "no end-of-sequence token"),
        ("tokenizer_config.json", '{"eos_token": "<|nothing|>"}', "ends texts with '<|nothing|>', token 256, and the "),
        ("tokenizer_config.json", "[]", 'the tokenizer in "model" cannot be loaded: '),
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["a.B", null]}}', "contains custom code"),
        ("config.json", '{"model_type": "gpt2", "vocab_size": 50}', "and the model knows only 50 tokens"),
        ("config.json", '{"text_config": {"vocab_size": 50}}', "and the model knows only 50 tokens"),
    ],
)
def test_what_the_trainer_would_refuse_in_a_tokenizer_is_refused_here(
    folder: Path, file: str, content: str, says: str
) -> None:
    (folder / "model" / "chat_template.jinja").write_text(QUESTION)
    (folder / "model" / file).write_text(content)
    assert says in only_problem(folder, CHAT if file == "chat_template.jinja" else {})


def test_a_vocabulary_without_tokenizer_json_is_read_as_by_the_trainer(folder: Path) -> None:
    (folder / "model" / "tokenizer.json").unlink()
    words = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]", "a"]
    (folder / "model" / "vocab.txt").write_text("\n".join(words))
    settings = {"tokenizer_class": "BertTokenizer", "eos_token": "[SEP]"}
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "whose tokenizer changes the prompt of problem 1" in only_problem(folder, {})


def test_methods_that_read_no_solutions_need_none(folder: Path) -> None:
    (folder / "plain.jsonl").write_text(lines([{"problem": "1 + 1?", "answer": 2}] * STEP))
    plain = {"path": "plain.jsonl", "fields": {"answer": "answer"}}
    assert problems(folder, {"dataset": plain, "training": {"strategy": "grpo"}}) == []
    assert "fields.solution" in only_problem(folder, {"dataset": plain, "training": {"strategy": "luffy"}})


@pytest.mark.parametrize(
    "bad", ["not json", "[" * 100_000, '{"problem": "1"}', '{"problem": "a \\ud83d?", "solution": "#### 1"}', b"\xff"]
)
@pytest.mark.parametrize("first", [True, False])
def test_bad_rows_can_be_skipped(folder: Path, bad: str | bytes, first: bool) -> None:
    row = bad if isinstance(bad, bytes) else bad.encode()
    rows = [row, *[json.dumps(ROW).encode()] * STEP]
    (folder / "bad.jsonl").write_bytes(b"\n".join(rows if first else reversed(rows)))
    assert problems(folder, {"dataset": {"path": "bad.jsonl", "onBadRow": "skip"}}) == []
    assert problems(folder, {"dataset": {"path": "bad.jsonl"}}) != []


def test_a_byte_order_mark_is_not_part_of_the_first_row(folder: Path) -> None:
    for name, twice in (("marked.jsonl", ""), ("marked.json", ""), ("twice.jsonl", "\ufeff")):
        (folder / name).write_text(twice + lines([ROW] * STEP), encoding="utf-8-sig")
        assert problems(folder, {"dataset": {"path": name}}) == []
    (folder / "list.json").write_text(json.dumps([ROW] * STEP), encoding="utf-8-sig")
    assert problems(folder, {"dataset": {"path": "list.json"}}) == []


def test_a_broken_model_configuration_is_refused(folder: Path) -> None:
    (folder / "model" / "config.json").write_text("{")
    assert "cannot be read" in only_problem(folder, {})
    (folder / "model" / "config.json").write_text("[]")
    assert "is not a JSON object" in only_problem(folder, {})


def test_the_models_limit_applies_if_the_run_sets_none(folder: Path) -> None:
    problem = only_problem(folder, {"rollout": {"maxCompletionTokens": 3000}})
    assert (
        "= 6072 tokens do not fit into the model's max_position_embeddings, which is 6000; use at most 2928" in problem
    )


def test_a_context_longer_than_the_models_is_refused(folder: Path) -> None:
    problem = only_problem(folder, {"model": {"contextLength": 8192}})
    assert problem == "spec.model.contextLength: 8192 is above max_position_embeddings of the model, 6000; lower it"
    (folder / "model" / "config.json").write_text(
        json.dumps({"max_position_embeddings": 6000, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})
    )
    assert problems(folder, {"model": {"contextLength": 8192}}) == []


@pytest.mark.parametrize(("parts", "fitting"), [(4, 2), (3, 2), (16, 14), (7, None), (14, None)])
def test_a_model_is_split_by_its_attention_heads(folder: Path, parts: int, fitting: int | None) -> None:
    config = {"max_position_embeddings": 6000, "num_attention_heads": 14}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    found = problems(folder, {"rollout": {"tensorParallelSize": parts}})
    assert [line.rpartition("; use ")[2] for line in found] == ([] if fitting is None else [str(fitting)])


def test_tied_embeddings_cannot_be_served_as_they_are(folder: Path) -> None:
    tied = {"max_position_embeddings": 6000, "tie_word_embeddings": True}
    (folder / "model" / "config.json").write_text(json.dumps(tied))
    problem = only_problem(folder, {"rollout": {"untieEmbeddings": False}})
    assert problem.startswith("spec.rollout.untieEmbeddings: false ")
    assert problems(folder, {}) == []
    assert problems(folder, {"rollout": {"untieEmbeddings": False, "engine": "transformers"}}) == []


def test_validate_file_reports_files_with_broken_rules_and_wrong_fields(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    rule = {"dataset": {"path": "none.jsonl"}, "training": {"problemsPerUpdate": 48}}
    benchmarks = [{"title": "a", "path": "none.jsonl"}]
    field = {"training": {"problemsPerStep": "x"}, "evaluation": {"benchmarks": benchmarks}, "model": {"name": "./no"}}
    for wrong, places in (
        (rule, ["training.problemsPerUpdate", "dataset.path"]),
        (field, ["training.problemsPerStep", "evaluation.benchmarks[0].path", "model.name"]),
    ):
        (folder / "run.yaml").write_text(yaml.safe_dump(patched(small_run(), {"spec": wrong})))
        with pytest.raises(BadRunError) as refused:
            validate_file("run.yaml")
        assert [problem.split(":")[0] for problem in refused.value.problems] == [f"spec.{place}" for place in places]
        assert str(refused.value).splitlines() == refused.value.problems


def test_validate_file_returns_a_good_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "run.yaml").write_text(yaml.safe_dump(small_run()))
    monkeypatch.chdir(folder)
    assert validate_file("run.yaml").metadata.name == "small"
