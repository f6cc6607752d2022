"""How a run is shown on a console: a live panel on a terminal, plain lines elsewhere."""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence

import aiohttp
from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seele_operator.local.pod import PodState
from seele_operator.local.ports import HOST
from seele_operator.local.translate import LocalPod
from seele_trainer.formatting import ABSENT, clock, number, percent, step_count
from seele_trainer.run_folder.records import Progress, StepPhase

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")

STATE_STYLES = {
    PodState.READY: "green",
    PodState.DONE: "green",
    PodState.FAILED: "bold red",
    PodState.UNREADY: "yellow",
    PodState.RESTARTING: "yellow",
}

REFRESHES_PER_SECOND = 4
PROGRESS_PERIOD = 0.5
PROGRESS_TIMEOUT = aiohttp.ClientTimeout(total=5)
_SERIOUS = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")


class Display:
    """Prints lines, above a panel with the state of the run if the console is a terminal."""

    def __init__(self, console: Console, title: str, verbose: bool):
        self._console = console
        self._title = title
        self._verbose = verbose
        self._started = time.monotonic()
        self._states: dict[str, PodState] = {}
        self.latest: Progress | None = None
        """The last progress of trainer 0."""
        self._first_accuracy: float | None = None
        self._last_line = ""

    def note(self, text: str) -> None:
        """Print a note."""
        self._print(Text(text, style="yellow"))

    def failure(self, text: str) -> None:
        """Print why the run has failed, on standard error unless the console is a terminal with the panel."""
        if self._console.is_terminal:
            self._print(Text(text, style="red"))
        else:
            Console(stderr=True, highlight=False).print(Text(text), soft_wrap=True)

    def state(self, pod: LocalPod, state: PodState, detail: str) -> None:
        """Print a new state, if no panel shows it or if it is a failure or a restart."""
        before = self._states.get(pod.name)
        self._states[pod.name] = state
        if state is not before and (not self._console.is_terminal or state in {PodState.FAILED, PodState.RESTARTING}):
            elapsed = clock(time.monotonic() - self._started)
            self._print(Text(f"[{elapsed}] {pod.name} {state}{': ' if detail else ''}{detail}"))

    def line(self, pod: LocalPod, text: str) -> None:
        """Print a log line if verbose, or if it is a warning or an error of a trainer."""
        if self._verbose or (pod.role == "trainer" and _SERIOUS.search(text)):
            self._states.setdefault(pod.name, PodState.WAITING)
            colour = COLOURS[list(self._states).index(pod.name) % len(COLOURS)]
            self._print(Text.assemble((f"{pod.name} | ", colour), text))

    def progress(self, progress: Progress) -> None:
        """Update the panel; without one, print a line for each new step, and for each phase before the first."""
        self.latest = progress
        if self._first_accuracy is None and progress.evaluation:
            self._first_accuracy = progress.accuracy
        line = plain_line(progress)
        if not self._console.is_terminal and line != self._last_line:
            self._print(Text(line))
        self._last_line = line

    def _print(self, text: Text) -> None:
        # Lines are not wrapped, so that paths can be copied.
        self._console.print(text, soft_wrap=True)

    def __rich__(self) -> RenderableType:
        return panel(self._title, self._states, self.latest, self._first_accuracy, time.monotonic() - self._started)


@contextlib.contextmanager
def open_display(title: str, verbose: bool) -> Iterator[Display]:
    """A display on the console, with a live panel if it is a terminal."""
    console = Console(highlight=False)
    display = Display(console, title, verbose)
    if console.is_terminal:
        with Live(display, console=console, refresh_per_second=REFRESHES_PER_SECOND):
            yield display
    else:
        yield display


