"""Fences begin: together, each at its place in the features log, with what was inside then."""

import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from signpost.errors import InvalidArgument
from signpost.log.base import Record

from feature_service.fences.changes import changes_of
from feature_service.fences.engine import FenceEngine, Outcome
from feature_service.fences.inside import insides_at_start
from feature_service.fences.model import Change, Fence
from feature_service.fences.requests import in_force
from feature_service.fences.stored import StoredFence
from feature_service.index import Snapshot
from feature_service.projection import Projection
from protos.feature.v1.feature_pb2 import Fence as FenceMessage

_LOG = logging.getLogger(__name__)
SLICE = 200
"""Records that fences are asked about at once."""
T = TypeVar("T")


class InThread(Protocol):
    """Calls a function in a thread."""

    def __call__(self, function: Callable[..., T], *arguments: object) -> Awaitable[T]: ...


class Beginnings:
    """What was inside new fences at their starts, from when they come until they begin."""

    def __init__(self, projection: Projection, in_thread: InThread) -> None:
        self._projection, self._in_thread = projection, in_thread
        self._insides: dict[str, list[Change]] = {}  # by uid

    async def look_inside(self, fences: Sequence[StoredFence]) -> None:
        """Note what is inside new fences as soon as they come.

        The index lets go of what has been superseded, and the relay may be waiting for the notification service.
        """
        places = [
            (stored.message, stored.features_sequence)
            for stored in fences
            if not stored.removed and stored.message.revision == 1 and stored.features_sequence is not None
        ]
        new = await self._in_thread(all_in_force, places)
        self._insides |= await self._in_thread(_insides_of, new, await self._snapshots(new))

    def forget(self, uid: str) -> None:
        """Let go of what was noted: the fence has begun, or will not."""
        self._insides.pop(uid, None)

    async def begin(
        self,
        engine: FenceEngine,
        fences: Sequence[Fence],
        *,
        applied: int,
        kept: Container[str],
        notify: Container[str],
    ) -> Outcome:
        """Put fences in force in an engine that has seen the log up to `applied`.

        `kept`: uids of those whose members are known as of their starts; `notify`: of those that tell who is inside.
        """
        snapshots = await self._snapshots(fences)
        unseen = [fence for fence in fences if fence.uid not in self._insides]
        insides = await self._in_thread(_insides_of, unseen, snapshots)
        insides |= {fence.uid: self._insides[fence.uid] for fence in fences if fence.uid not in insides}
        ahead = [fence for fence in fences if fence.start >= applied]
        outcome = await self._in_thread(_begin, engine, ahead, insides, kept, notify)
        if behind := [fence for fence in fences if fence.start < applied]:
            late = FenceEngine()
            outcome.add(await self._in_thread(_begin, late, behind, insides, (), notify))
            await self._catch_up(late, applied, outcome)
            await self._in_thread(engine.take_over, late)
        return outcome

    async def _snapshots(self, fences: Sequence[Fence]) -> dict[str, Snapshot | None]:
        """By the fences' collections, as they are once everything up to the fences' starts is in them."""
        await self._projection.wait_for(max((fence.start for fence in fences), default=0))
        return {fence.collection: self._projection.snapshot(fence.collection) for fence in fences}

    async def _catch_up(self, late: FenceEngine, applied: int, outcome: Outcome) -> None:
        """Take fences whose places the others have passed from there to here, by themselves."""
        after = min(fence.start for fence in late.fences.values())
        while after < applied:
            page = await self._projection.log.read(after, allow_gaps=True)
            records = [r for r in page.records if r.sequence <= applied]
            for begin in range(0, len(records), SLICE):
                outcome.add(await self._in_thread(apply, late, records[begin : begin + SLICE]))
            after = page.through


def apply(engine: FenceEngine, records: Sequence[Record]) -> Outcome:
    """What an engine makes of records."""
    return engine.apply(changes_of(records))


def all_in_force(stored: Iterable[tuple[FenceMessage, int]]) -> list[Fence]:
    """Stored fences with their starts, ready to be asked; those that this release cannot use are left out."""
    fences: list[Fence] = []
    for message, start in stored:
        try:
            fences.append(in_force(message, start))
        except InvalidArgument as error:
            _LOG.error("a stored fence cannot be used", extra={"fields": {"fence": message.id, "why": str(error)}})
    return fences


def _insides_of(fences: Sequence[Fence], snapshots: Mapping[str, Snapshot | None]) -> dict[str, list[Change]]:
    uids = [fence.uid for fence in fences]
    return dict(zip(uids, insides_at_start(fences, snapshots), strict=True)) if fences else {}


def _begin(
    engine: FenceEngine,
    fences: Iterable[Fence],
    insides: Mapping[str, list[Change]],
    kept: Container[str],
    notify: Container[str],
) -> Outcome:
    """Begin fences with what was inside at their starts.

    Of a fence whose members are known as of its start, these count; the index may have let go of some.
    """
    outcome = Outcome()
    for fence in fences:
        inside = insides[fence.uid]
        if fence.uid in kept:
            members = {member.key for member in engine.members(fence.uid)}
            inside = [change for change in inside if change.key not in members] + engine.held_by(fence)
        outcome.add(engine.begin(fence, inside, notify=fence.uid in notify))
    return outcome
