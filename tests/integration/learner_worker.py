"""One rank that runs the cases of a learner test, started by torchrun or alone as the only rank."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from unittest.mock import patch

from seele_trainer.learner.learner import Learner
from seele_trainer.learner.model import load_scorer
from seele_trainer.run_folder.checkpoint import CheckpointError
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

    if case.load:
        try:
            learner.load(shared / case.load if driver else None)
        except CheckpointError as error:
            finish(Outcome([], [], str(error)))
            return
    batches = samples_of(shared, case.samples)[case.first_update : case.first_update + case.updates]
    stats = [learner.update(batch if driver else None) for batch in batches]
    logprobs = learner.logprobs(SEQUENCES if driver else None)
    learner.export(folder / case.name if driver else None)
    if case.save:
        learner.save(shared / case.save if driver else None)
    if case.follow:
        learner.close()
    finish(Outcome(stats, logprobs, models=loaded.call_count))


def main(shared: Path, folder: Path) -> None:
    for case in pickle.loads((folder / "cases").read_bytes()):
        run(case, shared, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
