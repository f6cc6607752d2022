import importlib.util
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from seele_trainer.telemetry.recorder import Recorder
from seele_trainer.telemetry.trackers import BackgroundTracker, TrackerError
from tests.support.run_folder import evaluation_record, run_config, step_record


class RecordingTracker:
    name = "recording"

    def __init__(self, *, fail_at: int | None = None, gate: threading.Event | None = None) -> None:
        self.steps: list[int] = []
        self.closed = False
        self._fail_at = fail_at
        self._gate = gate

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._gate is not None:
            self._gate.wait(10)
        if step == self._fail_at:
            raise ConnectionError("the server went away")
        self.steps.append(step)

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_every_scalar_by_default_and_hides_repeated_steps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = run_config(20)
    with Recorder(tmp_path, config) as recorder:
        for step in range(1, 7):
            recorder.record_step(step_record(step))
        recorder.record_evaluation(evaluation_record(6, 0.25))
    with Recorder(tmp_path, config) as recorder:
        recorder.truncate_after(4)
        recorder.record_step(step_record(5, reward=0.125))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rewards = events.Scalars("reward_mean")
    assert [point.step for point in rewards] == [1, 2, 3, 4, 5]
    assert rewards[-1].value == 0.125
    assert {"rollout_accuracy/round_4", "loss/term_kl", "tokens/kind_generated", "training_step"} <= set(
        events.Tags()["scalars"]
    )


def test_wandb_writes_a_run_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("wandb")

    config = run_config(observability={"tensorboard": False, "wandb": {"project": "seele-tests", "mode": "offline"}})
    with Recorder(tmp_path, config) as recorder:
        recorder.record_step(step_record(1, reward=0.375))
        recorder.record_evaluation(evaluation_record(1, 0.25))
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    # The file is an uncompressed log of protocol buffers, so names and JSON values are readable. A process of W&B writes
    # it, shortly after the run has finished.
    expected = (b"reward_mean", b"0.375", b"eval_accuracy/benchmark_held-out")
    deadline = time.monotonic() + 20
    while not all(text in written.read_bytes() for text in expected) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert all(text in written.read_bytes() for text in expected)
    assert (tmp_path / "wandb-run-id").read_text() in written.name


def test_mlflow_gets_metrics_and_parameters_and_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"file://{tmp_path / 'mlruns'}"
    config = run_config(
        observability={"tensorboard": False, "mlflow": {"trackingUri": uri, "experiment": "seele-tests"}}
    )
    run = tmp_path / "run"
    with Recorder(run, config) as recorder:
        recorder.record_step(step_record(1, reward=0.375))
    with Recorder(run, config) as recorder:
        recorder.truncate_after(1)
        recorder.record_step(step_record(2, reward=0.5))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("seele-tests")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["training.problemsPerStep"] == "16"
    assert [(point.step, point.value) for point in client.get_metric_history(logged.info.run_id, "reward_mean")] == [
        (1, 0.375),
        (2, 0.5),
    ]


def test_a_missing_package_is_named_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else real(name, *rest))
    config = run_config(observability={"tensorboard": False, "wandb": {"project": "p"}})
    with pytest.raises(TrackerError, match=r"pip install wandb, or remove observability\.wandb"):
        Recorder(tmp_path, config)


def test_a_tracker_that_cannot_start_stops_a_new_run_but_not_a_resumed_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    config = run_config(
        observability={"tensorboard": False, "mlflow": {"trackingUri": "nowhere://x", "experiment": "e"}}
    )
    recorder = Recorder(tmp_path, config)
    with pytest.raises(TrackerError, match=r"MLflow cannot start: .*Check its settings under observability"):
        recorder.truncate_after(0)
    with Recorder(tmp_path, run_config(observability={"tensorboard": False})) as earlier:
        earlier.record_step(step_record(1))
    with caplog.at_level(logging.WARNING), Recorder(tmp_path, config) as resumed:
        resumed.truncate_after(1)
        resumed.record_step(step_record(2))
        assert resumed.progress().step == 2
    assert "MLflow cannot start, so the run continues without it" in caplog.text


def test_a_tracker_that_fails_later_is_dropped_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    tracker = RecordingTracker(fail_at=2)
    background = BackgroundTracker(tracker)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 6):
            background.log(step, {"reward_mean": 0.5})
        background.close()
    assert tracker.steps == [1]
    assert tracker.closed
    assert [record.message for record in caplog.records] == [
        "recording failed and receives no more values: the server went away"
    ]


def test_a_slow_tracker_never_delays_training(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seele_trainer.telemetry.trackers.QUEUED_ENTRIES", 3)
    gate = threading.Event()
    tracker = RecordingTracker(gate=gate)
    background = BackgroundTracker(tracker)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 50):
            background.log(step, {})
    gate.set()
    background.close()
    assert 3 <= len(tracker.steps) <= 4
    assert len(caplog.records) == 1
    assert "recording is too slow" in caplog.text
