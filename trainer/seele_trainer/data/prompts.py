"""Prompts: questions in a template, as token ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from seele_trainer.data.problem import BadTokenizerError
from seele_trainer.data.tokenizer import TextTokenizer, difference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template: TypeAlias = Literal["r1-zero", "chat", "plain"]

R1_ZERO = (
    "Below, a user gives an assistant a problem. The assistant first reasons about it step by step, "
    "and then gives the final answer inside \\boxed{{}}.\n\nUser: {question}\n\nAssistant:\n"
)
"""Modelled on DeepSeek-R1-Zero's template (arXiv 2501.12948, Table 1): plain text, for any base model."""

_TEXTS: Mapping[Template, str] = {"r1-zero": R1_ZERO, "plain": "{question}\n"}
"""The templates that are plain text."""

INSTRUCTION = "Reason step by step, and give the final answer inside \\boxed{}."
"""Follows the question in the chat template; the rest of the template is the model's."""

_UNUSABLE = "dataset.promptTemplate is chat, but the chat template of the model's tokenizer cannot be used"
_NO_CHAT = "use r1-zero for a base model"

_MARKER = "seele-question-marker"
"""Stands for the question when the parts of a chat template around it are needed."""

_TODAY = datetime(2024, 7, 26)
"""The date in chat templates that show one: prompts must not change from day to day, nor when a run is resumed. It is
the one that Llama 3.1's template shows by itself."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as text, without a beginning-of-sequence token, and as token ids, with it.

    `content` is what a chat template was given for the user's turn.
    """

    text: str
    ids: tuple[int, ...]
    content: str = ""


@dataclass(frozen=True)
class PromptEncoder:
    """Puts questions into a template. Special tokens are control tokens in a chat template, but text in a question.

    `beginning` is the beginning-of-sequence token, if texts start with one; `render` is the chat template. For `quoted`
    the tokens that the template writes are special, too, if they are not declared so, such as DeepSeek's `<｜User｜>`.
    """

    text: TextTokenizer
    template: Template
    beginning: tuple[int, ...] = ()
    render: Callable[[str], str] | None = None
    quoted: TextTokenizer | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, template: Template) -> PromptEncoder:
        """For a model's tokenizer. Raises BadTokenizerError if it lacks character offsets or, for `chat`, a template."""
        if not tokenizer.is_fast:
            raise BadTokenizerError(
                "the model's tokenizer gives no character offsets, which hints need: "
                "it needs a tokenizer.json (a fast tokenizer)"
            )
        text = TextTokenizer(tokenizer.backend_tokenizer)
        if template != "chat":
            return cls(text, template, _beginning(tokenizer))
        if not getattr(tokenizer, "chat_template", None):
            raise BadTokenizerError(
                f"dataset.promptTemplate is chat, but the model's tokenizer has no chat template: {_NO_CHAT}"
            )

        def render(content: str) -> str:
            messages = [{"role": "user", "content": content}]
            try:
                return str(
                    tokenizer.apply_chat_template(
                        messages, tokenize=False, add_generation_prompt=True, strftime_now=_TODAY.strftime
                    )
                )
            except Exception as error:  # a template is a program of the model's authors, and may raise anything
                raise BadTokenizerError(f"{_UNUSABLE}: {' '.join(str(error).split())}; {_NO_CHAT}") from error

        frame = render(_MARKER)
        if _MARKER not in frame:
            raise BadTokenizerError(f"{_UNUSABLE}: it leaves the question out; {_NO_CHAT}")
        # The template writes its own special tokens, including the first one.
        return cls(text, template, render=render, quoted=text.with_special(frame))

    def encode(self, questions: Sequence[str]) -> list[Prompt]:
        """The prompt of each question."""
        if self.render is not None:
            return self._encode_chat(self.render, questions)
        texts = [_TEXTS[self.template].format(question=question) for question in questions]
        encoded = self.text.encode_ids(texts, markup=False)
        return [Prompt(text, (*self.beginning, *ids)) for text, ids in zip(texts, encoded, strict=True)]

    def changes(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """For each prompt, where its tokens stand for another text; None if they stand for its own.

        White space beside the control tokens of a chat template may change: some of them absorb it. A template may
        remove white space around the question, but must not change the question.
        """
        bodies = [prompt.ids[len(self.beginning) :] for prompt in prompts]
        return [self._change(*each) for each in zip(prompts, bodies, self.text.decode(bodies), strict=True)]

    def _change(self, prompt: Prompt, ids: tuple[int, ...], decoded: str) -> str | None:
        text, pattern = prompt.text, self.text.control_pattern
        if self.render is None:
            return self.text.change(text, ids, decoded)
        if prompt.content.strip() not in text:
            return "its chat template does not repeat the question as it is"
        if pattern is not None:
            text, decoded = (pattern.sub(r"\1", side).strip() for side in (text, decoded))
        return None if self.text.same(text, decoded) else difference(text, decoded)

    def _encode_chat(self, render: Callable[[str], str], questions: Sequence[str]) -> list[Prompt]:
        contents = [f"{question}\n{INSTRUCTION}" for question in questions]
        texts = [render(content) for content in contents]
        encoded = self.text.encode_ids(texts, markup=True)
        quoted = self.quoted or self.text
        control = quoted.control_pattern
        for index, content in enumerate(contents):
            if control is not None and control.search(content):
                encoded[index] = self._guarded(render, content, control, quoted)
        return list(map(Prompt, texts, encoded, contents))

    def _guarded(
        self, render: Callable[[str], str], content: str, control: re.Pattern[str], quoted: TextTokenizer
    ) -> tuple[int, ...]:
        """Token ids of a chat whose content has the name of a special token, which must not become one.

        Everything between the template's last control token before the content and its first after it is text.
        """
        before, _, after = render(_MARKER).partition(_MARKER)
        text = render(content)
        start = max((match.end(1) for match in control.finditer(before)), default=0)
        first = control.search(after)
        end = len(text) - len(after) + (first.start(1) if first else len(after))
        head, tail = self.text.encode_ids([text[:start], text[end:]], markup=True)
        (middle,) = quoted.encode_ids([text[start:end]], markup=False)
        return (*head, *middle, *tail)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], template: Template
) -> list[tuple[int, ...]]:
    """Token ids of the prompt for each question, with the beginning-of-sequence token if the tokenizer adds one.

    Raises BadTokenizerError for `chat` with a tokenizer that has no chat template.
    """
    return [prompt.ids for prompt in PromptEncoder.of(tokenizer, template).encode(questions)]


def stop_strings(template: Template, stop: Sequence[str] | None) -> tuple[str, ...]:
    """What ends a completion: `rollout.stop`, or by default the line that begins the next question in the template.

    That is what a base model writes that does not stop after its answer. A template without a label before the question
    has none, and turns of a chat end with a token.
    """
    if stop is not None:
        return tuple(stop)
    label = _TEXTS.get(template, "").partition("{question}")[0].rpartition("\n")[2].strip()
    return (f"\n{label}",) if label else ()


def _beginning(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    # Some tokenizers end a text with a separator or end token. A prompt must stay open, so only the first token is kept.
    whole = tokenizer("x")["input_ids"]
    begins = tokenizer.bos_token_id is not None and whole[:1] == [tokenizer.bos_token_id]
    return (int(whole[0]),) if begins else ()
