"""Pairs of answers that public issues and data sets are full of, each with its right verdict.

`verifier_pairs.jsonl` names the source of each pair, `more_verifier_pairs.jsonl` has others of the same kinds.
"""

import asyncio
import json
from typing import Any

import pytest

from seele_trainer.config import Verifier
from seele_trainer.verify.pool import VerifierPool
from tests.support import REPOSITORY

FILES = ("verifier_pairs.jsonl", "more_verifier_pairs.jsonl")
PAIRS: list[dict[str, Any]] = [
    json.loads(line)
    for name in FILES
    for line in (REPOSITORY / "tests/unit/data" / name).read_text(encoding="utf-8").splitlines()
]


@pytest.fixture(scope="module")
def verdicts() -> list[bool | None]:
    async def checked() -> list[bool | None]:
        pool = VerifierPool(Verifier(workers=2, timeout_seconds=10))
        await pool.start()
        try:
            return await pool.check([(pair["completion"], pair["gold"]) for pair in PAIRS])
        finally:
            await pool.close()

    return asyncio.run(checked())


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=lambda number: f"{number}-{PAIRS[number]['gold']}"[:60])
def test_the_verdict_is_right(number: int, verdicts: list[bool | None]) -> None:
    pair = PAIRS[number]
    # A tower of exponents may also have no verdict: nothing is trained on it.
    accepted = {pair["right"], None} if "may be None" in pair["source"] else {pair["right"]}
    assert verdicts[number] in accepted, pair
