"""How numbers, shares, counts and durations are written for people, in terminals, tables and reports."""

ABSENT = "–"
"""Stands for a value that is not known."""


def number(value: float | None, form: str) -> str:
    """A number in a format such as `.2f`."""
    return ABSENT if value is None else format(value, form)


def percent(value: float | None) -> str:
    """A share with one decimal: `61.4%`."""
    return number(value, ".1%")


def step_count(done: int | None, total: int | None) -> str:
    """Steps done out of all steps: `12/60`, `12/?` if the total is not known."""
    if done is None and total is None:
        return ABSENT
    return f"{done or 0}/{'?' if total is None else total}"


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 restart`, `2 restarts`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def amount(count: int) -> str:
    """A large count with three digits and a unit: `999`, `12.3 k`, `4.56 M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            scaled = count / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g} {unit}" if scaled < 999.5 else f"{scaled:.0f} {unit}"
    return f"{count:,}".replace(",", " ")


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: `4.2 s`, `42 s`, `12 min 05 s`, `1 h 02 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(seconds: float) -> str:
    """Seconds as a stopwatch shows them, for lines that are updated live: `0:42`, `12:05`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def short_duration(seconds: float) -> str:
    """Seconds as kubectl writes them, for columns: `45s`, `12m`, `3h20m`, `5d`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 180:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if hours < 10 and minutes % 60 else f"{hours}h"
    return f"{days}d"
