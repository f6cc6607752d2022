"""A long preparation of the data looks alive, and says how long it will take."""

import logging
from pathlib import Path

import pytest

from seele_trainer.config import TrainerConfig
from seele_trainer.telemetry.recorder import Preparation, Recorder


def test_every_call_is_a_heartbeat_and_a_line_appears_every_five_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    config = TrainerConfig.model_validate(
        {
            "name": "t",
            "model": {"name": "m"},
            "dataset": {"path": "x.jsonl"},
            "observability": {"tensorboard": False},
        }
    )
    with Recorder(tmp_path, config, clock=lambda: now) as recorder, caplog.at_level(logging.INFO):
        signs = Preparation(recorder, lambda: now)
        for now in range(1, 3601):
            signs.reading(now * 1000)
        tokenized = signs.tokenizing(100_000)
        for now in range(3601, 7201):
            tokenized(round((now - 3600) * 100_000 / 3600))
            assert recorder.problem() is None
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1440
        assert lines[0] == "reading the data set: 5 000 rows"
        assert lines[-2] == "tokenising: 99.9 k of 100 k problems, about 5.0 s left"
        assert recorder.progress().message == lines[-1]
        assert recorder.progress().phase == "starting"
        now += 3600
        assert recorder.problem() is not None
