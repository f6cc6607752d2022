"""Numbers and durations as people read them."""

import pytest

from seele_trainer.formatting import ABSENT, amount, clock, counted, duration, percent, short_duration, step_count


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (-3, "0s"),
        (0.4, "0s"),
        (119, "119s"),
        (120, "2m"),
        (10_799, "179m"),
        (12_000, "3h20m"),
        (90_000, "25h"),
        (9e5, "10d"),
    ],
)
def test_columns_show_durations_as_kubectl_does(seconds: float, written: str) -> None:
    assert short_duration(seconds) == written


@pytest.mark.parametrize(("seconds", "written"), [(0, "0:00"), (59.6, "1:00"), (725, "12:05"), (3723, "1:02:03")])
def test_live_lines_show_a_stopwatch(seconds: float, written: str) -> None:
    assert clock(seconds) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(4.24, "4.2 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (725, "12 min 05 s"), (3723, "1 h 02 min")],
)
def test_pages_show_durations_with_units(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(
    ("count", "written"),
    [(999, "999"), (9_999, "9 999"), (12_345, "12.3 k"), (999_999, "1000 k"), (4_560_000, "4.56 M"), (2e9, "2 G")],
)
def test_large_counts_have_a_unit(count: int, written: str) -> None:
    assert amount(count) == written


def test_what_is_not_known_is_a_dash() -> None:
    assert (percent(None), step_count(None, None), step_count(None, 60), step_count(3, None)) == (
        ABSENT,
        ABSENT,
        "0/60",
        "3/?",
    )


def test_a_count_has_its_noun() -> None:
    assert [counted(count, "restart") for count in (0, 1, 2)] == ["0 restarts", "1 restart", "2 restarts"]
