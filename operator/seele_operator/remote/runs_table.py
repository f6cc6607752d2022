"""The table of `seele status`: one line a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from seele_operator.remote.seen_run import SeenRun
from seele_operator.remote.wording import ABSENT, age, figure, span, table

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


def step_text(run: SeenRun) -> str:
    """Steps done of all: `12/60`."""
    done, whole = run.status.step, run.steps
    if done is None and whole is None:
        return ABSENT
    return f"{0 if done is None else done}/{'?' if whole is None else whole}"


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
