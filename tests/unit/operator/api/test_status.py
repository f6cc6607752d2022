"""The status of a run: how it is stored, and how it is patched."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from seele_operator.api.status import (
    CONDITION_TYPES,
    TERMINAL,
    Condition,
    LastFailure,
    RunPhase,
    RunStatus,
    patch_between,
    read_status,
    whole_seconds,
)
from tests.support.fake_cluster import merge_patched
from tests.support.status_data import FULL_STATUS, NOW, PRECISELY


def test_a_status_survives_a_round_trip() -> None:
    written = json.loads(json.dumps(FULL_STATUS.to_api()))

    assert read_status({"status": written}) == FULL_STATUS
    assert set(written) == {field.alias for field in RunStatus.model_fields.values()}
    assert read_status({"status": RunStatus().to_api()}) == RunStatus()


def test_a_run_without_a_status_is_new() -> None:
    assert read_status({}) == read_status({"status": None}) == read_status({"status": {}}) == RunStatus()
    assert not RunStatus().terminal


def test_a_status_follows_the_conventions_of_kubernetes() -> None:
    written = FULL_STATUS.to_api()

    assert written["lastFailure"]["class"] == "application"
    assert written["hintRate"] == 1
    assert written["conditions"][0]["lastTransitionTime"] == "2026-11-22T20:05:07Z"
    assert written["replacing"] == {"first-rollout-1": {"uid": "c7be2f27", "notBefore": "2026-11-22T20:05:07Z"}}
    assert not any("_" in key for key in written)


def test_unset_fields_are_not_written() -> None:
    """A null in a merge patch would remove the field, and a null in a list would be refused."""

    def nulls(value: Any) -> bool:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return value is None or any(nulls(entry) for entry in inside)

    assert not nulls(RunStatus().to_api())
    assert not nulls(RunStatus(last_failure=LastFailure(failure_class="disruption", reason="x", time=NOW)).to_api())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T20:05:07Z", NOW),
        ("2026-11-22T20:05:07.123456Z", PRECISELY),
        ("2026-11-22T21:05:07+01:00", NOW),
    ],
)
def test_a_time_is_read_with_and_without_fractions(text: str, moment: datetime) -> None:
    assert read_status({"status": {"startTime": text}}).start_time == moment


def test_whole_seconds_drop_the_fraction_and_nothing_else() -> None:
    zone = timezone(timedelta(hours=1))

    assert whole_seconds(PRECISELY) == NOW
    assert whole_seconds(PRECISELY.astimezone(zone)).tzinfo is zone


def test_fields_of_a_newer_operator_are_ignored() -> None:
    failure = {"class": "disruption", "reason": "Evicted", "time": "2026-11-22T20:05:07Z", "node": "node-7"}
    status = read_status({"status": {"phase": "Running", "weather": "fine", "lastFailure": failure}})

    assert status.phase == "Running"
    assert status.last_failure is not None
    assert status.last_failure.failure_class == "disruption"


@pytest.mark.parametrize(
    "status",
    [{"phase": "Lost"}, {"startTime": "2026-11-22T20:05:07"}, {"attempt": "three"}, {"lastFailure": {"reason": "x"}}],
)
def test_a_status_that_no_operator_wrote_is_an_error(status: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read_status({"status": status})


def test_conditions_are_found_by_type() -> None:
    assert {kind: FULL_STATUS.condition(kind) is not None for kind in CONDITION_TYPES} == dict.fromkeys(
        CONDITION_TYPES, True
    )
    assert RunStatus().condition("Valid") is None


def test_only_two_phases_are_terminal() -> None:
    terminal = {phase for phase in get_args(RunPhase) if RunStatus(phase=phase).terminal}

    assert terminal == set(TERMINAL) == {"Succeeded", "Failed"}


# Merge patches

VALUES = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
def test_the_patch_turns_one_into_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    patch = patch_between(before, after)

    assert merge_patched(before, patch) == after
    assert (patch == {}) == (before == after)


@given(OBJECTS)
def test_equal_objects_need_no_patch(value: dict[str, Any]) -> None:
    assert patch_between(value, json.loads(json.dumps(value))) == {}


def test_a_patch_holds_only_the_changes() -> None:
    changed = FULL_STATUS.model_copy(
        update={
            "step": 13,
            "last_failure": None,
            "replacing": {},
            "conditions": (
                Condition(
                    type="Valid",
                    status="True",
                    reason="Accepted",
                    last_transition_time=datetime(2027, 1, 1, tzinfo=UTC),
                ),
            ),
        }
    )

    patch = patch_between(FULL_STATUS.to_api(), changed.to_api())
    assert patch == {
        "step": 13,
        "lastFailure": None,
        "replacing": {"first-rollout-1": None},
        "conditions": changed.to_api()["conditions"],
    }
