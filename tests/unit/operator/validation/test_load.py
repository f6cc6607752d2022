"""The messages of `seele validate` name the field, the value and the remedy."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.types import BadRunError, yaml_path
from seele_operator.validation import wrong_fields
from seele_operator.validation.field_names import FOREIGN_NAMES, field_schema
from seele_operator.validation.load import check_cluster, check_run, checked_run, load_run, parse_run
from seele_operator.validation.schema import PRESERVE, Schema, run_schema
from seele_trainer.deepspeed_options import RESERVED_OVERRIDES
from seele_trainer.learner.deepspeed import engine_config
from tests.support import REPOSITORY
from tests.support.spec_data import ABSENT, BAD_SPECS, FULL_RUN, full_run, patched, small_run


def problems_of(body: Any) -> list[str]:
    """The problems in the content of a file."""
    try:
        checked_run(body)
    except BadRunError as error:
        return error.problems
    return []


def test_the_full_example_is_accepted() -> None:
    load_run(FULL_RUN)


def test_the_shortest_run_is_accepted() -> None:
    assert problems_of(small_run()) == []


def test_the_cases_have_distinct_names() -> None:
    names = [case["name"] for case in BAD_SPECS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", BAD_SPECS, ids=lambda case: case["name"])
def test_a_bad_spec_is_refused_in_one_line_with_place_and_remedy(case: dict[str, Any]) -> None:
    problems = problems_of(patched(full_run(), case["patch"]))
    assert len(problems) == 1, problems
    place, remedy = case["place"], case["remedy"]
    assert problems[0].startswith(place)
    assert problems[0].removeprefix(place)[0] in ":;,"
    assert remedy in problems[0].removeprefix(place)
    assert "\n" not in problems[0]


def test_all_wrong_fields_are_reported_at_once() -> None:
    wrong = {
        "metadata": {"lables": {}},
        "spec": {"training": {"steps": 0, "seed": -1}, "modell": {}, "model": {"name": 1}},
    }
    problems = problems_of(patched(small_run(), wrong))
    places = {problem.split(":")[0] for problem in problems}
    assert places == {"metadata.lables", "spec.training.steps", "spec.training.seed", "spec.modell", "spec.model.name"}
    assert len(problems) == 5


@pytest.mark.parametrize("case", BAD_SPECS, ids=lambda case: case["name"])
def test_a_problem_is_also_reported_beside_a_wrong_field_elsewhere(case: dict[str, Any]) -> None:
    body = patched(full_run(), case["patch"])
    if not isinstance(body.get("spec"), dict):
        return
    wrong = {"spec": {"checkpoints": {"keep": "x"}}}
    (beside,) = problems_of(patched(full_run(), wrong))

    assert sorted(problems_of(patched(body, wrong))) == sorted([*problems_of(body), beside])


def leaves(section: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in section.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def nested(path: tuple[str, ...], value: Any) -> Any:
    return {path[0]: nested(path[1:], value)} if path else value


@pytest.mark.parametrize("path", list(leaves(full_run()["spec"])), ids=".".join)
def test_no_rule_is_checked_with_a_default_in_place_of_a_wrong_field(path: tuple[str, ...]) -> None:
    """All that may be reported is the field itself: with its right value the run breaks no rule."""
    *section, name = path
    wrong_type = patched(full_run(), {"spec": nested(path, [[]])})
    misspelt = patched(patched(full_run(), {"spec": nested(path, ABSENT)}), {"spec": nested((*section, f"{name}x"), 1)})

    for body in (wrong_type, misspelt):
        for line in problems_of(body):
            assert line.startswith(yaml_path(("spec", *path)).removesuffix('"]'))


@pytest.mark.parametrize(("per_step", "suggestion"), [(128, ", such as 64"), (48, ""), ("x", ", such as 64")])
def test_a_default_is_suggested_only_where_it_fits(per_step: Any, suggestion: str) -> None:
    training = {"problemsPerStep": per_step, "problemsPerUpdate": 0}
    problems = problems_of(patched(small_run(), {"spec": {"training": training}}))

    remedy = f"use a whole number of at least 1{suggestion}"
    assert problems[-1] == f"spec.training.problemsPerUpdate: 0 is below 1; {remedy}"


def test_the_rules_are_not_checked_again_for_each_of_many_wrong_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(wrong_fields, "ANYWHERE", [lambda spec: calls.append(spec) or []])
    flags = {f"--flag-{number}": 1 for number in range(500)}
    with pytest.raises(BadRunError) as caught:
        parse_run(patched(small_run(), {"spec": {"rollout": {"engineArgs": flags}, "training": {"steps": 0}}}))
    assert len(caught.value.problems) == 501
    assert len(calls) < 10


def test_each_foreign_name_stands_for_a_field_of_ours_and_is_none_itself() -> None:
    ours = {name.lower() for path in leaves(full_run()["spec"]) for name in path}
    for field, names in FOREIGN_NAMES.items():
        assert field_schema(("spec", *field.split(".")))["description"]
        assert not ours & {name.lower() for name in names.split()}


def test_no_line_lists_more_than_ten_names() -> None:
    for section in SECTIONS:
        body = full_run()
        at(body, section)["zzz"] = 1
        (problem,) = problems_of(body)
        assert len(problem.partition("one of ")[2].split(", ")) <= 10 + ("…" in problem)


def test_all_broken_rules_are_reported_at_once() -> None:
    wrong = {"spec": {"training": {"problemsPerUpdate": 48, "warmupUpdates": 9999}, "hints": {"rounds": 1}}}
    places = [problem.split(":")[0] for problem in problems_of(patched(small_run(), wrong))]
    assert places == ["spec.training.problemsPerUpdate", "spec.hints.rounds", "spec.training.warmupUpdates"]


def test_only_sft_needs_no_group_of_rollouts() -> None:
    alone = {"hints": {"rounds": 1, "rolloutsPerRound": 1}}
    supervised = {**alone, "training": {"strategy": "sft"}}
    assert check_run(parse_run(patched(small_run(), {"spec": supervised}))) == []
    both = {**alone, "training": {"strategy": "sft_then_grpo"}}
    (problem,) = check_run(parse_run(patched(small_run(), {"spec": both})))
    assert problem.startswith("spec.hints.rolloutsPerRound: 1 in 1 round leaves nothing to compare")


@pytest.mark.parametrize("key", RESERVED_OVERRIDES)
def test_validation_and_trainer_refuse_the_same_keys_of_deepspeed(key: str) -> None:
    overrides: dict[str, Any] = {"nested": 1}
    for part in reversed(key.split(".")):
        overrides = {part: overrides}
    run = parse_run(patched(small_run(), {"spec": {"trainer": {"deepspeed": {"overrides": overrides}}}}))

    refusal = f"trainer.deepspeed.overrides.{key}: is set by Seele itself; {RESERVED_OVERRIDES[key]}"
    assert check_run(run) == [f"spec.{refusal}"]
    with pytest.raises(ValueError) as refused:
        engine_config(run.spec.trainer_config("small"), parameters=1, pin_memory=False)
    assert str(refused.value) == refusal


def test_long_values_are_cut_short() -> None:
    (problem,) = problems_of(patched(small_run(), {"metadata": {"name": "x" * 5000}}))
    assert len(problem) < 200


def test_metadata_of_the_api_server_is_accepted() -> None:
    added = {"managedFields": [{"manager": "kubectl"}], "generation": 3, "resourceVersion": "12", "aFutureField": 1}
    body = patched(small_run(), {"metadata": added, "status": {"phase": "Running"}})
    assert parse_run(body).metadata.name == "small"


def test_null_stands_for_an_absent_optional_field() -> None:
    body = patched(small_run(), {"spec": {"model": {"contextLength": None}, "storage": {"huggingFaceCache": None}}})
    assert problems_of(body) == []


def test_grpo_needs_no_room_for_hints() -> None:
    lengths = {"model": {"contextLength": 3072}}
    assert problems_of(patched(small_run(), {"spec": {**lengths, "training": {"strategy": "grpo"}}})) == []
    (problem,) = problems_of(patched(small_run(), {"spec": lengths}))
    assert "dataset.maxSolutionTokens 2048" in problem
    assert "= 5120 tokens" in problem


def test_several_pods_on_a_cluster_cannot_share_an_empty_dir() -> None:
    run = parse_run(small_run())
    assert check_run(run) == []
    (problem,) = check_cluster(run)
    assert problem.startswith("spec.storage.run.emptyDir: ")
    assert "this run has 2" in problem
    alone = parse_run(patched(small_run(), {"spec": {"rollout": {"engine": "transformers"}}}))
    assert check_cluster(alone) == []
    claim = {"run": {"persistentVolumeClaim": {"claimName": "runs"}}}
    assert check_cluster(parse_run(patched(small_run(), {"spec": {"storage": claim}}))) == []


def test_the_full_example_and_the_quickstart_work_in_a_cluster() -> None:
    quickstart = REPOSITORY / "manifests" / "examples" / "quickstart.yaml"

    for file in (FULL_RUN, quickstart):
        assert check_cluster(load_run(file)) == []


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (
            {"storage": {"run": {"hostPath": {"path": "/var/lib/"}}}},
            'spec.storage.run.hostPath.path: "/var/lib/" belongs to the node itself',
        ),
        (
            {"storage": {"huggingFaceCache": {"hostPath": {"path": "/usr/share/models"}}}},
            "spec.storage.huggingFaceCache.hostPath.path: ",
        ),
        ({"storage": {"run": {"hostPath": {"path": "//."}}}}, "spec.storage.run.hostPath.path: "),
        (
            {
                "storage": {"run": {"hostPath": {"path": "/data/run"}}},
                "trainer": {"podTemplate": {"spec": {"securityContext": {"runAsUser": 2000}}}},
            },
            "spec.rollout.podTemplate.spec.securityContext.runAsUser: null is not the trainer's, 2000",
        ),
        (
            {"rollout": {"resources": {"requests": {"nvidia.com/gpu": 1}}}},
            'spec.rollout.resources.requests["nvidia.com/gpu"]: 1 cannot be shared with other pods, and has no limit',
        ),
        (
            {"trainer": {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}}},
            'spec.trainer.resources.requests["nvidia.com/gpu"]: 1 cannot be shared with other pods, and its limit is 2',
        ),
        (
            {"scheduling": {"gang": "kueue", "queueName": "queue." + "q" * 60}},
            "spec.scheduling.queueName: has 66 characters, and pods carry it as a label; ",
        ),
    ],
)
def test_what_only_a_cluster_refuses_is_found_early(spec: dict[str, Any], line: str) -> None:
    claims = {"storage": {"run": {"persistentVolumeClaim": {"claimName": "runs"}}}}
    body = patched(patched(small_run(), {"spec": {} if "storage" in spec else claims}), {"spec": spec})
    if "huggingFaceCache" in spec.get("storage", {}):
        body = patched(body, {"spec": claims})

    run = parse_run(body)
    assert check_run(run) == []
    (problem,) = check_cluster(run)
    assert problem.startswith(line)
    assert "; " in problem.removeprefix(line) or "; " in line


@pytest.mark.parametrize("path", ["/var/lib/seele/runs", "/data", "/scratch/", "/mnt/disk", "/libraries"])
def test_a_dedicated_folder_of_the_node_is_accepted(path: str) -> None:
    run = parse_run(patched(small_run(), {"spec": {"storage": {"run": {"hostPath": {"path": path}}}}}))

    assert check_cluster(run) == []


def test_the_cluster_check_copes_with_a_malformed_template() -> None:
    template = {"podTemplate": {"spec": "text"}}
    storage = {"run": {"hostPath": {"path": "/data"}}}
    run = parse_run(patched(small_run(), {"spec": {"trainer": template, "storage": storage}}))

    assert check_cluster(run) == []


def sections(schema: Schema, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Places of all mappings with fixed fields."""
    found = [path] if "properties" in schema and path != ("metadata",) else []
    for name, inner in schema.get("properties", {}).items():
        if not inner.get(PRESERVE):
            found += sections(inner, (*path, name))
    if "items" in schema:
        found += sections(schema["items"], (*path, 0))
    return found


