"""Scalars for TensorBoard, Weights & Biases and MLflow.

Each package is imported only if it is used. A tracker that cannot start stops the run with a clear message; one that
fails later is dropped with one line in the log, since a day of training is worth more than a plot of it.
"""

import importlib.util
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from seele_trainer.config import MLflow, Observability, TrainerConfig, WandB
from seele_trainer.run_folder.durable import write_file
from seele_trainer.termination import ExpectedFailure

logger = logging.getLogger(__name__)

QUEUED_ENTRIES = 1000
"""Entries that may wait for a slow tracker; further ones are dropped."""


class TrackerError(ExpectedFailure):
    """A tracker cannot start. The message says which package or setting is to blame."""


class Tracker(Protocol):
    """A receiver of scalars by name."""

    name: str

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the values of one training step."""

    def close(self) -> None:
        """Send what is left and release everything."""


class TensorBoardTracker:
    """Event files in `<run>/tensorboard`. After a resume, points beyond `resumed_step` are hidden."""

    name = "TensorBoard"

    def __init__(self, run_dir: Path, resumed_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if resumed_step is None else resumed_step + 1
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge, flush_secs=10)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write one point per scalar."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbTracker:
    """One Weights & Biases run, continued after a resume. Offline it is kept in `<run>/wandb`."""

    name = "Weights & Biases"

    def __init__(self, run_dir: Path, settings: WandB, config: TrainerConfig) -> None:
        import wandb

        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            name=config.name,
            id=_remembered(run_dir / "wandb-run-id", lambda: uuid.uuid4().hex[:12]),
            resume="allow",
            dir=str(run_dir),
            config=config.model_dump(mode="json", by_alias=True),
            # Neither the trainer's console output nor the machine's statistics are recorded.
            settings=wandb.Settings(console="off", x_disable_stats=True, silent=True),
        )
        # A separate axis: W&B refuses to log a step again, and a resumed run repeats some.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Queue one row for upload."""
        self._run.log({"step": step, **scalars})

    def close(self) -> None:
        """Finish the run; waits for the upload."""
        self._run.finish()


class MlflowTracker:
    """One MLflow run, continued after a resume."""

    name = "MLflow"

    def __init__(self, run_dir: Path, settings: MLflow, config: TrainerConfig) -> None:
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        if settings.tracking_uri.startswith("file:"):
            # Recent versions write to a folder only with this confirmation.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._metric = Metric
        self._client = MlflowClient(tracking_uri=settings.tracking_uri)
        found = self._client.get_experiment_by_name(settings.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(settings.experiment)
        self._run_id = _remembered(run_dir / "mlflow-run-id", lambda: self._create(experiment, config))

    def _create(self, experiment: str, config: TrainerConfig) -> str:
        run_id: str = self._client.create_run(experiment, run_name=config.name).info.run_id
        for name, value in _flat(config.model_dump(mode="json", by_alias=True)).items():
            self._client.log_param(run_id, name, value)
        return run_id

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars in one request."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, [self._metric(name, value, now, step) for name, value in scalars.items()])

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run_id)


class BackgroundTracker:
    """A tracker in a separate thread, so that a slow or broken server neither delays nor stops training."""

    def __init__(self, tracker: Tracker, *, close_seconds: float = 60.0) -> None:
        self._tracker = tracker
        self._close_seconds = close_seconds
        self._entries: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(QUEUED_ENTRIES)
        self._full = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {tracker.name}", daemon=True)
        self._thread.start()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Hand over the values of one step; never blocks and never raises."""
        try:
            self._entries.put_nowait((step, scalars))
        except queue.Full:
            if not self._full:
                logger.warning("%s is too slow: it misses values from step %d on", self._tracker.name, step)
            self._full = True

    def close(self) -> None:
        """Wait for the queued entries, up to the time limit."""
        try:
            self._entries.put(None, timeout=self._close_seconds)
        except queue.Full:
            pass
        else:
            self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            logger.warning("%s did not accept its last values within %.0f s", self._tracker.name, self._close_seconds)

    def _work(self) -> None:
        broken = False
        while (entry := self._entries.get()) is not None:
            if not broken:
                broken = not self._attempt(lambda entry=entry: self._tracker.log(*entry))  # type: ignore[misc]
        self._attempt(self._tracker.close)

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            # Third-party code, over the network: its errors must not reach the training.
            logger.warning("%s failed and receives no more values: %s", self._tracker.name, error, exc_info=True)
            return False
        return True


def require_packages(observability: Observability) -> None:
    """Raise TrackerError if the package of a requested tracker is not installed."""
    wanted = (
        (observability.tensorboard, "tensorboard", "tensorboard", "set observability.tensorboard to false"),
        (observability.wandb is not None, "wandb", "wandb", "remove observability.wandb"),
        (observability.mlflow is not None, "mlflow", "mlflow-skinny", "remove observability.mlflow"),
    )
    for used, module, package, remedy in wanted:
        if used and importlib.util.find_spec(module) is None:
            raise TrackerError(f"the run logs to {module}, which is not installed: pip install {package}, or {remedy}")


def open_trackers(run_dir: Path, config: TrainerConfig, resumed_step: int | None) -> list[BackgroundTracker]:
    """Start the trackers of the configuration.

    Raises TrackerError if one cannot start. In a resumed run (`resumed_step` given) this is only logged: the server was up
    when the run began, and must not prevent it from continuing.
    """
    observability = config.observability
    wanted: list[tuple[str, Callable[[], Tracker]]] = []
    if observability.tensorboard:
        wanted.append(("TensorBoard", lambda: TensorBoardTracker(run_dir, resumed_step)))
    if (wandb := observability.wandb) is not None:
        wanted.append(("Weights & Biases", lambda: WandbTracker(run_dir, wandb, config)))
    if (mlflow := observability.mlflow) is not None:
        wanted.append(("MLflow", lambda: MlflowTracker(run_dir, mlflow, config)))
    opened = []
    for name, start in wanted:
        try:
            opened.append(BackgroundTracker(start()))
        except Exception as error:  # third-party code, which raises anything
            if resumed_step is None:
                raise TrackerError(f"{name} cannot start: {error}. Check its settings under observability") from error
            logger.warning("%s cannot start, so the run continues without it: %s", name, error, exc_info=True)
    return opened


def _remembered(path: Path, make: Callable[[], str]) -> str:
    """The content of a file, made and written by the first call: the identity of a run, for when it is resumed."""
    if not path.exists():
        write_file(path, make())
    return path.read_text().strip()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            # MLflow refuses longer values.
            flat[f"{prefix}{key}"] = str(value)[:500]
    return flat
