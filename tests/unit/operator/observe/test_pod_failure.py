"""The end of a container's log, as a failure quotes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_operator.observe.failures import shortened

pytestmark = pytest.mark.unit


def test_a_short_log_stays_as_it_is() -> None:
    assert shortened("one\ntwo\n", 10) == "one\ntwo"


def test_a_long_log_begins_at_a_line() -> None:
    assert shortened("first line\nsecond\nthird", 12) == "second\nthird"
    assert shortened("first line\nsecond\nthird", 13) == "second\nthird"
    assert shortened("first line\nsecond\nthird", 11) == "third"


def test_a_long_line_is_cut() -> None:
    assert shortened("abcdefghij", 4) == "…hij"


@given(st.text(alphabet="ab\n", max_size=60), st.integers(2, 20))
def test_what_is_left_of_a_log_is_its_end(log: str, limit: int) -> None:
    left = shortened(log, limit)

    assert len(left) <= limit
    assert log.strip().endswith(left.removeprefix("…"))
