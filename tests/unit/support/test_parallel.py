"""Tests are grouped on workers, and the longest start first."""

from pathlib import PurePath

from tests.support import REPOSITORY
from tests.support.parallel import group_of, rank_of

TESTS = REPOSITORY / "tests"


def test_runs_share_a_worker_and_other_files_are_independent() -> None:
    assert group_of(PurePath("e2e/test_runs.py")) == group_of(PurePath("e2e/cluster/test_training.py"))
    operator = {group_of(PurePath(f"integration/operator/{name}.py")) for name in ("test_edits", "test_failures")}
    assert len(operator) == 2


def test_runs_and_tests_of_the_operator_come_first() -> None:
    files = ["unit/test_loss.py", "integration/test_vllm.py", "integration/operator/test_edits.py", "e2e/test_runs.py"]
    assert sorted(files, key=lambda file: rank_of(PurePath(file))) == files[::-1]
