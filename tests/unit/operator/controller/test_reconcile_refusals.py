"""Passes that are refused something: the refusal is reported, and retries are delayed."""

from collections.abc import Callable

import pytest

from seele_operator.api.events import Refusal
from seele_operator.controller import children
from seele_operator.kube.errors import NamespaceTerminating, NotLeading, Refused
from tests.support.fake_cluster import Request
from tests.support.reconcile_world import KEY, ROLLOUT, RUN, TRAINER, World, pods, run_body, world_with_run


def failing(error: Exception, *verbs: str) -> Callable[[Request], None]:
    """Lets all requests fail, or those with these verbs."""

    def before(request: Request) -> None:
        if not verbs or request[0] in verbs:
            raise error

    return before


def over_quota(request: Request) -> None:
    if request == ("create", ROLLOUT):
        raise Refused(Refusal("QuotaExceeded", "Pod first-rollout-0: exceeded quota: gpus"))


async def test_a_refused_pod_is_reported_and_retried_later() -> None:
    world = await world_with_run()
    world.cluster.before = over_quota
    await world.settle(6)
    assert world.cluster.sent("create").count(("create", ROLLOUT)) == 1
    # Accepted objects are not applied again either.
    assert world.cluster.sent("ensure").count(("ensure", "ConfigMap/first-config")) == 1
    assert "exceeded quota: gpus" in str(world.status()["conditions"])
    assert world.errors("refused") == 0


async def test_a_pod_that_is_accepted_at_last_clears_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_RETRY_SECONDS", 0.0)
    world = await world_with_run()
    world.cluster.before = over_quota
    await world.settle(3)
    world.cluster.before = lambda request: None
    await world.settle(3)
    assert world.cluster.names("Pod") == {"first-trainer-0", "first-rollout-0"}
    assert "exceeded quota" not in str(world.status()["conditions"])


async def test_a_changed_spec_is_tried_at_once_after_a_refusal() -> None:
    world = await world_with_run()
    world.cluster.before = over_quota
    await world.settle(3)
    world.cluster.before = lambda request: None
    world.cluster.objects[RUN]["metadata"]["generation"] = 2
    world.cluster.change(RUN)
    await world.settle(2)
    assert world.cluster.names("Pod") == {"first-trainer-0", "first-rollout-0"}


async def test_a_foreign_pod_is_not_touched_but_reported() -> None:
    world = World()
    world.cluster.add("SeeleRun", run_body())
    theirs = world.cluster.add("Pod", {"metadata": {"name": "first-trainer-0", "uid": "theirs"}, "spec": {}})
    await world.settle(5)
    assert world.cluster.objects[TRAINER] == theirs
    assert world.cluster.sent("create").count(("create", TRAINER)) == 1
    assert "Pod first-trainer-0: exists, and is not one of this run's" in str(world.status()["conditions"])


async def test_a_run_with_a_malformed_status_is_not_touched_and_reported_once() -> None:
    world = World()
    world.cluster.add("SeeleRun", {**run_body(), "status": {"phase": "Dancing"}})
    await world.settle(3)
    assert world.cluster.sent("patch_status", "create", "ensure", "delete") == []
    assert [event.reason for event in world.cluster.events] == ["BadStatus"]
    assert "status.phase" in world.cluster.events[0].message
    assert world.errors("bad_status") == 3


async def test_an_operator_without_a_valid_lease_waits() -> None:
    world = await world_with_run()
    world.cluster.before = failing(NotLeading("nothing was sent"), "patch_status")
    await world.reconcile()
    assert not world.gate.open
    assert world.errors("not_leading") == 1
    await world.gate.leave_open()


async def test_in_a_terminating_namespace_passes_are_delayed() -> None:
    world = await world_with_run()
    world.cluster.before = failing(NamespaceTerminating("namespace lab is being terminated"), "ensure")
    await world.reconcile()
    assert world.errors("namespace_terminating") == 1
    assert world.gate.open
    assert world.queue.failures(KEY) == 1


async def test_an_unexpected_error_is_retried() -> None:
    world = await world_with_run()
    world.cluster.before = failing(RuntimeError("a bug"))
    await world.reconcile()
    assert world.errors("internal") == 1
    assert world.queue.failures(KEY) == 1
    world.cluster.before = lambda request: None
    await world.reconcile()
    assert world.queue.failures(KEY) == 0
    assert world.cluster.names("Pod") == {"first-trainer-0", "first-rollout-0"}


async def test_a_recreated_run_inherits_nothing_from_the_old_one() -> None:
    world = await world_with_run()
    world.cluster.before = over_quota
    await world.settle(3)
    world.cluster.before = lambda request: None
    for name in list(world.cluster.objects):
        world.cluster.remove(name)
    body = run_body()
    body["metadata"]["uid"] = "run-2"
    world.cluster.add("SeeleRun", body)
    await world.settle(2)
    owners = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods(world.cluster)}
    assert owners == {"run-2"}
    assert "exceeded quota" not in str(world.status())
