"""One run in detail: where it stands, what is not as it should be, its pods, and what happened last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.text import Text

from seele_operator.api.status import Condition
from seele_operator.client.pods import SeenPod, pods_table
from seele_operator.client.runs import NO_OPERATOR, UNTAKEN_SECONDS, SeenRun, step_text
from seele_operator.client.wording import ABSENT, age, bar, figure, span, table
from seele_operator.observe.raw import mapping, moment, number, text
from seele_operator.plan.names import Manifest

PHASE_STYLES = {
    "Running": "green",
    "Succeeded": "green",
    "Failed": "bold red",
    "Restarting": "yellow",
    "Suspended": "yellow",
}

_HEADER = ("NAME", "PHASE", "STEP", "ACCURACY", "HINT", "REWARD", "ETA", "RESTARTS", "AGE")


def runs_table(runs: Sequence[SeenRun], now: datetime, *, namespaces: bool) -> list[Text]:
    """A header and a line for each run, by namespace and name; with a column of namespaces if asked for."""
    ordered = sorted(runs, key=lambda run: (run.namespace, run.name))
    rows = [[*([run.namespace] if namespaces else []), *_row(run, now)] for run in ordered]
    return table([*(["NAMESPACE"] if namespaces else []), *_HEADER], rows)


def phase_text(run: SeenRun) -> Text:
    """The phase as the table shows it, with what the phase alone does not say."""
    if run.deleting:
        return Text("Deleting", "yellow")
    if not run.taken_up:
        return Text(ABSENT, "yellow")
    phase = run.phase
    if run.invalid is not None and not run.status.terminal:
        return Text(f"{phase} (invalid)", "bold red")
    return Text(phase, PHASE_STYLES.get(phase, ""))


def _row(run: SeenRun, now: datetime) -> list[Text | str]:
    status = run.status
    left = None if status.terminal or status.phase == "Suspended" else status.eta_seconds
    return [
        run.name,
        phase_text(run),
        step_text(run),
        figure(status.accuracy, ".1%"),
        figure(status.hint_rate, ".2f"),
        figure(status.reward, ".2f"),
        ABSENT if left is None else span(left),
        str(status.restarts),
        age(run.created, now),
    ]


LAST_EVENTS = 10

_TITLE_WIDTH = 14

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Detail:
    """Everything that is shown of one run. What could not be read is None, and `refused` says why."""

    run: SeenRun
    pods: Sequence[SeenPod] | None
    events: Sequence[Manifest] | None
    refused: tuple[str, ...] = ()


def detail_lines(detail: Detail, now: datetime) -> list[Text]:
    """The whole page."""
    run = detail.run
    lines = [*_headline(run, now), *_figures(run), *_attempts(run, now)]
    troubles = [condition for condition in run.status.conditions if _is_trouble(condition, run)]
    if troubles:
        lines += [Text(), Text("conditions", "bold"), *_conditions(troubles)]
    if detail.pods:
        lines += [Text(), Text("pods", "bold"), *pods_table(detail.pods, run.status.attempt, now)]
    if detail.events:
        lines += [Text(), Text("events", "bold"), *_events(detail.events, now)]
    return [*lines, *(Text(line, "yellow") for line in detail.refused)]


def _headline(run: SeenRun, now: datetime) -> Iterator[Text]:
    phase = "Deleting" if run.deleting else run.phase if run.taken_up else "not taken up"
    yield Text.assemble(
        (run.name, "bold"), f" in namespace {run.namespace}: ", (phase, PHASE_STYLES.get(phase, "yellow"))
    )
    if run.status.message:
        yield Text(run.status.message)
    if not run.taken_up and run.created is not None and (now - run.created).total_seconds() > UNTAKEN_SECONDS:
        yield Text(NO_OPERATOR, "yellow")
    if run.taken_up and not run.up_to_date and not run.status.terminal:
        yield Text("the operator has not looked at the latest change yet", "yellow")
    if run.policy.suspend and run.status.phase != "Suspended" and not run.status.terminal:
        yield Text("its suspension is asked for", "yellow")


def _figures(run: SeenRun) -> Iterator[Text]:
    status = run.status
    if run.steps is not None:
        left = "" if status.eta_seconds is None or status.terminal else f", {span(status.eta_seconds)} left"
        yield _line("step", bar(status.step or 0, run.steps), f" {step_text(run)}{left}")
    figures = {
        "accuracy": None if status.accuracy is None else f"{status.accuracy:.1%} (held-out, without hints)",
        "hint rate": None if status.hint_rate is None else f"{status.hint_rate:.2f}",
        "reward": None if status.reward is None else f"{status.reward:.2f}",
        "policy": None if status.policy_version is None else f"version {status.policy_version}",
    }
    for title, value in figures.items():
        if value is not None:
            yield _line(title, value)
    if status.last_checkpoint is not None:
        yield _line("checkpoint", f"step {status.last_checkpoint.step}, {status.last_checkpoint.path}")


def _attempts(run: SeenRun, now: datetime) -> Iterator[Text]:
    status, policy = run.status, run.policy
    if run.created is not None:
        ended = status.completion_time
        took = "" if ended is None else f", ended {age(ended, now)} ago"
        yield _line("age", f"{age(run.created, now)}{took}")
    if status.attempt:
        began = "" if status.attempt_start_time is None else f", since {age(status.attempt_start_time, now)}"
        restarts = f"{status.restarts} restart{'' if status.restarts == 1 else 's'}"
        yield _line("attempt", f"{status.attempt}{began}; {restarts} in all")
        yield _line(
            "failures",
            f"{status.failures.application} of {policy.backoff_limit} of its own processes, "
            f"{status.failures.disruption} of {policy.disruption_limit} by the cluster",
        )
    if status.not_before is not None and status.not_before > now:
        yield _line("next attempt", f"in {span((status.not_before - now).total_seconds())}")
    failure = status.last_failure
    if failure is not None:
        place = "/".join(part for part in (failure.pod, failure.container) if part)
        code = "" if failure.exit_code is None else f", exit code {failure.exit_code}"
        when = f"attempt {failure.attempt}, {age(failure.time, now)} ago"
        yield _line("last failure", Text(failure.reason, "red"), f" in {place or 'the run'}{code} ({when})")
        yield from (Text(f"{'':{_TITLE_WIDTH}}{part}") for part in failure.message.splitlines() if part.strip())


def _is_trouble(condition: Condition, run: SeenRun) -> bool:
    """Whether a condition is not as it should be in the phase that the run is in."""
    if condition.type == "Failed":
        return condition.status == "True"
    if condition.type == "Valid":
        return condition.status == "False"
    at_rest = run.status.terminal or run.status.phase == "Suspended"
    return condition.type != "Complete" and condition.status != "True" and not at_rest


def _conditions(conditions: Sequence[Condition]) -> list[Text]:
    lines = []
    for condition in conditions:
        style = "red" if condition.type in {"Valid", "Failed"} else "yellow"
        lines.append(Text.assemble(f"  {condition.type} ", (f"{condition.status}, {condition.reason}", style)))
        lines += [Text(f"    {part}") for part in condition.message.splitlines() if part.strip()]
    return lines


def _events(events: Sequence[Manifest], now: datetime) -> list[Text]:
    last = sorted(events, key=lambda event: _time(event) or _LONG_AGO)[-LAST_EVENTS:]
    rows = [
        (
            age(_time(event), now),
            Text(text(event, "type"), "yellow" if event.get("type") == "Warning" else ""),
            text(event, "reason"),
            " ".join(text(event, "message").split()) + _times(event),
        )
        for event in last
    ]
    return table(("AGE", "TYPE", "REASON", "MESSAGE"), rows, indent="  ")


def _time(event: Manifest) -> datetime | None:
    """When an Event happened last: old and new clients write different fields."""
    return (
        moment(mapping(event, "series"), "lastObservedTime")
        or moment(event, "lastTimestamp")
        or moment(event, "eventTime")
        or moment(mapping(event, "metadata"), "creationTimestamp")
    )


def _times(event: Manifest) -> str:
    count = number(mapping(event, "series"), "count") or number(event, "count") or 1
    return f" ({count} times)" if count > 1 else ""


def _line(title: str, *parts: Text | str) -> Text:
    return Text.assemble((f"{title:<{_TITLE_WIDTH}}", "dim"), *parts)
