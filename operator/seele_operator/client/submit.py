"""`seele submit`: a SeeleRun file into a cluster."""

import asyncio
import time
from typing import Any

from seele_operator.api.seelerun import API_VERSION, KIND
from seele_operator.api.yaml_files import read_run_file
from seele_operator.client.errors import BadInput
from seele_operator.client.runs import Print, SeenRun, read_again, see, wait_until
from seele_operator.client.runs_api import RunsApi
from seele_operator.observe.raw import mapping
from seele_operator.plan.names import Manifest
from seele_operator.validation.load import checked_run
from seele_operator.validation.rules import ON_A_CLUSTER
from seele_trainer.termination import ExitCode

OPERATOR_ANSWER_SECONDS = 2.0
"""How long to wait for the operator's answer to a change; it usually takes some tenths of a second."""
_POLL_SECONDS = 0.1


def read_submission(file: str, namespace: str | None) -> Manifest:
    """The run in the file, checked. Raises BadRunError and BadInput.

    Models and data sets are not looked up here: they exist where the pods run.
    """
    body = read_run_file(file)
    checked_run(body, *ON_A_CLUSTER)
    own = mapping(body, "metadata").get("namespace")
    if namespace is not None and own not in (None, namespace):
        raise BadInput(f"metadata.namespace: {own} is not what -n says, {namespace}; leave one of them out")
    return body


async def submit(api: RunsApi, body: Manifest, print_line: Print, *, dry_run: bool, wait: bool) -> ExitCode:
    """Apply the run and print the next commands; with `wait`, DONE if the run succeeds and FAILED if it does not."""
    name = body["metadata"]["name"]
    before = await api.run(name)
    wanted = _without_server_fields(body, api.namespace)
    if before is not None:
        await _check_changeable(api, see(before), wanted)
    after = await api.apply_run(wanted, dry_run=dry_run)
    outcome = "created" if before is None else "changed" if _content(before) != _content(after) else "unchanged"
    note = " (dry run: nothing was changed)" if dry_run else ""
    print_line(f"{name}: {outcome} in namespace {api.namespace}{note}")
    if dry_run:
        return ExitCode.DONE
    run = see(after)
    if run.policy.suspend:
        print_line(f"It is suspended; to start it: {api.command('resume', name)}")
    if wait:
        return await _wait_for_end(api, run, print_line)
    if outcome == "changed":
        await _print_rejection(api, run, print_line)
    status, logs = api.command("status", name, "-w"), api.command("logs", name, "-f")
    print_line(f"To follow it: {status}, or its logs: {logs}")
    return ExitCode.DONE


async def _wait_for_end(api: RunsApi, run: SeenRun, print_line: Print) -> ExitCode:
    """Follow a run to its end: FAILED too if it is deleted, or can never start."""

    def ended(current: SeenRun) -> bool:
        never_accepted = current.invalid is not None and current.status.accepted_spec is None
        return current.status.terminal or never_accepted

    last = await wait_until(api, run, print_line, ended)
    return ExitCode.DONE if last is not None and last.status.phase == "Succeeded" else ExitCode.FAILED


def _without_server_fields(body: Manifest, namespace: str) -> Manifest:
    """The user's fields alone: a file taken from a cluster also has those that only the API server writes."""
    metadata = mapping(body, "metadata")
    kept = {field: metadata[field] for field in ("name", "labels", "annotations") if metadata.get(field) is not None}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {**kept, "namespace": namespace},
        "spec": body["spec"],
    }


async def _check_changeable(api: RunsApi, existing: SeenRun, wanted: Manifest) -> None:
    """Refuse a change that would have no effect, because the run has ended or is being deleted."""
    if existing.deleting:
        raise BadInput(f"{existing.name}: is being deleted; submit it again when it is gone, or use another name")
    if not existing.status.terminal:
        return
    if mapping(await api.apply_run(wanted, dry_run=True), "spec") != mapping(existing.body, "spec"):
        raise BadInput(
            f"{existing.name}: has {existing.status.phase.lower()}, and a run that has ended does not start again; "
            "delete it first (seele delete), or use another name"
        )


async def _print_rejection(api: RunsApi, run: SeenRun, print_line: Print) -> None:
    """Print why the operator rejects a change, if it says so soon."""
    deadline = time.monotonic() + OPERATOR_ANSWER_SECONDS
    while time.monotonic() < deadline:
        current = await read_again(api, run)
        if current is None:
            return
        if current.up_to_date:
            if current.invalid is not None:
                print_line(f"The operator rejects the change: {current.invalid}")
            return
        await asyncio.sleep(_POLL_SECONDS)


def _content(body: Manifest) -> tuple[Any, ...]:
    metadata = mapping(body, "metadata")
    return mapping(body, "spec"), metadata.get("labels") or {}, metadata.get("annotations") or {}
