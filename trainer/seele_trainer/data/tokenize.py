"""Tokenise problems once: their prompts, their solutions, and how much of each solution hints may show."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

from seele_trainer.config import Dataset
from seele_trainer.data.problem import BadRows, BadTokenizerError, Problem, TokenizedProblem
from seele_trainer.data.prompts import Prompt, PromptEncoder, Template
from seele_trainer.data.reveal import Cuts, cut_here, cuts_for
from seele_trainer.data.tokenizer import Tokens, difference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 256
"""Problems that are tokenised together: enough for all cores, few enough to show progress several times a second."""

TooLong: TypeAlias = Literal["prompt", "solution"]
Outcome: TypeAlias = TokenizedProblem | TooLong | BadTokenizerError

_LINE_BREAK = re.compile(r"(?=\s)(?<=\S)[ \t\r]*\n(?:[ \t\r]*\n)*")
"""The end of a line that is not blank, with the blank lines after it, which belong to the same step."""

_RARE = re.compile("[\u0300-\U0010ffff]")
"""All characters that may belong to the one before them, and others; few texts have many."""
_JOINER = "\u200d"
_SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}")


@dataclass(frozen=True)
class Dropped:
    """How many problems were skipped, and why; those `without_hint` were kept, but no part of them can be shown."""

    prompt_too_long: int = 0
    solution_too_long: int = 0
    without_hint: int = 0

    @property
    def total(self) -> int:
        """Problems that were skipped."""
        return self.prompt_too_long + self.solution_too_long

    def __str__(self) -> str:
        return (
            f"{self.prompt_too_long} with too long a prompt, {self.solution_too_long} with too long a solution "
            f"({self.without_hint} kept without any part that can be shown)"
        )


def tokenize_all(
    problems: Sequence[Problem],
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    bad_rows: BadRows | None = None,
    progress: Callable[[int], None] = lambda done: None,
    vocabulary: int | None = None,
) -> tuple[list[TokenizedProblem], Dropped]:
    """Tokenise the problems within the data set's limits, in their order, and count the others.

    A problem whose text the tokenizer changes is a bad row, and so is one with a token beyond the model's `vocabulary`.
    `progress` gets the number of problems done, several times a second. Raises BadTokenizerError for a tokenizer that
    lacks what hints need, or that changes the text of more than half of the first problems.
    """
    bad_rows = bad_rows or BadRows()
    parts = ProblemTokenizer.of(tokenizer, dataset.prompt_template, vocabulary)
    kept: list[TokenizedProblem] = []
    too_long: dict[TooLong, int] = {"prompt": 0, "solution": 0}
    done = 0
    with cuts_for(len(problems)) as cuts:
        batches = (problems[start : start + BATCH] for start in range(0, len(problems), BATCH))
        limits = dataset.max_prompt_tokens, dataset.max_solution_tokens
        begun = (parts.begin(batch, *limits, cuts) for batch in batches)
        # The next batch is begun before one is finished, so that other processes always have cuts to find.
        for finish, _ in pairwise(chain(begun, (list,))):
            outcomes: list[Outcome] = finish()
            faults = [outcome for outcome in outcomes if isinstance(outcome, BadTokenizerError)]
            if not done and 2 * len(faults) > len(outcomes):
                raise faults[0]
            for outcome in outcomes:
                if isinstance(outcome, TokenizedProblem):
                    kept.append(outcome)
                elif isinstance(outcome, BadTokenizerError):
                    bad_rows.add(outcome)
                else:
                    too_long[outcome] += 1
            done += len(outcomes)
            progress(done)
    without_hint = sum(not problem.revealable and bool(problem.problem.solution) for problem in kept)
    return kept, Dropped(too_long["prompt"], too_long["solution"], without_hint)


def tokenize(problem: Problem, tokenizer: PreTrainedTokenizerBase, template: Template) -> TokenizedProblem:
    """Tokenise one problem of any length. Raises BadTokenizerError if the tokenizer changes its text."""
    (outcome,) = ProblemTokenizer.of(tokenizer, template).tokenize([problem])
    if isinstance(outcome, BadTokenizerError):
        raise outcome
    assert isinstance(outcome, TokenizedProblem)
    return outcome


@dataclass(frozen=True)
class ProblemTokenizer:
    """Tokenises problems: prompts by `prompts`, solutions in one piece with the token `end` after them.

    `model` is the name of the model in messages, `vocabulary` the number of tokens that it has an embedding for.
    """

    prompts: PromptEncoder
    model: str
    end: int
    vocabulary: int | None = None

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, template: Template, vocabulary: int | None = None
    ) -> ProblemTokenizer:
        """For a model's tokenizer.

        Raises BadTokenizerError if it lacks character offsets or an end-of-sequence token that the model knows.
        """
        prompts = PromptEncoder.of(tokenizer, template)
        if tokenizer.eos_token_id is None:
            raise BadTokenizerError(
                "the model's tokenizer has no end-of-sequence token: set eos_token in tokenizer_config.json"
            )
        end = int(tokenizer.eos_token_id)
        if vocabulary is not None and end >= vocabulary:
            raise BadTokenizerError(
                f"the model's tokenizer ends texts with {tokenizer.eos_token!r}, token {end}, and the model knows only "
                f"{vocabulary} tokens: set eos_token in tokenizer_config.json to one of them"
            )
        return cls(prompts, str(tokenizer.name_or_path), end, vocabulary)

    def tokenize(
        self,
        problems: Sequence[Problem],
        max_prompt: int | None = None,
        max_solution: int | None = None,
        cuts: Cuts = cut_here,
    ) -> list[Outcome]:
        """For each problem its tokens, or which part of it is too long, or how the tokenizer changes its text."""
        return self.begin(problems, max_prompt, max_solution, cuts)()

    def begin(
        self, problems: Sequence[Problem], max_prompt: int | None, max_solution: int | None, cuts: Cuts
    ) -> Callable[[], list[Outcome]]:
        """Tokenise problems and have their solutions cut. What is returned waits for the cuts, as `tokenize`.

        Lengths come first, because finding the cut of a solution takes much longer than counting its tokens.
        """
        drafts = [_Draft(problem) for problem in problems]
        for draft in drafts:
            draft.outcome = self._surely_too_long(draft.problem, max_prompt, max_solution)
        self._encode(_open(drafts), max_prompt, max_solution)
        self._compare(_open(drafts))
        left = _open(drafts)
        found = cuts([draft.problem for draft in left])

        def finish() -> list[Outcome]:
            for draft, shown in zip(left, found, strict=True):
                draft.cut = _cut(draft.problem.solution, draft.solution, shown)
            self._compare_hints(left)
            return [draft.outcome or self._assembled(draft) for draft in drafts]

        return finish

    def _surely_too_long(self, problem: Problem, max_prompt: int | None, max_solution: int | None) -> TooLong | None:
        text = self.prompts.text
        if max_prompt is not None and text.surely_longer(problem.question, max_prompt):
            return "prompt"
        if max_solution is not None and text.surely_longer(problem.solution, max_solution):
            return "solution"
        return None

    def _encode(self, drafts: list[_Draft], max_prompt: int | None, max_solution: int | None) -> None:
        prompts = self.prompts.encode([draft.problem.question for draft in drafts])
        solutions = self.prompts.text.encode([draft.problem.solution for draft in drafts])
        for draft, prompt, solution in zip(drafts, prompts, solutions, strict=True):
            draft.prompt, draft.solution = prompt, solution
            if max_prompt is not None and len(prompt.ids) > max_prompt:
                draft.outcome = "prompt"
            elif max_solution is not None and len(solution.ids) + 1 > max_solution:
                draft.outcome = "solution"

    def _compare(self, drafts: list[_Draft]) -> None:
        """Find the texts that the tokenizer changes."""
        text = self.prompts.text
        prompts = self.prompts.changes([draft.prompt for draft in drafts])
        decoded = text.decode([draft.solution.ids for draft in drafts])
        for draft, prompt, back in zip(drafts, prompts, decoded, strict=True):
            solution = text.change(draft.problem.solution, draft.solution.ids, back)
            highest = max((*draft.prompt.ids, *draft.solution.ids), default=0)
            if self.vocabulary is not None and highest >= self.vocabulary:
                draft.outcome = BadTokenizerError(
                    f"model.name is {self.model!r}, whose tokenizer gives problem {draft.problem.id} the token {highest}, "
                    f"and the model knows only {self.vocabulary} tokens (vocab_size): give the tokenizer of this model"
                )
            elif prompt is not None:
                draft.outcome = self._fault(draft.problem, "prompt", prompt)
            elif solution is not None:
                draft.outcome = self._fault(draft.problem, "solution", solution)

    def _compare_hints(self, drafts: list[_Draft]) -> None:
        """Find the solutions whose longest hint shows another text than the one before their cut."""
        text = self.prompts.text
        shown = text.decode([draft.solution.ids[: draft.cut.revealable] for draft in drafts])
        for draft, decoded in zip(drafts, shown, strict=True):
            # What a normalisation joins to the last token, such as an accent, is between its end and the next one.
            later = draft.solution.offsets[draft.cut.revealable :][:1] if draft.cut.revealable else ()
            ends = (draft.cut.end, *(start for start, _ in later))
            expected = [draft.problem.solution[:end].rstrip() for end in ends]
            if not any(text.same(before, decoded.rstrip()) for before in expected):
                draft.outcome = self._fault(draft.problem, "longest hint", difference(expected[0], decoded))

    def _fault(self, problem: Problem, part: str, change: str) -> BadTokenizerError:
        return BadTokenizerError(
            f"model.name is {self.model!r}, whose tokenizer changes the {part} of problem {problem.id}: {change}. "
            "Correct the problem's text, or give a model whose tokenizer.json preserves it"
        )

    def _assembled(self, draft: _Draft) -> TokenizedProblem:
        return TokenizedProblem(
            problem=draft.problem,
            prompt=draft.prompt.ids,
            solution=(*draft.solution.ids, self.end),
            revealable=draft.cut.revealable,
            step_ends=draft.cut.step_ends,
            inside_characters=draft.cut.inside_characters,
        )


@dataclass(frozen=True)
class _Cut:
    """How much of a solution hints may show, in tokens and in characters, and where they may end: see TokenizedProblem."""

    revealable: int
    end: int
    step_ends: tuple[int, ...]
    inside_characters: frozenset[int]


_NO_PROMPT, _NO_TOKENS, _NO_CUT = Prompt("", ()), Tokens((), ()), _Cut(0, 0, (), frozenset())


@dataclass(slots=True)
class _Draft:
    """A problem on its way through the steps of `ProblemTokenizer.tokenize`; with an outcome it takes no further ones."""

    problem: Problem
    outcome: TooLong | BadTokenizerError | None = None
    prompt: Prompt = _NO_PROMPT
    solution: Tokens = _NO_TOKENS
    cut: _Cut = _NO_CUT


def _open(drafts: list[_Draft]) -> list[_Draft]:
    return [draft for draft in drafts if draft.outcome is None]


def _cut(text: str, tokens: Tokens, shown: int) -> _Cut:
    """`revealable` counts the leading tokens that are entirely among the `shown` characters."""
    ends = _token_ends(tokens)
    inside = _inside_characters(text, tokens, ends)
    revealable = bisect_left(ends, shown + 1)
    while revealable in inside:
        revealable -= 1
    steps = _step_ends(text, ends, revealable)
    end = ends[revealable - 1] if revealable else 0
    return _Cut(revealable, end, tuple(step for step in steps if step not in inside), inside)


def _token_ends(tokens: Tokens) -> list[int]:
    """Character offset at which each token ends, never decreasing.

    The tokens of a character that is split into bytes all end after it, so none of them is shown without the others.
    """
    ends = [end for _, end in tokens.offsets]
    return ends if ends == sorted(ends) else list(accumulate(ends, max))


def _inside_characters(text: str, tokens: Tokens, ends: list[int]) -> frozenset[int]:
    """Numbers of leading tokens after which the next one continues a character: it begins before they end, or with a mark
    that belongs to the letter or symbol before it."""
    if text.isascii():
        return frozenset()
    joints = {at for match in _RARE.finditer(text) if _joined(text[max(0, (at := match.start()) - 1) : at + 1])}
    return frozenset(
        number
        for number in range(1, len(ends))
        if tokens.offsets[number][0] < ends[number - 1] or ends[number - 1] in joints
    )


def _joined(pair: str) -> bool:
    """Whether two characters are read as one: a letter and its accent, or the parts of a composed symbol or a flag."""
    return len(pair) == 2 and (
        unicodedata.category(pair[1]).startswith("M")
        or _JOINER in pair
        or _SKIN_TONES.match(pair[1]) is not None
        or _FLAG.match(pair) is not None
    )


def _step_ends(solution: str, ends: list[int], revealable: int) -> tuple[int, ...]:
    """Token offsets in [1, revealable] at which a line of the solution ends, including its line breaks."""
    steps: list[int] = []
    for line_break in _LINE_BREAK.finditer(solution):
        tokens = bisect_left(ends, line_break.end()) + 1
        if tokens > revealable:
            break
        if not steps or tokens > steps[-1]:
            steps.append(tokens)
    return tuple(steps)
