"""Why a process died, according to its log: logs of vLLM 0.32 in tests/unit/data/server_logs, and the ends of others."""

import pytest

from seele_operator.observe.last_words import MAX_LINE, dies_again, error_line, last_words, log_lines, without_noise
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


def test_a_log_becomes_plain_text_of_bounded_lines() -> None:
    log = "\x1b[31mred\x1b[0m \x1b]0;title\x07end\r\n 10%\r 100%\na\x00b\x85c\ufffd\u202e\ud800d\n" + "x" * 99_999

    assert log_lines(log) == ["red end", " 100%", "a b c   d", "x" * MAX_LINE]


HEAD_DIM = "RuntimeError: Unsupported CPU attention configuration: head_dim={} isa=2"
LASTING = [
    (HEAD_DIM.format(16), HEAD_DIM.format(16)),
    (
        "AssertionError: <Cache at 0x7fdebebb9628> of worker 24712",
        "AssertionError: <Cache at 0x55aa0000beef> of worker 83",
    ),
    ("api_server.py: error: unrecognized arguments: --no-such-flag",) * 2,
    ("ValueError: The checkpoint you are trying to load has model type `foo`",) * 2,
]
PASSING = [
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory utilization",
    "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable",
    "OSError: [Errno 98] Address already in use",
    "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address",
    "RuntimeError: NCCL error in: ProcessGroupNCCL.cpp:1538, unhandled system error",
    "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests",
    "requests.exceptions.ReadTimeout: the read operation timed out",
    "Fatal Python error: Segmentation fault",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
    "",
]


def test_a_server_dies_again_of_the_same_lasting_error() -> None:
    assert [pair for pair in LASTING if not dies_again(*pair)] == []
    assert [error for error in PASSING if dies_again(error, error)] == []
    assert not dies_again(HEAD_DIM.format(16), HEAD_DIM.replace("CPU", "GPU"))
    assert not dies_again(HEAD_DIM.format(16), "")


@pytest.mark.parametrize("log", REASONS)
def test_the_errors_of_the_logs_are_lasting(log: str) -> None:
    error = error_line((LOGS / f"{log}.log").read_text().splitlines())

    assert dies_again(error, error)
