"""One rank that runs the cases of a learner test, started by torchrun or alone as the only rank."""

import itertools
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest

from seele_trainer.learner.learner import Abandoned, Learner
from seele_trainer.learner.model import load_scorer
from seele_trainer.learner.sample import Sample
from seele_trainer.run_folder.checkpoint import CheckpointError, DamagedCheckpoint
from tests.integration.learner_cases import SEQUENCES, TOTAL_UPDATES, Case, Outcome, config_of, samples_of


def run(case: Case, shared: Path, folder: Path) -> None:
    with patch("seele_trainer.learner.learner.load_scorer", wraps=load_scorer) as loaded:
        learner = Learner(config_of(case, shared), TOTAL_UPDATES, seed=7)
    driver = learner.rank == 0
    if case.follow and not driver:
        learner.follow()
        return

    def finish(outcome: Outcome) -> None:
        (folder / f"{case.name}.outcome-{learner.rank}").write_bytes(pickle.dumps(outcome))

    try:
        load_newest(learner, shared, case.load.split())
    except CheckpointError as error:
        finish(Outcome([], [], f"{type(error).__name__}: {error}"))
        return
    batches = samples_of(shared, case.samples)
    trained = batches[case.first_update : case.first_update + case.updates]
    stats = [learner.update(batch if driver else None) for batch in trained]
    if case.stop_at is not None:
        abandon(learner, batches[case.first_update + case.updates] if driver else None, case.stop_at)
        learner.save(shared / str(case.save) if driver else None)
        if case.follow:
            learner.close()
        finish(Outcome(stats, []))
        return
    logprobs = learner.logprobs(SEQUENCES if driver else None)
    learner.export(folder / case.name if driver else None)
    decoy_logprobs = learner.decoy_logprobs(SEQUENCES if driver else None, -4.0)
    learner.export(folder / f"{case.name}-decoy" if driver else None, untie=True, head_scale=-4.0)
    if case.save:
        learner.save(shared / case.save if driver else None)
    if case.follow:
        learner.close()
    finish(Outcome(stats, logprobs, models=loaded.call_count, decoy_logprobs=decoy_logprobs))


def load_newest(learner: Learner, shared: Path, names: Sequence[str]) -> None:
    """Load the first of these checkpoints that is whole, as the loop does."""
    for name in names:
        try:
            learner.load(shared / name if learner.rank == 0 else None)
        except DamagedCheckpoint:
            if name == names[-1]:
                raise
        else:
            return


def abandon(learner: Learner, samples: Sequence[Sample] | None, stop_at: int) -> None:
    """Stop an update before micro-batch `stop_at`, and then the scoring of sequences."""
    asked = itertools.count(1)
    with pytest.raises(Abandoned):
        learner.update(samples, lambda: next(asked) == stop_at)
    with pytest.raises(Abandoned):
        learner.logprobs(SEQUENCES if learner.rank == 0 else None, lambda: True)


def main(shared: Path, folder: Path) -> None:
    for case in pickle.loads((folder / "cases").read_bytes()):
        run(case, shared, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
