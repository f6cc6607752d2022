"""No pod is too strange for the operator: whatever a body holds is read or ignored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seele_operator.observe.pods import observe_pod
from tests.support.raw_pods import ASKED, UID, Body, ended, failed, lost, pod_body, running, waiting

pytestmark = pytest.mark.unit

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in places(part, (*path, key)))]


GONE = object()


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` in the place of `path`, or without that place."""
    if not path:
        return new
    key, *rest = path
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    changed = [(name, replaced(part, tuple(rest), new) if name == key else part) for name, part in pairs]
    kept = [(name, part) for name, part in changed if part is not GONE]
    return dict(kept) if isinstance(value, dict) else [part for _, part in kept]


FULL = pod_body(
    failed(
        ended(), running("logs"), initContainerStatuses=[ended("prepare-model", 0)], conditions=lost()["conditions"]
    ),
    **ASKED,
)
STARTING = pod_body(waiting("ImagePullBackOff", "no", initContainerStatuses=[ended("prepare-model", 0)]))


@settings(max_examples=400)
@given(st.sampled_from([FULL, STARTING]), st.data())
def test_no_body_is_too_strange(body: Body, data: st.DataObject) -> None:
    """Whatever stands in any place of a pod, and whatever is missing, it is read or ignored, and never an error."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(body)[1:]))
        body = replaced(body, path, data.draw(st.just(GONE) | JSON))
    pod = observe_pod(body, UID)
    if pod is not None:
        # What `decide` relies on: a failed pod says why, one that is well does not.
        assert (pod.phase != "Failed") or pod.failure is not None
        assert (pod.phase != "Succeeded") or pod.failure is None
        assert pod.failure is None or pod.waiting is None
