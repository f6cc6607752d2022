"""The folder that rollout servers start from, `<run>/weights/initial`: the original model, untied if necessary.

This runs before a server starts, so it imports neither torch nor transformers and copies as little as possible: weights
are hard links if the file system allows it, and a tied model gets an additional file with the head.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seele_trainer.config import Model, TrainerConfig
from seele_trainer.run_folder.durable import built_aside, flush, put_in_place
from seele_trainer.termination import ExitCode, RefusedInput
from seele_trainer.weights.stored_tensors import (
    HEAD,
    BadSafetensors,
    StoredTensor,
    UntieError,
    copy_tensors,
    embedding_name,
    is_tied,
    stored_tensors,
    untied,
)

logger = logging.getLogger(__name__)

_INDEX = "model.safetensors.index.json"
_MARKER = ".seele-prepared.json"
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken")
"""Everything but weights that a model folder may need: configuration, tokenizer, chat template, code."""


class BadModelError(RefusedInput):
    """The model of a run cannot be served. The message names it and says what to change."""


class ModelUnreachable(BadModelError):
    """The hub did not answer, or not usefully: another attempt may succeed."""

    exit_code = ExitCode.FAILED


def prepare_model(config: TrainerConfig, out: Path) -> None:
    """Make `out` a model folder that vLLM can serve and reload. Does nothing if it is one already.

    Several pods may run this at once on a shared volume: each builds its own copy, and one of them is renamed into
    place. Raises BadModelError for a model that does not exist or cannot be served, ModelUnreachable if the hub failed,
    OSError if the disk is full.
    """
    found = _prepared(out)
    # A replacement server contacts no hub: it gets the model that the run began with.
    if found is not None and not _is_folder(config.model) and found == _wanted(config, Path(found["source"])):
        logger.info("%s is ready", out)
        return
    source = source_folder(config.model, (*SMALL_FILES, "*.safetensors"))
    untie, wanted = config.rollout.untie_embeddings, _wanted(config, source)
    if wanted is None:
        raise BadModelError(f"{source} has no config.json: give a model folder in Hugging Face format")
    if found == wanted:
        logger.info("%s is ready", out)
        return
    with built_aside(out) as aside:
        try:
            _fill(aside, source, untie)
        except (BadSafetensors, UntieError) as error:
            raise BadModelError(f"model.name is {config.model.name!r}: {error}") from error
        (aside / _MARKER).write_text(json.dumps(wanted))
        _rename(aside, out, wanted)
    logger.info("%s is ready, made from %s", out, source)


def source_folder(model: Model, patterns: Sequence[str]) -> Path:
    """A model's own folder, or one in the Hugging Face cache with its files that match the patterns, downloaded if needed.

    Raises BadModelError for a model that does not exist, ModelUnreachable if the hub failed.
    """
    if _is_folder(model):
        return Path(model.name).expanduser()
    # Imported here: a model that is a folder needs no hub.
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(model.name, revision=model.revision, allow_patterns=list(patterns), max_workers=4)
        )
    except (HTTPError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split())
        wrong = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError)
        raise (BadModelError if wrong else ModelUnreachable)(
            f"model.name is {model.name!r}, which is neither a folder here nor a model that the Hugging Face hub "
            f"provides ({type(error).__name__}: {reason}): give the path of a folder, or check the id, HF_TOKEN and the "
            "network"
        ) from error


def _is_folder(model: Model) -> bool:
    return Path(model.name).expanduser().is_dir()


def _wanted(config: TrainerConfig, source: Path) -> dict[str, Any] | None:
    """What a folder is prepared from, so that a changed model is prepared again; None without a config.json."""
    if not (source / "config.json").is_file():
        return None
    files = sorted(path for path in source.iterdir() if path.is_file())
    return {
        "model": [config.model.name, config.model.revision],
        "source": str(source.resolve()),
        "untie": config.rollout.untie_embeddings,
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
    }


def _prepared(out: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((out / _MARKER).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def _fill(aside: Path, source: Path, untie: bool) -> None:
    files = _weight_files(source)
    tensors = {file: stored_tensors(file) for file in files}
    names = {name for held in tensors.values() for name in held}
    model_config = json.loads((source / "config.json").read_text())
    for pattern in SMALL_FILES:
        for path in source.glob(pattern):
            if not path.name.endswith(".index.json"):
                shutil.copyfile(path, aside / path.name)
    if not (untie and is_tied(model_config, names)):
        for file in files:
            _link(file, aside / file.name)
        if (source / _INDEX).is_file():
            shutil.copyfile(source / _INDEX, aside / _INDEX)
        return
    embedding = embedding_name(names)
    shards = [{name: tensor for name, tensor in held.items() if name != HEAD} for held in tensors.values()]
    shards.append({HEAD: next(held[embedding] for held in tensors.values() if embedding in held)})
    _write_shards(aside, shards)
    (aside / "config.json").write_text(json.dumps(untied(model_config), indent=2) + "\n")


def _weight_files(source: Path) -> list[Path]:
    if (source / _INDEX).is_file():
        places: dict[str, str] = json.loads((source / _INDEX).read_text())["weight_map"]
        files = [source / name for name in sorted(set(places.values()))]
    else:
        files = sorted(source.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if not files or missing:
        raise BadModelError(
            f"{source} has no {', '.join(missing) or 'safetensors file'}: download it again, or save the model with "
            "transformers' save_pretrained, which writes safetensors"
        )
    return files


def _write_shards(aside: Path, shards: list[dict[str, StoredTensor]]) -> None:
    """Write files with the given tensors and their index; a file that is kept whole is linked, not copied."""
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        # Loaders look for model.safetensors before an index, so no shard may have that name.
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        original = next(iter(shard.values())).file
        if shard.keys() == stored_tensors(original).keys():
            _link(original, aside / name)
        else:
            copy_tensors(aside / name, shard)
        places.update(dict.fromkeys(shard, name))
    total = sum(tensor.size for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (aside / _INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _link(file: Path, target: Path) -> None:
    """A hard link, which costs nothing and outlives the source's mount, or a copy if that is impossible."""
    try:
        os.link(file.resolve(), target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}:
            raise
        shutil.copyfile(file, target)


def _rename(aside: Path, out: Path, wanted: dict[str, Any]) -> None:
    flush(aside)
    try:
        aside.rename(out)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        # Another pod was first. Its folder may be in use, so it is only replaced if it was made from another model.
        if _prepared(out) != wanted:
            put_in_place(aside, out)
