"""Any body of a pod can be read, however malformed."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from seele_operator.observe.pods import observe_pod
from tests.support.raw_pods import ASKED, UID, Body, ended, failed, lost, pod_body, running, waiting

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
    """`value` with `new` at `path`, or without that entry."""
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
def test_any_body_can_be_read(body: Body, data: st.DataObject) -> None:
    """Whatever is changed or missing in a pod, it is read or ignored, without an error."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(body)[1:]))
        body = replaced(body, path, data.draw(st.just(GONE) | JSON))
    pod = observe_pod(body, UID)
    if pod is not None:
        # What `decide` relies on: exactly the failed pods have a failure.
        assert (pod.phase != "Failed") or pod.failure is not None
        assert (pod.phase != "Succeeded") or pod.failure is None
        assert pod.failure is None or pod.waiting is None
