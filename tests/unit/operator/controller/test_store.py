"""The store never goes back to older information about runs and pods."""

from typing import Any

import pytest

from seele_operator.controller.store import RunKey, Store
from tests.support.raw_pods import run_pod
from tests.support.waiting import Clock

Body = dict[str, Any]
KEY = RunKey("lab", "first")


@pytest.fixture
def store() -> Store:
    return Store()


def run_body(version: str, uid: str = "run-1", name: str = "first", **status: Any) -> Body:
    return {
        "metadata": {
            "namespace": "lab",
            "name": name,
            "uid": uid,
            "resourceVersion": version,
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {},
        "status": status,
    }


def pod_body(version: str, uid: str = "pod-1", controller: str | None = "run-1", index: int = 0) -> Body:
    return run_pod(index=index, controller=controller, uid=uid, resourceVersion=version)


def test_a_run_is_stored_without_its_managed_fields(store: Store) -> None:
    assert store.put_run(run_body("5")) == KEY
    known = store.run(KEY)
    assert known is not None
    assert "managedFields" not in known["metadata"]


@pytest.mark.parametrize("version", ["9", "10"])
def test_older_information_is_ignored(store: Store, version: str) -> None:
    store.put_run(run_body("10", step=2))
    assert store.put_run(run_body(version, step=1)) is None
    known = store.run(KEY)
    assert known is not None
    assert known["status"] == {"step": 2}


def test_versions_are_compared_as_numbers(store: Store) -> None:
    store.put_run(run_body("99", step=1))
    assert store.put_run(run_body("100", step=2)) == KEY


def test_versions_that_are_not_numbers_count_in_their_order_of_arrival() -> None:
    clock = Clock()
    store = Store(clock)
    store.put_run(run_body("b"))
    clock.now = 1.0
    assert store.put_run(run_body("a")) == KEY
    assert store.put_run(run_body("a")) is None


def test_a_deleted_pod_does_not_come_back_by_an_older_read(store: Store) -> None:
    store.put_run(run_body("1"))
    store.put_pod(pod_body("5"))
    store.drop_pod(pod_body("8"))
    assert store.put_pod(pod_body("6")) is None
    assert store.pods(KEY) == ()
    assert store.put_pod(pod_body("9", uid="pod-2")) == KEY


def test_the_deletion_of_an_older_pod_does_not_remove_a_new_one_of_its_name(store: Store) -> None:
    store.put_run(run_body("1"))
    store.put_pod(pod_body("9", uid="pod-2"))
    assert store.drop_pod(pod_body("8", uid="pod-1")) is None
    assert [pod.uid for pod in store.pods(KEY)] == ["pod-2"]


def test_the_deletion_of_an_older_run_does_not_remove_a_new_one_of_its_name(store: Store) -> None:
    store.put_run(run_body("9", uid="run-2"))
    assert store.drop_run(run_body("8", uid="run-1")) is None
    assert store.run(KEY) is not None
    assert store.drop_run(run_body("10", uid="run-2")) == KEY
    assert store.run(KEY) is None


def test_a_pod_belongs_to_a_run_by_its_uid(store: Store) -> None:
    store.put_pod(pod_body("2", controller="run-1"))
    store.put_run(run_body("1", uid="run-1"))
    assert [pod.owner for pod in store.pods(KEY)] == ["run"]
    store.put_run(run_body("5", uid="run-2"))
    assert [pod.owner for pod in store.pods(KEY)] == ["other"]


def test_a_pod_without_a_controller_has_the_owner_none(store: Store) -> None:
    store.put_run(run_body("1"))
    store.put_pod(pod_body("2", controller=None))
    assert [pod.owner for pod in store.pods(KEY)] == ["none"]


def test_a_pod_that_loses_its_labels_is_gone(store: Store) -> None:
    store.put_run(run_body("1"))
    store.put_pod(pod_body("2"))
    stripped = pod_body("3")
    del stripped["metadata"]["labels"]["seele.dev/role"]
    assert store.put_pod(stripped) == KEY
    assert store.pods(KEY) == ()


def test_a_list_reveals_missed_deletions(store: Store) -> None:
    store.put_run(run_body("1"))
    store.put_run(run_body("2", name="second"))
    store.put_pod(pod_body("3", index=0))
    store.put_pod(pod_body("4", uid="pod-2", index=1))
    assert store.keep_runs({KEY}, "20", 0.0) == {RunKey("lab", "second")}
    assert store.keep_pods({(KEY, "first-trainer-1")}, "20", 0.0) == {KEY}
    assert [key for key, _ in store.runs()] == [KEY]
    assert [pod.index for pod in store.pods(KEY)] == [1]


def test_objects_newer_than_a_list_are_kept(store: Store) -> None:
    store.put_run(run_body("25"))
    store.put_pod(pod_body("26"))
    assert store.keep_runs(set(), "20", 0.0) == set()
    assert store.keep_pods(set(), "20", 0.0) == set()
    assert len(store.pods(KEY)) == 1


def test_without_numeric_versions_objects_seen_after_the_start_of_a_list_are_kept() -> None:
    clock = Clock()
    store = Store(clock)
    store.put_run(run_body("x1"))
    clock.now = 10.0
    store.put_run(run_body("x2", name="second"))
    assert store.keep_runs(set(), "list", began=5.0) == {KEY}
    assert [key.name for key, _ in store.runs()] == ["second"]


def test_a_list_of_one_namespace_does_not_affect_others(store: Store) -> None:
    store.put_run(run_body("1"))
    store.put_pod(pod_body("2"))
    assert store.keep_runs(set(), "20", 0.0, "elsewhere") == set()
    assert store.keep_pods(set(), "20", 0.0, "elsewhere") == set()
    assert store.keep_runs(set(), "20", 0.0, "lab") == {KEY}


def test_an_object_missing_in_a_fresh_read_is_removed_unless_its_uid_differs(store: Store) -> None:
    store.put_run(run_body("1"))
    store.put_pod(pod_body("2", uid="pod-2"))
    store.lost_pod(KEY, "first-trainer-0", "pod-1")
    store.lost_run(KEY, "run-0")
    assert len(store.pods(KEY)) == 1
    store.lost_pod(KEY, "first-trainer-0", "pod-2")
    assert store.pods(KEY) == ()
    store.lost_run(KEY, "run-1")
    assert store.run(KEY) is None
