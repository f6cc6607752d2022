"""Whether a completion's final answer is the right one."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from seele_trainer.verify.extract import extract_answer, marked_answer
from seele_trainer.verify.normalise import normalised, number_value

Method = Literal["math", "exact"]

RELATIVE_TOLERANCE = Decimal("1e-6")
"""Two decimals count as the same number up to this; whole numbers must be equal."""


def is_correct(completion_text: str, gold: str, method: Method) -> bool:
    """Whether the completion ends in the answer `gold`.

    `exact` compares the extracted answers as normalised text. `math` first compares them as text and as numbers, and
    only then symbolically by math-verify, which can take unbounded time and memory: call it in a process that can be
    killed.
    """
    if method == "exact":
        answer = extract_answer(completion_text)
        return answer is not None and normalised(answer) == normalised(gold)
    answer = marked_answer(completion_text)
    if answer is None:
        return _symbolically_equal(completion_text, gold, whole_text=True)
    if normalised(answer) == normalised(gold):
        return True
    value, gold_value = number_value(answer), number_value(gold)
    if value is not None and gold_value is not None and "%" not in answer + gold:
        return _same_number(value, gold_value)
    return _symbolically_equal(answer, gold, whole_text=False)


def _same_number(value: Decimal, gold: Decimal) -> bool:
    if value == gold:
        return True
    if max(value.adjusted(), gold.adjusted()) > 50 or (_is_whole(value) and _is_whole(gold)):
        return False
    return abs(value - gold) <= RELATIVE_TOLERANCE * abs(gold)


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value()


def _symbolically_equal(answer: str, gold: str, *, whole_text: bool) -> bool:
    # Imported on first use: sympy takes half a second and 60 MB that `exact` does not need.
    from seele_trainer.verify import symbolic

    return symbolic.equal(answer, gold, whole_text=whole_text)
