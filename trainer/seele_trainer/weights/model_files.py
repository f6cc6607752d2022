"""The small files of a run's model, kept in memory: exports are frequent, and must ask neither a hub nor a slow disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seele_trainer.config import Model
from seele_trainer.weights.prepare import SMALL_FILES, source_folder

_CONFIG = "config.json"
# Exports write their own: dtype and ties may change, and so does the division into files.
_REPLACED = (_CONFIG, "generation_config.json")
_INDEX = ".index.json"


@dataclass(frozen=True)
class ModelFiles:
    """What a model folder holds besides weights: its config.json, and tokenizer, chat template and code by file name."""

    config: Mapping[str, Any]
    others: Mapping[str, bytes]

    @classmethod
    def read(cls, model: Model) -> ModelFiles:
        """Read the files of a folder, or of the hub's model. Raises BadModelError if there is no such model."""
        folder = source_folder(model, SMALL_FILES)
        found = {path.name: path for pattern in SMALL_FILES for path in folder.glob(pattern)}
        others = {
            name: path.read_bytes()
            for name, path in found.items()
            if name not in _REPLACED and not name.endswith(_INDEX) and not name.startswith(".")
        }
        return cls(json.loads((folder / _CONFIG).read_text()), others)

    def config_for(self, dtype: str) -> dict[str, Any]:
        """The config.json of a folder whose weights have this dtype. Loaders round weights to the declared one."""
        return {**_without_dtypes(self.config), "dtype": dtype}


def _without_dtypes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_dtypes(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in ("dtype", "torch_dtype")
    }
