"""What `seele suspend` and `seele delete` say about what a run could lose, and how long they wait."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seele_operator.client import runs as polling
from seele_operator.client.control import at_stake, suspend
from seele_operator.client.runs import see
from tests.support.client_bodies import Body, run_body

STARTED = {"attemptRunningTime": "2026-11-22T10:00:00Z"}
KILLED = "pods are killed after 30 min 00 s (runPolicy.terminationGracePeriodSeconds)"
LOST = "what is newer is lost if they are killed before it is saved"


def saved(step: int, minutes: float | None = None) -> Body:
    time = {} if minutes is None else {"time": (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()}
    return {"step": step, "path": f"checkpoints/step-{step}", **time}


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        ({}, []),  # no operator has seen it
        ({"phase": "Pending", "attempt": 1, "step": 4}, []),
        ({"phase": "Succeeded", **STARTED, "step": 60}, []),
        ({"phase": "Running", **STARTED}, [KILLED, f"no step is saved yet, of 0 finished; {LOST}"]),
        (
            {"phase": "Running", **STARTED, "step": 43, "stopSeconds": 250.0, "lastCheckpoint": saved(40, 750)},
            [
                f"saving may take 4 min 10 s; {KILLED}",
                f"step 40 is saved, 12h ago, and 3 finished steps are not; {LOST}",
            ],
        ),
        (
            {"phase": "Running", **STARTED, "step": 40, "lastCheckpoint": saved(40)},
            [KILLED, f"step 40 is saved; {LOST}"],
        ),
    ],
)
def test_what_is_at_stake(status: Body, lines: list[str]) -> None:
    assert list(at_stake(see(run_body(**status)))) == lines


class Runs:
    """The API server's answers to a suspension, one after the other."""

    def __init__(self, *answers: Body) -> None:
        self._answers = list(answers)

    async def run(self, name: str) -> Body:
        return self._answers.pop(0)

    async def set_suspend(self, name: str, suspend: bool) -> Body:
        return await self.run(name)

    def command(self, *words: str) -> str:
        return " ".join(words)


async def test_waiting_for_a_suspension_waits_for_the_save(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(phase: str, reason: str, step: int) -> Body:
        condition = {"type": "Progressing", "status": "False", "reason": reason, "message": reason}
        time: dict[str, Any] = {"lastTransitionTime": "2026-11-22T10:00:00Z"}
        status = {"phase": phase, "message": reason, "step": 43, "lastCheckpoint": saved(step), **STARTED}
        return run_body(**status, conditions=[condition | time])

    monkeypatch.setattr(polling, "POLL_SECONDS", 0)
    running, over = state("Running", "Training", 40), state("Suspended", "Suspended", 43)
    stopping = [state("Suspended", reason, 40) for reason in ("StoppingPods", "PodStuckTerminating")]
    lines: list[str] = []
    runs = Runs(running, running, *stopping, over)
    assert await suspend(runs, "quick", lines.append, wait=True) == 0  # type: ignore[arg-type]
    assert lines[0] == "quick: is being suspended; its trainers save the last finished step first"
    assert lines[-4:] == [
        "quick: Suspended  step 43/60  StoppingPods",
        "quick: Suspended  step 43/60  PodStuckTerminating",
        "quick: Suspended  step 43/60  Suspended",
        "quick: its pods are gone; step 43 is saved",
    ]
