"""What the study says beside the paper (arXiv 2509.06923): in its words where they agree, and plainly where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from benchmarks.methods_study.identity import step_gains
from benchmarks.methods_study.intervals import Interval, interval, mean
from benchmarks.methods_study.results import SettingResult, Study

PAPER_METHODS = {"seele": 34.2, "uft": 30.4, "prefix_rft": 28.7, "luffy": 25.8, "sft": 25.8, "grpo": 24.2}
"""Mean over six benchmarks of mathematics, Qwen2.5-1.5B, in percent; its base model has 18.5."""
PAPER_ROUNDS = {"2 × 16": None, "4 × 8": 34.2, "8 × 4": 33.6, "4 × 6": 33.9, "4 × 4": 32.3}
"""The same mean by rounds and rollouts a round (Table 2)."""
PAPER_TARGET = 0.5
ON_TARGET, REWARD_ON_TARGET = 0.03, 0.02
BY_NEED = 0.01
"""Rounds without room for a shorter hint, or for a longer one, are told of where they alone put the mean reward so far off."""
CONTROLLED = (0.375, 0.75)
"""Targets that the paper's controller holds; at 0.25 easy problems need no hint at all."""


def final(setting: SettingResult) -> Interval:
    """Held-out accuracy after the last step."""
    return interval([run.after for run in setting.runs])


def target_of(setting: SettingResult) -> float:
    """The target accuracy of a setting of the part about targets."""
    return float(setting.name.removeprefix("target "))


def base_name(digest: str | None) -> str:
    """A base model in words."""
    return f"base model `{digest}`" if digest else "a base model whose digest was not kept"


def verdicts(study: Study, longer: Study | None = None) -> list[str]:
    """A sentence for each claim of the paper that was put to the test, in a study and in one on longer chains."""
    return [
        *_methods(study),
        *_control(study),
        *([] if longer is None else _control(longer, " on longer chains")),
        *(line for part in (_targets, _identity, _rounds, _estimators) for line in part(study)),
    ]


def _methods(study: Study) -> list[str]:
    by_base = study.by_base_model("methods")
    return [
        line
        for base, settings in by_base.items()
        for line in _order(settings, f", {base_name(base)}" if len(by_base) > 1 else "")
    ]


def _order(settings: Sequence[SettingResult], where: str) -> list[str]:
    """What the table from one base model says; `where` names it, where there are several."""
    results = {setting.strategy: final(setting) for setting in settings}
    ordered = sorted((name for name in PAPER_METHODS if name in results), key=lambda name: -PAPER_METHODS[name])
    pairs = [pair for pair in combinations(ordered, 2) if PAPER_METHODS[pair[0]] > PAPER_METHODS[pair[1]]]
    lines = []
    if pairs:
        same = [pair for pair in pairs if results[pair[0]].above(results[pair[1]])]
        reverse = [pair for pair in pairs if results[pair[1]].above(results[pair[0]])]
        lines.append(
            f"**Order of the methods{where}.** Of {len(pairs)} pairs that the paper puts in an order, {len(same)} are in the "
            f"same order here, {len(reverse)} in the opposite one, and {len(pairs) - len(same) - len(reverse)} cannot be told "
            "apart: their intervals overlap, or are unknown."
        )
        if {"seele", "grpo"} <= set(results):
            apart = results["seele"].above(results["grpo"])
            lines.append(
                f"**SEELE and GRPO{where}.** SEELE's interval {'lies' if apart else 'does **not** lie'} above GRPO's."
            )
        lines += [
            f"**Disagrees with the paper:** `{worse}` is above `{better}` here{where}." for better, worse in reverse
        ]
    return lines


@dataclass(frozen=True)
class _Control:
    """How far a setting's rollouts are off their target, over the last half of the training."""

    target: float
    rounds: float
    """The larger miss of rounds 3 and 4."""
    reward: float

    @classmethod
    def of(cls, setting: SettingResult) -> _Control | None:
        """None where the target is none of those that can be held, or nothing was kept of its rounds."""
        target = target_of(setting)
        reward = mean([run.late_reward for run in setting.runs])
        rounds = [mean([run.late_accuracy_by_round[index] for run in setting.runs]) for index in (2, 3)]
        off = [abs(value - target) for value in rounds if value is not None]
        low, high = CONTROLLED
        if reward is None or not off or not low <= target <= high:
            return None
        return cls(target, max(off), abs(reward - target))

    @property
    def held(self) -> bool:
        return self.rounds <= ON_TARGET and self.reward <= REWARD_ON_TARGET


def _control(study: Study, how: str = "") -> list[str]:
    by_base = study.by_base_model("targets")
    lines = []
    for base, settings in by_base.items():
        found = [(setting, control) for setting in settings if (control := _Control.of(setting)) is not None]
        where = f"{how}, {base_name(base)}" if len(by_base) > 1 else how
        lines += [_control_at(setting, control, where) for setting, control in found]
        lines += _control_in_one_training([control for _, control in found], where)
    return lines


