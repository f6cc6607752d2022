"""The tables of docs/benchmarks.md from the study's results; the text around them is written by hand.

`<!-- table: NAME -->` in the page marks the place of each, down to `<!-- end of table -->`.
"""

import re
from collections.abc import Callable, Mapping
from operator import attrgetter

import numpy as np

from benchmarks.methods_study.design import PARTS, Part
from benchmarks.methods_study.gains import step_gains
from benchmarks.methods_study.intervals import Interval
from benchmarks.methods_study.results import TENTHS, SettingResult, Study
from tools.markdown import between, table

END = "<!-- end of table -->"
PAPER_METHODS = {"seele": 34.2, "uft": 30.4, "prefix_rft": 28.7, "luffy": 25.8, "sft": 25.8, "grpo": 24.2}
"""Mean over six benchmarks of mathematics, Qwen2.5-1.5B, in percent (arXiv 2509.06923)."""
PAPER_ROUNDS = {"4 × 8": 34.2, "8 × 4": 33.6, "4 × 6": 33.9, "4 × 4": 32.3}
"""The same mean by rounds and rollouts per round (Table 2)."""

Cell = Callable[[SettingResult], str]


def page(text: str, study: Study, longer: Study) -> str:
    """The page with its tables up to date. Raises ValueError if a table has no place, or a place no table."""
    found = tables(study)
    found |= {f"longer {name}": inside for name, inside in tables(longer).items() if name != "gains"}
    unknown = set(re.findall(r"<!-- table: (.+) -->", text)) - set(found)
    if unknown:
        raise ValueError(f"docs/benchmarks.md: there is no table {min(unknown)!r}; there are {', '.join(found)}")
    for name, inside in found.items():
        text = between(text, f"<!-- table: {name} -->", END, inside)
    return text


def tables(study: Study) -> dict[str, str]:
    """Each table by its name: the part, and the base model that it was run from."""
    found = {"sources": _sources(study)}
    for part in PARTS:
        for base, settings in study.by_base_model(part).items():
            rows = sorted(settings, key=lambda setting: -setting.after.mean) if part == "methods" else settings
            cells = COLUMNS[part]
            found[f"{part} {base}"] = table(list(cells), ([cell(row) for cell in cells.values()] for row in rows))
    if step_gains(study):
        found["gains"] = _gains(study)
    return found


def percent(value: float | None) -> str:
    """A share in percent; a dash if it was not measured."""
    return "–" if value is None else f"{100 * value:.1f}"


def decimals(value: float | None) -> str:
    """Three decimals; a dash if it was not measured."""
    return "–" if value is None else f"{value:.3f}"


def plus_minus(value: Interval) -> str:
    """Percent with half of the interval."""
    return percent(value.mean) if value.half is None else f"{percent(value.mean)} ± {percent(value.half)}"


def _percent(field: str) -> Cell:
    return lambda setting: percent(setting.mean(field))


def _decimals(field: str) -> Cell:
    return lambda setting: decimals(setting.mean(field))


def _of_round(index: int) -> Cell:
    return lambda setting: decimals(setting.mean_of(lambda run: run.late_accuracy_by_round[index]))


def _millions(kind: str) -> Cell:
    def cell(setting: SettingResult) -> str:
        millions = setting.mean_of(lambda run: getattr(run.tokens, kind) / 1e6)
        return "–" if kind == "loss" and not millions else f"{millions:.2f}"

    return cell


def _paper(means: Mapping[str, float]) -> Cell:
    return lambda setting: f"{means[setting.name]:.1f}" if setting.name in means else ""


def _rollouts(setting: SettingResult) -> str:
    rounds, rollouts = setting.name.split(" × ")
    return str(int(rounds) * int(rollouts))


_AFTER: dict[str, Cell] = {"after": lambda setting: plus_minus(setting.after)}
_SEEDS: dict[str, Cell] = {"each seed": lambda setting: ", ".join(percent(run.after) for run in setting.runs)}
_ROUNDS: dict[str, Cell] = {f"round {index + 1}": _of_round(index) for index in range(4)}
_LATE: dict[str, Cell] = {"reward": _decimals("late_reward"), "hint, %": _percent("late_hint_rate")}
_EFFICIENCY: dict[str, Cell] = {"4a(1 − a)": _decimals("efficiency")}
_NO_GRADIENT = _percent("zero_gradient_groups")

COLUMNS: dict[Part, dict[str, Cell]] = {
    "methods": {
        "method": lambda setting: f"`{setting.name}`",
        "learning rate": lambda setting: f"{setting.learning_rate:g}",
        "before": _percent("before"),
        **_AFTER,
        "paper": _paper(PAPER_METHODS),
        "no gradient": _NO_GRADIENT,
        "M sampled": _millions("generated"),
        "M in loss": _millions("loss"),
        "M trained": _millions("trained"),
        "minutes": lambda setting: f"{setting.mean('minutes'):.1f}",
    },
    "unsupervised": {
        "method": lambda setting: f"`{setting.strategy}`",
        **_AFTER,
        **_SEEDS,
        **_EFFICIENCY,
        "no gradient, %": _NO_GRADIENT,
    },
    "targets": {
        "target": lambda setting: f"{setting.target:g}",
        **_ROUNDS,
        **_LATE,
        "none, %": _percent("unhinted_share"),
        "whole, %": _percent("whole_share"),
        "free": _decimals("free_reward"),
        **_AFTER,
    },
    "estimators": {
        "estimator": lambda setting: f"`{setting.name}`",
        **_EFFICIENCY,
        "second pass, round 1": _decimals("second_pass_first_round"),
        **_ROUNDS,
        **_AFTER,
    },
    "options": {"option": attrgetter("name"), **_LATE, **_EFFICIENCY, **_AFTER, **_SEEDS},
    "rounds": {"rounds × rollouts": attrgetter("name"), "rollouts": _rollouts, **_AFTER, "paper": _paper(PAPER_ROUNDS)},
    "supervision": {"supervision": attrgetter("name"), **_LATE, **_EFFICIENCY, **_AFTER, **_SEEDS},
}
"""Heads and cells of each part's table."""


def _gains(study: Study) -> str:
    tenths = [f"{10 * index}–{10 * index + 10} %" for index in range(TENTHS)]
    rows = [
        (
            str(one.step),
            f"{one.learning_rate:.2g}",
            str(one.groups.sum()),
            *(decimals(None if np.isnan(value) else float(value)) for value in one.means),
            f"{one.scale:.3f}",
            f"{one.explained:.2f}",
        )
        for one in step_gains(study)
    ]
    return table(("step", "rate", "problems", *tenths, "c", "explained"), rows)


def _sources(study: Study) -> str:
    rows = [
        (
            ", ".join(source.parts),
            f"`{source.base_model}`",
            f"`{source.revision}`",
            f"`{source.command}`",
            f"{source.machine['architecture']}, {source.machine['cores']} cores, {source.machine['memoryGiB']} GiB",
            ", ".join(f"{name} {version}" for name, version in source.versions.items()),
        )
        for source in study.sources
    ]
    return table(("parts", "base model", "revision", "command", "machine", "versions"), rows)