def plain_line(progress: Progress) -> str:
    """The figures of the last step in one line, or the phase before the first step."""
    if progress.step == 0:
        return f"{progress.phase}{': ' if progress.message else ''}{progress.message}"
    parts = [f"step {step_count(progress.step, progress.steps)}"]
    if progress.reward is not None:
        parts.append(f"reward {progress.reward:.2f}")
    if progress.accuracy_by_round:
        parts.append(f"rounds {rounds(progress)}")
    if progress.hint_rate is not None:
        parts.append(f"hint {progress.hint_rate:.2f}")
    if progress.accuracy is not None:
        parts.append(f"held-out {percent(progress.accuracy)}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.eta_seconds is not None:
        parts.append(f"{clock(progress.eta_seconds)} left")
    return "  ".join(parts)


def panel(
    title: str, states: Mapping[str, PodState], progress: Progress | None, first: float | None, elapsed: float
) -> RenderableType:
    """The live panel: `first` is the held-out accuracy before training, `elapsed` in seconds."""
    pods = Text("  ").join(Text(f"{name} {state}", STATE_STYLES.get(state, "")) for name, state in states.items())
    if progress is None:
        return Panel(Group(pods, Text(f"elapsed {clock(elapsed)}", "dim")), title=title, title_align="left")
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim", no_wrap=True)
    figures.add_column()
    figures.add_row("step", _bar(progress))
    figures.add_row("phase", f"{progress.phase}{'  ' if progress.message else ''}{progress.message}")
    figures.add_row("reward", number(progress.reward, ".2f"))
    figures.add_row("accuracy", rounds(progress) or ABSENT)
    figures.add_row("mean hint rate", number(progress.hint_rate, ".2f"))
    figures.add_row("held-out, no hint", _held_out(first, progress.accuracy))
    figures.add_row("tokens/s", number(progress.tokens_per_second, ",.0f"))
    figures.add_row("time", split(progress.phase_seconds) or ABSENT)
    left = "" if progress.eta_seconds is None else f", {clock(progress.eta_seconds)} left"
    figures.add_row("elapsed", f"{clock(elapsed)}{left}")
    figures.add_row("pods", pods)
    return Panel(figures, title=title, title_align="left")


def rounds(progress: Progress) -> str:
    """Accuracy of each round against the target: `0.31 0.44 0.52 0.49 (target 0.50)`."""
    values = " ".join(ABSENT if value is None else f"{value:.2f}" for value in progress.accuracy_by_round)
    target = "" if progress.target_accuracy is None else f" (target {progress.target_accuracy:.2f})"
    return f"{values}{target}" if values else ""


def split(phase_seconds: Mapping[StepPhase, float]) -> str:
    """The share of each phase in a step's time, largest first: `rollout 61%  train 30%  sync 9%`."""
    total = sum(phase_seconds.values())
    if total <= 0:
        return ""
    largest_first = sorted(phase_seconds.items(), key=lambda item: -item[1])
    return "  ".join(f"{phase} {seconds / total:.0%}" for phase, seconds in largest_first if seconds / total >= 0.005)


def _bar(progress: Progress) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=max(1, progress.steps), completed=progress.step, width=40),
        step_count(progress.step, progress.steps),
    )
    return row


def _held_out(first: float | None, latest: float | None) -> str:
    if latest is None:
        return ABSENT
    return percent(latest) if first in (None, latest) else f"{percent(first)} → {percent(latest)}"


async def follow_progress(pods: Sequence[LocalPod], http: aiohttp.ClientSession, display: Display) -> None:
    """Poll the progress of trainer 0 until cancelled."""
    first = next((pod for pod in pods if pod.role == "trainer" and pod.index == 0 and "metrics" in pod.ports), None)
    if first is None:
        return
    url = f"http://{HOST}:{first.ports['metrics']}/progress"
    while True:
        progress = await _ask(url, http)
        if progress is not None:
            display.progress(progress)
        await asyncio.sleep(PROGRESS_PERIOD)


async def _ask(url: str, http: aiohttp.ClientSession) -> Progress | None:
    try:
        async with http.get(url, timeout=PROGRESS_TIMEOUT) as answer:
            return Progress.model_validate_json(await answer.read()) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
        # Not started yet, busy or gone: the pod's own probes decide which.
        return None
