"""Carrying out decisions: creating, adopting and deleting the objects of a run."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from seele_operator.api.events import Refusal
from seele_operator.api.seelerun import SeeleRun
from seele_operator.controller.store import Body, RunKey, Store, key_of, uid_of
from seele_operator.decide.decision import (
    Action,
    AdoptPods,
    CreatePods,
    DeletePods,
    DeleteRun,
    ReleaseGang,
    UpdateChildren,
)
from seele_operator.kube.cluster import Cluster
from seele_operator.kube.errors import Conflict, Gone, NamespaceTerminating, NotLeading, Refused
from seele_operator.observe.pods import ObservedPod
from seele_operator.plan import objects as plan
from seele_operator.plan.names import RUN_LABEL, Manifest

FIRST_RETRY_SECONDS = 5.0
"""Delay after a refused creation, such as one beyond a quota; it doubles after each further refusal."""
MAX_RETRY_SECONDS = 60.0
UPKEEP_SECONDS = 600.0
"""Minimum time between re-applications of a run's support objects, which someone may have changed; the maximum is twice
that."""
UPKEEP_AFTER_START_SECONDS = 60.0
UPKEEP_SECONDS_PER_RUN = 2.0
"""With many runs the interval is longer, so that an idle operator stays idle."""
IN_FLIGHT = 16
"""Concurrent requests for all runs together: more would only slow each one down."""


@dataclass(frozen=True)
class _Denied:
    """A creation that was refused."""

    refusal: Refusal
    generation: int
    """The refused spec's generation: a newer one is tried at once."""
    times: int
    until: float


@dataclass(frozen=True)
class _Applied:
    """The support objects as last applied."""

    digest: int
    due: float
    """When to apply them again."""


