"""The file config.yaml: the resolved configuration of a run, in the run's folder and in its trainer pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from seele_trainer.config import TrainerConfig
from seele_trainer.termination import RefusedInput

CONFIG_FILE = "config.yaml"


class ConfigError(RefusedInput):
    """A config.yaml cannot be used; `problems` has one line for each reason."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_config(path: Path) -> TrainerConfig:
    """The configuration in a file. Raises ConfigError."""
    try:
        return TrainerConfig.model_validate(read_tree(path))
    except ValidationError as error:
        lines = (f"{path}: {'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors())
        raise ConfigError(*lines) from error


def read_tree(path: Path) -> dict[str, Any]:
    """The content of a file as plain data, whether or not this version accepts it. Raises ConfigError."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; give the run's {CONFIG_FILE}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML; give the run's {CONFIG_FILE}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a run's configuration; give the run's {CONFIG_FILE}")
    return tree
