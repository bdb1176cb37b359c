"""What the fences make of the changes: pure, so that a replay gives the same events again.

Guarantees: `apply` with the same changes after the same state gives the same events with the same
message ids; a change that a fence has seen already (its member's sequence, or the fence's start) is no event
of it again. So after a crash the relay may replay from any place that it had reached.
"""

import dataclasses
import heapq
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import cast

import numpy as np
from google.protobuf.struct_pb2 import Struct

from feature_service.fences.index import FenceIndex
from feature_service.fences.model import Change, Dwell, Event, Fence, Gone, Key, Member
from feature_service.filters import property_of
from feature_service.geometry import Vector, unit_vector
from protos.feature.v1.feature_pb2 import Feature, FenceEvent, LeftReason


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of some changes: what to publish, and the memberships to keep."""

    events: list[Event] = dataclasses.field(default_factory=list)
    members: dict[tuple[str, Key], Member | Gone] = dataclasses.field(default_factory=dict)

    def add(self, later: "Outcome") -> None:
        """What came of later changes too."""
        self.events.extend(later.events)
        self.members.update(later.members)


class _Place:
    """A feature as a change leaves it; what few fences ask for is decoded when the first one does."""

    def __init__(self, change: Change) -> None:
        self._change = change

    @cached_property
    def vector(self) -> Vector:
        return unit_vector(self._change.latitude, self._change.longitude)

    @cached_property
    def properties(self) -> Struct:
        return Feature.FromString(self._change.feature or b"").properties

    def is_in_area(self, fence: Fence) -> bool:
        return fence.area.contains_point(self._change.latitude, self._change.longitude, self.vector)

    def is_held_by(self, fence: Fence) -> bool:
        return self.is_in_area(fence) and all(f.holds(property_of(self.properties, f.property)) for f in fence.filters)


_SPARE_DWELLS = 1024
_NO_FENCES: Sequence[Fence] = ()


class FenceEngine:
    """Fences and what is inside them."""

    def __init__(self) -> None:
        self.fences: dict[str, Fence] = {}
        self._by_collection: dict[str, FenceIndex] = {}
        self._members: dict[str, dict[Key, Member]] = {}  # by fence uid
        self._fences_of: dict[Key, set[str]] = {}  # uids of the fences that a feature is inside of
        self._left: dict[tuple[str, Key], int] = {}  # up to where a replay need not look at what has left
        self._dwells: list[tuple[int, str, Key, int]] = []  # (when, uid, key, entered); may be outdated
        self._most_dwells = _SPARE_DWELLS

    def put(self, fence: Fence) -> None:
        """Put a fence in force; one of the same uid keeps its members."""
        before = self.fences.get(fence.uid)
        if before is not None and before.collection != fence.collection:
            self._by_collection[before.collection].remove(fence.uid)
        self.fences[fence.uid] = fence
        self._by_collection.setdefault(fence.collection, FenceIndex()).put(fence)
        self._members.setdefault(fence.uid, {})
        if before is not None and before.dwell_ns != fence.dwell_ns:
            for member in self._members[fence.uid].values():
                self._plan_dwell(fence, member)

    def remove(self, uid: str, *, notify: bool) -> Outcome:
        """Take a fence out of force; with `notify`, everything inside leaves it."""
        fence = self.fences.pop(uid)
        self._by_collection[fence.collection].remove(uid)
        outcome = Outcome()
        for key in list(self._members[uid]):
            # Where not all of this is kept, a replay must not let in again what has been dropped.
            member = self._drop(fence, key, outcome, self._members[uid][key].sequence)
            if notify:
                outcome.events.append(_left(fence, member, LeftReason.LEFT_REASON_FENCE_REMOVED))
        del self._members[uid]
        return outcome

    def restore(self, uid: str, member: Member) -> None:
        """Take up a membership that was kept."""
        self._members[uid][member.key] = member
        self._fences_of.setdefault(member.key, set()).add(uid)
        self._plan_dwell(self.fences[uid], member)

    def restore_left(self, uid: str, key: Key, gone: Gone) -> None:
        """Take up that a feature had left: what is replayed up to there is no event again."""
        self._left[uid, key] = gone.sequence

    def forget_left(self, through: int | None = None) -> Outcome:
        """Let go of what had left up to where a replay begins (None: all of it); what to keep instead."""
        gone = [each for each, sequence in self._left.items() if through is None or sequence <= through]
        for each in gone:
            del self._left[each]
        return Outcome(members=dict.fromkeys(gone, Gone(0)))

    def take_over(self, other: "FenceEngine") -> None:
        """Take up all fences of another engine, with what is inside."""
        for uid, fence in other.fences.items():
            self.put(fence)
            for member in other.members(uid):
                self.restore(uid, member)

    def members(self, uid: str) -> Iterable[Member]:
        """What is inside a fence."""
        return self._members[uid].values()

    def held_by(self, fence: Fence) -> list[Change]:
        """Of what is inside a fence, as it last was, what a new revision of it holds too."""
        held: list[Change] = []
        for m in self._members[fence.uid].values():
            if m.key.collection == fence.collection:
                at = Feature.FromString(m.feature).location
                change = Change(m.key, m.sequence, m.entered_time_ns, m.feature, at.latitude, at.longitude)
                if _Place(change).is_held_by(fence):
                    held.append(change)
        return held

    def begin(self, fence: Fence, inside: Iterable[Change], *, notify: bool) -> Outcome:
        """Start a fence, or a new revision of one, with what is inside at its start.

        With `notify`, what was not inside before has entered. What was inside and is not has left (moved).
        """
        self.put(fence)
        outcome = Outcome()
        now = {change.key: change for change in inside}
        for key in [k for k in self._members[fence.uid] if k not in now]:
            member = self._drop(fence, key, outcome, fence.start)
            _tell(outcome, _left(fence, member, LeftReason.LEFT_REASON_MOVED))
        for key, change in now.items():
            standing = self._members[fence.uid].get(key)
            if standing is None:
                self._enter(fence, change, outcome, notify=notify)
            else:
                # Not the greater one: a restored log uses its sequences again.
                standing.sequence, standing.feature = change.sequence, change.feature or b""
                outcome.members[fence.uid, key] = standing
        return outcome

    def apply(self, changes: Sequence[Change | Dwell]) -> Outcome:
        """What the fences make of changes, in log order."""
        outcome = Outcome()
        near = self._near(changes)
        for at, change in enumerate(changes):
            candidates = near.get(at, _NO_FENCES)
            if not candidates and change.key not in self._fences_of:
                continue  # neither near a fence nor inside one: so are most
            if isinstance(change, Dwell):
                self._apply_dwell(change, outcome)
            else:
                self._apply_change(change, candidates, outcome)
        return outcome

    def _apply_change(self, change: Change, candidates: Sequence[Fence], outcome: Outcome) -> None:
        place = _Place(change)
        holding = {
            f.uid: f
            for f in candidates
            if change.sequence > max(f.start, self._left.get((f.uid, change.key), 0)) and place.is_held_by(f)
        }
        for uid in sorted(self._fences_of.get(change.key, ())):
            fence = self.fences[uid]
            member = self._members[uid][change.key]
            if change.sequence <= max(member.sequence, fence.start):
                holding.pop(uid, None)
            elif holding.pop(uid, None) is None:
                self._drop(fence, change.key, outcome, change.sequence)
                last = change.feature if change.feature is not None else member.feature
                reason = change.gone or _reason(fence, place)
                left = _event(fence, FenceEvent.FENCE_EVENT_LEFT, change)
                if fence.dwell_ns and not member.dwelled and change.time_ns >= _dwells_at(fence, member):
                    # The relay was not there in time to record it (an outage); what it records now comes too late.
                    outcome.events.append(left._replace(kind=FenceEvent.FENCE_EVENT_DWELLED, feature=member.feature))
                _tell(outcome, left._replace(feature=last, reason=reason))
            elif change.feature is not None:
                member.sequence, member.feature = change.sequence, change.feature
                outcome.members[uid, change.key] = member
                _tell(outcome, _event(fence, FenceEvent.FENCE_EVENT_INSIDE, change))
        for fence in holding.values():
            self._enter(fence, change, outcome, notify=True)

    def due_dwells(self, now_ns: int) -> Iterator[tuple[Fence, Member]]:
        """The stays that have lasted for the dwell time and have not been told; each once for each planning."""
        while self._dwells and self._dwells[0][0] <= now_ns:
            planned = heapq.heappop(self._dwells)
            if self._is_awaited(*planned):
                _, uid, key, _ = planned
                yield self.fences[uid], self._members[uid][key]

    def _near(self, changes: Sequence[Change | Dwell]) -> dict[int, list[Fence]]:
        """The fences that may hold what a change puts, by the change's index; one query for each collection."""
        put: dict[str, list[int]] = {}
        for at, change in enumerate(changes):
            if isinstance(change, Change) and change.feature is not None:
                collection = change.key.collection
                if collection in self._by_collection:
                    put.setdefault(collection, []).append(at)
        near: dict[int, list[Fence]] = {}
        for collection, indexes in put.items():
            moved = [cast(Change, changes[at]) for at in indexes]
            latitudes = np.array([change.latitude for change in moved], np.int32)
            longitudes = np.array([change.longitude for change in moved], np.int32)
            for n, fences in self._by_collection[collection].candidates(latitudes, longitudes).items():
                near[indexes[n]] = fences
        return near

    def _apply_dwell(self, dwell: Dwell, outcome: Outcome) -> None:
        fence = self.fences.get(dwell.fence_uid)
        member = self._members.get(dwell.fence_uid, {}).get(dwell.key)
        if fence is None or member is None or member.dwelled or member.entered_sequence != dwell.entered_sequence:
            return
        member.dwelled = True
        outcome.members[fence.uid, dwell.key] = member
        event = Event(fence, FenceEvent.FENCE_EVENT_DWELLED, dwell.key, member.feature, dwell.sequence, dwell.time_ns)
        _tell(outcome, event)

    def _enter(self, fence: Fence, change: Change, outcome: Outcome, *, notify: bool) -> None:
        assert change.feature is not None  # noqa: S101 - only what is there can enter
        member = Member(change.key, change.sequence, change.time_ns, change.sequence, change.feature)
        self._members[fence.uid][change.key] = member
        self._fences_of.setdefault(change.key, set()).add(fence.uid)
        outcome.members[fence.uid, change.key] = member
        self._plan_dwell(fence, member)
        if notify:
            _tell(outcome, _event(fence, FenceEvent.FENCE_EVENT_ENTERED, change))

    def _drop(self, fence: Fence, key: Key, outcome: Outcome, sequence: int) -> Member:
        uids = self._fences_of[key]
        uids.discard(fence.uid)
        if not uids:
            del self._fences_of[key]
        outcome.members[fence.uid, key] = Gone(sequence)
        return self._members[fence.uid].pop(key)

    def _plan_dwell(self, fence: Fence, member: Member) -> None:
        if fence.dwell_ns and not member.dwelled:
            heapq.heappush(self._dwells, (_dwells_at(fence, member), fence.uid, member.key, member.entered_sequence))
            if len(self._dwells) > self._most_dwells:
                # What comes and goes all the time would stand here once for each stay, until each one's time.
                self._dwells = [planned for planned in self._dwells if self._is_awaited(*planned)]
                heapq.heapify(self._dwells)
                self._most_dwells = 2 * len(self._dwells) + _SPARE_DWELLS

    def _is_awaited(self, when: int, uid: str, key: Key, entered: int) -> bool:
        member = self._members.get(uid, {}).get(key)
        if member is None or member.entered_sequence != entered or member.dwelled:
            return False
        # A revision may have another dwell time, or none.
        fence = self.fences[uid]
        return fence.dwell_ns > 0 and when == _dwells_at(fence, member)


def _dwells_at(fence: Fence, member: Member) -> int:
    return member.entered_time_ns + fence.dwell_ns


def _event(fence: Fence, kind: FenceEvent, change: Change) -> Event:
    return Event(
        fence,
        kind,
        change.key,
        change.feature or b"",
        change.sequence,
        change.time_ns,
        traceparent=change.traceparent,
    )


def _left(fence: Fence, member: Member, reason: LeftReason) -> Event:
    """Without a change of the feature: under the sequence of its last one."""
    return Event(
        fence,
        FenceEvent.FENCE_EVENT_LEFT,
        member.key,
        member.feature,
        member.sequence,
        member.entered_time_ns,
        reason,
        is_change=False,
    )


def _tell(outcome: Outcome, event: Event) -> None:
    if event.fence.publishes(event.kind):
        outcome.events.append(event)


def _reason(fence: Fence, place: _Place) -> LeftReason:
    return LeftReason.LEFT_REASON_FILTER if place.is_in_area(fence) else LeftReason.LEFT_REASON_MOVED
