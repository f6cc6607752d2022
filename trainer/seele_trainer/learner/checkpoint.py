"""Saving and loading the state of a DeepSpeed engine, verified by checksums."""

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
from seele_trainer.run_folder.checkpoint import CheckpointError, DamagedCheckpoint, missing_is_damage

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
        torch.save(rng_state(ranks), directory / _rng_file(ranks))
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

    Every rank compares the checksums of its share of the files before any rank loads. If a file is damaged, all ranks
    raise DamagedCheckpoint, and the engine is as it was. Settings that differ are not damage: all raise CheckpointError.
    """
    saved = _agree(ranks, _check(ranks, directory, expected))
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
    restore_rng(ranks, rng)
    return saved


def _check(ranks: Ranks, directory: Path, expected: SavedEngine) -> SavedEngine | CheckpointError:
    """What a checkpoint says was saved, or what is wrong with it or with this rank's share of its files."""
    path = directory / _SAVED_ENGINE
    try:
        with missing_is_damage(f"{path} is missing or unreadable, so the checkpoint is not complete"):
            saved = SavedEngine.model_validate_json(path.read_bytes())
        _check_settings(directory, saved, expected)
        for name, fingerprint in list(saved.files.items())[ranks.rank :: ranks.world_size]:
            path = directory / name
            with missing_is_damage(f"{path} is missing or unreadable"):
                if _fingerprint(path) != fingerprint:
                    raise DamagedCheckpoint(f"{path} is damaged: it is not as it was written")
    except ValidationError:
        return DamagedCheckpoint(f"{path} is damaged: it does not say what was saved")
    except CheckpointError as problem:
        return problem
    return saved


def _check_settings(directory: Path, saved: SavedEngine, expected: SavedEngine) -> None:
    for name in ("world_size", "zero_stage", "dtype"):
        then, now = getattr(saved, name), getattr(expected, name)
        if then != now:
            raise CheckpointError(
                f"{directory} was saved with {name}={then}, and this run has {name}={now}: "
                f"resume with {name}={then}, or start a new run from an exported model"
            )


def _agree(ranks: Ranks, mine: SavedEngine | CheckpointError) -> SavedEngine:
    """What was saved, if no rank has found a problem; otherwise the same error on all ranks."""
    problem = mine if isinstance(mine, CheckpointError) else None
    report = None if problem is None else [isinstance(problem, DamagedCheckpoint), str(problem)]
    reports = [json.loads(part) for part in ranks.gather(json.dumps(report).encode())]
    # Another setting comes first: loading would fail with every checkpoint, so none must be set aside for it.
    verdict = sorted(found for found in reports if found is not None)[:1]
    agreed = json.loads(ranks.broadcast(json.dumps(verdict).encode() if ranks.is_driver else None))
    if agreed:
        damaged, words = agreed[0]
        raise DamagedCheckpoint(words) if damaged else CheckpointError(words)
    assert isinstance(mine, SavedEngine)
    return mine


def _fingerprint(path: Path) -> tuple[int, int]:
    size, checksum = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum


def _rng_file(ranks: Ranks) -> str:
    return f"rng-rank-{ranks.rank}.pt"


def rng_state(ranks: Ranks) -> dict[str, torch.Tensor]:
    """The states of this rank's random numbers, by device."""
    state = {"cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(ranks.device)
    return state


def restore_rng(ranks: Ranks, state: dict[str, torch.Tensor]) -> None:
    """Continue with the random numbers of `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if ranks.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], ranks.device)
