"""Real trainings in containers of a real cluster, undisturbed and with a killed trainer."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.e2e.cluster.applied_runs import IN_PROCESS, ClusterRun
from tests.e2e.cluster.clusters import Cluster
from tests.e2e.runs import held_out
from tests.support.spec_data import patched
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(1500)

Submit = Callable[[str, Mapping[str, Any]], ClusterRun]


def test_the_quickstart_applied_as_it_is_trains_a_better_model(submit: Submit, cluster: Cluster) -> None:
    run = submit("quickstart", {})
    started = run.reach_step(1)
    assert started["attempt"] == 1
    assert run.conditions()["RolloutReady"] == "True"
    assert run.conditions()["TrainerReady"] == "True"
    assert run.conditions()["Progressing"] == "True"
    metrics = run.trainer_answers("metrics")
    for series in ("seele_training_step", "seele_target_accuracy", "seele_hint_rate_bucket", "seele_policy_version"):
        assert f"\n{series}" in metrics, series
    progress = json.loads(run.trainer_answers("progress"))
    assert (progress["steps"], progress["phase"] in ("rollout", "train", "sync", "eval", "checkpoint")) == (80, True)
    detail = cluster.seele("status", "quickstart")
    assert detail.startswith("quickstart in namespace default: Running\n")
    for pod in ("quickstart-trainer-0", "quickstart-rollout-0"):
        assert re.search(rf"{pod} +Running +yes", detail), detail
    logs = cluster.seele("logs", "quickstart").splitlines()
    assert {line.partition(" ")[0].partition("/")[0] for line in logs} == {"trainer-0", "rollout-0"}
    assert any("rollout servers ready" in line for line in logs)

    done = run.reach_phase("Succeeded", 1200)

    assert (done["step"], done["steps"], done["policyVersion"], done["attempt"]) == (80, 80, 80, 1)
    assert done["lastCheckpoint"]["step"] == 80
    assert done["hintRate"] < started["hintRate"] <= 1
    assert done["restarts"] == 0
    assert "lastFailure" not in done
    # No probe mistook loading weights or computing for hanging.
    assert run.history.container_restarts == {"quickstart-trainer-0": 0, "quickstart-rollout-0": 0}
    conditions = run.conditions()
    assert (conditions["Valid"], conditions["Complete"], conditions["Failed"]) == ("True", "True", "False")
    wait_for(lambda: run.history.phases[-1:] == ["Succeeded"], "the watch has the last phase")
    assert [phase for phase in run.history.phases if phase != "Pending"] == ["Starting", "Running", "Succeeded"]
    listed = cluster.kubectl("get", "srun", "quickstart").splitlines()[-1]
    assert "Succeeded" in listed
    assert re.search(r"quickstart +Succeeded +80/80 ", cluster.seele("status"))
    assert "trainer-0" in cluster.seele("logs", "quickstart", "-f", "--role", "trainer", "--tail", "1")
    assert "80" in listed

    first, *_, last = held_out(run.folder)
    assert last - first >= 0.8
    assert done["accuracy"] == pytest.approx(last, abs=1e-3)
    steps = run.steps()
    assert [step["step"] for step in steps] == list(range(1, 81))
    assert max(step["canaryDifference"] for step in steps) < 1e-3
    gained = [one["descent"] for step in steps for one in step["descents"]]
    assert gained
    assert sum(gained) > 0
    assert load_file(run.folder / "final" / "model.safetensors")


def test_a_gang_with_a_killed_trainer_ends_with_the_same_weights_as_an_undisturbed_one(
    submit: Submit, own_node: None
) -> None:
    gang = patched(IN_PROCESS, {"trainer": {"replicas": 2}})
    calm, hit = submit("calm", gang), submit("hit", gang)
    hit.reach_step(4)
    hit.kill("hit-trainer-1")

    restarted = hit.reach("attempt 2", lambda status: status["attempt"] == 2, 60)
    failure = restarted["lastFailure"]
    assert (failure["class"], failure["pod"], failure["exitCode"]) == ("application", "hit-trainer-1", 137)
    done = hit.reach_phase("Succeeded", 400)
    calm.reach_phase("Succeeded", 400)

    assert (done["attempt"], done["restarts"], done["step"]) == (2, 1, 12)
    assert "Restarting" in hit.history.phases
    assert hit.history.attempts_together() <= {0, 1}
    weights = [run.folder / "final" / "model.safetensors" for run in (calm, hit)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    exact = ("step", "reward", "hintRate", "accuracyByRound", "losses", "gradientNorm", "tokens")
    assert [[step[key] for key in exact] for step in calm.steps()] == [
        [step[key] for key in exact] for step in hit.steps()
    ]
