"""`seele submit`: a SeeleRun file into a cluster."""

from __future__ import annotations

import time
from typing import Any

from seele_operator.api.problems import BadRunError
from seele_operator.api.seelerun import API_VERSION, KIND
from seele_operator.api.yaml_files import read_run_file
from seele_operator.client.errors import BadInput
from seele_operator.client.kubeconfig import Target, connect
from seele_operator.client.runs import Print, SeenRun, see, wait_until
from seele_operator.client.server import Server
from seele_operator.observe.raw import mapping
from seele_operator.plan.names import Manifest
from seele_operator.validation.load import check_cluster, check_run, read_run

OPERATOR_ANSWER_SECONDS = 2.0
"""How long the operator's word on a changed run is waited for; it is usually there after some tenths."""
_LOOK_SECONDS = 0.1


def submit(target: Target, file: str, say: Print, *, dry_run: bool, wait: bool) -> int:
    """Check the file, apply it, and say what comes next; with `wait`, 0 where the run succeeds and 1 where it fails.

    Models and data sets are not looked for here: they are where the pods run. Raises BadRunError and RemoteError.
    """
    body = read_run_file(file)
    checked = read_run(body)
    problems = [*check_run(checked), *check_cluster(checked)]
    if problems:
        raise BadRunError(problems)
    said = mapping(body, "metadata").get("namespace")
    if target.namespace is not None and said not in (None, target.namespace):
        raise BadInput(f"metadata.namespace: {said} is not what -n says, {target.namespace}; leave one of them out")
    connection = connect(target)
    server = Server(connection, namespace=said or connection.namespace)
    name = checked.metadata.name
    before = server.run(name)
    wanted = _wanted(body, server.namespace)
    if before is not None:
        _check_free(server, see(before), wanted)
    after = server.apply_run(wanted, dry_run=dry_run)
    outcome = "created" if before is None else "changed" if _content(before) != _content(after) else "unchanged"
    say(f"{name}: {outcome} in namespace {server.namespace}{' (dry run: nothing was changed)' if dry_run else ''}")
    if dry_run:
        return 0
    run = see(after)
    again = target.in_namespace(server.namespace, connection.default_namespace)
    if run.policy.suspend:
        say(f"It is suspended; to start it: {again.command('resume', name)}")
    if wait:
        return wait_for_end(server, run, say)
    if outcome == "changed":
        _say_answer(server, run, say)
    say(f"To follow it: {again.command('status', name, '-w')}, or its logs: {again.command('logs', name, '-f')}")
    return 0


def wait_for_end(server: Server, run: SeenRun, say: Print) -> int:
    """Follow a run to its end: 0 where it succeeds, 1 where it fails, is deleted, or can never start."""
    seen = wait_until(server, run, say, lambda seen: seen.status.terminal or _cannot_start(seen))
    if seen is None:
        say(f"{run.name}: was deleted")
        return 1
    if seen.status.terminal:
        return 0 if seen.status.phase == "Succeeded" else 1
    say(f"{run.name}: the operator refuses the spec: {seen.invalid}")
    return 1


def _cannot_start(run: SeenRun) -> bool:
    return run.invalid is not None and run.status.accepted_spec is None


def _wanted(body: Manifest, namespace: str) -> Manifest:
    """What the user asks for, without what only the API server writes, as in a file that was taken out of a cluster."""
    metadata = mapping(body, "metadata")
    kept = {field: metadata[field] for field in ("name", "labels", "annotations") if metadata.get(field) is not None}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {**kept, "namespace": namespace},
        "spec": body["spec"],
    }


def _check_free(server: Server, existing: SeenRun, wanted: Manifest) -> None:
    """Refuse what would have no effect: a run that is over stays over, and one that is being deleted goes."""
    if existing.deleting:
        raise BadInput(f"{existing.name}: is being deleted; submit it again when it is gone, or use another name")
    if not existing.status.terminal:
        return
    if mapping(server.apply_run(wanted, dry_run=True), "spec") != mapping(existing.body, "spec"):
        raise BadInput(
            f"{existing.name}: has {existing.status.phase.lower()}, and a run that is over does not start again; "
            "delete it first (seele delete), or use another name"
        )


def _say_answer(server: Server, run: SeenRun, say: Print) -> None:
    """The operator's word on a change, if it comes soon."""
    deadline = time.monotonic() + OPERATOR_ANSWER_SECONDS
    while time.monotonic() < deadline:
        body = server.run(run.name)
        if body is None:
            return
        seen = see(body)
        if seen.up_to_date:
            if seen.invalid is not None:
                say(f"The operator does not follow the change: {seen.invalid}")
            return
        time.sleep(_LOOK_SECONDS)


def _content(body: Manifest) -> tuple[Any, ...]:
    metadata = mapping(body, "metadata")
    return mapping(body, "spec"), metadata.get("labels") or {}, metadata.get("annotations") or {}
