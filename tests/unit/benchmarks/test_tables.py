"""The tables and plots of docs/benchmarks.md, from results of one base model or several."""

import pytest

from benchmarks.methods_study.gains import step_gains
from benchmarks.methods_study.plots import pictures
from benchmarks.methods_study.results import Gains, Study
from benchmarks.methods_study.tables import END, page, tables
from seele_trainer.run_folder.records import Tokens
from tests.support.method_studies import BASE, WHOLE, a_setting, a_source, a_study


def rows(study: Study, table: str) -> list[str]:
    return tables(study)[table].splitlines()[2:]


@pytest.mark.parametrize(
    ("part", "row"),
    [
        ("methods", "| `seele` | 0.0003 | 0.0 | 90.0 ± 24.8 | 34.2 | 5.0 | 3.00 | 2.50 | 1.50 | 2.5 |"),
        ("targets", "| 0.25 | 0.460 | 0.480 | 0.500 | 0.510 | 0.490 | 30.0 | 90.0 | 5.0 | 0.240 | 60.0 ± 0.0 |"),
        ("targets", "| 0.5 | 0.460 | 0.480 | 0.500 | 0.510 | 0.490 | 30.0 | – | – | – | 90.0 ± 24.8 |"),
        ("rounds", "| 2 × 16 | 32 | 70.0 ± 0.0 |  |"),
        ("unsupervised", "| `seele` | 70.0 ± 24.8 | 60.0, 70.0, 80.0 | 0.700 | 5.0 |"),
        ("estimators", "| `paper` | 0.800 | 0.700 | 0.460 | 0.480 | 0.500 | 0.510 | 70.0 ± 0.0 |"),
        ("supervision", "| high-entropy | 0.490 | 30.0 | 0.900 | 40.0 ± 0.0 | 40.0, 40.0, 40.0 |"),
        ("options", "| hints end at steps | 0.490 | 30.0 | 0.900 | 60.0 ± 24.8 | 50.0, 60.0, 70.0 |"),
    ],
)
def test_every_setting_has_a_row(part: str, row: str) -> None:
    assert row in rows(WHOLE, f"{part} {BASE}")


def test_the_best_method_is_first_and_tokens_that_were_not_counted_are_a_dash() -> None:
    old = Tokens(prompt=1, hint=2, generated=3_000_000, trained=1_500_000)
    study = a_study(
        a_setting("methods", "grpo", [0.3], strategy="grpo", tokens=old), a_setting("methods", "seele", [0.4])
    )
    best, worst = rows(study, f"methods {BASE}")

    assert best.startswith("| `seele` |")
    assert worst.endswith("| 3.00 | – | 1.50 | 2.5 |")


def test_each_base_model_has_tables_of_its_own() -> None:
    other = [a_setting("methods", "uft", [0.4], strategy="uft", base_model="other")]
    study = a_study(a_setting("methods", "seele", [0.5]), *other, sources=(a_source("methods", revision="fedcba9"),))

    assert [row.split(" | ")[0] for row in rows(study, "methods other")] == ["| `uft`"]
    assert [row.split(" | ")[0] for row in rows(study, f"methods {BASE}")] == ["| `seele`"]
    assert rows(study, "sources")[0].startswith(
        f"| methods | `{BASE}` | `fedcba9` | `python -m benchmarks.methods` | x86"
    )


def test_tables_are_written_between_their_marks() -> None:
    study, longer = a_study(a_setting("rounds", "4 × 8", [0.5])), a_study(a_setting("targets", "target 0.5", [0.5]))
    names = ("sources", f"rounds {BASE}", "longer sources", f"longer targets {BASE}")
    text = "".join(f"# {name}\n<!-- table: {name} -->\nold\n{END}\n" for name in names)
    written = page(text, study, longer)

    assert "old" not in written
    assert f"<!-- table: rounds {BASE} -->\n{tables(study)[f'rounds {BASE}']}{END}\n# longer sources" in written
    assert page(written, study, longer) == written
    with pytest.raises(ValueError, match=f"there is no table 'rounds other'; there are sources, rounds {BASE}"):
        page(text.replace(f"rounds {BASE}", "rounds other"), study, longer)
    with pytest.raises(ValueError, match="add the lines `<!-- table: sources -->`"):
        page("", study, longer)


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


def test_gains_are_pooled_over_targets_and_compared_with_the_bound() -> None:
    (exact,) = step_gains(with_gains(0.8, top=-1))
    assert (exact.step, exact.groups.tolist()) == (20, [10] * 9 + [4])
    assert (exact.scale, exact.explained) == (pytest.approx(0.8), pytest.approx(1.0))
    assert not exact.known[9], "four problems are too few for a mean"

    leaning = with_gains(0.8, top=2)
    assert step_gains(leaning)[0].explained < 0.9
    (row,) = rows(leaning, "gains")
    assert row.startswith(
        "| 20 | 0.0001 | 94 | 0.038 | 0.102 | 0.250 | 0.182 | 0.198 | 0.198 | 0.182 | 0.150 | 0.102 | – |"
    )
    assert "<svg" in pictures(leaning)["identity-dark.svg"]()
    assert step_gains(with_gains(0.01, top=0))[0].explained < 0, "a constant fits better"
    assert "gains" not in tables(WHOLE)


def test_plots_are_reproducible() -> None:
    drawn = pictures(WHOLE, longer=WHOLE)

    for name in ("methods", "rounds-by-target", "estimators", "final-by-target", "rounds-by-target-longer"):
        assert "<svg" in drawn[f"{name}-light.svg"]()
    assert drawn["methods-dark.svg"]() == drawn["methods-dark.svg"]()
    assert "target 0.25" in drawn["rounds-by-target-light.svg"]()
