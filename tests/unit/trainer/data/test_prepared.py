"""Problems are prepared once, and what a file keeps of them is used for the same problems alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from seele_trainer.config import Dataset, Verifier
from seele_trainer.data.golds import without_unsatisfiable
from seele_trainer.data.prepared import Preparer, read_prepared, write_prepared
from seele_trainer.data.problem import BadDataError, Problem

DATASET = Dataset(path="x.jsonl", prompt_template="plain", max_solution_tokens=60)
PROBLEMS = [
    Problem("first", "How many?", "First 2+3 = 5.\nThen 5*4 = 20.\n#### 20", "20"),
    Problem("of symbols", "Ünd 🦆?", "Wow 🦆🦆.\nSo it is 7.", "7"),
    Problem("too long", "Why?", "Think. " * 50 + "#### 21", "21"),
    Problem("without hint", "Why?", "21\n#### 21", "21"),
    Problem("unsatisfiable", "Why?", "Because.\n#### 3", r"\boxed{3} and \boxed{4}"),
]
ROWS = ["first", "of symbols", "without hint"]


@pytest.fixture
def preparer(gsm8k_tokenizer: PreTrainedTokenizerFast) -> Preparer:
    return Preparer(gsm8k_tokenizer, DATASET, Verifier(workers=1))


@pytest.fixture
def path(tmp_path: Path, preparer: Preparer) -> Path:
    """A file with the prepared problems under the key `key`."""
    write_prepared(tmp_path / "kept", "key", PROBLEMS, preparer.prepare(PROBLEMS), lambda: None)
    return tmp_path / "kept"


def test_a_later_attempt_has_the_same_problems_from_the_file(path: Path, preparer: Preparer) -> None:
    prepared, kept = preparer.prepare(PROBLEMS), read_prepared(path, "key", PROBLEMS)
    assert kept is not None
    assert kept.problems == prepared.problems
    assert [problem.problem.id for problem in kept.problems] == ROWS
    assert kept.problems[1].inside_characters
    assert kept.dropped == prepared.dropped
    assert str(kept.bad_rows) == str(prepared.bad_rows)


def test_equal_tokens_of_problems_from_the_file_are_one_object(tmp_path: Path, preparer: Preparer) -> None:
    twins = [Problem(name, *("How many?", PROBLEMS[0].solution, "20")) for name in "ab"]
    write_prepared(tmp_path / "kept", "key", twins, preparer.prepare(twins), lambda: None)
    kept = read_prepared(tmp_path / "kept", "key", twins)
    assert kept is not None
    one, other = kept.problems
    assert max(one.solution) > 256
    assert all(a is b for a, b in zip(one.solution, other.solution, strict=True))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: bytes(len(content)),
        lambda content: content[:-8] + bytes(8),
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
    ],
    ids=["a byte less", "half", "empty", "zeros", "zeros at the end", "one bit"],
)
def test_a_damaged_file_is_not_used(path: Path, damage: Callable[[bytes], bytes]) -> None:
    changed = damage(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    assert read_prepared(path, "key", PROBLEMS) is None


def test_a_missing_file_and_that_of_other_problems_are_not_used(path: Path) -> None:
    assert read_prepared(path, "another key", PROBLEMS) is None
    assert read_prepared(path.parent / "missing", "key", PROBLEMS) is None


def test_the_key_depends_on_all_that_changes_the_problems(
    preparer: Preparer, merging_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokenizer, exact = preparer.tokenizer, Verifier(method="exact")
    longer = DATASET.model_copy(update={"max_solution_tokens": 61})
    keys = [
        preparer.key("fingerprint"),
        preparer.key("another"),
        Preparer(merging_tokenizer, DATASET, Verifier()).key("fingerprint"),
        Preparer(tokenizer, longer, Verifier()).key("fingerprint"),
        Preparer(tokenizer, DATASET, exact).key("fingerprint"),
        Preparer(tokenizer, DATASET, Verifier(), vocabulary=100_000).key("fingerprint"),
    ]
    assert preparer.key("fingerprint") == keys[0]
    for name in ("data", "verify"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("changed")
        monkeypatch.setattr("seele_trainer.data.prepared._CODE", tmp_path)
        keys.append(preparer.key("fingerprint"))
    assert len(set(keys)) == len(keys)


def test_a_chat_template_is_part_of_the_key(gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = DATASET.model_copy(update={"prompt_template": "chat"})
    keys = set()
    for template in ("{{ messages[0].content }}", "User: {{ messages[0].content }}"):
        gsm8k_tokenizer.chat_template = template
        try:
            keys.add(Preparer(gsm8k_tokenizer, chat, Verifier()).key("fingerprint"))
        finally:
            gsm8k_tokenizer.chat_template = None
    assert len(keys) == 2


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, preparer: Preparer, caplog: pytest.LogCaptureFixture) -> None:
    write_prepared(tmp_path / "missing" / "kept", "key", PROBLEMS, preparer.prepare(PROBLEMS), lambda: None)
    assert "are not kept for a later attempt" in caplog.text


GOOD = [
    *("12", "-3.50", "1,200", r"\frac{1}{2}", r"$\frac{1}{2}$", r"\textbf{(B)}\ 12", "B", "Yes", "proof", "½", "∅"),
    *(r"90^\circ", "5 apples", r"x=1, \text{ or } x=2", r"(-\infty, 2]", r"\frac{1}{2", "9^{9^{9^9}}"),
    *(r"\begin{pmatrix}1\\2\end{pmatrix}", "12.", "**12**", "twelve", "x < 3", "#### 12", "多少", "A, B and C"),
]
BAD = [r"\boxed{3} and \boxed{4}", "</think> 12", "$$", r"\text{}", "."]


BOXED = r"\boxed{12}"
"""Only mathematics finds that a box with a 12 is 12."""


@pytest.mark.parametrize(("method", "good", "bad"), [("math", [BOXED], BAD), ("exact", [], [*BAD, BOXED])])
def test_an_answer_that_nothing_can_match_is_found(method: str, good: list[str], bad: list[str]) -> None:
    golds = [*GOOD, *good, *bad, "12", *BAD[:1]]
    problems = [Problem(str(row), "?", "", gold) for row, gold in enumerate(golds, start=1)]
    verifier = Verifier.model_validate({"method": method, "workers": 1})
    kept, skipped = without_unsatisfiable(problems, verifier)
    assert [problem.answer for problem in kept] == [*GOOD, *good, "12"]
    assert skipped.count == len(bad) + 1
    assert f"bad rows: problem {len(GOOD + good) + 1}: no completion can match the answer '" in str(skipped)
    with pytest.raises(BadDataError, match=r"no problem can be trained on: 1 bad row: problem 1: no completion"):
        without_unsatisfiable([Problem("1", "?", "", "$$")], verifier)


async def test_answers_are_checked_where_a_loop_is_running_and_many_show_progress() -> None:
    golds = [rf"\boxed{{{number}}} and \boxed{{{number}}}" for number in range(300)]
    done: list[int] = []
    problems = [Problem(str(row), "?", "", gold) for row, gold in enumerate([*golds, "12"])]
    kept, skipped = without_unsatisfiable(problems, Verifier(workers=1), done.append)
    assert [problem.answer for problem in kept] == ["12"]
    assert skipped.count == len(golds)
    assert done == [256, 256, 300]


class HangingPool:
    """A verifier whose checks all time out."""

    checks = 0

    def __init__(self, verifier: Verifier) -> None:
        self.timeouts = 0

    async def start(self) -> None:
        pass

    async def check(self, pairs: list[tuple[str, str]]) -> list[None]:
        HangingPool.checks += 1
        self.timeouts += len(pairs)
        return [None] * len(pairs)

    async def close(self) -> None:
        pass


def test_answers_whose_check_does_not_end_are_kept_and_few_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seele_trainer.data.golds.VerifierPool", HangingPool)
    monkeypatch.setattr("seele_trainer.data.golds.PER_SIGN", 4)
    problems = [Problem(str(row), "?", "", rf"\boxed{{{row}}} and \boxed{{3}}") for row in range(100)]
    assert without_unsatisfiable(problems, Verifier())[0] == problems
    assert HangingPool.checks == 2
