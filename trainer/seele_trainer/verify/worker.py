"""A process that checks answers: `python -m seele_trainer.verify.worker METHOD PARENT_PID`.

It reads lines with a JSON list of [text, expected] pairs, and writes one JSON line per pair: true, false, or null, with the
error on stderr, if the check raised one. The first line it writes is "ready". It may be killed at any time.
"""

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import traceback

from seele_trainer.verify.check import Method, is_correct, method_named

MEMORY_LIMIT = 4 << 30
"""Bytes of address space, so that a tower of exponents cannot exhaust the trainer's memory."""

WARM_UP = (
    ("\\sqrt{x^2}", "x"),
    ("x^2+y^2=4", "y^2+x^2=5"),
    ("(-\\infty,1)\\cup\\{2\\}", "x<1"),
    ("0.333333", "\\frac{1}{3}"),
    ("x=1,y=2", "(1,2)"),
    ("1+2i", "1+2j"),
    ("\\sin{x}\\log_2 3", "\\cos{x}"),
    ("\\begin{pmatrix}1\\\\x\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
)
"""Pairs that load and compile most of what answers take."""

_PR_SET_PDEATHSIG = 1


def main(method: Method, parent: int) -> None:
    """Check pairs from stdin until it closes."""
    _die_with(parent)
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    if allowed == resource.RLIM_INFINITY or allowed > MEMORY_LIMIT:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, allowed))
    # Ctrl-C in a terminal is sent to the whole process group, but the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Load everything before the first check is timed, and keep it out of the garbage collector's way.
    for answer, expected in WARM_UP:
        is_correct(f"\\boxed{{{answer}}}", expected, method)
    gc.collect()
    gc.freeze()
    _write("ready")
    for line in sys.stdin:
        for text, expected in json.loads(line):
            _write(_checked(text, expected, method))


def _checked(text: str, expected: str, method: Method) -> bool | None:
    try:
        return is_correct(text, expected, method)
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError):
        traceback.print_exc(limit=-3)
        return None


def _write(value: object) -> None:
    # Flush every line, because the parent times each check.
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, even during a check that never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this worker is gone")


if __name__ == "__main__":
    main(method_named(sys.argv[1]), int(sys.argv[2]))
