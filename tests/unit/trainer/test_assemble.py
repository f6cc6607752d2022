"""Building a run's parts: what exceeds the model's context, or cannot be loaded, is refused in one line with a remedy."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from seele_trainer.assemble import assemble, context_length, load_tokenizer
from seele_trainer.config import Model, TrainerConfig
from seele_trainer.data.problem import BadDataError
from seele_trainer.loop import RunParts
from seele_trainer.rollout.protocol import Sampling
from seele_trainer.run_folder.attempt import Attempt, PodEnvironment, Superseded
from seele_trainer.telemetry.recorder import Recorder
from seele_trainer.termination import RefusedInput
from seele_trainer.weights.prepare import BadModelError
from tests.support.fake_vllm import FakeVllm
from tests.support.rollout_pool import canary_of, folder_with
from tests.support.small_models import EOS, VOCABULARY, save_llama

CONTEXT = 20


def words(count: int) -> str:
    return " ".join(f"w{3 + index % 50}" for index in range(count))


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token for a word with the space before it, and one for a line break."""
    vocabulary = {f"▁w{index}": index for index in range(VOCABULARY - 2)} | {
        "▁####": VOCABULARY - 2,
        "\n": VOCABULARY - 1,
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="▁w0"))
    lines = pre_tokenizers.Split("\n", "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, pre_tokenizers.Metaspace(prepend_scheme="first")])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=f"▁w{EOS}")


def write_rows(path: Path, question: int, after_answer: int, worked: int = 3) -> None:
    """Two problems with that many words in the question, and in the solution before and after the answer.

    Hints show only what is before the answer.
    """
    row = {
        "problem": words(question),
        "solution": f"{words(worked)} #### w60 {words(after_answer)}".rstrip(),
        "answer": "w60",
    }
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(2)))