class Children:
    """The child objects of all runs. What it remembers only saves requests: a new operator starts without it."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self._chance = chance
        self._denied: dict[str, _Denied] = {}
        self._applied: dict[str, _Applied] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    def refusal(self, uid: str) -> Refusal | None:
        """The API server's last refusal of an object of the run with this uid; None if it has accepted one since."""
        denied = self._denied.get(uid)
        return denied.refusal if denied is not None else None

    def forget(self, uid: str) -> None:
        """Forget a run that is gone."""
        self._denied.pop(uid, None)
        self._applied.pop(uid, None)

    async def carry_out(self, run: Body, action: Action) -> float | None:
        """Carry out an action for `run`.

        Returns the seconds until the next pass: until a retry if the API server refused the action, 0 if the result needs
        a decision at once, else None. Raises ClusterError.
        """
        match action:
            case CreatePods():
                return await self._unless_denied(run, lambda: self._create(action), then=0.0)
            case UpdateChildren():
                # Decided only once: if it fails, or this operator dies, a later upkeep repeats it.
                self._applied[uid_of(run)] = _Applied(0, self._clock())
                return await self._unless_denied(run, lambda: self._ensure(action.run, action.attempt))
            case AdoptPods():
                await self._each(self._adopt(run, pod) for pod in action.pods)
            case DeletePods():
                namespace = key_of(run).namespace
                grace = action.grace_seconds
                await self._each(self._cluster.delete_pod(namespace, pod.name, pod.uid, grace) for pod in action.pods)
            case ReleaseGang():
                await self._each(
                    self._cluster.delete_object(manifest, uid_of(run)) for manifest in plan.gang_objects(action.run)
                )
            case DeleteRun():
                key = key_of(run)
                await self._cluster.delete_run(key.namespace, key.name, uid_of(run))
        return None

    def upkeep_in(self, uid: str) -> float:
        """Seconds until a run's support objects should be applied again; 0 when it is time."""
        applied = self._applied.get(uid)
        if applied is None:
            # This operator has just started: catch up soon on what the previous operator left unfinished, but not for
            # all runs at once.
            applied = self._applied[uid] = _Applied(0, self._next_upkeep(UPKEEP_AFTER_START_SECONDS))
        return max(0.0, applied.due - self._clock())

    async def upkeep(self, run: Body, accepted: SeeleRun, attempt: int) -> None:
        """Apply a run's support objects again, in case they were changed or deleted."""
        # Stays due until it succeeds.
        self._applied[uid_of(run)] = _Applied(0, self._clock())
        await self._unless_denied(run, lambda: self._ensure(accepted, attempt))

    async def _unless_denied(
        self, run: Body, create: Callable[[], Awaitable[None]], then: float | None = None
    ) -> float | None:
        uid = uid_of(run)
        generation = int(run["metadata"].get("generation", 0))
        denied = self._denied.get(uid)
        if denied is not None and denied.generation == generation and self._clock() < denied.until:
            self._put_off_upkeep(uid, denied.until)
            return denied.until - self._clock()
        try:
            await create()
        except Refused as error:
            times = denied.times + 1 if denied is not None and denied.generation == generation else 0
            delay = min(FIRST_RETRY_SECONDS * 2 ** min(times, 8), MAX_RETRY_SECONDS) * (1 + self._chance() / 4)
            self._denied[uid] = _Denied(error.refusal, generation, times, self._clock() + delay)
            # If there are no pods to create, the upkeep tries again.
            self._put_off_upkeep(uid, self._clock() + delay)
            # 0 for a new refusal, so that the status shows it at once.
            return delay if denied is not None and denied.refusal == error.refusal else 0.0
        self._denied.pop(uid, None)
        return then if denied is None else 0.0

    async def _create(self, action: CreatePods) -> None:
        await self._ensure(action.run, action.attempt)
        pods = plan.pods(action.run, action.attempt)
        await self._each(self._create_pod(pods[name]) for name in action.names)

    async def _create_pod(self, manifest: Manifest) -> None:
        created = await self._cluster.create_pod(manifest)
        if created is not None:
            self._store.put_pod(created)
            return
        # It exists, but the watch has not reported it yet: read it before trying to create it again.
        metadata = manifest["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        existing = await self._cluster.read_pod(namespace, name)
        if existing is None:
            return
        self._store.put_pod(existing)
        key = RunKey(namespace, metadata["labels"][RUN_LABEL])
        if all(pod.name != name for pod in self._store.pods(key)):
            raise Refused(
                Refusal("NameTaken", f"Pod {name}: exists, and is not one of this run's; delete or rename it")
            )

    async def _ensure(self, run: SeeleRun, attempt: int) -> None:
        uid = run.metadata.uid or ""
        manifests = plan.support_objects(run, self._cluster.features)
        # Each attempt applies them again: a deleted object must not keep the pods from starting.
        digest = hash(json.dumps([attempt, manifests], sort_keys=True))
        applied = self._applied.get(uid)
        if applied is None or applied.digest != digest:
            await self._each(self._cluster.ensure(manifest, uid) for manifest in manifests)
            self._applied[uid] = _Applied(digest, self._next_upkeep())

    async def _adopt(self, run: Body, pod: ObservedPod) -> None:
        key = key_of(run)
        owner = plan.owner_reference(key.name, uid_of(run))
        try:
            await self._cluster.adopt_pod(key.namespace, pod.name, pod.uid, owner)
        except (Conflict, Gone):
            return  # the watch reports what happened to it

    async def _each(self, requests: Iterable[Awaitable[object]]) -> None:
        """Send all requests, even if some fail, and then raise the most important error."""
        outcomes = await asyncio.gather(*(self._one(request) for request in requests), return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if errors:
            raise min(errors, key=_weight)

    async def _one(self, request: Awaitable[object]) -> None:
        async with self._slots:
            await request

    def _put_off_upkeep(self, uid: str, until: float) -> None:
        applied = self._applied.get(uid)
        self._applied[uid] = _Applied(applied.digest if applied is not None else 0, until)

    def _next_upkeep(self, at_least: float | None = None) -> float:
        soonest = max(
            UPKEEP_SECONDS if at_least is None else at_least, UPKEEP_SECONDS_PER_RUN * self._store.run_count()
        )
        return self._clock() + soonest * (1 + self._chance())


def _weight(error: BaseException) -> int:
    """Sorts errors: first those that make the others irrelevant, last the run's own problems."""
    order: tuple[type[BaseException], ...] = (NotLeading, NamespaceTerminating, Gone, Conflict, Refused)
    return next((place for place, kind in enumerate(order, 1) if isinstance(error, kind)), 0)
