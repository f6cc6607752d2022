"""Log lines and their time stamps: nothing twice and nothing left out, wherever a connection breaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_operator.client.log_lines import Position, log_line


def test_the_time_stamp_is_taken_off() -> None:
    line = log_line(b"2026-11-22T10:11:12.000000345Z step 1 of 2\n")

    assert (line.stamp, line.text) == ("2026-11-22T10:11:12.000000345Z", "step 1 of 2")
    assert line.moment is not None
    assert line.moment[1] == 345


def test_zeros_at_the_end_of_a_fraction_are_left_out_by_the_server() -> None:
    early, late = log_line(b"2026-11-22T10:11:12.1Z x"), log_line(b"2026-11-22T10:11:12.02Z x")

    assert early.moment is not None
    assert late.moment is not None
    assert early.moment > late.moment


def test_node_time_is_compared_in_utc() -> None:
    assert log_line(b"2026-11-22T12:00:00.5+02:00 x").moment == log_line(b"2026-11-22T10:00:00.5Z x").moment


@pytest.mark.parametrize(("raw", "text"), [(b"no stamp\n", "no stamp"), (b"", ""), (b"\xff\xfe\n", "��")])
def test_a_line_without_time_is_a_line(raw: bytes, text: str) -> None:
    line = log_line(raw)

    assert (line.text, line.moment) == (text, None)


def test_the_last_state_of_a_progress_bar_is_shown() -> None:
    assert log_line(b"2026-11-22T10:11:12Z 10%\r50%\r100%\r\n").text == "100%"


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
