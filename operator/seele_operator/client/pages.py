"""What `seele status` shows: a table of runs, and one run in detail."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.text import Text

from seele_operator.api.status import Condition
from seele_operator.client.pods import SeenPod
from seele_operator.client.runs import NO_OPERATOR, NO_STATUS_SECONDS, SeenRun
from seele_operator.observe.raw import mapping, moment, number, text
from seele_operator.plan.names import Manifest
from seele_trainer import formatting
from seele_trainer.formatting import ABSENT, counted, percent, short_duration

PHASE_STYLES = {
    "Running": "green",
    "Succeeded": "green",
    "Failed": "bold red",
    "Restarting": "yellow",
    "Suspended": "yellow",
}

_HEADER = ("NAME", "PHASE", "STEP", "ACCURACY", "HINT", "REWARD", "ETA", "RESTARTS", "AGE")


def runs_table(runs: Sequence[SeenRun], now: datetime, *, namespaces: bool) -> list[Text]:
    """A header and a line for each run, sorted by namespace and name; `namespaces` adds a column of them."""
    ordered = sorted(runs, key=lambda run: (run.namespace, run.name))
    rows = [[*([run.namespace] if namespaces else []), *_row(run, now)] for run in ordered]
    return _table([*(["NAMESPACE"] if namespaces else []), *_HEADER], rows)


def _phase_text(run: SeenRun) -> Text:
    """The phase, and whether the run is being deleted or is invalid."""
    if run.deleting:
        return Text("Deleting", "yellow")
    if not run.has_status:
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
        _phase_text(run),
        run.step_count,
        percent(status.accuracy),
        formatting.number(status.hint_rate, ".2f"),
        formatting.number(status.reward, ".2f"),
        ABSENT if left is None else short_duration(left),
        str(status.restarts),
        _age(run.created, now),
    ]


LAST_EVENTS = 10

_TITLE_WIDTH = 14

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Detail:
    """The data of a run's page. What could not be read is None, and `refused` says why."""

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
        lines += [Text(), Text("pods", "bold"), *_pods_table(detail.pods, run.status.attempt, now)]
    if detail.events:
        lines += [Text(), Text("events", "bold"), *_events(detail.events, now)]
    return [*lines, *(Text(line, "yellow") for line in detail.refused)]


def _headline(run: SeenRun, now: datetime) -> Iterator[Text]:
    phase = "Deleting" if run.deleting else run.phase if run.has_status else "not picked up"
    yield Text.assemble(
        (run.name, "bold"), f" in namespace {run.namespace}: ", (phase, PHASE_STYLES.get(phase, "yellow"))
    )
    if run.status.message:
        yield Text(run.status.message)
    if not run.has_status and run.created is not None and (now - run.created).total_seconds() > NO_STATUS_SECONDS:
        yield Text(NO_OPERATOR, "yellow")
    if run.has_status and not run.up_to_date and not run.status.terminal:
        yield Text("the operator has not seen the latest change yet", "yellow")
    if run.policy.suspend and run.status.phase != "Suspended" and not run.status.terminal:
        yield Text("suspension requested", "yellow")


