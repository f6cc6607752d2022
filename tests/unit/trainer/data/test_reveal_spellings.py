"""A hint does not show the answer in another spelling either."""

import json
import time
from typing import Any

import pytest

from seele_trainer.data.reveal import revealable_characters
from seele_trainer.verify.evaluate import value_at_a_point
from tests.support import REPOSITORY

SHAPES: list[dict[str, Any]] = [
    json.loads(line)
    for line in (REPOSITORY / "tests/unit/data/hints_that_leak.jsonl").read_text(encoding="utf-8").splitlines()
]

OTHERS = [
    ("It holds twenty-four eggs.\nSo 24.", "24", "twenty"),
    ("That makes two dozen eggs.\nSo 24.", "24", "dozen"),
    ("Two hundred and five of them.\nSo 205.", "205", "hundred"),
    ("It is ¾ of all.\nSo \\frac{3}{4}.", "\\frac{3}{4}", "¾"),
    ("It is 75\\% of all.\nSo \\frac{3}{4}.", "\\frac{3}{4}", "75"),
    ("It is 2 1/4 m.\nSo \\frac{9}{4}.", "\\frac{9}{4}", "2 1/4"),
    ("It is 3√5 m.\nSo 3\\sqrt{5}.", "3\\sqrt{5}", "√5"),
    ("It is sqrt(7) m.\nSo \\sqrt{7}.", "\\sqrt{7}", "sqrt"),
    ("It costs 1 250 000 in all.\nSo 1250000.", "1250000", "250"),
    ("So x < 3.\nThat is (-\\infty,3).", "(-\\infty,3)", "x < 3"),
    ("So x lies in [2, 5].\nThat is 2 \\le x \\le 5.", "2 \\le x \\le 5", "5]"),
    ("It is (b+a)(a-b) then.\nSo (a-b)(a+b).", "(a-b)(a+b)", "a-b"),
    ("It is x^2+3x+2 then.\nSo (x+1)(x+2).", "(x+1)(x+2)", "3x"),
    ("We get p/q.\nSo \\frac{p}{q}.", "\\frac{p}{q}", "p/q"),
    ("It is π/6 then.\nSo \\frac{\\pi}{6}.", "\\frac{\\pi}{6}", "π/6"),
    ("一共二十五个。\n所以 25。", "25", "二十五"),
    ("共 ２５ 个。\n所以 25。", "25", "２５"),
    ("Nothing is left.\nSo 0.", "0", "Nothing"),
    ("So x = 5 or x = -5.\nThat is \\pm 5.", "\\pm 5", "-5"),
    ("So a is 4 and b is 9.\nThus \\begin{bmatrix}4\\\\9\\end{bmatrix}", "\\begin{bmatrix}4\\\\9\\end{bmatrix}", "9"),
    ("Exactly one half are left.\nSo \\frac{1}{2}.", "\\frac{1}{2}", "one half"),
    ("So two-thirds are red.\nHence \\frac{2}{3}.", "\\frac{2}{3}", "two"),
    ("A quarter is left.\nHence 0.25.", "0.25", "quarter"),
    ("Dividing gives 0.333....\nHence \\frac{1}{3}.", "\\frac{1}{3}", "0.333"),
    ("It is about 1.41421356.\nSo \\sqrt{2}.", "\\sqrt{2}", "1.414"),
    ("It is the square root of 5.\nSo \\sqrt{5}.", "\\sqrt{5}", "root of 5"),
    ("That is 0.4 of it.\nSo 40\\%.", "40\\%", "0.4"),
    ("It is 3 \\times 10^{4} g.\nSo 30000.", "30000", "10^"),
    ("It is 3e4 g.\nSo 30000.", "30000", "3e4"),
    ("There are 2 million.\nSo 2000000.", "2000000", "2 million"),
    ("Il y en a douze.\nDonc 12.", "12", "douze"),
    ("Es sind zwölf.\nAlso 12.", "12", "zwölf"),
    ("It is 5 meters long.\nSo 5\\text{ m}.", "5\\text{ m}", "5 meters"),
    ("So 5 < x holds.\nThat is (5,\\infty).", "(5,\\infty)", "5 < x"),
    ("So |x| < 3 holds.\nThat is (-3,3).", "(-3,3)", "|x| < 3"),
    ("So {3 \\over 7} it is.\nThat is \\frac{3}{7}.", "\\frac{3}{7}", "over"),
    ("So it is 3 to 7.\nThat is 3:7.", "3:7", "3 to 7"),
    ("So it is \\frac{3}{7}.\nThat is 3:7.", "3:7", "frac"),
    ("So it is 2 and 1/3.\nThat is \\frac{7}{3}.", "\\frac{7}{3}", "1/3"),
    ("Counting gives 12.\nSo (B).", "\\textbf{(B)}\\ 12", "12"),
    ("So (3,\\infty)\\cup(-\\infty,1).\nSorted.", "(-\\infty,1)\\cup(3,\\infty)", "1)"),
    ("Roots 1+\\sqrt{2} and 1-\\sqrt{2}.\nSo 1\\pm\\sqrt{2}.", "1\\pm\\sqrt{2}", "1-"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["name"])
def test_a_shape_that_leaked_is_cut(shape: dict[str, Any]) -> None:
    shown = shape["solution"][: revealable_characters(shape["problem"], shape["solution"], shape["answer"])]
    assert not [text for text in shape["mustNotShow"] if text in shown], shown


@pytest.mark.parametrize(("solution", "answer", "leak"), OTHERS)
def test_other_shapes_of_the_same_kinds_are_cut(solution: str, answer: str, leak: str) -> None:
    assert leak not in solution[: revealable_characters("What is it?", solution, answer)]


def test_other_values_are_shown() -> None:
    solution = "Here a/b is 3√5 and x > 4, or thirty-one.\nThen x^2+3x+1 follows.\nSo (x+1)(x+2)."
    assert revealable_characters("?", solution, "(x+1)(x+2)") >= solution.index("\nSo")


@pytest.mark.parametrize(
    "formula", ["(" * 100, "1/0", "9^9^9^9", "", "\\frac", "\\frac{1}", "x^{1000}", "-", "(-1)^{0.5}"]
)
def test_a_formula_that_cannot_be_read_has_no_value(formula: str) -> None:
    began = time.process_time()
    value_at_a_point(formula)
    assert time.process_time() - began < 0.5
