"""What the log of a process that died says about the reason: the line that names the error, and the lines that matter.

The end of a log rarely says it. vLLM's engine reports the cause, then its API server repeats that the engine is dead, shuts
down in order with exit code 0, and libraries report leaks while they are unloaded.
"""

import re
from collections.abc import Sequence

MAX_LINE = 2000
MAX_DETAILS = 3
"""Indented lines after an error's line that belong to it, as pydantic writes them."""

_PREFIX = re.compile(
    r"^(\[rank\d+\]:\s?|\(\w+(?: pid=\d+)?(?:, \w+=\S+)*\) ?|[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[\w./]+:\d+\] ?)+"
)
"""What vLLM and torch put before each line: process, level, time and place."""

_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Exit|Timeout|Interrupt))(?:: .*|:)?$")
"""The last line of a traceback: the exception's class, and its message."""

_FATAL = re.compile(
    r"^(Fatal Python error: |Segmentation fault|Killed$|Aborted|Bus error|Illegal instruction|terminate called |"
    r"[\w.-]+: error: |bash: |sh: |exec |error: |FATAL)"
)
"""How a process that ends without an exception states the reason: the interpreter, the C library, the shell or a parser."""

_CONSEQUENCE = re.compile(
    r"EngineDeadError|[Rr]oot cause|stack trace above|ChildFailedError|^(\w+\.)*CancelledError|^KeyboardInterrupt|"
    r"^SystemExit|^(\w+\.)*BrokenPipeError|^(\w+\.)*ConnectionResetError"
)
"""Errors that follow from another one, which the log names elsewhere."""

_MAY_PASS = re.compile(
    r"memory|errno|OSError|connect|time(d )?out|busy|in use|unavailable|temporar|too many|retries|network|resolve|http|"
    r"\bCUDA|\bHIP\b|NCCL|\bECC\b|space left|killed|segmentation fault|abort|bus error|terminate called",
    re.IGNORECASE,
)
"""Errors that may not occur in another try or on another node: memory, devices, disks, ports and networks."""

_VARIABLE = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b|\d+")
"""What differs between two reports of the same error: numbers, addresses and identifiers."""

_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")
"""Colours and other commands to a terminal."""

_NOISE = re.compile(
    r"^(nanobind: | - (leaked |\.\.\. skipped)|See https://nanobind|.*resource_tracker|\s*warnings\.warn\(|"
    r".*process_group.*destroy_process_group|INFO:\s|Exception ignored in|.*\[shutdown\]|"
    r"\s*[~^]+\s*$|\[rank\d+\]:\[W|\[W\d)"
)
"""What libraries and servers write while they are shut down."""


def log_lines(log: str) -> list[str]:
    """The lines of a log as plain text of at most MAX_LINE characters each, without commands to a terminal."""
    return [_plain(line) for line in log.split("\n")]


def dies_again(error: str, before: str) -> bool:
    """Whether a server that died of both errors, one after the other, will die of them again.

    They are the same except for numbers, name a cause, and are not of a kind that may pass.
    """
    if not error or _CONSEQUENCE.search(error) or _MAY_PASS.search(error):
        return False
    return _VARIABLE.sub("#", error) == _VARIABLE.sub("#", before)


def error_line(log: Sequence[str]) -> str:
    """The last line that names an error, with its details: if possible, the cause of the others. Empty without an error."""
    lines = [_PREFIX.sub("", line).rstrip() for line in log]
    last = _cause(lines)
    if last is None:
        return ""
    return "; ".join([lines[last].removesuffix(":"), *_details(lines[last + 1 : last + 1 + MAX_DETAILS])])


def without_noise(log: Sequence[str]) -> list[str]:
    """The lines of a log without empty ones and without what libraries write while they are unloaded."""
    return [line for line in log if line.strip() and not _NOISE.match(_PREFIX.sub("", line))]


def last_words(log: Sequence[str], count: int) -> list[str]:
    """At most `count` lines that explain a death: the line that names the error, then those that led to it.

    The last lines if none names an error.
    """
    last = _cause([_PREFIX.sub("", line).rstrip() for line in log])
    if last is None:
        return without_noise(log)[-count:]
    before = without_noise(log[:last])[-(count - 1) :] if count > 1 else []
    return [error_line(log), *before]


def _plain(line: str) -> str:
    # A progress bar rewrites its line: the text after the last carriage return remains.
    text = _ESCAPE.sub("", line.rstrip("\r").rpartition("\r")[2][:MAX_LINE])
    return "".join(char if char.isprintable() and char != "\ufffd" else " " for char in text).rstrip()


def _cause(lines: Sequence[str]) -> int | None:
    """Index of the last line that names an error, if possible one that is the cause of the others."""
    found = [number for number, line in enumerate(lines) if _ERROR.match(line) or _FATAL.match(line)]
    causes = [number for number in found if not _CONSEQUENCE.search(lines[number])]
    return next(reversed(causes or found), None)


def _details(following: Sequence[str]) -> list[str]:
    details: list[str] = []
    for line in following:
        if not line.startswith("  ") or line.lstrip().startswith(("File ", "For further information")):
            break
        details.append(re.sub(r" \[type=\w+, input_value=.*", "", line.strip()))
    return details
