"""What a run says on a console."""

from pathlib import Path

import pytest
from rich.console import Console

from seele_operator.local.command import accuracies, summary
from seele_operator.local.display import Display, plain_line, rounds, split
from seele_operator.local.executor import stop_effect
from seele_operator.local.translate import Command, LocalPod
from seele_trainer.run_folder.records import BenchmarkScore, EvaluationRecord, Progress
from seele_trainer.termination import ExitCode

PROGRESS = Progress(
    name="one",
    step=12,
    steps=40,
    phase="train",
    reward=0.512,
    accuracy=0.125,
    accuracy_by_round=(0.25, None, 0.5),
    target_accuracy=0.5,
    hint_rate=0.7,
    tokens_per_second=3210.4,
    eta_seconds=125.0,
    phase_seconds={"rollout": 6.0, "train": 3.0, "sync": 1.0, "checkpoint": 0.001},
)


def test_why_a_run_failed_is_said_on_standard_error_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Display(Console(), "one", verbose=False).failure("one-trainer-0: exited with code 1\n  | no memory")

    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "one-trainer-0: exited with code 1\n  | no memory\n")


@pytest.mark.parametrize(
    ("role", "line", "shown"),
    [
        ("trainer", "10:00 WARNING seele: x", True),
        ("trainer", "10:00 ERROR x", True),
        ("trainer", "10:00 INFO no warning", False),
        ("trainer", "", False),
        ("rollout", "10:00 ERROR x", False),
    ],
)
def test_of_logs_only_a_trainers_warnings_and_errors_are_shown(
    capsys: pytest.CaptureFixture[str], role: str, line: str, shown: bool
) -> None:
    command = Command(role, (), {})
    pod = LocalPod(f"one-{role}-0", role, 0, (), command, {}, None, None, None, grace_seconds=30)
    Display(Console(), "one", verbose=False).line(pod, line)

    assert capsys.readouterr().out == (f"one-{role}-0 | {line}\n" if shown else "")


def test_a_step_is_one_line() -> None:
    assert plain_line(PROGRESS) == (
        "step 12/40  reward 0.51  rounds 0.25 – 0.50 (target 0.50)  hint 0.70  held-out 12.5%  "
        "3,210 tokens/s  2:05 left"
    )


def test_before_the_first_step_the_phase_is_shown() -> None:
    waiting = Progress(name="one", step=0, steps=40, phase="starting", message="waiting for 2 servers")

    assert plain_line(waiting) == "starting: waiting for 2 servers"
    assert rounds(waiting) == ""


def test_the_split_names_what_takes_time() -> None:
    assert split(PROGRESS.phase_seconds) == "rollout 60%  train 30%  sync 10%"
    assert split({}) == ""


def test_the_end_compares_the_first_evaluation_with_the_last() -> None:
    records = [
        EvaluationRecord(
            step=step,
            time=0.0,
            policy_version=step,
            seconds=1.0,
            scores={"held-out": BenchmarkScore(problems=256, greedy_accuracy=accuracy)},
        )
        for step, accuracy in ((0, 0.02), (50, 0.4), (150, 0.61))
    ]

    assert accuracies(records) == ["held-out: 2.0% → 61.0% of 256 problems solved without hints (greedy)"]
    assert accuracies([]) == []


@pytest.mark.parametrize(
    ("progress", "words", "waits"),
    [
        (None, "nothing has to be saved;", False),
        (PROGRESS.model_copy(update={"phase": "rollout"}), "nothing has to be saved;", False),
        (PROGRESS, "the step in training is abandoned, or finished and saved if its updates have begun;", True),
        (
            PROGRESS.model_copy(update={"unsaved_step": 13, "stop_seconds": 75.0}),
            "step 13 is saved first (in 1 min 15 s at most), and finished before that if its updates have begun;",
            True,
        ),
    ],
)
def test_a_stop_says_what_it_saves(progress: Progress | None, words: str, waits: bool) -> None:
    effect, must_wait = stop_effect(progress)
    assert effect.startswith(words)
    assert "press Ctrl-C again to kill everything at once" in effect
    assert must_wait == waits


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([], "No step is saved. To start again from the beginning, with a changed file if need be: again"),
        (["step-5.attempt-1.partial"], "No step is saved."),
        (["step-5", "step-10", "step-15.damaged"], "Step 10 is saved. To resume after it: again"),
        (["step-15.damaged"], "All its checkpoints are damaged. Once one is restored from a backup: again"),
    ],
)
def test_the_end_says_what_is_saved(tmp_path: Path, folders: list[str], words: str) -> None:
    for folder in folders:
        (tmp_path / "checkpoints" / folder).mkdir(parents=True)

    [stopped] = summary(tmp_path, ExitCode.INTERRUPTED, "again", 1.0)
    [failed] = summary(tmp_path, ExitCode.FAILED, "again", 1.0)

    assert stopped.startswith(f"Stopped. {words}")
    assert failed.startswith(f"The run failed; logs are in {tmp_path / 'logs'}. {words}")
