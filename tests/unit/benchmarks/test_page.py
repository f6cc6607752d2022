"""The page of the study of all methods and its pictures, from results of one day or several."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.methods_study.page import page
from benchmarks.methods_study.plots import pictures
from benchmarks.methods_study.results import RateChoice, save
from seele_trainer.run_folder.records import Tokens
from tests.support.method_studies import WHOLE, a_setting, a_source, a_study
from tools import generate

pytestmark = pytest.mark.unit


def test_the_page_has_a_row_for_every_setting_best_method_first() -> None:
    text = page(WHOLE)
    rows = [line for line in text.splitlines() if line.startswith("| ")]

    for row in (
        "| `seele` | 0.0003 | 0.0 | 90.0 ± 24.8 | 34.2 | 5.0 | 3.00 | 2.50 | 1.50 | 2.5 |",
        "| `grpo` | 0.0003 | 0.0 | 10.0 ± 24.8 | 24.2 | 5.0 | 3.00 | 2.50 | 1.50 | 2.5 |",
        "| 0.25 | 0.460 | 0.480 | 0.500 | 0.510 | 0.490 | 30.0 | 90.0 | 5.0 | 0.240 | 60.0 ± 0.0 |",
        "| 0.5 | 0.460 | 0.480 | 0.500 | 0.510 | 0.490 | 30.0 | – | – | – | 90.0 ± 24.8 |",
        "| 2 | 16 | 32 | 70.0 ± 0.0 |  |",
        "| `seele` | 90.0 ± 24.8 | 70.0 ± 24.8 | 60.0, 70.0, 80.0 | 0.700 | 5.0 |",
        "| `uft` | – | 10.0 ± 0.0 | 10.0, 10.0, 10.0 | 0.900 | 5.0 |",
        "| `paper` | 0.800 | 0.700 | 0.460 | 0.480 | 0.500 | 0.510 | 70.0 ± 0.0 |",
        "| high-entropy | 0.490 | 30.0 | 0.900 | 40.0 ± 0.0 | 40.0, 40.0, 40.0 |",
        "| hints end at steps | 0.490 | 30.0 | 0.900 | 60.0 ± 24.8 | 50.0, 60.0, 70.0 |",
    ):
        assert row in rows
    assert text.index("| `seele` | 0.0003") < text.index("| `grpo` | 0.0003")
    assert "One grid for all methods, 0.0001, 0.0003, each tried on seed 0" in text
    assert "512 solutions to each update" in text
    assert "Gradients come from 2.50 to 2.50 million tokens a run." in text
    assert "was not counted yet" not in text
    assert "Not run: the parts" not in text


def test_the_page_says_what_was_not_run_and_not_tuned() -> None:
    study = a_study(WHOLE.settings[0], rates=(RateChoice(strategy="grpo", tried=(), chosen=1e-4),))
    text = page(study)

    assert "Not run: the parts unsupervised, targets, estimators, options, rounds, supervision." in text
    assert "0.0001 for all methods, not tuned" in text
    assert "## Targets" not in text


def test_a_tiny_study_has_no_page() -> None:
    with pytest.raises(ValueError, match="only shows that the script works"):
        page(a_study(*WHOLE.settings, tiny=True))


def test_the_page_and_its_pictures_are_generated_once_there_are_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "REPOSITORY", tmp_path)
    assert generate.benchmarks_page() == {}

    save(WHOLE, tmp_path / "benchmarks" / "results" / "methods.json")
    files = generate.benchmarks_page()
    text = files["docs/benchmarks.md"]()

    assert text == page(WHOLE)
    for name in ("methods", "rounds-by-target", "final-by-target", "estimators"):
        assert f"docs/images/benchmarks/{name}-light.svg" in files
        assert f"images/benchmarks/{name}-light.svg" in text
    assert not [name for name in files if "longer" in name]

    longer = a_study(
        a_setting(
            "targets", "target 0.375", [0.3, 0.4, 0.5], late_reward=0.376, late_accuracy_by_round=(0.3,) * 3 + (0.36,)
        ),
        problems={"longest": 12},
        sources=(a_source("targets", command="the other"),),
    )
    save(longer, tmp_path / "benchmarks" / "results" / "longer_chains.json")
    files = generate.benchmarks_page()
    text = files["docs/benchmarks.md"]()
    assert "on chains of 11 and 12 operations" in text
    assert "Parts targets: `the other`" in text
    assert "| 0.375 | 0.300 | 0.300 | 0.300 | 0.360 | 0.376 |" in text
    assert "**Control at target 0.375 on longer chains: missed.** " in text
    assert "images/benchmarks/rounds-by-target-longer-light.svg" in text
    assert "target 0.375" in files["docs/images/benchmarks/rounds-by-target-longer-light.svg"]()


def test_pictures_are_drawn_the_same_every_time() -> None:
    drawn = pictures(WHOLE)

    for name in ("methods-dark", "rounds-by-target-light", "estimators-light", "final-by-target-light"):
        assert "<svg" in drawn[f"{name}.svg"]()
    assert drawn["methods-dark.svg"]() == drawn["methods-dark.svg"]()
    assert "target 0.25" in drawn["rounds-by-target-light.svg"]()


def test_parts_of_another_day_stand_beside_those_of_today() -> None:
    yesterday = a_study(
        a_setting("methods", "seele", [0.5]),
        a_setting("rounds", "4 × 8", [0.5]),
        rates=(
            RateChoice(strategy="seele", tried=((1e-4, 0.5),), chosen=1e-4),
            RateChoice(strategy="uft", tried=((1e-4, 0.5),), chosen=1e-4),
        ),
        sources=(a_source("methods", "rounds", command="yesterday"),),
    )
    today = a_study(
        a_setting("rounds", "4 × 8", [0.7]),
        a_setting("targets", "target 0.5", [0.7]),
        sources=(a_source("targets", "rounds"),),
    )
    both = today.beside(yesterday)

    assert [(setting.part, setting.runs[0].after) for setting in both.settings] == [
        ("methods", 0.5),
        ("targets", 0.7),
        ("rounds", 0.7),
    ]
    assert [(choice.strategy, choice.chosen) for choice in both.rates] == [("seele", 3e-4), ("uft", 1e-4)]
    text = page(both)
    assert (
        "Parts methods: `yesterday` at a revision that was not kept on x86_64, 2 cores, 24 GiB, 2 runs at a time, from a "
        "base model whose digest was not kept, with seele 0.1.0." in text
    )
    assert "Parts targets, rounds: `python -m benchmarks.methods` at " in text
    assert "Not run: the parts unsupervised, estimators, options, supervision." in text


def test_parts_from_two_base_models_are_not_to_be_compared() -> None:
    settings = (
        a_setting("methods", "uft", [0.5], strategy="uft"),
        a_setting("options", "the defaults", [0.9]),
        a_setting("unsupervised", "uft, hints not learnt", [0.4], strategy="uft", base_model="0123456789ab"),
        a_setting("rounds", "4 × 8", [0.8], base_model="0123456789ab"),
    )
    first = a_source("methods", "options")
    second = a_source("unsupervised", "rounds", base_model="0123456789ab", revision="fedcba9")
    text = page(a_study(*settings, sources=(first, second)))

    assert " at a revision that was not kept on x86_64" in text
    assert " at revision fedcba9 on x86_64" in text
    assert "from a base model whose digest was not kept, with seele" in text
    assert (
        "ends at 90.0 from a base model whose digest was not kept and 80.0 from base model `0123456789ab`. Learning"
        in text
    )
    assert "| `uft` | – | 40.0 |" in text, "hints learnt from another base model"
    one = page(a_study(*(setting.model_copy(update={"base_model": None}) for setting in settings)))
    assert "**Base models.**" not in one
    assert "| `uft` | 50.0 | 40.0 |" in one


def test_methods_and_control_are_shown_for_every_base_model_and_all_else_for_the_last() -> None:
    before = a_study(
        a_setting("methods", "seele", [0.3]),
        a_setting("targets", "target 0.5", [0.9], late_reward=0.6),
        a_setting("rounds", "4 × 8", [0.9]),
        sources=(a_source("methods", "targets", "rounds", command="yesterday"),),
    )
    after = a_study(
        a_setting("methods", "seele", [0.2], base_model="0123456789ab"),
        a_setting("methods", "uft", [0.4], strategy="uft", base_model="0123456789ab"),
        a_setting("targets", "target 0.5", [0.8], base_model="0123456789ab"),
        a_setting("rounds", "4 × 8", [0.7], base_model="0123456789ab"),
        sources=(a_source("methods", "targets", "rounds", base_model="0123456789ab"),),
    )
    both = after.beside(before)

    assert [(setting.part, setting.base_model) for setting in both.settings] == [
        ("methods", None),
        *[("methods", "0123456789ab")] * 2,
        ("targets", None),
        ("targets", "0123456789ab"),
        ("rounds", "0123456789ab"),
    ]
    assert [source.parts for source in both.sources] == [
        ("methods", "targets"),
        ("methods", "targets", "rounds"),
    ]
    assert [setting.runs[0].after for setting in both.part("targets")] == [0.8]
    text = page(both)
    assert "**Order of the methods, base model `0123456789ab`.** Of 1 pairs" in text
    assert "| `seele` | 0.0003 | 0.0 | 20.0 |" in text
    assert "| `seele` | 0.0003 | 0.0 | 30.0 |" in text
    text = text[text.index("## Targets") :]
    assert text.index("From base model `0123456789ab`:") < text.index("From a base model whose digest was not kept:")
    assert "**Control at target 0.5, base model `0123456789ab`.** " in text
    assert "**Control at target 0.5, a base model whose digest was not kept: missed.** " in text
    again = after.model_copy(
        update={"settings": (a_setting("targets", "target 0.5", [0.6], base_model="0123456789ab"),)}
    )
    assert [setting.runs[0].after for setting in again.beside(both).settings] == [
        *[0.3, 0.2, 0.4],
        *[0.9, 0.6, 0.7],
    ]


def test_the_page_says_which_rows_are_older_than_the_count_of_tokens() -> None:
    old = Tokens(prompt=1, hint=2, generated=3_000_000, trained=1_500_000)
    before = a_setting("methods", "grpo", [0.1, 0.2], strategy="grpo", base_model="0123456789ab", tokens=old)
    text = page(a_study(a_setting("methods", "grpo", [0.3, 0.4], strategy="grpo"), before))

    assert "| 3.00 | 2.50 | 1.50 |" in text
    assert "| 3.00 | – | 1.50 |" in text
    assert "Where *M in loss* was not counted yet, `sft_then_grpo` imitated" in text
    assert "was not counted yet" not in page(a_study(before))
    assert "Gradients come from" not in page(a_study(before))
