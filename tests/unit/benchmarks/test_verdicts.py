"""What a study says beside the paper: where they agree, where they do not, and which targets were held."""

from __future__ import annotations

import pytest

from benchmarks.methods_study.identity import step_gains
from benchmarks.methods_study.page import page
from benchmarks.methods_study.plots import pictures
from benchmarks.methods_study.results import Gains, Study
from benchmarks.methods_study.verdicts import verdicts
from tests.support.method_studies import WHOLE, a_setting, a_study

pytestmark = pytest.mark.unit


def with_gains(scale: float, top: int) -> Study:
    """Ten problems in each tenth but the last, which has four; c·a(1 - a), and 0.1 more in one tenth."""
    means = [scale * (tenth + 0.5) / 10 * (9.5 - tenth) / 10 + (0.1 if tenth == top else 0.0) for tenth in range(10)]
    gains = Gains(
        step=20,
        learning_rate=1e-4,
        groups=(5,) * 9 + (2,),
        descent=(*(5 * mean for mean in means[:9]), 7.0),
    )
    return a_study(
        a_setting("targets", "target 0.5", [0.5], gains=(gains,)),
        a_setting("targets", "target 0.25", [0.4], gains=(gains,)),
        a_setting("methods", "uft", [0.4], strategy="uft", gains=(gains,) * 9),
    )


def test_gains_are_pooled_over_targets_and_held_against_the_bound() -> None:
    (exact,) = step_gains(with_gains(0.8, top=-1))
    assert (exact.step, exact.groups.tolist()) == (20, [10] * 9 + [4])
    assert (exact.scale, exact.explained) == (pytest.approx(0.8), pytest.approx(1.0))
    assert not exact.known[9], "four problems are too few for a mean"

    (leaning,) = step_gains(with_gains(0.8, top=2))
    assert leaning.top == pytest.approx(0.25)
    assert leaning.explained < 0.9
    text = page(with_gains(0.8, top=2))
    assert "| 20 | 0.0001 | 94 | 0.038 | 0.102 | 0.250 | 0.182 | 0.198 | 0.198 | 0.182 | 0.150 | 0.102 | – |" in text
    assert "**a(1 − a).** The largest gain of a step is with problems of 25 % accuracy" in text
    assert "<svg" in pictures(with_gains(0.8, top=2))["identity-dark.svg"]()
    assert "What a step gains" not in page(WHOLE)

    (against,) = step_gains(with_gains(0.01, top=0))
    assert against.explained < 0
    text = page(with_gains(0.01, top=0))
    assert "explains nothing of the variance between tenths of accuracy; in step 20 a constant fits better" in text


def test_the_page_says_where_the_paper_is_contradicted() -> None:
    study = a_study(
        a_setting("methods", "uft", [0.9, 0.9, 0.9], strategy="uft"),
        a_setting("methods", "seele", [0.5, 0.5, 0.5]),
        a_setting("methods", "grpo", [0.4, 0.5, 0.6], strategy="grpo"),
        a_setting(
            "targets",
            "target 0.375",
            [0.1, 0.1, 0.1],
            late_accuracy_by_round=(0.1, 0.2, 0.39, 0.36),
            free_reward=0.376,
            late_reward=0.4,
            unhinted_share=0.25,
            unhinted_reward=0.455,
        ),
        a_setting(
            "targets",
            "target 0.5",
            [0.5, 0.5, 0.5],
            late_accuracy_by_round=(0.5, 0.5, 0.5, 0.46),
            late_reward=0.49,
            free_reward=0.5,
            whole_share=0.2,
            whole_reward=0.42,
            unhinted_share=0.1,
            unhinted_reward=0.55,
        ),
        a_setting(
            "targets",
            "target 0.625",
            [0.8, 0.8, 0.8],
            late_accuracy_by_round=(0, 0, 0.62, 0.6),
            late_reward=0.606,
            free_reward=0.7,
        ),
        a_setting("rounds", "4 × 8", [0.5, 0.5, 0.5]),
        a_setting("rounds", "8 × 4", [0.6, 0.6, 0.6]),
        a_setting("estimators", "shared-ability", [0.5], efficiency=0.84),
        a_setting("estimators", "paper", [0.5], efficiency=0.8),
    )
    said = "\n".join(verdicts(study))

    assert (
        "Of 3 pairs that the paper puts in an order, 1 are in the same order here, 1 in the opposite one, and 1 can"
        in said
    )
    assert "SEELE's interval does **not** lie above GRPO's" in said
    assert "**Disagrees with the paper:** `uft` is above `seele` here." in said
    assert (  # by its reward
        "**Control at target 0.375: missed.** Over the last half of the training rounds 3 and 4 are at most 0.015 off (0.03 is "
        "asked for), the mean reward 0.025 (0.02). Rollouts with a hint of 5 to 95 % are 0.001 off. 25% had less than "
        "5 %, were solved more than the target all the same, and alone put the mean 0.020 above it."
    ) in said
    assert (  # by a round
        "**Control at target 0.5: missed.** Over the last half of the training rounds 3 and 4 are at most 0.040 off (0.03 is "
        "asked for), the mean reward 0.010 (0.02). Rollouts with a hint of 5 to 95 % are 0.000 off. 20% had more than 95 %, "
        "were solved less than the target all the same, and alone put the mean 0.016 below it."
    ) in said
    assert "**Control at target 0.625.** " in said
    assert said.count("a hint of 5 to 95 %") == 2
    assert "**Disagrees with the paper:** target 0.625 has a higher mean than the paper's 0.5" in said
    assert "**Disagrees with the paper:** 8 × 4 is above 4 × 8 here." in said
    assert "is 0.840 with ours and 0.800 with the paper's: +5.0%; at least +10 % was wanted, and is missed." in said


def test_a_training_says_whether_every_target_was_held_in_it() -> None:
    def targets(**rewards: float) -> Study:
        names = {"low": "0.375", "middle": "0.5", "high": "0.75"}
        return a_study(
            *(
                a_setting(
                    "targets", f"target {names[key]}", [0.5], late_reward=value, late_accuracy_by_round=(value,) * 4
                )
                for key, value in rewards.items()
            )
        )

    short, longer = targets(low=0.41, middle=0.51, high=0.74), targets(low=0.38, middle=0.49, high=0.75)
    lines = verdicts(short, longer)
    assert "**Control at every target: missed.** Held: 0.5, 0.75; missed: 0.375." in lines
    assert "**Control at every target on longer chains.** All of 0.375, 0.5, 0.75 are held." in lines
    assert "Control at every target" not in "\n".join(verdicts(targets(low=0.38)))


def test_what_agrees_is_no_disagreement() -> None:
    said = "\n".join(verdicts(WHOLE))

    assert "SEELE's interval lies above GRPO's" in said
    assert "0.5 is best, as in the paper" in said
    assert "+12.5%; at least +10 % was wanted." in said
    assert "Disagrees" not in said
