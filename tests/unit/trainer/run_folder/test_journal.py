"""The journals of a run: lines of JSON that survive a torn end and an earlier version."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_trainer.run_folder.journal import Journal, JournalError, read_records
from seele_trainer.run_folder.records import EvaluationRecord, SampleRollout, StepRecord
from seele_trainer.telemetry.recorder import Recorder
from tests.support.run_folder import evaluation_record, run_config, sample_rollouts, step_record


def test_records_are_lines_of_json_that_read_back_equal(tmp_path: Path) -> None:
    record = step_record(1)
    with Recorder(tmp_path, run_config(120, observability={"tensorboard": False})) as recorder:
        recorder.record_step(record)
        recorder.record_samples(sample_rollouts(1, 0.5))
        # Flushed line by line, so readable during the run.
        assert read_records(tmp_path / "metrics.jsonl", StepRecord) == [record]
        assert read_records(tmp_path / "rollouts.jsonl", SampleRollout) == sample_rollouts(1, 0.5)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["accuracyByRound"] == list(record.accuracy_by_round)
    assert not (tmp_path / "metrics.discarded.jsonl").exists()


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    line = json.loads(step_record(1).model_dump_json(by_alias=True))
    line["losses"]["hint"] = line["losses"].pop("supervised")
    del line["tokens"]["loss"]
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (record,) = read_records(tmp_path / "metrics.jsonl", StepRecord)
    assert record.losses == step_record(1).losses
    assert record.tokens.loss == 0


@given(whole=st.integers(1, 4), cut=st.integers(0, 400))
def test_an_incomplete_last_line_is_removed_on_opening(
    tmp_path_factory: pytest.TempPathFactory, whole: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "eval.jsonl"
    lines = [evaluation_record(step, 0.5).model_dump_json(by_alias=True) + "\n" for step in range(whole + 1)]
    torn = lines[-1][: min(cut, len(lines[-1]) - 1)]
    path.write_text("".join(lines[:-1]) + torn)
    assert [record.step for record in read_records(path, EvaluationRecord)] == list(range(whole))
    with Journal(path) as journal:
        journal.append(evaluation_record(99, 0.5))
    assert [record.step for record in read_records(path, EvaluationRecord)] == [*range(whole), 99]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "eval.jsonl"
    path.write_text(
        evaluation_record(0, 0.5).model_dump_json() + "\n{]\n" + evaluation_record(2, 0.5).model_dump_json() + "\n"
    )
    with pytest.raises(JournalError, match=r"eval\.jsonl, line 2: .*Delete the line"):
        read_records(path, EvaluationRecord)
