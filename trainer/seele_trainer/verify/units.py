"""Units of measure: `5 cm` is `5`, but not `5 m`."""

import re

from seele_trainer.verify.normalise import NUMBER

_UNITS = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "dm": "decimeter decimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inche",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram gm",
    "kg": "kilogram",
    "t": "ton tonne",
    "lb": "pound",
    "oz": "ounce",
    "ml": "milliliter millilitre mL",
    "l": "liter litre L",
    "ms": "millisecond",
    "s": "second sec",
    "min": "minute",
    "h": "hour hr",
    "day": "d",
    "week": "wk",
    "month": "",
    "year": "yr",
    "degree": "deg ^\\circ \\degree",
    "degree C": "celsius ^\\circC",
    "degree F": "fahrenheit ^\\circF",
    "arc minute": "'",
    "rad": "radian",
    "dollar": "USD",
    "cent": "",
    "euro": "EUR",
    "pound sterling": "GBP",
    "yen": "JPY",
    "rupee": "INR",
    "ohm": "\\Omega",
    "mph": "mi/h",
    "km/h": "kph kmh",
    "m/s": "",
    "N": "newton",
    "J": "joule",
    "W": "watt",
    "V": "volt",
    "A": "amp ampere",
    "Hz": "hertz",
    "Pa": "pascal",
    "K": "kelvin",
}
"""The units that are distinguished, and their other names without a plural s. Counted things (`5 apples`) are not."""

_NAMES = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}
_TEXT = re.compile(r"\\(?:text|mathrm|textrm|rm|operatorname|mbox|hbox)\s*\{([^{}]*)\}")
_GAP = re.compile(r"\\[ ,;:!]|~|\\quad")
_NUMBER = re.compile(
    rf"[-+]?\s*\\?\$?\s*(?:{NUMBER}|\d*\s*\\[dt]?frac\s*(?:\{{\s*\d+\s*\}}|\d)\s*(?:\{{\s*\d+\s*\}}|\d)|(?:\d+\s+)?\d+\s*/\s*\d+)"
)
_MEASURE = re.compile(
    r"(.*?(?:[\d})π]|\\pi|(?<![a-zA-Z])pi))\s*((?:[a-zA-Z']|\\Omega|\^\s*\{?\\circ\}?|\\degree)[a-zA-Z\s/.'-]*(?:\^\{?\d\}?|(?<=[a-z])\d)?)"
)
_MONEY = re.compile(
    rf"([-+]?)\s*(\\?\$|[€£¥₹]|Rs\.?|\\text\{{\s*\\?\$\s*\}})\s*({NUMBER})(?: dollars)?|({NUMBER})\s*([€£¥₹])"
)
_CURRENCIES = {"€": "euro", "£": "pound sterling", "¥": "yen", "₹": "rupee", "R": "rupee"}
_UNIT_FRACTION = re.compile(
    r"\\frac\s*\{\s*\\(?:text|mathrm)\s*\{([a-z ]+)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([a-z ]+)\}\s*\}"
)
_COUNTED_IN_ASIA = re.compile(rf"({_NUMBER.pattern})\s*[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_POWER = re.compile(r"\^?(\d)$")
_POWERS_IN_WORDS = {"square": "2", "sq": "2", "sq.": "2", "cubic": "3", "cu": "3", "cu.": "3"}


def split_unit(answer: str) -> tuple[str, str | None]:
    """The amount without the unit after it, and the unit's short name; None for no unit or one that is not known.

    `18 dollars` is `18` and `dollar`, `5 apples` is `5` and None, `2x` stays `2x`.
    """
    plain = _GAP.sub(" ", answer.strip()).rstrip(".").strip()
    if counted := _COUNTED_IN_ASIA.fullmatch(plain):
        return counted.group(1), None
    if money := _MONEY.fullmatch(plain):
        sign, before, amount, other_amount, after = money.groups()
        return (sign or "") + (amount or other_amount), _CURRENCIES.get((before or after)[0], "dollar")
    plain = _UNIT_FRACTION.sub(r"\\text{\1/\2}", plain.replace("°", "^\\circ"))
    measure = _MEASURE.fullmatch(_TEXT.sub(r" \1", plain).strip())
    if measure is None:
        return answer, None
    amount, words = measure.group(1).strip(), measure.group(2).strip()
    unit = _known(words)
    is_number = _NUMBER.fullmatch(amount) is not None
    if unit is None:
        return (amount, None) if is_number and _is_counted_thing(words) else (answer, None)
    # `5m` and `\sin 30^\circ` need not be measures; `5 m` is one.
    is_measure = (
        is_number
        if words[0] in "^\\'"
        else len(words) > 1 or (is_number and " " in plain) or _TEXT.search(plain) is not None
    )
    return (amount, unit) if is_measure else (answer, None)


def is_same_unit(unit: str, other: str) -> bool:
    """Whether two units are the same; degrees may be of any scale."""
    return unit == other or (unit[:6] == other[:6] == "degree" and "degree" in (unit, other))


def _is_counted_thing(words: str) -> bool:
    """Whether the text after a number is words, not variables or functions: `apples`, not `xy` and not `sqrt`."""
    first = words.split()[0]
    return len(first) > 3 and first.isalpha() and first not in {"sqrt", "plus", "minus", "times", "over"}


def _known(words: str) -> str | None:
    """The short name of a unit, with its power, such as `cm^2` for `square centimeters`; None if it is not in the list."""
    text = words.replace("{", "").replace("}", "")
    text = re.sub(r"\^\s*\\circ\s*", r"^\\circ", text)
    power = _POWER.search(text)
    exponent = power.group(1) if power else ""
    first, _, rest = (text[: power.start()] if power else text).strip().partition(" ")
    if first.lower() in _POWERS_IN_WORDS:
        first, exponent = "", _POWERS_IN_WORDS[first.lower()]
    parts = [_one(part) for part in f"{first} {rest}".replace(" per ", "/").split("/")]
    if any(part is None for part in parts):
        return None
    unit = "/".join(part for part in parts if part)
    return _NAMES.get(unit, unit) + (f"^{exponent}" if exponent else "")


def _one(name: str) -> str | None:
    name = name.strip(" .")
    for spelling in (name, name.removesuffix("s"), name.lower(), name.lower().removesuffix("s")):
        # `M` is not `m`.
        if spelling in _NAMES and (spelling in (name, name.removesuffix("s")) or len(spelling) > 2):
            return _NAMES[spelling]
    return None
