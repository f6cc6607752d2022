"""Passes over a run: the status is written before it is acted on, and the operator may die after any request."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest

from seele_operator.api.events import Refusal
from seele_operator.controller import children, reconcile
from seele_operator.kube.errors import ClusterUnavailable, Gone, Refused
from tests.support.fake_cluster import FakeCluster, Request
from tests.support.reconcile_world import (
    KEY,
    ROLLOUT,
    RUN,
    TRAINER,
    World,
    pods,
    run_body,
    running_world,
    start_pods,
    world_with_run,
)


class Died(BaseException):
    """The operator's process was killed."""


def fail_pod(cluster: FakeCluster, name: str, container: str = "trainer", code: int = 1) -> None:
    ended = {"name": container, "state": {"terminated": {"exitCode": code, "reason": "Error"}}}
    cluster.change(name, status={"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]})


def remove_terminating(cluster: FakeCluster) -> None:
    for name, body in list(cluster.objects.items()):
        if body["metadata"].get("deletionTimestamp"):
            cluster.remove(name)


async def test_a_new_run_gets_its_status_then_its_support_objects_and_then_its_pods() -> None:
    world = await world_with_run()
    await world.reconcile()
    verbs = [verb for verb, _ in world.cluster.sent("patch_status", "ensure", "create")]
    assert verbs[0] == "patch_status"
    assert verbs == sorted(verbs, key=["patch_status", "ensure", "create"].index)
    assert world.cluster.names("Pod") == {"first-trainer-0", "first-rollout-0"}
    assert "first-config" in world.cluster.names("ConfigMap")
    assert [event.reason for event in world.cluster.events] == ["Started"]
    # New pods are known before the watch reports them.
    assert {pod.name for pod in world.store.pods(KEY)} == {"first-trainer-0", "first-rollout-0"}
    assert len(world.queue) == 1


async def test_nothing_is_done_if_the_status_cannot_be_written() -> None:
    world = await world_with_run()

    def away(request: Request) -> None:
        if request[0] == "patch_status":
            raise ClusterUnavailable("no connection")

    world.cluster.before = away
    await world.reconcile()
    assert world.cluster.sent("ensure", "create") == []
    assert world.errors("unavailable") == 1
    assert not world.gate.open
    assert world.queue.failures(KEY) == 1
    await world.gate.leave_open()


async def test_a_run_that_changed_in_the_meantime_is_read_and_decided_again() -> None:
    world = await world_with_run()
    world.cluster.change(RUN, spec=run_body(rollout={"replicas": 2})["spec"])
    await world.reconcile()
    assert [verb for verb, name in world.cluster.requests if name == RUN] == ["patch_status", "read", "patch_status"]
    assert world.cluster.names("Pod") == {"first-trainer-0", "first-rollout-0", "first-rollout-1"}
    assert world.errors("conflict") == 0


async def test_a_run_deleted_before_its_status_is_written_is_forgotten() -> None:
    world = await world_with_run()
    world.cluster.remove(RUN)
    await world.reconcile()
    assert world.store.run(KEY) is None
    assert world.cluster.sent("ensure", "create") == []


async def test_a_run_that_is_being_deleted_is_not_touched() -> None:
    world = await running_world()
    world.cluster.objects[RUN]["metadata"]["deletionTimestamp"] = "2026-11-22T20:00:00Z"
    world.cluster.change(RUN)
    world.cluster.remove(TRAINER)
    before = len(world.cluster.sent("patch_status", "create", "delete", "ensure"))
    await world.settle(2)
    assert len(world.cluster.sent("patch_status", "create", "delete", "ensure")) == before


async def test_a_lost_pod_is_checked_before_it_is_counted() -> None:
    world = await running_world()
    lost = next(pod for pod in world.store.pods(KEY) if pod.role == "trainer")
    world.store.lost_pod(KEY, lost.name, lost.uid)
    # A removed pod comes back only in a newer version.
    world.cluster.change(TRAINER)
    await world.reconcile()
    assert world.status()["phase"] == "Running"
    assert world.status()["failures"] == {"application": 0, "disruption": 0}
    assert ("read", TRAINER) in world.cluster.requests


async def test_a_pod_that_is_really_lost_restarts_the_gang_once() -> None:
    world = await running_world()
    world.cluster.remove(TRAINER)
    await world.watch()
    await world.reconcile()
    assert (world.status()["attempt"], world.status()["gang"]) == (2, "stopping")
    assert world.cluster.sent("delete") == [("delete", ROLLOUT)]
    # Without that trainer there is nothing to save.
    assert world.cluster.objects[ROLLOUT]["metadata"]["deletionGracePeriodSeconds"] == 30
    restarts = world.metrics.registry.get_sample_value("seele_operator_restarts_total", {"class": "disruption"})
    assert restarts == 1.0
    remove_terminating(world.cluster)
    await world.settle(3)
    assert {body["metadata"]["labels"]["seele.dev/attempt"] for body in pods(world.cluster)} == {"2"}


async def test_the_log_of_a_server_that_ended_tells_the_reason() -> None:
    world = await running_world()
    world.cluster.logs = {
        "first-rollout-0": "ValueError: the cause\nEngineDeadError: dead\nnanobind: leaked 4 instances!"
    }
    fail_pod(world.cluster, ROLLOUT, "rollout", 0)
    await world.settle(2)
    failure = world.status()["lastFailure"]
    assert failure["message"] == "container rollout ended before the run did, with exit code 0:\nValueError: the cause"
    assert (failure["reason"], failure["error"]) == ("Exited", "ValueError: the cause")
    assert world.cluster.sent("log") == [("log", ROLLOUT)]
    (event,) = (event for event in world.cluster.events if event.reason == "RolloutReplaced")
    assert "ValueError: the cause" in event.message


@pytest.mark.parametrize("how", ["gone", "unavailable", "refused", "silent"])
async def test_a_log_that_cannot_be_read_does_not_hold_up_a_pass(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await running_world()
    monkeypatch.setattr(reconcile, "LOG_SECONDS", 0.01)

    async def read_log(*_: object) -> str:
        if how == "silent":
            await asyncio.sleep(3600)
        refusal = Refusal("Forbidden", "pods/log")
        raise {"gone": Gone("no"), "refused": Refused(refusal)}.get(how, ClusterUnavailable("no kubelet"))

    monkeypatch.setattr(world.cluster, "read_log", read_log)
    fail_pod(world.cluster, ROLLOUT, "rollout")
    await world.settle(2)
    assert world.status()["lastFailure"]["message"] == "container rollout ended, with exit code 1"
    assert world.cluster.sent("delete") == [("delete", ROLLOUT)]
    assert world.gate.open
    assert world.queue.failures(KEY) == 0


async def test_of_many_servers_that_fail_together_some_logs_are_read() -> None:
    world = await running_world(rollout={"replicas": 20}, runPolicy={"backoffLimit": 99})
    for index in range(20):
        fail_pod(world.cluster, f"Pod/first-rollout-{index}", "rollout")
    fail_pod(world.cluster, TRAINER)
    await world.settle(1)
    assert len(world.cluster.sent("log")) == reconcile.MAX_LOGS


async def play_a_run(cluster: FakeCluster, die_after: int) -> int:
    """Play a whole run with a failed trainer; the operator dies after one of its writes.

    Returns the number of writes.
    """
    writes = itertools.count()
    moments = itertools.count()

    def clock() -> datetime:
        return datetime(2026, 11, 22, 20, 0, tzinfo=UTC) + timedelta(seconds=next(moments))

    def after(request: Request) -> None:
        attempts = {body["metadata"]["labels"]["seele.dev/attempt"] for body in pods(cluster)}
        assert len(attempts) <= 1, f"pods of attempts {attempts} at once"
        if next(writes) == die_after:
            raise Died

    cluster.after = after
    world = World(cluster, clock)

    async def passes(count: int) -> None:
        nonlocal world
        for _ in range(count):
            try:
                await world.watch()
                await world.reconcile()
            except Died:
                world = World(cluster, clock)

    await passes(5)
    start_pods(cluster)
    await passes(4)
    assert world.status()["phase"] == "Running"
    fail_pod(cluster, TRAINER)
    await passes(4)
    remove_terminating(cluster)
    await passes(6)
    start_pods(cluster)
    await passes(4)
    assert world.status()["phase"] == "Running"
    cluster.change(TRAINER, status={"phase": "Succeeded"})
    await passes(4)
    remove_terminating(cluster)
    await passes(4)
    assert world.status()["phase"] == "Succeeded"
    assert world.status()["restarts"] == 1
    assert world.status()["failures"]["application"] == 1
    assert world.status()["attempt"] == 2
    assert cluster.names("Pod") == {"first-trainer-0"}
    return next(writes)


async def test_an_operator_may_die_after_any_of_its_writes() -> None:
    cluster = FakeCluster()
    cluster.add("SeeleRun", run_body())
    writes = await play_a_run(cluster, die_after=-1)
    assert writes > 15
    for moment in range(writes):
        cluster = FakeCluster()
        cluster.add("SeeleRun", run_body())
        await play_a_run(cluster, moment)


async def test_an_orphan_of_the_run_is_adopted_instead_of_recreated() -> None:
    world = await world_with_run()
    await world.settle(3)
    for name in (TRAINER, ROLLOUT):
        world.cluster.objects[name]["metadata"]["ownerReferences"] = []
        world.cluster.change(name)
    await world.settle(2)
    assert world.cluster.objects[TRAINER]["metadata"]["ownerReferences"][0]["uid"] == "run-1"
    assert world.cluster.sent("create").count(("create", TRAINER)) == 1


async def test_a_pass_without_changes_sends_no_requests() -> None:
    world = await running_world()
    world.cluster.requests.clear()
    await world.reconcile()
    await world.reconcile()
    assert world.cluster.requests == []


async def test_support_objects_are_applied_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "UPKEEP_SECONDS", 0.0)
    monkeypatch.setattr(children, "UPKEEP_SECONDS_PER_RUN", 0.0)
    world = await running_world()
    world.cluster.remove("ConfigMap/first-config")
    await world.reconcile()
    assert "first-config" in world.cluster.names("ConfigMap")


async def running_with_two_servers() -> World:
    world = await running_world(rollout={"replicas": 2})
    assert listed_servers(world) == 2
    return world


async def take_a_server_away(world: World) -> None:
    world.cluster.objects[RUN]["metadata"]["generation"] = 2
    world.cluster.change(RUN, spec=run_body(rollout={"replicas": 1})["spec"])
    await world.settle(3)


def listed_servers(world: World) -> int:
    """The number of servers in the list that trainers read."""
    return len(world.cluster.objects["ConfigMap/first-config"]["data"]["rollout-urls"].split())


async def test_a_removed_server_is_no_longer_used() -> None:
    world = await running_with_two_servers()
    await take_a_server_away(world)
    assert listed_servers(world) == 1
    assert ("delete", "Pod/first-rollout-1") in world.cluster.requests


@pytest.mark.parametrize("error", [ClusterUnavailable("away"), Refused(Refusal("Error", "a webhook is broken"))])
async def test_a_failed_update_after_an_edit_is_repeated(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_RETRY_SECONDS", 0.0)
    world = await running_with_two_servers()
    failures = [error] * 3

    def fail(request: Request) -> None:
        if request == ("ensure", "ConfigMap/first-config") and failures:
            raise failures.pop()

    world.cluster.before = fail
    await take_a_server_away(world)
    await world.settle(8)
    assert failures == []
    assert listed_servers(world) == 1
    await world.gate.leave_open()
