"""Writing a policy as a Hugging Face model folder that vLLM and transformers load."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from seele_trainer.config import Model
from seele_trainer.run_folder.durable import built_aside, put_in_place
from seele_trainer.termination import ExpectedFailure
from seele_trainer.weights.prepare import SMALL_FILES, source_folder
from seele_trainer.weights.stored_tensors import HEAD, embedding_name, is_tied, looks_like_embedding, untied

# Hugging Face's own limit: larger files are slow to move, and some file systems refuse them.
MAX_SHARD_BYTES = 5 * 10**9
_CONFIG = "config.json"
# Exports write their own: dtype and ties may change, and so does the division into files.
_REPLACED = (_CONFIG, "generation_config.json")
_INDEX = ".index.json"


class WeightExportError(ExpectedFailure):
    """A model folder could not be written; no part of it is left."""


def write_model_folder(
    directory: Path,
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    model_config: Any,
    *,
    untie: bool,
    files: Mapping[str, bytes] = MappingProxyType({}),
    generation_config: Any = None,
    scales: Mapping[str, float] = MappingProxyType({}),
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write `directory` with config.json, safetensors and `files`, atomically; an older one is replaced.

    Configurations are those of transformers or mappings; the generation settings may be None. `files` are written as they
    are, by name, such as those of the tokenizer.
    A tied model is stored without its head; with `untie` the head is stored as a copy of the embedding, and the
    configuration says so. Tensors are consumed one by one, and at most one shard is held in memory. Stored tensors named in
    `scales` are multiplied by their value there. Raises WeightExportError if the folder cannot be written, such as on a full
    disk, and UntieError if a tied model has no known embedding.
    """
    described = _as_dict(model_config)
    # A transformers configuration knows its class's default, which its JSON omits.
    tied = getattr(model_config, "tie_word_embeddings", described.get("tie_word_embeddings"))
    if tied is None and isinstance(tensors, Mapping):
        tied = is_tied(described, tensors.keys())
    named = tensors.items() if isinstance(tensors, Mapping) else tensors
    try:
        with built_aside(directory) as aside:
            arranged = _arranged(named, tied=bool(tied), untie=untie)
            scaled = ((name, tensor * scales[name] if name in scales else tensor) for name, tensor in arranged)
            _write_shards(aside, scaled, max_shard_bytes)
            described = untied(described) if tied and untie else {**described, "tie_word_embeddings": bool(tied)}
            _write_json(aside / "config.json", described)
            if generation_config is not None:
                _write_json(aside / "generation_config.json", _as_dict(generation_config))
            for name, content in files.items():
                (aside / name).write_bytes(content)
            put_in_place(aside, directory)
    except (OSError, SafetensorError) as error:
        existing = next(folder for folder in directory.absolute().parents if folder.exists())
        raise WeightExportError(
            f"cannot write the model folder {directory}: {error}. {shutil.disk_usage(existing).free / 1e9:.1f} GB are "
            "free there: make room, or give the run a larger volume"
        ) from error


def _arranged(named: Iterable[tuple[str, Tensor]], *, tied: bool, untie: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors to store: of a tied model only the embedding, and with `untie` a copy of it as the head."""
    embeddings: dict[str, Tensor] = {}
    for name, tensor in named:
        if tied and name == HEAD:
            continue
        if tied and untie and looks_like_embedding(name):
            embeddings[name] = tensor
        yield name, tensor
    if tied and untie:
        yield HEAD, embeddings[embedding_name(embeddings)].clone()


def _write_shards(folder: Path, named: Iterable[tuple[str, Tensor]], limit: int) -> None:
    """Fill safetensors files up to `limit` bytes each, with an index if there are several."""
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    bytes_held = total = 0

    def write() -> None:
        save_file(held, folder / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in named:
        size = tensor.numel() * tensor.element_size()
        if held and bytes_held + size > limit:
            write()
            bytes_held = 0
        held[name] = _own(tensor)
        bytes_held += size
        total += size
    write()
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}").rename(folder / file)
        places.update(dict.fromkeys(names, file))
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _own(tensor: Tensor) -> Tensor:
    """The tensor in host memory with its own storage: safetensors refuses views into a shared buffer."""
    tensor = tensor.detach().cpu().contiguous()
    alone = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if alone else tensor.clone()


def _as_dict(described: Any) -> dict[str, Any]:
    return dict(described) if isinstance(described, Mapping) else json.loads(described.to_json_string())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True)
class ModelFiles:
    """What a model folder holds besides weights: its config.json, and tokenizer, chat template and code by file name."""

    config: Mapping[str, Any]
    others: Mapping[str, bytes]

    @classmethod
    def read(cls, model: Model) -> Self:
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
