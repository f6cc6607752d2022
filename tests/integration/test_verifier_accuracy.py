"""On the answers of six real benchmarks the verifier accepts right answers and rejects wrong ones.

The floors are the results of `benchmarks/verifier_accuracy.py` on the whole files, less a small margin. The tests take
the first problems of each file.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.verifier_accuracy import measure
from seele_trainer.config import Verifier
from seele_trainer.verify.pool import VerifierPool

FIRST = 60
FLOORS = {"boxed": 1.0, "stated": 1.0, "solution": 1.0, "unmarked": 0.98}
CEILINGS = {"plus one": 0.005, "sign flipped": 0.005, "another's": 0.005}


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[VerifierPool]:
    verifier = VerifierPool(Verifier(timeout_seconds=30))
    await verifier.start()
    yield verifier
    await verifier.close()


@pytest.mark.parametrize("title", ["gsm8k", "math500", "minerva_math", "olympiadbench", "aime24", "amc23"])
async def test_right_answers_are_accepted_and_wrong_ones_refused(
    shared_data: Path, pool: VerifierPool, title: str
) -> None:
    rates = await measure(shared_data, title, pool, limit=FIRST)
    for kind, floor in FLOORS.items():
        if rates[kind].checked:
            assert rates[kind].share >= floor, (kind, rates[kind].errors)
    for kind, ceiling in CEILINGS.items():
        assert rates[kind].checked > 20
        assert rates[kind].share <= ceiling, (kind, rates[kind].errors)
    assert pool.crashes == 0