def _figures(run: SeenRun) -> Iterator[Text]:
    status = run.status
    if run.steps is not None:
        left = "" if status.eta_seconds is None or status.terminal else f", {short_duration(status.eta_seconds)} left"
        yield _line("step", _bar(status.step or 0, run.steps), f" {run.step_count}{left}")
    figures = {
        "accuracy": None if status.accuracy is None else f"{percent(status.accuracy)} (held-out, without hints)",
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
        took = "" if ended is None else f", ended {_age(ended, now)} ago"
        yield _line("age", f"{_age(run.created, now)}{took}")
    if status.attempt:
        began = "" if status.attempt_start_time is None else f", since {_age(status.attempt_start_time, now)}"
        yield _line("attempt", f"{status.attempt}{began}; {counted(status.restarts, 'restart')} in all")
        yield _line(
            "failures",
            f"{status.failures.application} of {policy.backoff_limit} in its own processes, "
            f"{status.failures.disruption} of {policy.disruption_limit} caused by the cluster",
        )
    if status.not_before is not None and status.not_before > now:
        yield _line("next attempt", f"in {short_duration((status.not_before - now).total_seconds())}")
    failure = status.last_failure
    if failure is not None:
        place = "/".join(part for part in (failure.pod, failure.container) if part)
        code = "" if failure.exit_code is None else f", exit code {failure.exit_code}"
        when = f"attempt {failure.attempt}, {_age(failure.time, now)} ago"
        yield _line("last failure", Text(failure.reason, "red"), f" in {place or 'the run'}{code} ({when})")
        yield from (Text(f"{'':{_TITLE_WIDTH}}{part}") for part in failure.message.splitlines() if part.strip())


def _is_trouble(condition: Condition, run: SeenRun) -> bool:
    """Whether a condition is unexpected in the phase of the run."""
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
            _age(_time(event), now),
            Text(text(event, "type"), "yellow" if event.get("type") == "Warning" else ""),
            text(event, "reason"),
            " ".join(text(event, "message").split()) + _times(event),
        )
        for event in last
    ]
    return _table(("AGE", "TYPE", "REASON", "MESSAGE"), rows, indent="  ")


def _time(event: Manifest) -> datetime | None:
    """When an Event last happened: old and new clients write different fields."""
    return (
        moment(mapping(event, "series"), "lastObservedTime")
        or moment(event, "lastTimestamp")
        or moment(event, "eventTime")
        or moment(mapping(event, "metadata"), "creationTimestamp")
    )


def _times(event: Manifest) -> str:
    count = number(mapping(event, "series"), "count") or number(event, "count") or 1
    return f" ({count} times)" if count > 1 else ""


def _age(since: datetime | None, now: datetime) -> str:
    return ABSENT if since is None else short_duration((now - since).total_seconds())


def _bar(done: int, total: int, width: int = 30) -> Text:
    filled = 0 if total <= 0 else round(width * min(1.0, done / total))
    return Text.assemble(("█" * filled, "green"), ("░" * (width - filled), "dim"))


def _pods_table(pods: Sequence[SeenPod], attempt: int, now: datetime) -> list[Text]:
    """A line for each pod, and below it why it is not working; pods of other attempts are marked."""
    header = ("NAME", "STATE", "READY", "NODE", "AGE")
    rows = [
        (
            pod.seen.name + (f" (attempt {pod.seen.attempt})" if pod.seen.attempt != attempt else ""),
            Text(pod.state, _pod_style(pod)),
            "yes" if pod.seen.ready else "no",
            pod.seen.node or ABSENT,
            _age(pod.created, now),
        )
        for pod in pods
    ]
    first, *lines = _table(header, rows, indent="  ")
    explained = [first]
    for pod, line in zip(pods, lines, strict=True):
        explained.append(line)
        explained += [Text(f"    {part}", "yellow") for part in pod.why.splitlines() if part.strip()]
    return explained


def _pod_style(pod: SeenPod) -> str:
    if pod.seen.failure is not None:
        return "bold red"
    if pod.seen.terminating or (pod.seen.waiting is not None and not pod.seen.waiting.normal):
        return "yellow"
    return "green" if pod.seen.ready or pod.seen.phase == "Succeeded" else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[Text | str]], indent: str = "") -> list[Text]:
    """Columns of text, each as wide as its widest entry; lines are never wrapped or cut."""
    cells = [[Text(name, "bold") for name in header]]
    cells += [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [max(row[column].cell_len for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        line = Text(indent)
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - cell.cell_len + 3))
        line.rstrip()
        lines.append(line)
    return lines


def _line(title: str, *parts: Text | str) -> Text:
    return Text.assemble((f"{title:<{_TITLE_WIDTH}}", "dim"), *parts)
