"""On the gold answers of six real benchmarks the verifier accepts right answers and refuses wrong ones.

The floors are what `benchmarks/verifier_accuracy.py` measures on the whole files, less a small margin; here the first
problems of each stand for the rest.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio

from seele_trainer.config import Verifier
from seele_trainer.verify.pool import VerifierPool
from tests.support import REPOSITORY

pytestmark = pytest.mark.integration

SCRIPT = REPOSITORY / "benchmarks" / "verifier_accuracy.py"
FIRST = 60
FLOORS = {"boxed": 1.0, "stated": 1.0, "solution": 1.0, "unmarked": 0.98}
CEILINGS = {"plus one": 0.005, "sign flipped": 0.005, "another's": 0.005}


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verifier_accuracy", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[VerifierPool]:
    verifier = VerifierPool(Verifier(timeout_seconds=30))
    await verifier.start()
    yield verifier
    await verifier.close()


@pytest.mark.parametrize("title", ["gsm8k", "math500", "minerva_math", "olympiadbench", "aime24", "amc23"])
async def test_right_answers_are_accepted_and_wrong_ones_refused(
    shared_data: Path, accuracy: ModuleType, pool: VerifierPool, title: str
) -> None:
    rates = await accuracy.measure(shared_data, title, pool, limit=FIRST)
    for kind, floor in FLOORS.items():
        if rates[kind].checked:
            assert rates[kind].share >= floor, (kind, rates[kind].errors)
    for kind, ceiling in CEILINGS.items():
        assert rates[kind].checked > 20
        assert rates[kind].share <= ceiling, (kind, rates[kind].errors)
    assert pool.crashes == 0
