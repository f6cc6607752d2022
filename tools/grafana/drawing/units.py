"""Values as Grafana writes them: the units that the dashboards use."""

from __future__ import annotations

import math

_SECONDS = ((86400.0, " d"), (3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))
_BYTES = ((2.0**40, " TiB"), (2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"), (1.0, " B"))
_THOUSANDS = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"), (1.0, ""))
_PLAIN = {"reqps": " req/s", "ops": " ops/s", "watt": " W", "percent": "%"}


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit; three digits where the number of decimals is left open."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return _digits(100 * value, decimals) + "%"
    if unit == "sci":
        return f"{value:.2e}"
    if unit.startswith("suffix:"):
        return _digits(value, decimals) + unit.removeprefix("suffix:")
    if unit in ("s", "bytes", "mbytes", "short"):
        table = {"s": _SECONDS, "short": _THOUSANDS}.get(unit, _BYTES)
        return _scaled(value * 2**20 if unit == "mbytes" else value, table, decimals)
    return _digits(value, decimals) + _PLAIN.get(unit, "")


def _scaled(value: float, table: tuple[tuple[float, str], ...], decimals: int | None) -> str:
    if value == 0:
        return "0" + dict(table).get(1.0, "")
    size, name = next(((size, name) for size, name in table if abs(value) >= size), table[-1])
    return _digits(value / size, decimals) + name


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        # Without the sign of a zero, as Grafana writes it.
        return f"{round(value, decimals) + 0.0:.{decimals}f}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 5)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
