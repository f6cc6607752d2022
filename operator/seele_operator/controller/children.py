"""Carrying out decisions: making, adopting and deleting the objects of a run."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from seele_operator.api.notices import Refusal
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
"""After a refused creation, such as one beyond a quota; twice as long after each further one."""
LONGEST_RETRY_SECONDS = 60.0
UPKEEP_SECONDS = 600.0
"""How often the objects around the pods are put right at most, should somebody have changed them; half as often at least."""
UPKEEP_AFTER_START_SECONDS = 60.0
UPKEEP_SECONDS_A_RUN = 2.0
"""With many runs it is done less often, so that an idle operator stays idle."""
IN_FLIGHT = 16
"""Requests at a time for all runs together: more only make each of them slower."""


@dataclass(frozen=True)
class _Denied:
    """A creation that was refused."""

    refusal: Refusal
    generation: int
    """Of the spec that was refused: another spec is tried at once."""
    times: int
    until: float


@dataclass(frozen=True)
class _Kept:
    """The objects around the pods, as last made sure of."""

    digest: int
    due: float


class Children:
    """The objects of all runs. What is remembered here only saves requests: a new operator starts without it."""

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
        self._kept: dict[str, _Kept] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    def refusal(self, uid: str) -> Refusal | None:
        """The API server's last word on the objects of the run with this uid; None where it took them."""
        denied = self._denied.get(uid)
        return denied.refusal if denied is not None else None

    def forget(self, uid: str) -> None:
        """Forget a run that is gone."""
        self._denied.pop(uid, None)
        self._kept.pop(uid, None)

    async def carry_out(self, run: Body, action: Action) -> float | None:
        """Do what was decided about the run in `run`.

        Returns the seconds until it should be tried again where the API server refused it, 0 for news that should be
        decided upon at once. Raises ClusterError.
        """
        match action:
            case CreatePods():
                return await self._unless_denied(run, lambda: self._create(action), then=0.0)
            case UpdateChildren():
                # Decided only once: should it fail, or this be the end of this operator, the upkeep does it.
                self._kept[uid_of(run)] = _Kept(0, self._clock())
                return await self._unless_denied(run, lambda: self._ensure(action.run, action.attempt))
            case AdoptPods():
                await self._each(self._adopt(run, pod) for pod in action.pods)
            case DeletePods():
                namespace = key_of(run).namespace
                await self._each(self._cluster.delete_pod(namespace, pod.name, pod.uid) for pod in action.pods)
            case ReleaseGang():
                await self._each(
                    self._cluster.delete_object(manifest, uid_of(run)) for manifest in plan.gang_objects(action.run)
                )
            case DeleteRun():
                key = key_of(run)
                await self._cluster.delete_run(key.namespace, key.name, uid_of(run))
        return None

    def upkeep_in(self, uid: str) -> float:
        """Seconds until the objects around the pods of a run are to be put right again; 0 when it is time."""
        kept = self._kept.get(uid)
        if kept is None:
            # This operator has just started: what the last one did not come to do is made up for soon, but not for all
            # runs at once.
            kept = self._kept[uid] = _Kept(0, self._next_upkeep(UPKEEP_AFTER_START_SECONDS))
        return max(0.0, kept.due - self._clock())

    async def upkeep(self, run: Body, follows: SeeleRun, attempt: int) -> None:
        """Put the objects around the pods right again, should somebody have changed or deleted them."""
        # Due until it is done.
        self._kept[uid_of(run)] = _Kept(0, self._clock())
        await self._unless_denied(run, lambda: self._ensure(follows, attempt))

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
            delay = min(FIRST_RETRY_SECONDS * 2 ** min(times, 8), LONGEST_RETRY_SECONDS) * (1 + self._chance() / 4)
            self._denied[uid] = _Denied(error.refusal, generation, times, self._clock() + delay)
            # Where there are no pods to create, the upkeep tries again.
            self._put_off_upkeep(uid, self._clock() + delay)
            # The status should say so at once, and only once.
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
        # It is there, though the watch has not told yet: look at it before trying to create it again.
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
        manifests = plan.support_objects(run, attempt, self._cluster.features)
        # Each attempt makes sure of them anew: what somebody took away must not keep its pods from starting.
        digest = hash(json.dumps([attempt, manifests], sort_keys=True))
        kept = self._kept.get(uid)
        if kept is None or kept.digest != digest:
            await self._each(self._cluster.ensure(manifest, uid) for manifest in manifests)
            self._kept[uid] = _Kept(digest, self._next_upkeep())

    async def _adopt(self, run: Body, pod: ObservedPod) -> None:
        key = key_of(run)
        owner = plan.owner_reference(key.name, uid_of(run))
        try:
            await self._cluster.adopt_pod(key.namespace, pod.name, pod.uid, owner)
        except (Conflict, Gone):
            # What has become of it, the watch will tell.
            return

    async def _each(self, requests: Iterable[Awaitable[object]]) -> None:
        """Make all requests, whatever becomes of the others, and then raise the error that weighs most."""
        outcomes = await asyncio.gather(*(self._one(request) for request in requests), return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if errors:
            raise min(errors, key=_weight)

    async def _one(self, request: Awaitable[object]) -> None:
        async with self._slots:
            await request

    def _put_off_upkeep(self, uid: str, until: float) -> None:
        kept = self._kept.get(uid)
        self._kept[uid] = _Kept(kept.digest if kept is not None else 0, until)

    def _next_upkeep(self, at_least: float | None = None) -> float:
        soonest = max(UPKEEP_SECONDS if at_least is None else at_least, UPKEEP_SECONDS_A_RUN * self._store.run_count())
        return self._clock() + soonest * (1 + self._chance())


def _weight(error: BaseException) -> int:
    """What makes the others moot comes first, what is the run's own problem last."""
    order: tuple[type[BaseException], ...] = (NotLeading, NamespaceTerminating, Gone, Conflict, Refused)
    return next((place for place, kind in enumerate(order, 1) if isinstance(error, kind)), 0)
