"""Problems are tokenised once, and hints cut between tokens never show more than they may."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from seele_trainer.config import Dataset
from seele_trainer.data.problem import BadTokenizerError, Problem
from seele_trainer.data.reveal import cut_here
from seele_trainer.data.tokenize import ProblemTokenizer, tokenize, tokenize_all
from seele_trainer.data.tokenizer import Tokens

SOLUTION = "First 2+3 = 5.\n\nStep 2: then 5*4 = 20.\nIn all 20+1 = 21.\n#### 21"
PROBLEM = Problem("1", "How many?", SOLUTION, "21")


@pytest.fixture(params=["gsm8k_tokenizer", "merging_tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    chosen: PreTrainedTokenizerFast = request.getfixturevalue(request.param)
    return chosen


def test_the_solution_keeps_its_text_and_ends_with_the_end_token(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenized = tokenize(PROBLEM, tokenizer, "plain")
    assert tokenizer.decode(tokenized.solution[:-1]) == SOLUTION
    assert tokenized.solution[-1] == tokenizer.eos_token_id
    assert tokenized.revealable < len(tokenized.solution) - 1
    assert tokenizer.decode(tokenized.prompt) == "How many?\n"


def test_the_longest_hint_stops_before_the_result(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenized = tokenize(PROBLEM, tokenizer, "plain")
    longest = tokenizer.decode(tokenized.hint(tokenized.revealable))
    assert longest == "First 2+3 = 5.\n\nStep 2: then 5*4 = 20.\nIn all 20+1"


def test_steps_end_with_their_line_breaks(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenized = tokenize(PROBLEM, tokenizer, "plain")
    ends = [tokenizer.decode(tokenized.hint(end)) for end in tokenized.step_ends]
    assert ends == ["First 2+3 = 5.\n\n", "First 2+3 = 5.\n\nStep 2: then 5*4 = 20.\n"]
    assert tokenized.hint_length(1.0, "step") == tokenized.step_ends[-1]
    assert tokenized.hint_length(0.0, "step") == 0


def test_a_hint_is_a_prefix_of_the_tokens_not_of_a_new_tokenisation(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenized = tokenize(PROBLEM, tokenizer, "plain")
    whole = tokenizer(SOLUTION, add_special_tokens=False)["input_ids"]
    for length in range(tokenized.revealable + 1):
        assert tokenized.hint(length) == tuple(whole[:length])


def test_a_character_of_several_tokens_is_shown_whole_or_not_at_all(tokenizer: PreTrainedTokenizerFast) -> None:
    problem = Problem("1", "?", "Wow 🦆 is 7", "7")
    tokenized = tokenize(problem, tokenizer, "plain")
    assert tokenizer.decode(tokenized.hint(tokenized.revealable)) == "Wow 🦆 is"
    cut_inside = tokenize(Problem("1", "?", "Wow 🦆", "🦆"), tokenizer, "plain")
    assert tokenizer.decode(cut_inside.hint(cut_inside.revealable)).strip() == "Wow"


def test_problems_that_are_too_long_are_left_out_and_counted(gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    problems = [
        PROBLEM,
        Problem("long question", "Why? " * 50, SOLUTION, "21"),
        Problem("long solution", "Why?", "Think. " * 50 + "#### 21", "21"),
        Problem("no hint", "Why?", "21\n#### 21", "21"),
    ]
    dataset = Dataset(path="x.jsonl", prompt_template="plain", max_prompt_tokens=40, max_solution_tokens=60)
    kept, dropped = tokenize_all(problems, gsm8k_tokenizer, dataset)
    assert [tokenized.problem.id for tokenized in kept] == ["1", "no hint"]
    assert (dropped.prompt_too_long, dropped.solution_too_long, dropped.without_hint) == (1, 1, 1)
    assert dropped.total == 2
    assert kept[1].revealable == 0
    assert kept[1].step_ends == ()
    assert kept[1].hint_length(1.0, "token") == kept[1].hint_length(1.0, "step") == 0


def test_a_tokenizer_without_end_token_is_refused(gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=gsm8k_tokenizer.backend_tokenizer)
    with pytest.raises(BadTokenizerError, match="no end-of-sequence token"):
        tokenize(PROBLEM, endless, "plain")


def test_a_tokenizer_without_offsets_is_refused(
    gsm8k_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(BadTokenizerError, match=r"no character offsets.*fast tokenizer"):
        tokenize(PROBLEM, gsm8k_tokenizer, "plain")


def test_too_long_solutions_are_not_cut_and_hopeless_ones_not_even_tokenised(
    gsm8k_tokenizer: PreTrainedTokenizerFast,
) -> None:
    problems = [PROBLEM, Problem("long", "Why?", "Think. " * 50, "21"), Problem("hopeless", "Why?", "x" * 10**6, "21")]
    cut: list[str] = []
    read: list[str] = []
    parts = ProblemTokenizer.of(gsm8k_tokenizer, "plain")
    encode = parts.prompts.text.encode

    def cuts(left: Sequence[Problem]) -> list[int]:
        cut.extend(problem.id for problem in left)
        return cut_here(left)

    def counted(texts: Sequence[str]) -> list[Tokens]:
        read.extend(texts)
        return encode(texts)

    parts.prompts.text.encode = counted  # type: ignore[method-assign]
    outcomes = parts.tokenize(problems, 40, 60, cuts)
    assert outcomes[1:] == ["solution", "solution"]
    assert cut == ["1"]
    assert max(map(len, read)) < 1000


def test_many_problems_are_cut_by_other_processes_with_the_same_result(
    gsm8k_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [Problem(str(number), f"{number}?", SOLUTION, "21") for number in range(300)]
    dataset = Dataset(path="x.jsonl", prompt_template="plain")
    here = tokenize_all(problems, gsm8k_tokenizer, dataset)
    done: list[int] = []
    monkeypatch.setattr("seele_trainer.data.reveal.FEW", 100)
    monkeypatch.setattr("seele_trainer.data.reveal.cut_here", lambda problems: pytest.fail("cut by this process"))
    assert tokenize_all(problems, gsm8k_tokenizer, dataset, progress=done.append) == here
    assert done == [256, 300]


def test_the_next_problems_are_cut_before_the_last_ones_are_waited_for(
    gsm8k_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def cuts(problems: Sequence[Problem]) -> Iterator[int]:
        events.append(f"cut {problems[0].id}")
        return read(problems)

    def read(problems: Sequence[Problem]) -> Iterator[int]:
        events.append(f"read {problems[0].id}")
        yield from cut_here(problems)

    monkeypatch.setattr("seele_trainer.data.tokenize.BATCH", 1)
    monkeypatch.setattr("seele_trainer.data.tokenize.cuts_for", lambda count: nullcontext(cuts))
    problems = [replace(PROBLEM, id=name) for name in "abc"]
    tokenize_all(problems, gsm8k_tokenizer, Dataset(path="x.jsonl", prompt_template="plain"))
    assert events == ["cut a", "cut b", "read a", "cut c", "read b", "read c"]


def test_equal_tokens_of_all_problems_are_one_object(gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = Dataset(path="x.jsonl", prompt_template="plain")
    (one, other), _ = tokenize_all([PROBLEM, PROBLEM], gsm8k_tokenizer, dataset)
    assert max(one.solution) > 256
    assert all(a is b for a, b in zip(one.solution[:-1], other.solution[:-1], strict=True))
