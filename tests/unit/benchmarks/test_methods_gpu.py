"""The study on a GPU: its runs are valid, bad options are refused, and a row shows what a run recorded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods_gpu
from benchmarks.methods_study.design import STRATEGIES
from benchmarks.methods_study.results import measured_from
from seele_operator.validation.load import check_run, parse_run
from seele_trainer.run_folder.records import Tokens
from tests.support import REPOSITORY
from tests.support.method_studies import an_evaluation, write_records
from tests.support.run_folder import step_record


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("plan", [methods_gpu.Plan(), methods_gpu.TINY], ids=["whole", "tiny"])
def test_every_method_is_a_valid_run_in_bfloat16_without_servers(tmp_path: Path, device: str, plan: Any) -> None:
    for strategy in STRATEGIES:
        run = methods_gpu.manifest(tmp_path, strategy, 3e-5, plan, device)
        spec = run["spec"]

        assert check_run(parse_run(run)) == []
        assert (spec["model"]["dtype"], spec["rollout"]["engine"]) == ("bfloat16", "transformers")
        assert spec["trainer"]["deepspeed"]["zeroStage"] == 2
        assert ({"name": "DS_ACCELERATOR", "value": "cpu"} in spec["trainer"]["env"]) == (device == "cpu")
        assert ("limits" in spec["trainer"]["resources"]) == (device == "cuda")


def test_the_model_has_50_to_150_million_parameters() -> None:
    from seele_trainer.quickstart.base_model import build_model, build_tokenizer

    model: Any = build_model(build_tokenizer(), 0, methods_gpu.Plan().size)
    assert 50e6 < sum(parameter.numel() for parameter in model.parameters()) < 150e6


def test_a_row_has_rates_and_the_split_of_time(tmp_path: Path) -> None:
    evaluation = an_evaluation(1, held_out=0.25, validation=0.25, seconds=5.0)
    record = step_record(
        1,
        tokens=Tokens(prompt=1, hint=2, generated=300, trained=400),
        phase_seconds={"rollout": 3.0, "train": 2.0},
        step_seconds=5.0,
    )
    write_records(tmp_path, [record], evaluation)

    row = methods_gpu.row("seele", measured_from([record], [evaluation], "seele", 0), tmp_path)

    assert (row["generatedTokensPerSecond"], row["trainedTokensPerSecond"]) == (100.0, 200.0)
    assert row["timeSplit"] == {"eval": 0.5, "rollout": 0.3, "train": 0.2}
    line = "| `seele` | 25.0 | 25.0 | 25.0 | 100 | 200 | rollout 30%, train 20%, eval 50% |"
    assert line in methods_gpu.markdown([row])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--tiny", "--strategies", "ppo"], "error: --strategies: there is no 'ppo'; use some of seele,grpo,"),
        (
            ["--tiny", "--strategies", "seele", "--out", "{half}"],
            "was made by another recipe, or is incomplete: delete it",
        ),
    ],
)
def test_bad_options_give_one_line(tmp_path: Path, options: list[str], line: str) -> None:
    (tmp_path / "half" / "base").mkdir(parents=True)
    arguments = [option.format(half=tmp_path / "half") for option in options]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.methods_gpu", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
