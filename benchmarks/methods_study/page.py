"""docs/benchmarks.md from a study's JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from benchmarks.methods_study.design import PARTS, Part
from benchmarks.methods_study.identity import FEWEST_GROUPS, step_gains
from benchmarks.methods_study.intervals import Interval, mean
from benchmarks.methods_study.results import TENTHS, SettingResult, Source, Study
from benchmarks.methods_study.verdicts import PAPER_METHODS, PAPER_ROUNDS, base_name, final, verdicts

PICTURES = "images/benchmarks"
"""Folder of the plots, seen from the page."""

BUDGET = """\
**The same for all.** Base model, problems, prompt, verifier, optimizer, schedule and number of updates. A method gets
{rollouts} rollouts for each of {problems} problems a step, however it uses them: {sequences} sequences to each update.{tokens}

**Methods without rollouts.** `sft` gets {sequences} solutions to each update instead, as many sequences as the others.
`sft_then_grpo` imitates {problems} solutions, one a problem, in each of some steps that come before the others' steps.
`luffy` samples one rollout fewer, since the solution takes its place.
"""
GRID = """\
**Learning rates.** One grid for all methods, {rates}, each tried on seed 0. The best by final accuracy on validation problems,
which are neither trained on nor reported, is used on all seeds. Both phases of `sft_then_grpo` have the same. All settings of
SEELE below have the rate that was chosen at target 0.5 with its defaults.
"""
ON_A_GPU = """\
## On a GPU

Not run: no GPU was at hand. `python -m benchmarks.methods_gpu` trains a model of 84 million parameters from scratch on easier
chains, then methods from it, with rollouts by transformers, DeepSpeed ZeRO 2 and bfloat16, and prints a row for each with its
curve, tokens a second and where the time went. With `--tiny` it was tried on a CPU.
"""
FIXED = "**Learning rates.** {rate} for all methods, not tuned.\n"


LONGER = """\
## Targets, on longer chains

