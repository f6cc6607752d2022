"""The command lines of vLLM on a GPU and on a CPU."""

from pathlib import Path

import pytest

from seele_trainer.evaluation.local_server import server_command, server_environment
from seele_trainer.rollout.vllm_command import SERVE, SERVER_MODULE, server_arguments, without_gpu


def arguments_of(command: tuple[str, ...]) -> list[str]:
    flags = {"enforce-eager": False, "block-size": 32, "enable-lora": True, "kv-cache-memory-bytes": 7}
    return server_arguments(command, "/model", "seele", host="h", port=1, dtype="bfloat16", engine_args=flags)


def test_flags_are_written_as_vllm_reads_them() -> None:
    assert arguments_of(SERVE) == [
        "/model",
        "--served-model-name=seele",
        "--host=h",
        "--port=1",
        "--dtype=bfloat16",
        "--logprobs-mode=processed_logprobs",
        "--tensor-parallel-size=1",
        "--seed=0",
        "--block-size=32",
        "--enable-lora",
        "--kv-cache-memory-bytes=7",
    ]
    assert arguments_of(SERVER_MODULE)[0] == "--model=/model"


@pytest.mark.parametrize("command", [SERVE, SERVER_MODULE])
def test_without_a_gpu_the_module_is_started_with_the_flags_that_are_missing(command: tuple[str, ...]) -> None:
    changed, arguments = without_gpu(command, arguments_of(command))

    assert tuple(changed) == SERVER_MODULE
    assert arguments == [*arguments_of(SERVER_MODULE), "--enforce-eager", "--no-enable-chunked-prefill"]


def test_the_server_of_an_evaluation_has_the_flags_of_a_cpu_only_without_a_gpu() -> None:
    on_gpu, on_cpu = (server_command(Path("/model"), "m", 1, 64, gpu=gpu) for gpu in (True, False))

    assert on_gpu[1:5] == ["-m", "vllm.entrypoints.cli.main", "serve", "/model"]
    assert on_cpu[1:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model=/model"]
    flags = {"--no-enable-chunked-prefill", "--enforce-eager", "--dtype=float32"}
    assert flags <= set(on_cpu)
    assert not flags & set(on_gpu)
    assert server_environment({"VLLM_NO_USAGE_STATS": "0"}, gpu=True)["VLLM_NO_USAGE_STATS"] == "0"
