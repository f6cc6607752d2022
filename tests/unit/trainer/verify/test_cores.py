"""How many cores a process may use, and so how many processes check answers by default."""

import os
from pathlib import Path

import pytest

from seele_trainer.config import Verifier
from seele_trainer.verify import pool
from seele_trainer.verify.process import available_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "3200000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "unreadable"}, 8),
        ({"cpu.max": "many few"}, 8),
        ({"cpu.max": "100000 0"}, 8),
    ],
)
def test_a_containers_limit_counts(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)

    assert available_cores(tmp_path) == expected


@pytest.mark.parametrize(("available", "expected"), [(1, 1), (8, 8), (192, pool.MAX_DEFAULT_WORKERS)])
def test_answers_are_checked_on_all_cores_by_default(
    available: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "available_cores", lambda: available)

    assert pool.VerifierPool(Verifier())._workers == expected
    assert pool.VerifierPool(Verifier(workers=3))._workers == 3