A target can be held only where there is room on both sides, and on the chains above there is none at the lowest targets: the
model soon solves more of them without any hint than is asked for, and nothing is harder than no hint. So SEELE once more,
with the same targets, steps and seeds, on chains of {low} and {high} operations, from a base model of their own:
`make bench-targets`. The learning rate, {rate:g}, was chosen on a seed that is not among these.
"""


def page(study: Study, longer: Study | None = None) -> str:
    """The whole page, with the targets of a study on longer chains. Raises ValueError for a tiny study, which has nothing to
    say."""
    if study.tiny:
        raise ValueError(
            "this is a study of `--tiny`, which only shows that the script works: run `make bench-methods`"
        )
    before = (_head, _methods, _unsupervised, _targets, _identity)
    after = (_estimators, _options, _rounds, _supervision)
    sections = [
        *(part(study) for part in before),
        *([] if longer is None else [_longer(longer)]),
        *(part(study) for part in after),
    ]
    said = "\n".join(f"- {line}" for line in verdicts(study, longer))
    if said:
        sections.append(f"## Beside the paper\n\n{said}\n")
    sections.append(ON_A_GPU)
    return "\n".join(section for section in sections if section)


def plus_minus(value: Interval) -> str:
    """Percent with its interval."""
    return f"{100 * value.mean:.1f}" if value.half is None else f"{100 * value.mean:.1f} ± {100 * value.half:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def tables(study: Study, part: Part, table_of: Callable[[Sequence[SettingResult]], str]) -> str:
    """The table of a part, once for each base model that it was run from."""
    results = study.by_base_model(part)
    if len(results) < 2:
        return table_of(study.part(part))
    return "\n".join(f"From {base_name(base)}:\n\n{table_of(settings)}" for base, settings in results.items())


def picture(name: str, about: str) -> str:
    """A plot for light and for dark backgrounds."""
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{PICTURES}/{name}-dark.svg">\n'
        f'  <img alt="{about}" src="{PICTURES}/{name}-light.svg">\n</picture>\n'
    )


def _head(study: Study) -> str:
    sequences = study.rollouts_per_problem * study.problems_per_step
    tried = sorted({rate for choice in study.rates for rate, _ in choice.tried})
    rates = (
        GRID.format(rates=", ".join(f"{rate:g}" for rate in tried))
        if tried
        else FIXED.format(rate=f"{study.rates[0].chosen:g}")
    )
    missing = [part for part in PARTS if not study.part(part)]
    budget = BUDGET.format(
        rollouts=study.rollouts_per_problem,
        problems=study.problems_per_step,
        sequences=sequences,
        tokens=_tokens_of_the_loss(study),
    )
    return (
        "# The methods, side by side\n\n"
        "Written by `make generated` from [methods.json](../benchmarks/results/methods.json); to measure anew, "
        "`make bench-methods`.\n\n"
        f"All [methods](choosing-a-method.md) on [the quickstart's problem](how-it-works.md#the-quickstarts-problem), "
        f"{study.steps} steps, seeds 0 to {study.seeds - 1}. Accuracy is greedy and without hints, in percent of the "
        "held-out problems, after the last step: mean over seeds ± half of the 95 % confidence interval (Student's t; "
        "runs of one method differ by their seed alone).\n\n"
        + "".join(f"{_source(source)}\n\n" for source in study.sources)
        + f"{budget}\n{rates}"
        + _base_models(study)
        + (f"\nNot run: the parts {', '.join(missing)}.\n" if missing else "")
        + "\nOne small task, chosen to give plain rollouts next to no reward: the figures compare methods on it, and are "
        "no estimate of their margins elsewhere.\n"
    )


def _tokens_of_the_loss(study: Study) -> str:
    counted = [run.tokens.loss / 1e6 for setting in study.part("methods") for run in setting.runs if run.tokens.loss]
    if not counted:
        return ""
    return (
        f"\nGradients come from {min(counted):.2f} to {max(counted):.2f} million tokens a run. Identical rollouts are merged "
        "before the passes, which is worth more to one method than to another: *M trained* in the table."
    )


def _base_models(study: Study) -> str:
    """What keeps parts from being compared with each other, where they do not share a base model."""
    known = list(dict.fromkeys(source.base_model for source in study.sources))
    if len(known) < 2:
        return ""
    defaults = {
        setting.base_model: final(setting)
        for setting in study.settings
        if setting.strategy == "seele" and not setting.changes
    }
    told = " and ".join(f"{plus_minus(defaults[one])} from {base_name(one)}" for one in known if one in defaults)
    return (
        "\n**Base models.** Every machine makes its own, and the same recipe does not give the same weights everywhere. So a "
        f"row is to be compared with the others of its table, and not with those of another part: SEELE with its defaults "
        f"ends at {told}. Learning rates were chosen once, from the first of them.\n"
    )


def _source(source: Source) -> str:
    machine = f"{source.machine['architecture']}, {source.machine['cores']} cores, {source.machine['memoryGiB']} GiB"
    machine += f", {source.at_once} runs at a time" if source.at_once > 1 else ""
    versions = ", ".join(f"{name} {version}" for name, version in source.versions.items())
    revision = f"revision {source.revision}" if source.revision else "a revision that was not kept"
    return (
        f"Parts {', '.join(source.parts)}: `{source.command}` at {revision} on {machine}, from "
        f"{base_name(source.base_model)}, with {versions}."
    )


def _methods(study: Study) -> str:
    if not study.part("methods"):
        return ""
    return (
        f"## The table of methods\n\n{tables(study, 'methods', _methods_table)}\n"
        "*paper*: mean over six benchmarks of mathematics, Qwen2.5-1.5B (arXiv 2509.06923). *no gradient*: percent of "
        "baseline groups whose rewards are all equal. *M sampled*, *M in loss*, *M trained*: millions of tokens of a run that "
        "were sampled, that gradients come from, and that were in forward passes for them.\n\n"
        "`sft`, `luffy` and the first steps of `sft_then_grpo` imitate whole solutions, final answers included; `prefix_rft` "
        "imitates their beginnings where a rollout came off well, `uft`, `fixed_hint` and `seele` the hints they show. The "
        "solutions here are clean, plentiful and in the words of the base model, which is the best case for imitation."
        f"{_before_they_were_counted(study)}\n\n"
        + picture("methods", "Held-out accuracy of each method over the training")
    )


def _before_they_were_counted(study: Study) -> str:
    runs = [run for setting in study.settings if setting.part == "methods" for run in setting.runs]
    if not any(run.tokens.loss for run in runs) or all(run.tokens.loss for run in runs):
        return ""
    return (
        " Where *M in loss* was not counted yet, `sft_then_grpo` imitated in the place of a quarter of its steps, and had "
        "so much less of the budget."
    )


def _methods_table(results: Sequence[SettingResult]) -> str:
    ordered = sorted(results, key=lambda setting: -final(setting).mean)
    rows = [
        (
            f"`{setting.name}`",
            f"{setting.learning_rate:g}",
            percent(mean([run.before for run in setting.runs])),
            plus_minus(final(setting)),
            f"{PAPER_METHODS[setting.strategy]:.1f}" if setting.strategy in PAPER_METHODS else "",
            percent(mean([run.zero_gradient_groups for run in setting.runs])),
            millions(setting, "generated"),
            millions(setting, "loss") if all(run.tokens.loss for run in setting.runs) else "–",
            millions(setting, "trained"),
            f"{mean([run.minutes for run in setting.runs]):.1f}",
        )
        for setting in ordered
    ]
    tokens = ("M sampled", "M in loss", "M trained")
    return table(("method", "learning rate", "before", "after", "paper", "no gradient", *tokens, "minutes"), rows)


def _unsupervised(study: Study) -> str:
    results = study.part("unsupervised")
    methods = study.by_base_model("methods").get(results[0].base_model, []) if results else []
    learnt = {setting.strategy: setting for setting in methods}
    rows = [
        (
            f"`{setting.strategy}`",
            plus_minus(final(learnt[setting.strategy])) if setting.strategy in learnt else "–",
            plus_minus(final(setting)),
            ", ".join(f"{100 * run.after:.1f}" for run in setting.runs),
            decimals(mean([run.efficiency for run in setting.runs])),
            percent(mean([run.zero_gradient_groups for run in setting.runs])),
        )
        for setting in results
    ]
    head = ("method", "hints learnt", "hints not learnt", "each seed", "4a(1 − a)", "no gradient, %")
    about = (
        "These methods learn the tokens of their hints by cross-entropy, so part of what they gain is imitation. Its "
        "coefficient is 0.001, yet under Adam it steers wherever rewards are all alike. Here it is left out "
        "(`hints.supervision: none`) and all else kept, the learning rate too: what remains is due to the rewards, and so to "
        "how long the hints are. The two columns on the right are of these runs."
    )
    return f"## Without learning the hints\n\n{about}\n\n{table(head, rows)}" if results else ""


def _targets(study: Study) -> str:
    if not study.part("targets"):
        return ""
    return (
        "## Targets\n\nAccuracy with hints, over the last half of the training: by round, and of all rollouts (*reward*). "
        "*hint*: the mean hint, in percent of what may be shown. *none*: the share of the rollouts with less than 5 % of it, "
        "which nothing could have made harder. *whole*: the share with more than 95 %, which nothing could have made easier. "
        "*free*: accuracy of the others. *after*: final accuracy without hints.\n\n"
        + f"{tables(study, 'targets', _targets_table)}\n"
        + picture("rounds-by-target", "Accuracy by round over the training, for each target")
        + "\n"
        + picture("final-by-target", "Final accuracy by target")
    )


def _targets_table(results: Sequence[SettingResult]) -> str:
    rows = [
        (
            setting.name.removeprefix("target "),
            *rounds_late(setting),
            decimals(mean([run.late_reward for run in setting.runs])),
            percent(mean([run.late_hint_rate for run in setting.runs])),
            percent(mean([run.unhinted_share for run in setting.runs])),
            percent(mean([run.whole_share for run in setting.runs])),
            decimals(mean([run.free_reward for run in setting.runs])),
            plus_minus(final(setting)),
        )
        for setting in results
    ]
    rounds = [f"round {number}" for number in range(1, 5)]
    return table(("target", *rounds, "reward", "hint, %", "none, %", "whole, %", "free", "after"), rows)


def _longer(study: Study) -> str:
    longest = study.problems["longest"]
    about = LONGER.format(low=longest - 1, high=longest, rate=study.part("targets")[0].learning_rate)
    return (
        f"{about}\n"
        + "".join(f"{_source(source)}\n\n" for source in study.sources)
        + f"{_targets_table(study.part('targets'))}\n"
        + picture("rounds-by-target-longer", "Accuracy by round over the training on longer chains, for each target")
    )


def _identity(study: Study) -> str:
    found = step_gains(study)
    rows = [
        (
            str(one.step),
            f"{one.learning_rate:.2g}",
            str(one.groups.sum()),
            *(decimals(None if np.isnan(value) else float(value)) for value in one.means),
            f"{one.scale:.3f}",
            f"{one.explained:.2f}",
        )
        for one in found
    ]
    tenths = [f"{10 * index}–{10 * index + 10} %" for index in range(TENTHS)]
    about = (
        "By how much a step's update raised the log-probabilities of a problem's rollouts, weighed by their advantages, in "
        "nats a rollout: means over the problems of each tenth of accuracy, from all runs of the table above, which have the "
        f"same learning rate in the same step. A tenth with fewer than {FEWEST_GROUPS} problems is left out. The paper bounds "
        "the descent by a multiple of a(1 − a) (Eq. 5): *c* is the multiple that fits best, *explained* the share of the "
        "variance of the means that it explains, below 0 where a constant fits better."
    )
    head = ("step", "rate", "problems", *tenths, "c", "explained")
    return (
        f"## What a step gains, beside a(1 − a)\n\n{about}\n\n{table(head, rows)}\n"
        + picture("identity", "Mean descent by accuracy in single steps, each over its own c/4, beside 4a(1 − a)")
        if found
        else ""
    )


def _rounds(study: Study) -> str:
    results = study.part("rounds")
    rows = []
    for setting in results:
        rounds, rollouts = (int(number) for number in setting.name.split(" × "))
        paper = PAPER_ROUNDS.get(setting.name)
        rows.append(
            (
                str(rounds),
                str(rollouts),
                str(rounds * rollouts),
                plus_minus(final(setting)),
                f"{paper:.1f}" if paper else "",
            )
        )
    head = ("rounds", "rollouts a round", "rollouts", "after", "paper")
    return f"## Rounds at a fixed budget\n\n{table(head, rows)}" if results else ""


def _estimators(study: Study) -> str:
    results = study.part("estimators")
    if not results:
        return ""
    rows = [
        (
            f"`{setting.name}`",
            decimals(mean([run.efficiency for run in setting.runs])),
            decimals(mean([run.second_pass_first_round for run in setting.runs])),
            *rounds_late(setting),
            plus_minus(final(setting)),
        )
        for setting in results
    ]
    head = ("estimator", "4a(1 − a)", "second pass, round 1", "round 1", "round 2", "round 3", "round 4", "after")
    return (
        "## The paper's controller and ours\n\nOn fewer problems, so that training goes through them three times. "
        "*4a(1 − a)*: mean over the whole run, a being the accuracy of a problem's rollouts in a step, all of its rounds "
        "together. *second pass, round 1*: accuracy of first rounds while problems are seen for the second time. The others "
        f"are over the last half of the training.\n\n{table(head, rows)}\n"
        + picture("estimators", "Accuracy of first rounds and of all rounds over the training, with either estimator")
    )


def _options(study: Study) -> str:
    about = (
        "Tokens against steps as ends of hints, a share of rollouts without hints, and the baseline of each round. Reward and "
        "hinting rate are over the last half of the training. An option that changes the baseline groups changes what "
        "4a(1 − a) is a mean of."
    )
    results = study.part("options")
    return f"## Options of SEELE\n\n{about}\n\n{_variants('option', results)}" if results else ""


def _supervision(study: Study) -> str:
    about = (
        "Which hint tokens SEELE learns by cross-entropy (`hints.supervision`). Reward and hinting rate are over the last half "
        "of the training."
    )
    results = study.part("supervision")
    return f"## Which hint tokens are learnt\n\n{about}\n\n{_variants('supervision', results)}" if results else ""


def _variants(what: str, results: Sequence[SettingResult]) -> str:
    rows = [
        (
            setting.name,
            decimals(mean([run.late_reward for run in setting.runs])),
            percent(mean([run.late_hint_rate for run in setting.runs])),
            decimals(mean([run.efficiency for run in setting.runs])),
            plus_minus(final(setting)),
            ", ".join(f"{100 * run.after:.1f}" for run in setting.runs),
        )
        for setting in results
    ]
    return table((what, "reward", "hint, %", "4a(1 − a)", "after", "each seed"), rows)


def rounds_late(setting: SettingResult) -> list[str]:
    """Accuracy by round over the last half, mean over seeds."""
    rounds = len(setting.runs[0].late_accuracy_by_round)
    return [decimals(mean([run.late_accuracy_by_round[index] for run in setting.runs])) for index in range(rounds)]


def percent(value: float | None) -> str:
    """A share in percent; a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.1f}"


def decimals(value: float | None) -> str:
    """Three decimals; a dash for what was not measured."""
    return "–" if value is None else f"{value:.3f}"


def millions(setting: SettingResult, kind: str) -> str:
    """Millions of tokens of a kind in a run, mean over seeds."""
    return f"{mean([getattr(run.tokens, kind) / 1e6 for run in setting.runs]):.2f}"
