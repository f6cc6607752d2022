"""Where a completion ends, and what a truncated one earns."""

from collections.abc import Sequence
from typing import Literal

import pytest

from seele_trainer.config import Truncated
from seele_trainer.rollout.grading import Graded, Grader, StopStrings
from seele_trainer.rollout.protocol import Completion

USER = "\nUser:"


class Recording:
    """Accepts every text, and keeps it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def check(self, items: Sequence[tuple[str, str]]) -> list[bool | None]:
        self.texts += [text for text, _ in items]
        return [True] * len(items)


async def graded(
    pieces: Sequence[str],
    finish_reason: Literal["stop", "length"] = "stop",
    strings: tuple[str, ...] = (),
    truncated: Truncated = "zero",
) -> tuple[Graded, str]:
    """A completion of these pieces as graded, and the text that it was graded on; `<…>` is a special token."""

    def decode(tokens: Sequence[int]) -> str:
        return "".join(pieces[token] for token in tokens if not pieces[token].startswith("<"))

    completion = Completion(
        tuple(range(len(pieces))), tuple(-0.1 * number for number in range(len(pieces))), finish_reason, 3
    )
    verifier = Recording()
    stop = StopStrings(strings, lambda tokens: "".join(pieces[token] for token in tokens))
    (one,) = await Grader(verifier, decode, stop, truncated).grade([(completion, "8")])  # type: ignore[arg-type]
    return one, verifier.texts[0]


@pytest.mark.parametrize(
    ("pieces", "strings", "kept", "text"),
    [
        pytest.param(
            ["\\boxed{8}", "\n", "User", ":"], (USER,), 4, "\\boxed{8}", id="the answer right before it survives"
        ),
        pytest.param(["8", "\n\nUser: What", " is", " 9?"], (USER,), 2, "8\n", id="it ends inside a token"),
        pytest.param(["8", "\n", "User", ":", " 9"], (USER,), 4, "8", id="an engine that did not stop"),
        pytest.param(["8", "\nUs", "er", "s: 9"], (USER,), 4, "8\nUsers: 9", id="only its beginning"),
        pytest.param(["User", ":", " 8"], (USER,), 3, "User: 8", id="its first character is the prompt's last"),
        pytest.param(["\nUser:", " 8"], (USER,), 1, "", id="at once"),
        pytest.param(["8", "\n", "User: Q", ": 9"], ("Q:", "User", "\nU"), 3, "8", id="the first of several"),
        pytest.param(["8", "<end>", " 9"], ("<end>",), 2, "8", id="a special token"),
        pytest.param(["8", "\nUser:", " 9"], (), 3, "8\nUser: 9", id="none"),
    ],
)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
async def test_a_completion_ends_with_the_token_that_completes_a_stop_string_and_is_graded_on_what_precedes_it(
    pieces: list[str], strings: tuple[str, ...], kept: int, text: str, finish_reason: Literal["stop", "length"]
) -> None:
    one, seen = await graded(pieces, finish_reason, strings)
    assert one.completion.tokens == tuple(range(kept))
    assert one.completion.logprobs == tuple(-0.1 * number for number in range(kept))
    ended = any(string in "".join(pieces) for string in strings)
    assert one.completion.finish_reason == ("stop" if ended else finish_reason)
    assert seen == text


@pytest.mark.parametrize(
    ("text", "finish_reason", "rule", "verdict", "masked"),
    [
        ("So 24/3 = 8.", "stop", "zero", True, False),
        ("So 24/3 = 8.", "length", "zero", False, False),
        ("So \\boxed{8}. To check,", "length", "zero", True, False),
        ("<think>Is it \\boxed{8}?</think> So 8.", "length", "zero", False, False),
        ("So 24/3 = 8.", "length", "grade", True, False),
        ("So 24/3 = 8.", "length", "mask", False, True),
        ("So \\boxed{8}. To check,", "length", "mask", True, True),
        ("So 24/3 = 8.", "stop", "mask", True, False),
    ],
)
async def test_a_completion_that_the_length_limit_cut_off_earns_what_the_rule_says(
    text: str, finish_reason: Literal["stop", "length"], rule: Truncated, verdict: bool, masked: bool
) -> None:
    one, _ = await graded([" ", text], finish_reason, truncated=rule)
    assert (one.verdict, one.masked, one.completion.finish_reason) == (verdict, masked, finish_reason)
