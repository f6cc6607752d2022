"""The figures as a table with their limits, and as a file."""

import json
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.methods_study.training import machine
from benchmarks.scale.measure import Figures


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    value: Callable[[Figures], float]
    form: str = "{:.2f} s"
    limits: tuple[tuple[int, float], ...] = ()
    """(most runs, limit) in order; 0 stands for any number of runs."""

    def limit(self, runs: int) -> float | None:
        """The limit for this number of runs, if any."""
        return next((limit for most, limit in self.limits if runs <= most or not most), None)

    def bar(self) -> str:
        """The limits in words."""
        words = [
            f"≤ {self.form.format(limit)}" + (f" up to {most} runs" if most else "") for most, limit in self.limits
        ]
        return "; ".join(words)


def always(limit: float) -> tuple[tuple[int, float], ...]:
    """A limit that does not depend on the number of runs."""
    return ((0, limit),)


ROWS = (
    Row("pods", lambda it: it.pods, "{:.0f}"),
    Row("importing the operator", lambda it: it.libraries, limits=always(3)),
    Row("start until ready, without runs", lambda it: it.started, limits=always(3)),
    Row("files of torch in its process", lambda it: it.torch, "{:.0f}", always(0)),
    Row("all runs at once: created after", lambda it: it.created, "{:.1f} s"),
    Row("all runs at once: every pod exists after", lambda it: it.all_pods, "{:.1f} s", always(120)),
    Row("all runs at once: all are Running after", lambda it: it.all_running, "{:.1f} s"),
    Row("requests per run until then", lambda it: it.requests_a_run, "{:.1f}"),
    Row("operator's CPU time per run until then", lambda it: 1000 * it.cpu_a_run, "{:.0f} ms"),
    Row("API server's and etcd's", lambda it: 1000 * it.server_cpu_a_run, "{:.0f} ms"),
    Row("one more run: its pods exist, p50", lambda it: it.apply_p50),
    Row("one more run: its pods exist, p99", lambda it: it.apply_p99, limits=((100, 1), (0, 3))),
    Row("trainer fails: pod of the next attempt, p50", lambda it: it.restart_p50),
    Row("trainer fails: pod of the next attempt, longest", lambda it: it.restart_longest, limits=always(5)),
    Row("operator stopped and started: working after", lambda it: it.stopped_back, "{:.1f} s", always(30)),
    Row("operator killed and started: working after", lambda it: it.killed_back, "{:.1f} s", always(30)),
    Row("changes that the two restarts made", lambda it: it.writes_of_restarts, "{:.0f}", always(0)),
    Row("memory", lambda it: it.memory, "{:.0f} MB", always(250)),
    Row("idle: share of one core", lambda it: 100 * it.idle_share, "{:.1f} %", always(5)),
    Row("idle: requests per second", lambda it: it.idle_requests, "{:.2f}"),
    Row("load average of the machine", lambda it: it.load, "{:.1f}"),
)


def show(found: Sequence[Figures]) -> None:
    """Print the table, with a column for each number of runs."""
    table = Table(title="The operator, by number of runs")
    table.add_column("")
    for figures in found:
        table.add_column(f"{figures.runs} runs", justify="right")
    table.add_column("limit")
    for row in ROWS:
        table.add_row(row.what, *(_cell(row, figures) for figures in found), row.bar())
    Console().print(table)
    missed = sum(not _met(row, figures) for row in ROWS for figures in found)
    print(f"{missed} limits exceeded" if missed else "within all limits")


def _cell(row: Row, figures: Figures) -> str:
    text = row.form.format(row.value(figures))
    if row.limit(figures.runs) is None:
        return text
    return f"[green]{text} ✓[/]" if _met(row, figures) else f"[bold red]{text} ✗[/]"


def _met(row: Row, figures: Figures) -> bool:
    limit = row.limit(figures.runs)
    return limit is None or row.value(figures) <= limit


def save(found: Sequence[Figures], path: Path, command: Sequence[str]) -> None:
    """Save the figures with the command, versions and machine."""
    results = {
        "command": shlex.join(["python", "-m", "benchmarks.operator_scale", *command[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "kubernetes": found[0].kubernetes,
            **{
                f"python-{name}" if name == "kubernetes" else name: version(name)
                for name in ("kopf", "kubernetes", "aiohttp", "pydantic")
            },
        },
        "met": all(_met(row, figures) for row in ROWS for figures in found),
        "figures": [asdict(figures) for figures in found],
    }
    path.write_text(json.dumps(results, indent=2) + "\n")