def assembled(
    tmp_path: Path,
    benchmark_words: int = 4,
    question: int = 4,
    worked: int = 3,
    after_answer: int = 0,
    engine: str = "transformers",
    strategy: str = "seele",
    urls_file: Path | None = None,
    rows: Sequence[str] | None = None,
    on_bad_row: str = "fail",
    stop: Sequence[str] | None = None,
    truncated: str = "zero",
    **evaluation: Any,
) -> RunParts:
    save_llama(tmp_path / "model", seed=0)
    word_tokenizer().save_pretrained(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", question, after_answer, worked)
    if rows is not None:
        (tmp_path / "train.jsonl").write_text("\n".join(rows))
    write_rows(tmp_path / "test.jsonl", benchmark_words, 0)
    fields = {"answer": "answer"}
    config = TrainerConfig.model_validate(
        {
            "name": "t",
            "model": {"name": str(tmp_path / "model"), "context_length": CONTEXT},
            "dataset": {
                "path": str(tmp_path / "train.jsonl"),
                "prompt_template": "plain",
                "fields": fields,
                "on_bad_row": on_bad_row,
            },
            "training": {"strategy": strategy, "problems_per_step": 2, "problems_per_update": 2},
            "rollout": {"engine": engine, "max_completion_tokens": 6, "stop": stop},
            "rewards": {"truncated": truncated},
            "evaluation": {
                "benchmarks": [{"title": "held-out", "path": str(tmp_path / "test.jsonl"), "fields": fields}],
                **evaluation,
            },
            "observability": {"tensorboard": False},
        }
    )
    attempt = Attempt(tmp_path / "run", 1)
    environment = PodEnvironment(tmp_path / "run", (), "", 0, "127.0.0.1", 0, attempt, urls_file)
    with Recorder(tmp_path / "run", config) as recorder:
        return assemble(config, environment, recorder)


def test_the_canary_leaves_a_server_room_to_generate_a_token(tmp_path: Path) -> None:
    parts = assembled(tmp_path, after_answer=40)
    assert len(parts.problems[0].prompt) + len(parts.problems[0].solution) > CONTEXT
    assert max(map(len, parts.canary_sequences)) < CONTEXT


@pytest.mark.parametrize("strategy", ["sft", "sft_then_grpo", "luffy"])
def test_a_solution_that_a_method_trains_on_must_fit_the_context(tmp_path: Path, strategy: str) -> None:
    with pytest.raises(BadDataError, match=r"tokens of prompt and solution, which this method trains on"):
        assembled(tmp_path, strategy=strategy, after_answer=40)


@pytest.mark.parametrize("strategy", ["seele", "uft", "prefix_rft", "fixed_hint"])
def test_a_hint_must_leave_room_for_a_completion(tmp_path: Path, strategy: str) -> None:
    with pytest.raises(BadDataError, match=r"tokens of prompt and hint, and the model's context is 20"):
        assembled(tmp_path, strategy=strategy, worked=30)


def test_a_long_solution_is_accepted_by_a_method_without_hints(tmp_path: Path) -> None:
    problem = assembled(tmp_path, strategy="grpo", worked=30).problems[0]
    assert len(problem.prompt) + problem.revealable > CONTEXT
    with pytest.raises(
        BadDataError, match=r"tokens of prompt, and the model's context is 20: lower dataset\.maxPrompt"
    ):
        assembled(tmp_path, strategy="grpo", question=30)


def test_what_hints_may_show_of_the_solutions_is_logged_and_exported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    solutions = ("#### w60", "w3 w4 w5 #### w60", "w3 w4 w5 w6 #### w60 w7 w8")
    rows = [json.dumps({"problem": "w9", "solution": solution, "answer": "w60"}) for solution in solutions]
    share = "seele_solution_revealable_ratio"

    def exported(strategy: str) -> list[float | None]:
        registry = assembled(tmp_path / strategy, strategy=strategy, rows=rows).recorder.registry
        buckets = [registry.get_sample_value(f"{share}_bucket", {"le": bound}) for bound in ("0.0", "0.5", "0.55")]
        return [*buckets, registry.get_sample_value(f"{share}_count"), registry.get_sample_value(f"{share}_sum")]

    with caplog.at_level(logging.INFO):
        assert exported("grpo") == [0, 0, 0, 0, 0]
        assert "hints may show" not in caplog.text
        assert exported("seele") == pytest.approx([1, 2, 2, 3, 0 + 3 / 5 + 1 / 2])
    assert "hints may show 36.7% of a solution on average; at most 10.0% in a tenth of the problems" in caplog.text
    assert "at least 50.0% in half" in caplog.text


def test_answers_of_an_evaluation_fit_the_context_with_its_longest_prompt(tmp_path: Path) -> None:
    parts = assembled(tmp_path, benchmark_words=12, max_completion_tokens=16)
    longest = max(len(prompt) for prompt in parts.benchmarks[0].prompts)
    assert longest + parts.answer_tokens == CONTEXT


def test_a_benchmark_that_leaves_no_room_for_an_answer_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="benchmark held-out has a prompt of"):
        assembled(tmp_path, benchmark_words=25)


async def test_the_pool_follows_the_list_of_servers_and_checks_that_the_attempt_is_the_newest(
    tmp_path: Path,
) -> None:
    server = FakeVllm()
    await server.start()
    (tmp_path / "urls").write_text(f"{server.url}\n")
    parts = assembled(tmp_path, engine="vllm", urls_file=tmp_path / "urls")
    try:
        await parts.engine.start()
        Attempt(tmp_path / "run", 2).claim()
        with pytest.raises(Superseded):
            await parts.engine.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
        assert server.requests["reload"] == 0
    finally:
        await parts.engine.close()
        await server.stop()


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
async def test_engine_and_grader_know_the_stop_strings_and_the_grader_knows_the_rule(
    tmp_path: Path, engine: str
) -> None:
    server = FakeVllm()
    await server.start()
    (tmp_path / "urls").write_text(f"{server.url}\n")
    parts = assembled(tmp_path, engine=engine, urls_file=tmp_path / "urls", stop=["w7", " w8"], truncated="mask")
    stop = parts.grader.stop
    try:
        await parts.engine.start()
        completions = await parts.engine.generate(parts.problems[0].prompt, Sampling(64, 6, 1.0, seed=0))
    finally:
        await parts.engine.close()
        await server.stop()
    if engine == "vllm":
        assert server.bodies[-1]["stop"] == ["w7", " w8"]
    else:
        assert any(stop.end(one.tokens) for one in completions)
        assert [stop.cut(one) for one in completions] == completions
    assert (stop.strings, parts.grader.truncated) == (("w7", " w8"), "mask")