def at(body: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        if isinstance(body, dict) and part not in body:
            return None
        body = body[part]
    return body


SECTIONS = [path for path in sections(run_schema()) if isinstance(at(full_run(), path), dict)]


def test_sections_are_found_at_every_depth() -> None:
    assert () in SECTIONS
    assert ("spec", "evaluation", "benchmarks", 0, "fields") in SECTIONS
    assert len(SECTIONS) > 30


@settings(max_examples=200, deadline=None)
@example(path=(), key="[key]", value=1)
@example(path=("spec", "hints"), key="[key]", value="hints")
@given(
    path=st.sampled_from(SECTIONS), key=st.text(min_size=1, max_size=20), value=st.sampled_from([1, "x", None, {}, []])
)
def test_an_unknown_key_anywhere_is_refused_with_its_place(path: tuple[str | int, ...], key: str, value: Any) -> None:
    known = run_schema()
    for part in path:
        known = known["items"] if isinstance(part, int) else known["properties"][part]
    if key in known["properties"]:
        return
    try:
        json.dumps(key).encode()
        key.encode()
    except UnicodeEncodeError:
        return
    body = full_run()
    at(body, path)[key] = value
    with pytest.raises(BadRunError) as refused:
        parse_run(body)
    (problem,) = refused.value.problems
    start = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    assert problem.startswith(start)
    assert key in problem or json.dumps(key, ensure_ascii=False) in problem
    assert "is not a field" in problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from([path for path in SECTIONS if path]), data=st.data(), value=JSON)
def test_any_value_anywhere_is_accepted_or_refused_line_by_line(
    path: tuple[str | int, ...], data: st.DataObject, value: Any
) -> None:
    body = full_run()
    section = at(body, path)
    section[data.draw(st.sampled_from(sorted(section)))] = value
    try:
        run = parse_run(body)
    except BadRunError as error:
        problems = error.problems
        assert problems
    else:
        assert isinstance(run, SeeleRun)
        problems = check_run(run)
    for problem in problems:
        assert "\n" not in problem
        assert problem.split(":")[0]
        assert re.search(r";|: (use|start) |did you mean|give |needs ", problem)
        assert "Input should" not in problem
        assert len(problem) < 700
