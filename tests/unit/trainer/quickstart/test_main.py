"""The quickstart's problems and base model: the shipped ones are copied, others trained, and nothing is left half written."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from setuptools import Distribution
from transformers import AutoModelForCausalLM, AutoTokenizer

from seele_trainer.quickstart import base_model, chains
from seele_trainer.quickstart.__main__ import SHIPPED, Recipe, main, make
from tests.support import REPOSITORY

TINY = Recipe(training_problems=8, test_problems=4, updates=2, batch=4)
CHECKSUMS = {
    "base/model.safetensors": "33d51fbf90c69dd0af511ff6a081329eb24849936304da752451726992e5e580",
    "train.jsonl": "d75b9e7690a093adbf82978bf268bb70345ddc05614266a4dfdbabb114954d50",
    "test.jsonl": "e2931a00b8e9acea18d0a9a0f5fbadfa64e0a00e5f4128f2c9ad5bb73082810a",
}
"""SHA-256 of shipped files. Figures in README.md, docs/ and benchmarks/results/ were measured with them."""


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(folder: Path) -> Path:
    return folder / "base" / "model.safetensors"


# Shipped


def test_the_shipped_files_are_those_that_all_figures_were_measured_with() -> None:
    assert {name: hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() for name in CHECKSUMS} == CHECKSUMS


def test_the_shipped_problems_are_those_of_the_default_recipe(tmp_path: Path) -> None:
    assert json.loads((SHIPPED / "recipe.json").read_text()) == Recipe().stamp
    for name, problems in zip(("train.jsonl", "test.jsonl"), Recipe().problems(), strict=True):
        chains.write_problems(tmp_path / name, problems)
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name


def test_a_wheel_contains_the_shipped_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    project = Distribution()
    project.parse_config_files(["pyproject.toml"])
    build: Any = project.get_command_obj("build_py")
    build.ensure_finalized()
    build.manifest_files = {}
    found = {path for name in project.packages for path in build.find_data_files(name, build.get_package_dir(name))}
    assert {str(path.relative_to(REPOSITORY)) for path in SHIPPED.rglob("*") if path.is_file()} <= found


def test_the_default_recipe_is_copied_without_pytorch(tmp_path: Path) -> None:
    out = tmp_path / "nested" / "quickstart"
    code = f"""
import sys
from pathlib import Path
from seele_trainer.quickstart.__main__ import Recipe, make
make(Path({str(out)!r}), Recipe())
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    files = [path.relative_to(SHIPPED) for path in SHIPPED.rglob("*") if path.is_file()]
    assert all((out / file).read_bytes() == (SHIPPED / file).read_bytes() for file in files)


def test_a_copy_is_kept_if_it_is_right_and_replaced_otherwise(tmp_path: Path) -> None:
    make(tmp_path / "quickstart", Recipe())
    before = weights(tmp_path / "quickstart").stat().st_ino
    make(tmp_path / "quickstart", Recipe())
    assert weights(tmp_path / "quickstart").stat().st_ino == before

    weights(tmp_path / "quickstart").write_bytes(b"what another machine trained by the same recipe")
    make(tmp_path / "quickstart", Recipe())
    assert weights(tmp_path / "quickstart").read_bytes() == weights(SHIPPED).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["quickstart"]


# Trained


def test_a_trained_model_can_be_loaded_and_its_problems_are_kept_apart(tmp_path: Path) -> None:
    make(tmp_path / "quickstart", TINY)
    train, test = rows(tmp_path / "quickstart" / "train.jsonl"), rows(tmp_path / "quickstart" / "test.jsonl")
    assert (len(train), len(test)) == (8, 4)
    assert not {row["problem"] for row in train} & {row["problem"] for row in test}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "quickstart" / "base")
    text = train[0]["problem"] + "\n" + train[0]["solution"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "quickstart" / "base").num_parameters() < 500_000
    # A container reads it as another user.
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(("longest", "layers"), [(chains.LONGEST, 2), (chains.LONGEST + 1, 3)])
def test_longer_chains_take_a_third_layer_and_more_labels(tmp_path: Path, longest: int, layers: int) -> None:
    make(tmp_path / "made", replace(TINY, longest=longest))

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "made" / "base").config.num_hidden_layers == layers
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made" / "base")
    for row in rows(tmp_path / "made" / "train.jsonl"):
        assert tokenizer.pad_token_id not in tokenizer(row["problem"] + "\n" + row["solution"])["input_ids"]


def test_a_warning_says_if_the_base_model_did_not_learn_its_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "quickstart", TINY)
    assert "try more --updates or another --seed" in caplog.text

    caplog.clear()
    monkeypatch.setattr("seele_trainer.quickstart.__main__.LEARNED", 1e9)
    make(tmp_path / "other", TINY)
    assert not caplog.records


def test_a_recipe_is_trained_once_unless_told_otherwise(tmp_path: Path) -> None:
    def trained_at() -> int:
        return weights(tmp_path / "made").stat().st_mtime_ns

    make(tmp_path / "made", TINY)
    first = trained_at()
    make(tmp_path / "made", TINY)
    assert trained_at() == first
    make(tmp_path / "made", TINY, retrain=True)
    second = trained_at()
    assert second > first
    make(tmp_path / "made", replace(TINY, updates=1))
    assert trained_at() > second


def test_a_base_model_of_another_depth_is_trained_again(tmp_path: Path) -> None:
    longer = replace(TINY, longest=chains.LONGEST + 1)
    make(tmp_path / "made", TINY)
    # An earlier version wrote this next to a model of two layers.
    (tmp_path / "made" / "recipe.json").write_text(json.dumps(asdict(longer)))

    make(tmp_path / "made", longer)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "made" / "base").config.num_hidden_layers == 3


def test_train_trains_the_default_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(base_model, "train_base_model", lambda *_, **settings: asked.append(settings) or 0.0)
    main(tmp_path / "made")
    assert not asked
    main(tmp_path / "made", retrain=True)
    assert [one["updates"] for one in asked] == [Recipe.updates]
    main(tmp_path / "longer", longest=12)
    assert [one["longest"] for one in asked] == [chains.LONGEST, 12]


# Whole or not at all


def test_a_folder_that_another_process_finishes_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "other", TINY)

    def slower(*_: object, **__: object) -> float:
        shutil.copytree(tmp_path / "other", tmp_path / "quickstart")
        return 0.0

    monkeypatch.setattr(base_model, "train_base_model", slower)
    make(tmp_path / "quickstart", TINY)
    assert weights(tmp_path / "quickstart").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "quickstart"]


def test_an_interrupted_training_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(base_model, "train_base_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "quickstart", TINY)
    assert list(tmp_path.iterdir()) == []
