"""Why a process died, according to its log: logs of vLLM 0.32 in tests/unit/data/server_logs, and the ends of others."""

import pytest

from seele_operator.observe.last_words import error_line, last_words, without_noise
from tests.support import REPOSITORY

LOGS = REPOSITORY / "tests" / "unit" / "data" / "server_logs"
REASONS = {
    "unsupported-head-dim": "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0",
    "torn-weights": "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: invalid header length",
    "unknown-flag": "api_server.py: error: unrecognized arguments: --no-such-flag",
    "context-too-long": "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig; Value error, "
    "User-specified max_model_len (999999) is greater than the derived max_model_len",
    "unknown-architecture": "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig; Value error, "
    "The checkpoint you are trying to load has model type `foo`",
}
"""How the line that names the error begins, for each log."""

ENDS = {
    "out of memory on a card": (
        "(EngineCore_DP0 pid=83) ERROR 01-02 03:04:05 [core.py:936] torch.OutOfMemoryError: CUDA out of memory. Tried to "
        "allocate 2.00 GiB\n"
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
        "[rank0]:[W102 03:04:05.0 ProcessGroupNCCL.cpp:1538] Warning: destroy_process_group() was not called",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    ),
    "only the consequence is left": (
        "INFO:     Shutting down\n(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ),
    "a rank of several": (
        "[rank1]: ValueError: No available memory for the cache blocks\nKeyboardInterrupt\n",
        "ValueError: No available memory for the cache blocks",
    ),
    "an assertion without a message": ("    assert page % 16 == 0\nAssertionError\n", "AssertionError"),
    "the C library": (
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
        "terminate called after throwing an instance of 'std::bad_alloc'; what():  std::bad_alloc",
    ),
    "a crash of the interpreter": (
        "Fatal Python error: Segmentation fault\n\n",
        "Fatal Python error: Segmentation fault",
    ),
    "a shell": ("bash: vllm: command not found", "bash: vllm: command not found"),
    "a port in use": (
        "OSError: [Errno 98] Address already in use\nnanobind: leaked 4 instances!",
        "OSError: [Errno 98] Address already in use",
    ),
    "no error": ("INFO 01-02 03:04:05 [api_server.py:1] listening\nthe word Error does not make one", ""),
    "nothing": ("", ""),
}
"""The end of a log, and the line that names the error."""


@pytest.mark.parametrize("log", REASONS)
def test_the_error_of_a_server_comes_first_and_noise_is_left_out(log: str) -> None:
    lines = (LOGS / f"{log}.log").read_text().splitlines()
    words = last_words(lines, 20)

    assert words[0].startswith(REASONS[log])
    assert len(words) <= 20
    assert len(words[0]) < 1000
    assert not any("nanobind" in line or "leaked" in line or "resource_tracker" in line for line in words)
    assert "input_value" not in words[0]


@pytest.mark.parametrize("case", ENDS)
def test_the_line_that_names_the_error(case: str) -> None:
    log, expected = ENDS[case]

    assert error_line(log.splitlines()) == expected


def test_without_an_error_the_last_lines_are_shown() -> None:
    log = ["one", "", "two", "three", "nanobind: leaked 4 instances!", ' - leaked type "x"']

    assert last_words(log, 2) == ["two", "three"]
    assert last_words([], 2) == []


def test_the_logs_of_servers_end_in_noise() -> None:
    lines = (LOGS / "unsupported-head-dim.log").read_text().splitlines()

    assert lines[-20:] != without_noise(lines)[-20:]
    assert "head_dim" not in "\n".join(lines[-20:])