def _control_at(setting: SettingResult, control: _Control, where: str) -> str:
    return (
        f"**Control at target {control.target:g}{where}{'' if control.held else ': missed'}.** Over the last half of the "
        f"training rounds 3 and 4 are at most {control.rounds:.3f} off ({ON_TARGET:g} is asked for), the mean reward "
        f"{control.reward:.3f} ({REWARD_ON_TARGET:g}).{'' if control.held else _free(setting, control.target)}"
    )


def _control_in_one_training(controls: Sequence[_Control], where: str) -> list[str]:
    """Whether one base model, learning rate and set of problems lets every target be held; nothing for a single target."""
    if len(controls) < 2:
        return []
    missed = [one.target for one in controls if not one.held]
    if not missed:
        return [f"**Control at every target{where}.** All of {_listed(one.target for one in controls)} are held."]
    held = _listed(one.target for one in controls if one.held)
    return [f"**Control at every target{where}: missed.** Held: {held}; missed: {_listed(missed)}."]


def _listed(targets: Iterable[float]) -> str:
    return ", ".join(f"{target:g}" for target in sorted(targets)) or "none"


def _free(setting: SettingResult, target: float) -> str:
    """What rounds with room on both sides have to do with a miss, and those with none on one, where they were kept."""
    reward = mean([run.free_reward for run in setting.runs])
    if reward is None:
        return ""
    unhinted = [(run.unhinted_share, run.unhinted_reward) for run in setting.runs]
    whole = [(run.whole_share, run.whole_reward) for run in setting.runs]
    return (
        f" Rollouts with a hint of 5 to 95 % are {abs(reward - target):.3f} off."
        + _without_room(unhinted, target, 1, "less than 5 %, were solved more")
        + _without_room(whole, target, -1, "more than 95 %, were solved less")
    )


def _without_room(runs: Sequence[tuple[float | None, float | None]], target: float, sign: int, what: str) -> str:
    """How far rollouts at one end alone put the mean to one side of the target, where that is much."""
    known = [(share, reward) for share, reward in runs if share is not None and reward is not None]
    off = sign * (mean([share * (reward - target) for share, reward in known]) or 0.0)
    if off < BY_NEED:
        return ""
    share = mean([share for share, _ in known]) or 0.0
    side = "above" if sign > 0 else "below"
    return f" {share:.0%} had {what} than the target all the same, and alone put the mean {off:.3f} {side} it."


def _targets(study: Study) -> list[str]:
    results = {target_of(setting): final(setting) for setting in study.part("targets")}
    if PAPER_TARGET not in results:
        return []
    best = max(results, key=lambda target: results[target].mean)
    if best == PAPER_TARGET:
        return [f"**Target.** {PAPER_TARGET:g} is best, as in the paper."]
    apart = results[best].above(results[PAPER_TARGET])
    beginning = "**Disagrees with the paper:** target" if apart else "**Target.** Target"
    ending = "their intervals do not overlap." if apart else "but the intervals overlap, or are unknown."
    return [f"{beginning} {best:g} has a higher mean than the paper's {PAPER_TARGET:g}; {ending}"]


def _identity(study: Study) -> list[str]:
    found = step_gains(study)
    if not found:
        return []
    tops = sorted({one.top for one in found})
    beside = [one for one in found if one.explained < 0]
    shares = [one.explained for one in found if one not in beside]
    share = " to ".join(f"{value:.0%}" for value in sorted({min(shares), max(shares)})) if shares else "nothing"
    worse = (
        f"; in step {' and '.join(str(one.step) for one in beside)} a constant fits better, which disagrees with the paper"
        if beside
        else ""
    )
    return [
        f"**a(1 − a).** The largest gain of a step is with problems of {', '.join(f'{100 * top:.0f} %' for top in tops)} "
        f"accuracy; a(1 − a) has its top at 50 %, and explains {share} of the variance between tenths of accuracy{worse}."
    ]


def _rounds(study: Study) -> list[str]:
    results = {setting.name: final(setting) for setting in study.part("rounds")}
    known = [name for name, value in PAPER_ROUNDS.items() if value is not None and name in results]
    reverse = [
        (better, worse)
        for one, other in combinations(known, 2)
        for better, worse in [sorted((one, other), key=lambda name: -(PAPER_ROUNDS[name] or 0.0))]
        if results[worse].above(results[better])
    ]
    if reverse:
        return [f"**Disagrees with the paper:** {worse} is above {better} here." for better, worse in reverse]
    return ["**Rounds.** No order of the paper's Table 2 is reversed beyond doubt."] if len(known) > 1 else []


def _estimators(study: Study) -> list[str]:
    results = {setting.name: mean([run.efficiency for run in setting.runs]) for setting in study.part("estimators")}
    ours, paper = results.get("shared-ability"), results.get("paper")
    if ours is None or not paper:
        return []
    gain = ours / paper - 1
    return [
        f"**Estimators.** Learning efficiency, the mean of 4a(1 − a), is {ours:.3f} with ours and {paper:.3f} with the "
        f"paper's: {gain:+.1%}; at least +10 % was wanted{'' if gain >= 0.1 else ', and is missed'}."
    ]
