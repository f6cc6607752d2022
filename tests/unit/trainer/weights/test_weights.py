"""Model folders: exports, the folder that servers start from, versions and the canary."""

from __future__ import annotations

import json
import math
import os
import resource
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
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from seele_trainer.config import Dataset, Model, RolloutOptions, TrainerConfig
from seele_trainer.rollout.canary import canary_sequences, default_tolerance, difference, prove
from seele_trainer.rollout.protocol import Canary, WeightSyncError
from seele_trainer.run_folder.attempt import Attempt, Superseded
from seele_trainer.weights.directory import WeightsDirectory
from seele_trainer.weights.export import WeightExportError, write_model_folder
from seele_trainer.weights.prepare import BadModelError, ModelUnreachable, prepare_model
from seele_trainer.weights.stored_tensors import HEAD, UntieError
from tests.support.small_models import logprobs_of, save_llama

pytestmark = pytest.mark.unit

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
    write_model_folder(tmp_path / "out", parameters, model.config, None, untie=True, max_shard_bytes=limit)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    tensors = stored(tmp_path / "out")
    assert torch.equal(tensors[HEAD], tensors["model.embed_tokens.weight"])
    assert (tmp_path / "out/model.safetensors.index.json").exists() == (limit == 20_000)
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_a_tied_model_stays_tied_without_untie(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0, tied=True)
    write_model_folder(tmp_path / "out", model.state_dict(), model.config, None, untie=False)
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
    write_model_folder(tmp_path / "out", views, model.config, None, untie=True)
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_an_export_replaces_an_older_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        model = save_llama(tmp_path / "model", seed=seed)
        write_model_folder(tmp_path / "out", model.state_dict(), model.config, None, untie=True)
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))
    assert listing(tmp_path) == ["model", "out"]


def test_a_full_disk_leaves_the_old_export_and_nothing_else(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", seed=0)
    write_model_folder(tmp_path / "out", model.state_dict(), model.config, None, untie=True)
    other = save_llama(tmp_path / "other", seed=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(WeightExportError, match="GB are free there: make room"):
            write_model_folder(tmp_path / "out", other.state_dict(), other.config, None, untie=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(tmp_path) == ["model", "other", "out"]
    serves(tmp_path / "out", logprobs_of(model, SEQUENCE))


def test_a_tied_model_without_a_known_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UntieError, match=r"untieEmbeddings: false"):
        write_model_folder(
            tmp_path / "out", {"body.weight": torch.ones(2)}, {"tie_word_embeddings": True}, None, untie=True
        )
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
    write_model_folder(tmp_path / "odd", tied, {**described, "tie_word_embeddings": False}, None, untie=False)
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
    write_model_folder(
        tmp_path / "sharded", model.state_dict(), model.config, None, untie=False, max_shard_bytes=20_000
    )
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
    [(RepositoryNotFoundError, 404, False), (GatedRepoError, 403, False), (HfHubHTTPError, 503, True)],
)
def test_a_model_that_the_hub_does_not_have_is_refused_and_a_failing_hub_is_reported_as_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[HfHubHTTPError], status: int, retried: bool
) -> None:
    def answer(*_: object, **__: object) -> None:
        raise kind("no", response=httpx.Response(status, request=httpx.Request("GET", "http://hub")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    with pytest.raises(BadModelError, match="check the id, HF_TOKEN and the network") as raised:
        prepare_model(config_for("some/model"), tmp_path / "out")
    assert isinstance(raised.value, ModelUnreachable) == retried


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


# --- versions


def make_versions(root: Path, versions: list[int]) -> WeightsDirectory:
    weights = WeightsDirectory(root, Attempt(root, 1))
    for age, version in enumerate(versions):
        weights.folder(version).mkdir(parents=True)
        (weights.folder(version) / "config.json").write_text("{}")
        os.utime(weights.folder(version), (1000 + age, 1000 + age))
    return weights


def test_the_current_version_is_the_published_one(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [1, 2])
    assert weights.current() is None
    weights.publish(1)
    assert weights.current() == 1
    weights.publish(2)
    assert weights.current() == 2
    with pytest.raises(FileNotFoundError, match="export version 3"):
        weights.publish(3)


def test_pruning_keeps_the_newest_and_the_published(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [1, 2, 3, 4])
    weights.publish(1)
    weights.prune(keep=2)
    assert weights.versions() == [1, 3, 4]


def test_pruning_after_a_resume_deletes_the_lost_attempts_versions(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [11, 12, 10])
    weights.prune(keep=1)
    assert weights.versions() == [10]


def test_pruning_removes_the_remains_of_killed_exports_but_not_of_other_pods(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [1, 2])
    root = weights.folder(1).parent
    for name in (
        "version-3.attempt-7",
        ".version-3.attempt-7.0123456789abcdef",
        ".initial.0123456789abcdef0123456789abcdef",
    ):
        (root / name).mkdir()
    weights.prune(keep=2)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == [
        ".initial.0123456789abcdef0123456789abcdef",
        "version-1",
        "version-2",
    ]


def test_a_superseded_attempt_publishes_and_prunes_nothing(tmp_path: Path) -> None:
    old, new = WeightsDirectory(tmp_path, Attempt(tmp_path, 1)), WeightsDirectory(tmp_path, Attempt(tmp_path, 2))
    for weights, content in ((old, "old"), (new, "new")):
        weights.staged(3).mkdir()
        (weights.staged(3) / "config.json").write_text(content)
    new.publish(3)
    with pytest.raises(Superseded):
        old.publish(3)
    new.staged(4).mkdir()
    with pytest.raises(Superseded):
        old.prune(keep=1)
    assert (new.folder(3) / "config.json").read_text() == "new"
    assert new.current() == 3
    assert new.staged(4).is_dir()


# --- the canary

CANARY = Canary(((1, 2, 3), (4, 5)), ((-1.0, -2.0), (-3.0,)), tolerance=0.01)


def test_the_difference_is_the_mean_over_tokens_not_over_sequences() -> None:
    assert difference(CANARY, [[-1.0, -2.0], [-3.3]]) == pytest.approx(0.1)


@pytest.mark.parametrize("measured", [[], [[-1.0, -2.0]], [[-1.0], [-3.0]], [[-1.0, math.nan], [-3.0]]])
def test_missing_and_undefined_values_are_infinitely_wrong(measured: list[list[float]]) -> None:
    assert difference(CANARY, measured) == math.inf
    with pytest.raises(WeightSyncError, match="server A was given the weights of version 3"):
        prove(CANARY, measured, "server A", 3)


def test_a_difference_within_the_tolerance_passes() -> None:
    assert prove(CANARY, [[-1.0, -2.0], [-3.02]], "server A", 3) == pytest.approx(0.02 / 3)


def test_half_precision_is_allowed_more_than_single() -> None:
    assert default_tolerance("float32") == 0.01
    assert default_tolerance("bfloat16") == default_tolerance("float16") == 0.15


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=20),
    st.integers(1, 6),
    st.integers(2, 6),
)
def test_canary_sequences_are_distinct_scorable_and_within_their_limits(lists, count: int, longest: int) -> None:
    if not any(len(tokens) >= 2 for tokens in lists):
        with pytest.raises(ValueError, match="no sequence"):
            canary_sequences(lists, count, longest)
        return
    chosen = canary_sequences(lists, count, longest)
    assert 1 <= len(chosen) <= count
    assert len(set(chosen)) == len(chosen)
    assert all(2 <= len(tokens) <= longest for tokens in chosen)
    assert all(any(tuple(tokens[:longest]) == one for tokens in lists) for one in chosen)
