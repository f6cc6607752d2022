"""Saving and loading the state of a DeepSpeed engine, verified by checksums."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from seele_trainer.frozen_model import FrozenModel
from seele_trainer.learner.ranks import Ranks
from seele_trainer.run_folder.checkpoint import CheckpointError

_TAG = "engine"
_SAVED_ENGINE = "learner.json"
_BLOCK = 1 << 22


class SavedEngine(FrozenModel):
    """The settings a checkpoint was saved with, and the size and CRC-32 of its files. It is written last."""

    world_size: int
    zero_stage: int
    dtype: str
    updates: int
    files: Mapping[str, tuple[int, int]] = {}


def save_engine(engine: Any, ranks: Ranks, directory: Path, saved: SavedEngine) -> None:
    """Write engine, optimizer and every rank's torch RNG state to `directory`. Collective.

    Raises CheckpointError on a rank that cannot write its part. That rank must then exit, because the others wait for it.
    """
    if ranks.is_driver:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / _SAVED_ENGINE).unlink(missing_ok=True)
    ranks.barrier()
    try:
        engine.save_checkpoint(str(directory), tag=_TAG, save_latest=False)
        torch.save(_rng_state(ranks), directory / _rng_file(ranks))
    except (OSError, RuntimeError) as error:
        # torch turns a full disk into a RuntimeError.
        raise CheckpointError(
            f"cannot write checkpoint {directory}: {error}; the previous one is intact, free space and run again"
        ) from error
    ranks.barrier()
    # Every rank reads back its share: a single process would spend minutes on a large model.
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    mine = {str(path.relative_to(directory)): _fingerprint(path) for path in paths[ranks.rank :: ranks.world_size]}
    parts = ranks.gather(json.dumps(mine).encode())
    if ranks.is_driver:
        files = {name: value for part in parts for name, value in json.loads(part).items()}
        complete = saved.model_copy(update={"files": {name: tuple(files[name]) for name in sorted(files)}})
        (directory / _SAVED_ENGINE).write_text(complete.model_dump_json(indent=2))
    ranks.barrier()


def load_engine(engine: Any, ranks: Ranks, directory: Path, expected: SavedEngine) -> SavedEngine:
    """Restore what `save_engine` wrote into an engine with the same settings. Collective.

    Every rank checks its share of the files before any rank loads, so that all ranks raise CheckpointError or none does.
    """
    problem, saved = _check(ranks, directory, expected)
    found = ranks.gather(problem.encode())
    verdict = ranks.broadcast(
        b"\n".join(sorted({line for line in found if line})) if ranks.is_driver else None
    ).decode()
    if verdict or saved is None:
        raise CheckpointError(verdict or f"{directory / _SAVED_ENGINE} could not be read on this rank")
    try:
        path, _ = engine.load_checkpoint(str(directory), tag=_TAG)
        rng = torch.load(directory / _rng_file(ranks), weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, AssertionError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{directory}: its files are intact, but DeepSpeed cannot load them ({error}); was it written for another "
            "model or with another version of DeepSpeed? Resume from another checkpoint, or start a new run"
        ) from error
    if path is None:
        raise CheckpointError(f"{directory}: DeepSpeed found nothing to load; resume from another checkpoint")
    torch.set_rng_state(rng["cpu"])
    if ranks.device.type == "cuda":
        torch.cuda.set_rng_state(rng["cuda"], ranks.device)
    return saved


def _check(ranks: Ranks, directory: Path, expected: SavedEngine) -> tuple[str, SavedEngine | None]:
    """What is wrong in this rank's share of a checkpoint, empty if nothing; and what it says was saved."""
    try:
        saved = SavedEngine.model_validate_json((directory / _SAVED_ENGINE).read_text())
    except OSError as error:
        return f"{directory}: no complete checkpoint ({error}); resume from another one", None
    except (ValidationError, UnicodeDecodeError):
        return f"{directory / _SAVED_ENGINE} is damaged; resume from another checkpoint", None
    for name in ("world_size", "zero_stage", "dtype"):
        then, now = getattr(saved, name), getattr(expected, name)
        if then != now:
            return (
                f"{directory} was saved with {name}={then}, and this run has {name}={now}: "
                f"resume with {name}={then}, or start a new run from an exported model",
                None,
            )
    for name, fingerprint in list(saved.files.items())[ranks.rank :: ranks.world_size]:
        path = directory / name
        if not path.is_file() or _fingerprint(path) != fingerprint:
            return f"{path} is missing or damaged; resume from another checkpoint", None
    return "", saved


def _fingerprint(path: Path) -> tuple[int, int]:
    size, checksum = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum


def _rng_file(ranks: Ranks) -> str:
    return f"rng-rank-{ranks.rank}.pt"


def _rng_state(ranks: Ranks) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(ranks.device)
    return state
