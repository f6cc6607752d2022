"""Checks of the tokenizer in a model folder of this machine, without the libraries that only trainers need."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import shown
from seele_trainer.data.problem import BadTokenizerError, Problem
from seele_trainer.data.prompts import PromptEncoder
from seele_trainer.data.tokenize import ProblemTokenizer
from seele_trainer.data.tokenizer import TextTokenizer, UnloadableTokenizer, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE = 200
"""Problems that are tokenised: a tokenizer that changes texts changes most of them."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_CHAT_TEMPLATES = ("chat_template.jinja", "additional_chat_templates/default.jinja")


def tokenizer_faults(spec: SeeleRunSpec, folder: Path, problems: Sequence[Problem]) -> Iterator[str]:
    """What is wrong with a folder's chat template and tokenizer, given problems to train on.

    What the trainer loads tells everything, but its libraries take seconds to load. They are left out if tokenizer.json
    alone shows that the tokenizer is sound, or are not installed. A model's own code is never run.
    """
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        return
    name, sample = spec.model.name, problems[:SAMPLE]
    settings, vocabulary = _settings(folder / "tokenizer_config.json"), _vocabulary(_settings(folder / "config.json"))
    chat = spec.dataset.prompt_template == "chat"
    if chat and not _has_chat_template(folder, settings):
        chat = False
        yield (
            f"spec.dataset.promptTemplate: chat needs a chat template, and {shown(name)} has none in "
            "tokenizer_config.json or chat_template.jinja; use r1-zero for a base model, or add the template"
        )
    fault: BadTokenizerError | UnloadableTokenizer | OSError | None = None
    if (folder / "tokenizer.json").is_file() and importlib.util.find_spec("tokenizers") is not None:
        from tokenizers import Tokenizer

        try:
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # noqa: BLE001 - the library raises nothing more specific
            yield f"spec.model.name: tokenizer.json in {shown(name)} cannot be read: {error}; save it again"
            return
        end = _end(settings, backend)
        by_file = ProblemTokenizer(PromptEncoder(TextTokenizer(backend), "plain"), name, 0, vocabulary)
        fault = _first_fault(by_file, sample)
        known = end is not None and (vocabulary is None or end < vocabulary)
        if fault is None and known and not chat and "auto_map" not in settings:
            return
    if importlib.util.find_spec("transformers") is not None and not spec.model.trust_remote_code:
        try:
            parts = ProblemTokenizer.of(load_tokenizer(str(folder)), "chat" if chat else "plain", vocabulary)
            fault = _first_fault(replace(parts, model=name), sample)
        except (BadTokenizerError, UnloadableTokenizer, OSError) as error:
            fault = error
    if isinstance(fault, UnloadableTokenizer | OSError):
        yield f"spec.model.name: the tokenizer in {shown(name)} cannot be loaded: {fault}; save it again"
    elif fault is not None:
        yield f"spec.model.name: {fault}"


def _first_fault(parts: ProblemTokenizer, problems: Sequence[Problem]) -> BadTokenizerError | None:
    return next((outcome for outcome in parts.tokenize(problems) if isinstance(outcome, BadTokenizerError)), None)


def _settings(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _vocabulary(config: dict[str, Any]) -> int | None:
    """How many tokens a model has embeddings for; models that also see images nest it."""
    nested = config.get("text_config")
    size = (nested if isinstance(nested, dict) else config).get("vocab_size")
    return size if isinstance(size, int) else None


def _end(settings: dict[str, Any], backend: "Tokenizer") -> int | None:
    """The end-of-sequence token, if the settings name one of the vocabulary."""
    token = settings.get("eos_token")
    name = token.get("content") if isinstance(token, dict) else token
    found: int | None = backend.token_to_id(name) if isinstance(name, str) else None
    return found


def _has_chat_template(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether transformers finds a template: in a file of its own, or in the settings, where it may be one of several."""
    if any((folder / name).is_file() for name in _CHAT_TEMPLATES):
        return True
    template = settings.get("chat_template")
    if isinstance(template, list):
        return any(isinstance(one, dict) and one.get("name") == "default" and one.get("template") for one in template)
    return bool(template)
