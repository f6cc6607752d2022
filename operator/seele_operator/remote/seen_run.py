"""A SeeleRun as the API server gives it, reduced to what the commands show and decide on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from seele_operator.names import Manifest
from seele_operator.pod_json import mapping, moment, number, text
from seele_operator.remote.errors import BadInput, ServerTrouble
from seele_operator.remote.server import Server
from seele_operator.spec import RunPolicy
from seele_operator.status import RunStatus, read_status


@dataclass(frozen=True)
class SeenRun:
    """One run, as last seen."""

    name: str
    namespace: str
    uid: str
    generation: int
    created: datetime | None
    deleting: bool
    """Whether its deletion was asked for."""
    policy: RunPolicy
    """What the user asks for now; defaults where it cannot be read."""
    status: RunStatus
    """What can be read of the status."""
    taken_up: bool
    """Whether an operator has written a status at all."""
    body: Manifest

    @property
    def phase(self) -> str:
        """The phase, even one that only a newer operator knows."""
        return text(mapping(self.body, "status"), "phase") or self.status.phase

    @property
    def up_to_date(self) -> bool:
        """Whether the status is about the spec as it is now."""
        return self.status.observed_generation >= self.generation

    @property
    def invalid(self) -> str | None:
        """Why the operator cannot follow the spec as it is now; None where it can, or has not looked yet."""
        valid = self.status.condition("Valid")
        if valid is None or valid.status != "False" or not self.up_to_date:
            return None
        return valid.message or valid.reason

    @property
    def steps(self) -> int | None:
        """Training steps of the whole run."""
        asked = number(mapping(self.body, "spec", "training"), "steps")
        return self.status.steps if self.status.steps is not None else asked


def see(body: Manifest) -> SeenRun:
    """The run in `body`; whatever an operator of another version wrote, and this one cannot read, is left out."""
    metadata = mapping(body, "metadata")
    return SeenRun(
        name=text(metadata, "name"),
        namespace=text(metadata, "namespace"),
        uid=text(metadata, "uid"),
        generation=number(metadata, "generation") or 0,
        created=moment(metadata, "creationTimestamp"),
        deleting=bool(metadata.get("deletionTimestamp")),
        policy=_policy(mapping(body, "spec", "runPolicy")),
        status=_status(mapping(body, "status")),
        taken_up=bool(mapping(body, "status")),
        body=body,
    )


def find(server: Server, name: str) -> SeenRun:
    """The run of this name. Raises BadInput, with a name that may have been meant, where there is none."""
    body = server.run(name)
    if body is None:
        raise BadInput(f"{name}: no such run in namespace {server.namespace}; {_instead(server, name)}")
    return see(body)


def _instead(server: Server, name: str) -> str:
    """What to do about a run that does not exist."""
    from seele_operator.field_problems import nearest

    try:
        known = [text(mapping(body, "metadata"), "name") for body in server.runs(server.namespace)]
    except ServerTrouble:
        return "give another name, or another namespace with -n"
    near = nearest(name, known)
    if near:
        return f"did you mean {near}?"
    if not known:
        return "there is none at all; give another namespace with -n, or look in all: seele status -A"
    return f"there {'is' if len(known) == 1 else 'are'} {_listed(sorted(known))}"


def _listed(known: list[str], most: int = 5) -> str:
    rest = len(known) - most
    return ", ".join(known[:most]) + (f" and {rest} more: seele status" if rest > 0 else "")


def _policy(asked: Mapping[str, Any]) -> RunPolicy:
    try:
        return RunPolicy.model_validate(dict(asked), by_alias=True, by_name=False)
    except ValidationError:
        return RunPolicy(suspend=asked.get("suspend") is True)


def _status(written: Mapping[str, Any]) -> RunStatus:
    left = dict(written)
    while True:
        try:
            return read_status({"status": left})
        except ValidationError as error:
            unreadable = {line["loc"][0] for line in error.errors(include_url=False) if line["loc"]}
            if not unreadable & left.keys():
                return RunStatus()
            left = {key: value for key, value in left.items() if key not in unreadable}
