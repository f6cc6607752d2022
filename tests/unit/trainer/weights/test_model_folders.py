"""Model folders: exports, and the folder that servers start from."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from seele_trainer.config import Dataset, Model, RolloutOptions, TrainerConfig
from seele_trainer.weights.export import ModelFiles, WeightExportError, write_model_folder
from seele_trainer.weights.prepare import BadModelError, ModelUnreachable, prepare_model
from seele_trainer.weights.stored_tensors import HEAD, UntieError
from tests.support.small_models import logprobs_of, save_llama

SEQUENCE = (2, 5, 9, 33, 7)


def config_for(folder: Path | str, *, untie: bool = True) -> TrainerConfig:
    return TrainerConfig(
        name="test",
        model=Model(name=str(folder)),
        dataset=Dataset(path="problems.jsonl"),
        rollout=RolloutOptions(untie_embeddings=untie),
    )


def serves(folder: Path, expected: tuple[float, ...]) -> None:
    """Check the log-probabilities of a model folder."""
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert logprobs_of(loaded, SEQUENCE) == pytest.approx(expected, abs=1e-5)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            found.update({name: tensors.get_tensor(name) for name in tensors.keys()})  # noqa: SIM118
    return found


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- export


@pytest.mark.parametrize("limit", [10**9, 20_000])
def test_a_tied_model_is_exported_with_its_own_head(tmp_path: Path, limit: int) -> None:
    model = save_llama(tmp_path / "model", seed=0, tied=True)
    parameters = dict(model.named_parameters())
    write_model_folder(tmp_path / "out", parameters, model.config, untie=True, max_shard_bytes=limit)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    tensors = stored(tmp_path / "out")
    assert torch.equal(tensors[HEAD], tensors["model.embed_tokens.weight"])
    assert (tmp_path / "out/model.safetensors.index.json").exists() == (limit == 20_000)
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_a_tied_model_stays_tied_without_untie(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0, tied=True)
    write_model_folder(tmp_path / "out", model.state_dict(), model.config, untie=False)
    assert HEAD not in stored(tmp_path / "out")
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_an_export_takes_a_stream_of_views_into_one_buffer(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0)
    buffer = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    places = np.cumsum([0, *(parameter.numel() for parameter in model.parameters())])
    views = (
        (name, buffer[start : start + parameter.numel()].view(parameter.shape))
        for (name, parameter), start in zip(model.named_parameters(), places, strict=False)
    )
    write_model_folder(tmp_path / "out", views, model.config, untie=True)
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_an_export_replaces_an_older_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        model = save_llama(tmp_path / "model", seed=seed)
        write_model_folder(tmp_path / "out", model.state_dict(), model.config, untie=True)
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))
    assert listing(tmp_path) == ["model", "out"]


def test_a_full_disk_leaves_the_old_export_and_nothing_else(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0)
    write_model_folder(tmp_path / "out", model.state_dict(), model.config, untie=True)
    other = save_llama(tmp_path / "other", seed=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(WeightExportError, match="GB are free there: make room"):
            write_model_folder(tmp_path / "out", other.state_dict(), other.config, untie=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(tmp_path) == ["model", "other", "out"]
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_a_tied_model_without_a_known_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UntieError, match=r"untieEmbeddings: false"):
        write_model_folder(tmp_path / "out", {"body.weight": torch.ones(2)}, {"tie_word_embeddings": True}, untie=True)
    assert listing(tmp_path) == []


# --- preparing the folder that servers start from


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_preparing_unties_a_tied_model_without_copying_its_body(tmp_path: Path, dtype: torch.dtype) -> None:
    model = save_llama(tmp_path / "model", seed=0, tied=True, dtype=dtype)
    prepare_model(config_for(tmp_path / "model"), tmp_path / "run/weights/initial")
    out = tmp_path / "run/weights/initial"
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert (out / "generation_config.json").exists()
    tensors = stored(out)
    assert tensors[HEAD].dtype == dtype
    assert torch.equal(tensors[HEAD], model.get_input_embeddings().weight)
    assert (out / "model-00001-of-00002.safetensors").samefile(tmp_path / "model/model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=dtype)
    original = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=dtype)
    assert logprobs_of(loaded, SEQUENCE) == logprobs_of(original, SEQUENCE)


def test_preparing_drops_a_head_that_a_tied_model_stores_anyway(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0)
    described = json.loads(model.config.to_json_string())
    tied = {**model.state_dict(), HEAD: torch.zeros(64, 64)}
    write_model_folder(tmp_path / "odd", tied, {**described, "tie_word_embeddings": False}, untie=False)
    (tmp_path / "odd/config.json").write_text(json.dumps({**described, "tie_word_embeddings": True}))
    prepare_model(config_for(tmp_path / "odd"), tmp_path / "out")
    tensors = stored(tmp_path / "out")
    assert torch.equal(tensors[HEAD], tensors["model.embed_tokens.weight"])


def test_a_model_whose_configuration_does_not_say_is_tied_if_it_stores_no_head(tmp_path: Path) -> None:
    save_llama(tmp_path / "model", seed=0, tied=True)
    described = json.loads((tmp_path / "model/config.json").read_text())
    del described["tie_word_embeddings"]
    (tmp_path / "model/config.json").write_text(json.dumps(described))
    prepare_model(config_for(tmp_path / "model"), tmp_path / "out")
    assert HEAD in stored(tmp_path / "out")


@pytest.mark.parametrize(("tied", "untie"), [(False, True), (True, False)])
def test_other_models_are_linked_unchanged(tmp_path: Path, tied: bool, untie: bool) -> None:
    save_llama(tmp_path / "model", seed=0, tied=tied)
    prepare_model(config_for(tmp_path / "model", untie=untie), tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").samefile(tmp_path / "model/model.safetensors")
    assert (HEAD in stored(tmp_path / "out")) != tied


def test_all_shards_of_a_model_are_prepared(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0, tied=True)
    write_model_folder(tmp_path / "sharded", model.state_dict(), model.config, untie=False, max_shard_bytes=20_000)
    prepare_model(config_for(tmp_path / "sharded"), tmp_path / "out")
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_preparing_again_does_nothing_until_the_model_changes(tmp_path: Path) -> None:
    save_llama(tmp_path / "model", seed=0, tied=True)
    prepare_model(config_for(tmp_path / "model"), tmp_path / "out")
    before = (tmp_path / "out").stat()
    prepare_model(config_for(tmp_path / "model"), tmp_path / "out")
    assert (tmp_path / "out").stat().st_ino == before.st_ino
    changed = save_llama(tmp_path / "new", seed=1, tied=True)
    prepare_model(config_for(tmp_path / "new"), tmp_path / "out")
    serves(tmp_path / "out", logprobs_of(changed, SEQUENCE))


def test_two_pods_may_prepare_the_same_folder_at_once(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0, tied=True)
    for attempt in range(10):
        out = tmp_path / f"out-{attempt}"
        with ThreadPoolExecutor(4) as pods:
            list(pods.map(lambda _, out=out: prepare_model(config_for(tmp_path / "model"), out), range(4)))
        assert torch.equal(stored(out)[HEAD], model.get_input_embeddings().weight)
    assert listing(tmp_path) == ["model", *sorted(f"out-{attempt}" for attempt in range(10))]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: (model / "model.safetensors").unlink(), "no safetensors file"),
        (lambda model: (model / "config.json").unlink(), "no config.json"),
        (lambda model: os.truncate(model / "model.safetensors", 9000), r"not a complete .* file not fully covered"),
        *(
            (
                lambda model, content=content: (model / "model.safetensors").write_bytes(content),
                "not a complete .* header",
            )
            for content in (
                b"",
                b"version https://git-lfs",
                (2**40).to_bytes(8, "little") + b"{}",
                (9).to_bytes(8, "little") + b"not JSON!",
                (9).to_bytes(8, "little") + b'{"a":"b"}',
            )
        ),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_and_leaves_nothing(tmp_path: Path, spoil, message: str) -> None:
    save_llama(tmp_path / "model", seed=0, tied=True)
    spoil(tmp_path / "model")
    with pytest.raises(BadModelError, match=message):
        prepare_model(config_for(tmp_path / "model"), tmp_path / "out")
    assert listing(tmp_path) == ["model"]


def test_a_name_that_is_neither_folder_nor_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnreachable, match="neither a folder here nor a model"):
        prepare_model(config_for("nowhere/no-such-model"), tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "status", "retried"),
    [
        (RepositoryNotFoundError, 404, False),
        (GatedRepoError, 403, False),
        (HfHubHTTPError, 503, True),
        (httpx.RemoteProtocolError, None, True),
        (httpx.ReadTimeout, None, True),
    ],
)
def test_a_model_that_the_hub_does_not_have_is_refused_and_a_failing_hub_is_reported_as_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], status: int | None, retried: bool
) -> None:
    def answer(*_: object, **__: object) -> None:
        if status is None:
            raise kind("broken\n\noff")
        raise kind("no", response=httpx.Response(status, request=httpx.Request("GET", "http://hub")))  # type: ignore[call-arg]

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    with pytest.raises(BadModelError, match="check the id, HF_TOKEN and the network") as raised:
        prepare_model(config_for("some/model"), tmp_path / "out")
    assert isinstance(raised.value, ModelUnreachable) == retried
    assert "\n" not in str(raised.value)


def test_a_replacement_server_contacts_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_llama(tmp_path / "snapshot", seed=0, tied=True)
    requests: list[object] = []

    def answer(*asked: object, **__: object) -> str:
        requests.append(asked)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    for _ in range(3):
        prepare_model(config_for("some/model"), tmp_path / "out")
    assert requests == [("some/model",)]

    prepare_model(config_for("another/model"), tmp_path / "out")
    shutil.rmtree(tmp_path / "snapshot")
    save_llama(tmp_path / "snapshot", seed=1, tied=True)
    prepare_model(config_for("another/model"), tmp_path / "out")
    assert requests == [("some/model",), ("another/model",), ("another/model",)]


def test_a_folder_by_another_path_is_prepared_again_when_its_link_changes(tmp_path: Path) -> None:
    models = [save_llama(tmp_path / f"model-{seed}", seed=seed, tied=True) for seed in range(2)]
    for seed, model in enumerate(models):
        (tmp_path / "newest").unlink(missing_ok=True)
        (tmp_path / "newest").symlink_to(tmp_path / f"model-{seed}")
        prepare_model(config_for(tmp_path / "newest"), tmp_path / "out")
        serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_preparing_starts_quickly(tmp_path: Path) -> None:
    save_llama(tmp_path / "model", seed=0, tied=True)
    program = (
        "import sys, pathlib; from seele_trainer.config import *; from seele_trainer.weights.prepare import *;"
        "prepare_model(TrainerConfig(name='t', model=Model(name=sys.argv[1]), dataset=Dataset(path='p.jsonl')),"
        "pathlib.Path(sys.argv[2])); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "model"), str(tmp_path / "out")], check=True)
    print(f"prepared in {time.monotonic() - began:.2f} s, the interpreter included")
    assert HEAD in stored(tmp_path / "out")


# --- the small files that exports copy


def test_an_export_takes_over_every_file_that_it_does_not_write_itself(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0)
    for name in ("tokenizer_config.json", "tokenizer.model", "chat_template.jinja", "modeling_own.py", "merges.txt"):
        (tmp_path / "model" / name).write_bytes(name.encode())
    (tmp_path / "model/model.safetensors.index.json").write_text("{}")

    files = ModelFiles.read(Model(name=str(tmp_path / "model")))
    shutil.rmtree(tmp_path / "model")
    write_model_folder(
        tmp_path / "out", model.state_dict(), files.config_for("float32"), untie=True, files=files.others
    )

    expected = {"chat_template.jinja", "merges.txt", "modeling_own.py", "tokenizer.model", "tokenizer_config.json"}
    assert set(listing(tmp_path / "out")) == {*expected, "config.json", "model.safetensors"}
    assert all((tmp_path / "out" / name).read_bytes() == name.encode() for name in expected)
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_an_exported_configuration_declares_its_dtype_and_keeps_the_rest(tmp_path: Path) -> None:
    nested = {"torch_dtype": "bfloat16", "text_config": {"dtype": "float16", "layers": 2}, "auto_map": {"A": "own.A"}}
    (tmp_path / "config.json").write_text(json.dumps(nested))

    described = ModelFiles.read(Model(name=str(tmp_path))).config_for("float32")

    assert described == {"text_config": {"layers": 2}, "auto_map": {"A": "own.A"}, "dtype": "float32"}