def test_a_method_that_reads_no_solutions_starts_without_them(tmp_path: Path) -> None:
    row = json.dumps({"problem": words(3), "answer": "w60"})
    with pytest.raises(BadDataError, match=r"no column 'solution'"):
        assembled(tmp_path, strategy="luffy", rows=[row, row])
    assert [problem.solution for problem in assembled(tmp_path, strategy="grpo", rows=[row, row]).problems] == [
        (EOS,)
    ] * 2


def test_bad_rows_are_skipped_with_a_warning_that_counts_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = json.dumps({"problem": "w3 w4", "solution": "w5 #### w60", "answer": "w60"})
    rows = ["{", good, good.replace("w3", "strange"), good, good.replace('"w60"', '"$$"')]
    with pytest.raises(BadDataError, match=r"train\.jsonl, line 1: broken JSON"):
        assembled(tmp_path, rows=rows)
    problems = assembled(tmp_path, rows=rows, on_bad_row="skip").problems
    assert len(problems) == 2
    (warning,) = [record.getMessage() for record in caplog.records if "bad rows" in record.getMessage()]
    assert warning.startswith("skipped 3 bad rows: ")
    assert "line 1: broken JSON" in warning
    assert "problem 5: no completion can match the answer '$$'" in warning
    assert "changes the prompt of problem 3: character 1, 'strange w4\\n' becomes 'w0 w4\\n'" in warning


def test_a_later_attempt_reads_what_the_first_one_prepared_and_any_other_data_are_prepared_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    row = json.dumps({"problem": "w3 w4", "solution": "w5 #### w60", "answer": "w60"})
    unsatisfiable = row.replace('"w60"', '"$$"')
    first = assembled(tmp_path, rows=[row, row, unsatisfiable])
    with monkeypatch.context() as patched:
        patched.setattr("seele_trainer.data.prepared.tokenize_all", lambda *_: pytest.fail("tokenised again"))
        again = assembled(tmp_path, rows=[row, row, unsatisfiable])
    assert again.problems == first.problems
    assert again.data_fingerprint == first.data_fingerprint
    lines = [record.getMessage() for record in caplog.records]
    assert sum("as an earlier attempt prepared them" in line for line in lines) == 1
    assert sum("skipped 1 bad row: problem 3: no completion can match the answer '$$'" in line for line in lines) == 2
    assert len(assembled(tmp_path, rows=[row, row, row]).problems) == 3


def test_without_a_list_of_servers_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="set SEELE_ROLLOUT_URLS"):
        assembled(tmp_path, engine="vllm")


def test_a_model_that_does_not_exist_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        BadModelError, match=r"^model.name is 'nowhere/nothing', whose .* cannot be loaded: "
    ) as refused:
        load_tokenizer(Model(name="nowhere/nothing"))
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, RefusedInput)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadModelError, match="whose tokenizer cannot be loaded: "):
        load_tokenizer(Model(name=str(tmp_path)))


def test_the_context_length_of_the_run_comes_first_then_that_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 64}))
    assert context_length(Model(name=str(tmp_path))) == 64
    assert context_length(Model(name=str(tmp_path), context_length=32)) == 32


def test_a_model_without_a_limit_needs_one_in_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(BadModelError, match=r"has no max_position_embeddings: set model.contextLength"):
        context_length(Model(name=str(tmp_path)))
