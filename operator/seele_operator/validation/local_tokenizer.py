"""Checks of the tokenizer in a model folder of this machine, without the libraries that only trainers need."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import shown
from seele_trainer.data.problem import BadTokenizerError, Problem
from seele_trainer.data.prompts import PromptEncoder
from seele_trainer.data.tokenize import ProblemTokenizer
from seele_trainer.data.tokenizer import TextTokenizer, load_tokenizer

SAMPLE = 200
"""Problems that are tokenised: a tokenizer that changes texts changes most of them."""

_CHAT_TEMPLATES = ("chat_template.jinja", "additional_chat_templates/default.jinja")


def tokenizer_faults(spec: SeeleRunSpec, folder: Path, problems: Sequence[Problem]) -> Iterator[str]:
    """What is wrong with a folder's chat template and tokenizer.json, given problems to train on."""
    if not folder.is_dir():
        return
    if spec.dataset.prompt_template == "chat" and not _has_chat_template(folder):
        yield (
            f"spec.dataset.promptTemplate: chat needs a chat template, and {shown(spec.model.name)} has none in "
            "tokenizer_config.json or chat_template.jinja; use r1-zero for a base model, or add the template"
        )
    if not (folder / "tokenizer.json").is_file() or importlib.util.find_spec("tokenizers") is None:
        return
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more specific
        yield f"spec.model.name: tokenizer.json in {shown(spec.model.name)} cannot be read: {error}; save it again"
        return
    sample = problems[:SAMPLE]
    fault = _first_fault(backend, spec.model.name, sample)
    # What the trainer loads may be better than the file. Its libraries take seconds to load, so only now.
    if fault is not None and importlib.util.find_spec("transformers") is not None:
        with suppress(OSError, ValueError):
            fault = _first_fault(load_tokenizer(str(folder)).backend_tokenizer, spec.model.name, sample)
    if fault is not None:
        yield f"spec.model.name: {fault}"


def _first_fault(backend: Any, model: str, problems: Sequence[Problem]) -> BadTokenizerError | None:
    # The end-of-sequence token and the template make no difference to what is checked.
    parts = ProblemTokenizer(PromptEncoder(TextTokenizer(backend), "plain"), model, end=0)
    outcomes = parts.tokenize(problems)
    return next((outcome for outcome in outcomes if isinstance(outcome, BadTokenizerError)), None)


def _has_chat_template(folder: Path) -> bool:
    """Whether transformers finds a template: in a file of its own, or in the settings, where it may be one of several."""
    if any((folder / name).is_file() for name in _CHAT_TEMPLATES):
        return True
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    template = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(template, list):
        return any(isinstance(one, dict) and one.get("name") == "default" and one.get("template") for one in template)
    return bool(template)
