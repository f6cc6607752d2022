"""The quickstart's base model and problems are made once, whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from seele_trainer.quickstart import base_model, chains
from seele_trainer.quickstart.__main__ import Recipe, _copy, _put, make
from seele_trainer.quickstart.base_model import train_base_model

pytestmark = pytest.mark.unit

TINY = Recipe(training_problems=8, test_problems=4, updates=2, batch=4)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_made_can_be_loaded_and_keeps_the_sets_apart(tmp_path: Path) -> None:
    make(tmp_path / "quickstart", TINY)
    train, test = rows(tmp_path / "quickstart" / "train.jsonl"), rows(tmp_path / "quickstart" / "test.jsonl")
    assert (len(train), len(test)) == (8, 4)
    assert not {row["problem"] for row in train} & {row["problem"] for row in test}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "quickstart" / "base")
    text = train[0]["problem"] + "\n" + train[0]["solution"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "quickstart" / "base").num_parameters() < 500_000


@pytest.mark.parametrize(("longest", "layers"), [(chains.LONGEST, 2), (chains.LONGEST + 1, 3)])
def test_longer_chains_take_a_third_layer_and_more_labels(tmp_path: Path, longest: int, layers: int) -> None:
    make(tmp_path, replace(TINY, longest=longest))

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").config.num_hidden_layers == layers
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    for row in rows(tmp_path / "train.jsonl"):
        assert tokenizer.pad_token_id not in tokenizer(row["problem"] + "\n" + row["solution"])["input_ids"]


def test_a_base_model_that_did_not_learn_its_steps_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "quickstart", TINY)
    assert "try more --updates or another --seed" in caplog.text

    caplog.clear()
    monkeypatch.setattr("seele_trainer.quickstart.__main__.LEARNT", 1e9)
    make(tmp_path / "other", TINY)
    assert not caplog.records


def test_the_same_recipe_is_reused_and_another_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "quickstart"
    make(out, TINY)
    first = (out / "base" / "model.safetensors").stat().st_mtime_ns
    make(out, TINY)
    assert (out / "base" / "model.safetensors").stat().st_mtime_ns == first
    make(out, Recipe(training_problems=8, test_problems=4, updates=1, batch=4))
    assert (out / "base" / "model.safetensors").stat().st_mtime_ns != first


def test_a_base_model_of_another_depth_is_made_anew(tmp_path: Path) -> None:
    longer = replace(TINY, longest=chains.LONGEST + 1)
    make(tmp_path, TINY)
    # An earlier version wrote this of a model of two layers.
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(longer)))

    make(tmp_path, longer)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").config.num_hidden_layers == 3


def test_another_checkout_takes_what_was_made_before(tmp_path: Path) -> None:
    make(tmp_path / "first", TINY, tmp_path / "cache")
    make(tmp_path / "second", TINY, tmp_path / "cache")
    files = ("recipe.json", "train.jsonl", "test.jsonl", "base/model.safetensors")
    for name in files:
        first, second = tmp_path / "first" / name, tmp_path / "second" / name
        assert first.read_bytes() == second.read_bytes()
        # A container of another user can read it, and get there.
        assert tmp_path.joinpath("first").stat().st_mode & 0o055 == 0o055
        assert second.stat().st_mode & 0o044 == 0o044
    # Taken, not made again: the copy in between decides what is in it.
    [kept] = (tmp_path / "cache").iterdir()
    (kept / "train.jsonl").write_text("marked\n")
    make(tmp_path / "third", TINY, tmp_path / "cache")
    assert (tmp_path / "third" / "train.jsonl").read_text() == "marked\n"
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_checkouts_that_make_it_at_once_keep_what_the_first_one_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    inodes = []

    def beaten(folder: Path, held_out: frozenset[str], **options: Any) -> float:
        # The other one begins later, and is done before this one is.
        monkeypatch.setattr(base_model, "train_base_model", train_base_model)
        make(tmp_path / "other", TINY, cache)
        inodes.extend(path.stat().st_ino for path in cache.iterdir())
        return train_base_model(folder, held_out, **options)

    monkeypatch.setattr(base_model, "train_base_model", beaten)
    make(tmp_path / "quickstart", TINY, cache)
    assert [path.stat().st_ino for path in cache.iterdir()] == inodes
    assert (tmp_path / "quickstart" / "recipe.json").is_file()
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_that_is_put_in_place_while_another_is_filled_stays(tmp_path: Path) -> None:
    make(tmp_path / "quickstart", TINY)
    kept = tmp_path / "cache" / "kept"

    def beaten(folder: Path) -> None:
        for copy in (folder, kept):
            shutil.copytree(tmp_path / "quickstart", copy, dirs_exist_ok=True)
        (kept / "first").touch()

    _put(kept, TINY, beaten)
    assert (kept / "first").exists()
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]


def test_a_copy_that_goes_away_while_it_is_taken_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    make(tmp_path / "first", TINY, cache)

    def emptied(source: Path, folder: Path) -> None:
        if source.parent == cache:
            (folder / "train.jsonl").touch()
            shutil.rmtree(source)
            raise shutil.Error([(str(source / "base"), str(folder / "base"), "No such file or directory")])
        _copy(source, folder)

    monkeypatch.setattr("seele_trainer.quickstart.__main__._copy", emptied)
    make(tmp_path / "second", TINY, cache)
    for name in ("train.jsonl", "base/model.safetensors"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    # And it is kept again.
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_copy(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    make(tmp_path / "quickstart", TINY, tmp_path / "cache")
    assert (tmp_path / "quickstart" / "base" / "config.json").is_file()


def test_a_training_that_is_broken_off_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object, **__: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("seele_trainer.quickstart.base_model.train_base_model", broken_off)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "quickstart", TINY)
    assert not (tmp_path / "quickstart").exists()
