"""What a completion is graded on, and what it earns if the length limit cut it off: the same in training and evaluation."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from seele_trainer.config import Truncated
from seele_trainer.rollout.protocol import Completion
from seele_trainer.verify.extract import final_turn, marked_answer
from seele_trainer.verify.pool import VerifierPool

Decode = Callable[[Sequence[int]], str]


def _undecided(_: Sequence[int]) -> str:
    raise TypeError("stop strings need the text of tokens")


@dataclass(frozen=True)
class StopStrings:
    """Strings that end a completion with the first token with which its text contains one of them.

    The prompt and the hint do not count. `decode` gives the text of tokens, special tokens included: these can be stop
    strings, too. Engines need not end at the same token, because `cut` decides, with the trainer's own tokenizer.
    """

    strings: tuple[str, ...] = ()
    decode: Decode = _undecided

    def end(self, tokens: Sequence[int]) -> bool:
        """Whether a completion with these tokens is at its end, or beyond it."""
        return bool(self.strings) and self.before(text := self.decode(tokens)) != text

    def cut(self, completion: Completion) -> Completion:
        """The completion up to its end.

        The last token is kept as it was sampled, even if a stop string ends inside of it: that token ended the completion,
        so the policy is trained on it.
        """
        tokens = completion.tokens
        if not self.end(tokens):
            return completion
        count = len(tokens)
        # An engine that knows the stop strings has ended it with this token.
        if self.end(tokens[:-1]):
            count = bisect_left(range(count), True, key=lambda length: self.end(tokens[:length]))
        return replace(completion, tokens=tokens[:count], logprobs=completion.logprobs[:count], finish_reason="stop")

    def before(self, text: str) -> str:
        """The text before the first stop string."""
        return text[: min((at for one in self.strings if (at := text.find(one)) >= 0), default=len(text))]


NO_STOP = StopStrings()


@dataclass(frozen=True)
class Graded:
    """A completion up to its end, and whether its answer is right: None if the check timed out or crashed.

    The tokens of a `masked` one are not trained on.
    """

    completion: Completion
    verdict: bool | None
    masked: bool


@dataclass(frozen=True)
class Grader:
    """Has completions graded on their text, and applies `rewards.truncated`.

    `decode` gives the text of tokens without special tokens.
    """

    verifier: VerifierPool
    decode: Decode
    stop: StopStrings = NO_STOP
    truncated: Truncated = "zero"

    async def grade(self, items: Sequence[tuple[Completion, str]]) -> list[Graded]:
        """Grade completions, each with the expected answer, in order. Raises VerifierError if no worker can run."""
        completions = [self.stop.cut(completion) for completion, _ in items]
        texts = [self.stop.before(self.decode(completion.tokens)) for completion in completions]
        verdicts = await self.verifier.check(
            [(text, expected) for text, (_, expected) in zip(texts, items, strict=True)]
        )
        return [self._graded(*each) for each in zip(completions, texts, verdicts, strict=True)]

    def _graded(self, completion: Completion, text: str, verdict: bool | None) -> Graded:
        if completion.finish_reason != "length" or self.truncated == "grade":
            return Graded(completion, verdict, masked=False)
        # The last number of a text that was cut off is an intermediate result, and no answer.
        marked = marked_answer(final_turn(text)) is not None
        return Graded(completion, verdict if marked else False, masked=self.truncated == "mask")
