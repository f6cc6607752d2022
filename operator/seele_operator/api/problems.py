"""The error for an invalid SeeleRun, and how its lines show fields and values."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence

_SHOWN = 60


class BadRunError(ValueError):
    """An invalid SeeleRun. `problems` has a line for each reason: field, value, and remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def yaml_path(path: Sequence[str | int]) -> str:
    """A place in a YAML document: `spec.trainer.env[0].name`, or `spec.trainer.resources.limits["nvidia.com/gpu"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_][\w-]*", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text or "the file"


def shown(value: object) -> str:
    """A value as one short line of YAML; only the kind of a mapping or list."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is most similar, ignoring case; None if none is similar."""
    by_lower = {name.lower().replace("_", ""): name for name in known}
    found = difflib.get_close_matches(word.lower().replace("_", ""), list(by_lower), n=1, cutoff=0.65)
    return by_lower[found[0]] if found else None
