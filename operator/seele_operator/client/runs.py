"""A SeeleRun reduced to what the commands show and decide on, and how they follow it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from seele_operator.api.seelerun import RunPolicy
from seele_operator.api.status import RunStatus, read_status
from seele_operator.api.types import nearest
from seele_operator.client.errors import BadInput, ServerError, Unreachable
from seele_operator.client.runs_api import RunsApi
from seele_operator.observe.raw import mapping, moment, number, text
from seele_operator.plan.names import Manifest
from seele_trainer.formatting import percent, step_count

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 300.0
"""How long to wait for an API server that stops answering, once it has answered."""
NO_STATUS_SECONDS = 10.0
"""Age from which a run without a status suggests that no operator is running."""
NO_OPERATOR = (
    "no operator has looked at this run yet; check that Seele's operator is running and watches this namespace"
)

Print = Callable[[str], None]
"""Prints a line for the user."""
T = TypeVar("T")


@dataclass(frozen=True)
class SeenRun:
    """One run, as last read."""

    name: str
    namespace: str
    uid: str
    generation: int
    created: datetime | None
    deleting: bool
    """Whether its deletion was requested."""
    policy: RunPolicy
    """The spec's run policy; defaults if it cannot be read."""
    status: RunStatus
    """What can be read of the status."""
    has_status: bool
    """Whether an operator has written a status at all."""
    body: Manifest

    @property
    def phase(self) -> str:
        """The phase, even if only a newer operator knows it."""
        return text(mapping(self.body, "status"), "phase") or self.status.phase

    @property
    def up_to_date(self) -> bool:
        """Whether the status describes the current spec."""
        return self.status.observed_generation >= self.generation

    @property
    def invalid(self) -> str | None:
        """Why the operator rejects the current spec; None if it accepts it, or has not looked at it yet."""
        valid = self.status.condition("Valid")
        if valid is None or valid.status != "False" or not self.up_to_date:
            return None
        return valid.message or valid.reason

    @property
    def steps(self) -> int | None:
        """Training steps of the whole run."""
        if self.status.steps is not None:
            return self.status.steps
        return number(mapping(self.body, "spec", "training"), "steps")

    @property
    def step_count(self) -> str:
        """Steps done of all: `12/60`."""
        return step_count(self.status.step, self.steps)


def see(body: Manifest) -> SeenRun:
    """The run in `body`. Fields that an operator of another version wrote, and this one cannot read, are ignored."""
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
        has_status=bool(mapping(body, "status")),
        body=body,
    )


async def find(api: RunsApi, name: str) -> SeenRun:
    """The run of this name. Raises BadInput, with a similar name if there is one, if it does not exist."""
    if not name:
        raise BadInput("the name of the run is empty; give its name, or list all with `seele status`")
    body = await api.run(name)
    if body is None:
        raise BadInput(f"{name}: no such run in namespace {api.namespace}; {await _alternatives(api, name)}")
    return see(body)


async def _alternatives(api: RunsApi, name: str) -> str:
    """What to do about a run that does not exist."""
    try:
        known = [text(mapping(body, "metadata"), "name") for body in await api.runs(api.namespace)]
    except ServerError:
        return "give another name, or another namespace with -n"
    near = nearest(name, known)
    if near:
        return f"did you mean {near}?"
    if not known:
        return "it has no runs; give another namespace with -n, or list those of all namespaces: seele status -A"
    return f"there {'is' if len(known) == 1 else 'are'} {_listed(sorted(known))}"


def _listed(known: list[str], most: int = 5) -> str:
    rest = len(known) - most
    return ", ".join(known[:most]) + (f" and {rest} more: seele status" if rest > 0 else "")


def _policy(written: Mapping[str, Any]) -> RunPolicy:
    try:
        return RunPolicy.model_validate(dict(written), by_alias=True, by_name=False)
    except ValidationError:
        return RunPolicy(suspend=written.get("suspend") is True)


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


async def poll(
    read: Callable[[], Awaitable[T]],
    print_line: Print,
    pause: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[T]:
    """What `read` returns, now and after every pause. Raises Unreachable if the API server is silent for too long."""
    answered = False
    silent_since: float | None = None
    while True:
        try:
            current = await read()
        except Unreachable as error:
            if not answered or (silent_since is not None and time.monotonic() - silent_since > PATIENCE_SECONDS):
                raise
            if silent_since is None:
                print_line(f"{error}; retrying")
                silent_since = time.monotonic()
        else:
            if silent_since is not None:
                print_line("the API server answers again")
            answered, silent_since = True, None
            yield current
        await (asyncio.sleep(POLL_SECONDS) if pause is None else pause())


async def read_again(api: RunsApi, run: SeenRun) -> SeenRun | None:
    """The same run as it is now; None if it is gone, even if another has its name."""
    body = await api.run(run.name)
    current = None if body is None else see(body)
    return current if current is not None and current.uid == run.uid else None


async def wait_until(
    api: RunsApi, run: SeenRun, print_line: Print, reached: Callable[[SeenRun], bool]
) -> SeenRun | None:
    """Print each change of a run until `reached`; None, after a line that says so, if it is deleted or invalid then."""
    last = ""
    started = time.monotonic()
    async for current in poll(lambda: read_again(api, run), print_line):
        if current is None:
            print_line(f"{run.name}: was deleted")
            return None
        late = not current.has_status and time.monotonic() - started > NO_STATUS_SECONDS
        line = f"{current.name}: {NO_OPERATOR}" if late else plain_line(current)
        if line != last:
            print_line(line)
            last = line
        if reached(current):
            if current.invalid is None or current.status.terminal:
                return current
            print_line(f"{run.name}: the operator rejects the spec: {current.invalid}")
            return None
    return None


def plain_line(run: SeenRun) -> str:
    """The state of a run in one line."""
    status = run.status
    if not run.has_status:
        return f"{run.name}: not picked up by an operator yet"
    parts = [f"{run.name}: {status.phase}"]
    if status.step is not None:
        parts.append(f"step {run.step_count}")
    if status.reward is not None:
        parts.append(f"reward {status.reward:.2f}")
    if status.accuracy is not None:
        parts.append(f"accuracy {percent(status.accuracy)}")
    if status.phase != "Running" and status.message:
        parts.append(" ".join(status.message.split()))
    return "  ".join(parts)
