"""Log lines and their time stamps: nothing twice and nothing left out, wherever a connection breaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_operator.client.log_lines import Position, log_line


@pytest.mark.parametrize(
    ("raw", "stamp", "text"),
    [
        (b"2026-11-22T10:11:12.000000345Z step 1 of 2\n", "2026-11-22T10:11:12.000000345Z", "step 1 of 2"),
        (b"2026-11-22T10:11:12Z 10%\r50%\r100%\r\n", "2026-11-22T10:11:12Z", "100%"),
        (b"no stamp\n", "", "no stamp"),
        (b"", "", ""),
        (b"\xff\xfe\n", "", "��"),
    ],
    ids=["plain", "the last state of a progress bar", "no time", "empty", "not UTF-8"],
)
def test_a_line_is_split_into_time_stamp_and_text(raw: bytes, stamp: str, text: str) -> None:
    line = log_line(raw)

    assert (line.stamp, line.text, line.moment is None) == (stamp, text, not stamp)


def test_moments_are_compared_in_utc_and_to_the_nanosecond() -> None:
    stamps = ("10:00:00.000000345Z", "10:00:00.02Z", "10:00:00.1Z", "12:00:00.5+02:00", "10:00:00.5Z")
    moments = [log_line(f"2026-11-22T{stamp} x".encode()).moment for stamp in stamps]

    assert None not in moments
    assert moments[:4] == sorted(set(moments))  # type: ignore[type-var]
    assert moments[3] == moments[4]


@given(
    gaps=st.lists(st.integers(0, 1_500), min_size=1, max_size=30),
    breaks=st.lists(st.integers(0, 30), max_size=5),
)
def test_every_line_is_shown_once_however_often_the_connection_breaks(gaps: list[int], breaks: list[int]) -> None:
    stamps, now = [], 0
    for gap in gaps:
        now += gap // 300 * 250
        stamps.append(f"2026-11-22T10:00:{now // 1000 % 60:02}.{now % 1000:03}Z")
    lines = [f"{stamp} line {i}".encode() for i, stamp in enumerate(stamps)]
    position, shown = Position(), []

    for end in [*breaks, len(lines)]:
        since = position.since_time
        start = 0 if since is None else next(i for i, stamp in enumerate(stamps) if stamp[:19] >= since[:19])
        position.reconnected()
        shown += [line.text for raw in lines[start:end] if position.is_new(line := log_line(raw))]

    assert shown == [f"line {i}" for i in range(len(lines))]


def test_a_clock_that_is_set_back_hides_no_lines() -> None:
    position = Position()
    lines = [log_line(b"2026-11-22T10:00:05Z a"), log_line(b"2026-11-22T10:00:01Z b")]

    assert [position.is_new(line) for line in lines] == [True, True]
