"""A SeeleRun as the API server gives it, reduced to what the commands show and decide on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from seele_operator.api.seelerun import RunPolicy
from seele_operator.api.status import RunStatus, read_status
from seele_operator.client.errors import BadInput, ServerTrouble, Unreachable
from seele_operator.client.server import Server
from seele_operator.client.wording import ABSENT
from seele_operator.observe.raw import mapping, moment, number, text
from seele_operator.plan.names import Manifest


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
    from seele_operator.api.problems import nearest

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


LOOK_SECONDS = 2.0

PATIENCE_SECONDS = 300.0
"""How long an API server that does not answer is waited for, once it has answered."""

Print = Callable[[str], None]

T = TypeVar("T")


def looks(
    look: Callable[[], T], say: Print, every: float | None = None, pause: Callable[[float], None] = time.sleep
) -> Iterator[T]:
    """`look()` now and after every pause of so many seconds. Raises Unreachable where the server is silent for too long."""
    answered = False
    silent_since: float | None = None
    while True:
        try:
            seen = look()
        except Unreachable as error:
            if not answered or (silent_since is not None and time.monotonic() - silent_since > PATIENCE_SECONDS):
                raise
            if silent_since is None:
                say(f"{error}; trying on")
                silent_since = time.monotonic()
        else:
            if silent_since is not None:
                say("the API server answers again")
            answered, silent_since = True, None
            yield seen
        pause(LOOK_SECONDS if every is None else every)


def follow_run(server: Server, run: SeenRun, say: Print) -> Iterator[SeenRun | None]:
    """This very run again and again; None, as the last, when it is gone."""

    def look() -> SeenRun | None:
        body = server.run(run.name)
        seen = None if body is None else see(body)
        return seen if seen is not None and seen.uid == run.uid else None

    for seen in looks(look, say):
        yield seen
        if seen is None:
            return


def wait_until(server: Server, run: SeenRun, say: Print, reached: Callable[[SeenRun], bool]) -> SeenRun | None:
    """Print what becomes of a run until it is what is waited for; None where it is gone before."""
    last = ""
    started = time.monotonic()
    for seen in follow_run(server, run, say):
        if seen is None:
            return None
        late = not seen.taken_up and time.monotonic() - started > UNTAKEN_SECONDS
        line = f"{seen.name}: {NO_OPERATOR}" if late else plain_line(seen)
        if line != last:
            say(line)
            last = line
        if reached(seen):
            return seen
    return None


def plain_line(run: SeenRun) -> str:
    """Where a run stands, in one line."""
    status = run.status
    if not run.taken_up:
        return f"{run.name}: not taken up yet"
    parts = [f"{run.name}: {status.phase}"]
    if status.step is not None:
        parts.append(f"step {step_text(run)}")
    if status.reward is not None:
        parts.append(f"reward {status.reward:.2f}")
    if status.accuracy is not None:
        parts.append(f"accuracy {status.accuracy:.1%}")
    if status.phase != "Running" and status.message:
        parts.append(" ".join(status.message.split()))
    return "  ".join(parts)


def step_text(run: SeenRun) -> str:
    """Steps done of all: `12/60`."""
    done, whole = run.status.step, run.steps
    if done is None and whole is None:
        return ABSENT
    return f"{0 if done is None else done}/{'?' if whole is None else whole}"


UNTAKEN_SECONDS = 10.0
"""Age from which a run without a status is a sign that no operator is at work."""

NO_OPERATOR = "no operator has looked at this run yet; see whether Seele's operator runs, and watches this namespace"
