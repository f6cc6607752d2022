"""Pod templates are merged as Kubernetes merges them."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from seele_operator.api.pod_template import merge

POD = {
    "containers": [
        {"name": "trainer", "image": "seele", "command": ["seele", "train"], "env": [{"name": "A", "value": "1"}]},
        {"name": "sidecar", "image": "logs"},
    ],
    "tolerations": [{"key": "a"}],
    "nodeSelector": {"pool": "gpu", "zone": "x"},
}


def test_containers_are_merged_by_name() -> None:
    merged = merge(POD, {"containers": [{"name": "sidecar", "image": "logs:2"}]})

    assert [container["image"] for container in merged["containers"]] == ["seele", "logs:2"]


def test_environment_variables_are_merged_by_name() -> None:
    env = [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]
    merged = merge(POD, {"containers": [{"name": "trainer", "env": env}]})

    assert merged["containers"][0]["env"] == [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]


def test_a_reference_replaces_a_value() -> None:
    reference = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    merged = merge(POD, {"containers": [{"name": "trainer", "env": [reference]}]})

    assert merged["containers"][0]["env"] == [reference]


def test_lists_without_names_are_replaced() -> None:
    merged = merge(POD, {"tolerations": [{"key": "b"}], "containers": [{"name": "trainer", "command": ["sh"]}]})

    assert merged["tolerations"] == [{"key": "b"}]
    assert merged["containers"][0]["command"] == ["sh"]


def test_null_removes_a_field_and_a_delete_patch_an_element() -> None:
    patch = {"nodeSelector": {"zone": None}, "containers": [{"name": "sidecar", "$patch": "delete"}]}
    merged = merge(POD, patch)

    assert merged["nodeSelector"] == {"pool": "gpu"}
    assert [container["name"] for container in merged["containers"]] == ["trainer"]


trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "tolerations", "spec"]), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from(["a", "b", "tolerations", "spec"]), trees, max_size=4)


@given(mappings, mappings)
def test_merging_is_idempotent_and_keeps_its_arguments(base: dict, patch: dict) -> None:
    before = copy.deepcopy((base, patch))
    once = merge(base, patch)

    assert merge(once, patch) == once
    assert (base, patch) == before


@given(mappings)
def test_merging_nothing_changes_nothing(base: dict) -> None:
    assert merge(base, {}) == base
