"""DeepSpeed's configuration, and that DeepSpeed does what it says."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seele_trainer.config import TrainerConfig
from seele_trainer.learner.deepspeed import engine_config
from tests.integration.learner_cases import environment
from tests.support import REPOSITORY
from tests.support.small_models import save_llama

OPTIMIZER = """
import sys
from seele_trainer.config import TrainerConfig
from seele_trainer.learner.learner import Learner

learner = Learner(TrainerConfig.model_validate_json(sys.argv[1]), 1, seed=0)
optimizer = learner._engine.optimizer.optimizer
group = optimizer.param_groups[0]
print(type(optimizer).__module__, type(optimizer).__name__, group["fused"], group["params"][0].device)
"""


def config(model: str = "model", **deepspeed: Any) -> TrainerConfig:
    return TrainerConfig.model_validate(
        {
            "name": "t",
            "model": {"name": model, "dtype": "bfloat16"},
            "dataset": {"path": "data.jsonl"},
            "training": {"kl_coefficient": 0.0},
            "trainer": {"deepspeed": deepspeed},
        }
    )


@pytest.mark.parametrize(("offload", "fused"), [("none", None), ("cpu", True)])
def test_an_optimizer_in_host_memory_is_the_fused_one(offload: str, fused: bool | None) -> None:
    described = engine_config(config(zero_stage=2, offload_optimizer=offload), parameters=1, pin_memory=False)

    assert described["optimizer"]["params"].get("fused") is fused


def test_deepspeed_builds_the_fused_optimizer(tmp_path: Path) -> None:
    save_llama(tmp_path, seed=0)
    offloaded = config(str(tmp_path), zero_stage=2, offload_optimizer="cpu")

    built = subprocess.run(
        [sys.executable, "-c", OPTIMIZER, offloaded.model_dump_json()],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert built.returncode == 0, built.stderr[-3000:]
    assert built.stdout.splitlines()[-1] == "torch.optim.adamw AdamW True cpu"


def test_communication_is_not_overlapped_unless_the_run_overrides_it() -> None:
    assert "overlap_comm" not in engine_config(config(zero_stage=2), parameters=1, pin_memory=True)["zero_optimization"]

    overridden = config(zero_stage=2, overrides={"zero_optimization": {"overlap_comm": True}})

    zero = engine_config(overridden, parameters=1, pin_memory=True)["zero_optimization"]
    assert zero["overlap_comm"] is True
    assert zero["stage"] == 2
