"""Properties that hold whatever happens to pods, clock and operator."""

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seele_operator.decide.decision import DeletePods
from tests.support.run_world import FAILURES, STEPS, World, new_world

OPERATOR = st.tuples(st.just("operator"), st.sampled_from([None, None, None, 0, 1]))
KUBELET = st.tuples(st.just("kubelet"))
TRAIN = st.tuples(st.just("train"), st.integers(1, 15))
DISTURBANCES = st.one_of(
    st.tuples(st.just("clock"), st.sampled_from([-30, 1, 5, 20, 400, 4000])),
    st.tuples(st.just("fail"), st.integers(0, 3), st.sampled_from(sorted(FAILURES))),
    st.tuples(st.just("delete"), st.integers(0, 3)),
    st.tuples(st.just("vanish"), st.integers(0, 3)),
    st.tuples(st.just("orphan"), st.integers(0, 3)),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("replicas"), st.integers(1, 3)),
    st.tuples(st.just("rate"), st.sampled_from([1e-6, 2e-6])),
    st.tuples(st.just("quota"), st.booleans()),
)
# Mostly operator and kubelet at work, so that runs get far enough to be disturbed.
EVENTS = st.one_of(OPERATOR, OPERATOR, KUBELET, KUBELET, TRAIN, DISTURBANCES, DISTURBANCES)


def happen(world: World, event: tuple[Any, ...]) -> None:
    kind, *rest = event
    pods = sorted(world.pods)
    name = pods[rest[0] % len(pods)] if pods and kind in ("fail", "delete", "vanish", "orphan") else None
    if kind == "kubelet":
        world.kubelet()
    elif kind == "train":
        world.train(rest[0])
    elif kind == "clock":
        world.now += timedelta(seconds=rest[0])
    elif kind == "fail" and name and world.pods[name].phase == "Running":
        world.change(name, phase="Failed", ready=False, failure=FAILURES[rest[1]])
    elif kind == "delete" and name:
        world.change(name, terminating_since=world.now)
    elif kind == "vanish" and name:
        del world.pods[name]
    elif kind == "orphan" and name:
        world.change(name, owner="none")
    elif kind == "suspend":
        world.edit("runPolicy", suspend=rest[0])
    elif kind == "replicas":
        world.edit("rollout", replicas=rest[0])
    elif kind == "rate":
        world.edit("training", learningRate=rest[0])
    elif kind == "quota":
        world.quota = rest[0]
    elif kind == "operator":
        world.reconcile(dies_after=rest[0])


POLICIES = st.fixed_dictionaries(
    {"backoffLimit": st.integers(0, 2), "disruptionLimit": st.integers(0, 2)},
    optional={
        "startDeadlineSeconds": st.just(300),
        "activeDeadlineSeconds": st.just(3000),
        "stalledAfterSeconds": st.just(60),
        "cleanPodPolicy": st.sampled_from(["All", "None"]),
    },
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 2), POLICIES, st.lists(EVENTS, max_size=60))
def test_whatever_happens_attempts_never_overlap_and_the_run_converges(
    trainers: int, policy: dict[str, Any], events: list[tuple[Any, ...]]
) -> None:
    world = new_world(trainers, policy)
    for event in events:
        happen(world, event)
        failures = world.status.failures
        assert failures.application <= policy["backoffLimit"] + 1
        assert failures.disruption <= policy["disruptionLimit"] + 1
        if not world.status.terminal:
            assert failures.application <= policy["backoffLimit"]
            assert failures.disruption <= policy["disruptionLimit"]

    # Now nothing fails any more, and the run is not suspended.
    world.quota = False
    world.spec["runPolicy"]["suspend"] = False
    for _ in range(80):
        decision = world.reconcile()
        if world.status.terminal and not decision.actions:
            break
        world.kubelet()
        world.train(5)
        world.now += timedelta(seconds=min(decision.recheck_seconds or 1.0, 400.0))
    assert world.status.terminal, world.status.to_api()
    if world.status.phase == "Succeeded":
        assert world.status.step == STEPS


@given(st.integers(1, 2), POLICIES, st.lists(EVENTS, max_size=40))
def test_another_pass_over_an_unchanged_world_changes_nothing(
    trainers: int, policy: dict[str, Any], events: list[tuple[Any, ...]]
) -> None:
    world = new_world(trainers, policy)
    for event in events:
        happen(world, event)
    # A pass may depend on the result of the one before.
    world.reconcile()
    world.reconcile()
    before = world.stored
    again = world.reconcile()
    assert world.stored == before
    assert not again.events
    assert not [action for action in again.actions if isinstance(action, DeletePods)]


@given(POLICIES, st.sampled_from(sorted(FAILURES)))
def test_failures_without_progress_end_at_the_budget(policy: dict[str, Any], kind: str) -> None:
    policy = {key: policy[key] for key in ("backoffLimit", "disruptionLimit")}
    world = new_world(1, policy)
    for _ in range(60):
        decision = world.reconcile()
        if world.status.terminal:
            break
        world.kubelet()
        happen(world, ("fail", 2, kind))
        world.now += timedelta(seconds=decision.recheck_seconds or 1.0)
    limit = policy["backoffLimit" if FAILURES[kind].failure_class == "application" else "disruptionLimit"]
    assert world.status.phase == "Failed"
    assert world.status.restarts == limit
    assert world.status.attempt == limit + 1
