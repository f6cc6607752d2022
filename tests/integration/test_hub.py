"""After its start, a run contacts no hub: exports, checkpoints, evaluations, the report and the final model need none."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

import seele_trainer.quickstart
from tests.integration.learner_cases import environment
from tests.support import REPOSITORY
from tests.support.fake_hub import MODEL, FakeHub

STEPS = 3
SHIPPED = Path(seele_trainer.quickstart.__file__).parent / "shipped"


def write_config(folder: Path) -> Path:
    source = {"path": str(SHIPPED / "train.jsonl"), "limit": 4}
    config = {
        "name": "hub",
        "model": {"name": MODEL, "dtype": "float32"},
        "dataset": {**source, "promptTemplate": "plain"},
        "training": {"steps": STEPS, "problemsPerStep": 2, "problemsPerUpdate": 2, "learningRate": 1e-3},
        "hints": {"rounds": 2, "rolloutsPerRound": 2, "unhintedProbes": 1},
        "rollout": {"engine": "transformers", "maxCompletionTokens": 6},
        "verifier": {"workers": 1, "method": "exact"},
        "evaluation": {"everySteps": 1, "benchmarks": [{"title": "held-out", **source}]},
        "checkpoints": {"everySteps": 1},
        "observability": {"tensorboard": False},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_after_its_start_a_run_contacts_no_hub(tmp_path: Path) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(SHIPPED / "base", model)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    config = write_config(tmp_path)

    with FakeHub(model).running() as hub:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.hub_worker", str(config)],
            cwd=REPOSITORY,
            env={
                **environment(),
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "cache"),
                "SEELE_RUN_DIR": str(run),
                "SEELE_BIND_HOST": "127.0.0.1",
                "SEELE_HTTP_PORT": "0",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert hub.started
    assert any("model.safetensors" in request for request in hub.early), "the model did not come from the hub"
    assert hub.late == []
    assert len((run / "metrics.jsonl").read_text().splitlines()) == STEPS
    assert len((run / "eval.jsonl").read_text().splitlines()) == STEPS + 1
    assert (run / "report.html").is_file()
    # The tokenizer's files are copied as they are; some versions of transformers change what they save.
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (run / "final" / name).read_bytes() == (model / name).read_bytes()
