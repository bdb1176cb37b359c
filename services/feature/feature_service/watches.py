"""Watches: what each one must hear of a change.

Guarantees: a watch that is live is offered every change after `live_after`, in log order; whether a
feature was in its set is read from the feature as it was, so a live watch holds no set. What waits
for a slow reader is bounded: beyond it the watch turns from live to behind, at a page's end, with
a snapshot of that moment, from which the stream rebuilds the set and goes on by reading the log.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.struct_pb2 import Struct
from signpost.errors import PositionError

from feature_service.areas import Area
from feature_service.cover import Cover
from feature_service.filters import Filter, property_of
from feature_service.geometry import WHOLE, Vector
from feature_service.index import Snapshot
from feature_service.items import to_feature, to_item
from feature_service.metrics import FALLEN_BEHIND, WATCHES
from feature_service.projection import Applied, Projection, Version
from feature_service.records import Kind
from protos.feature.v1 import feature_pb2 as pb

MOST_EVENTS = 10_000
MOST_BYTES = 1 << 20


class Event(NamedTuple):
    """One event of a watch, ready to be joined into a frame."""

    kind: pb.EventKind
    item: bytes
    sequence: int
    time_ns: int
    reason: pb.LeftReason = pb.LEFT_REASON_UNSPECIFIED


class Behind(NamedTuple):
    """Where a watch stopped being live: after this sequence, when its set was in this snapshot."""

    after: int
    snapshot: Snapshot | None


class Selection:
    """An area and filters: which features are in the set."""

    def __init__(self, collection: str, area: Area | None, filters: Sequence[Filter]) -> None:
        self.collection, self.area, self.filters = collection, area, tuple(filters)

    def in_area(self, latitude: int, longitude: int, vector: Vector) -> bool:
        """Whether a place is in the area."""
        return self.area is None or self.area.contains_point(latitude, longitude, vector)

    def in_filters(self, properties: Struct) -> bool:
        """Whether every filter is true."""
        return all(holds(property_of(properties, path)) for path, holds in self.filters)


class _Seen:
    """A version, its properties parsed once however many watches ask."""

    __slots__ = ("_properties", "version")

    def __init__(self, version: Version) -> None:
        self.version = version
        self._properties: Struct | None = None

    def place(self, selection: Selection) -> bool:
        version = self.version
        return selection.in_area(version.latitude, version.longitude, version.vector)

    def matches(self, selection: Selection) -> bool:
        if not selection.filters:
            return True
        if self._properties is None:
            self._properties = to_feature(self.version.item).properties
        return selection.in_filters(self._properties)


class Watch:
    """One watch, not live until `go_live`. `wake` is set when there is something to do."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.wake = asyncio.Event()
        self.behind: Behind | None = Behind(0, None)
        self.broken: PositionError | None = None
        self.draining = False
        self.live_after = 0
        self._events: list[Event] = []
        self._bytes = 0

    def go_live(self, after: int) -> None:
        """Be offered what comes after a sequence."""
        self.take()
        self.behind, self.live_after = None, after

    def take(self) -> list[Event]:
        """What waits; it waits no more."""
        events, self._events, self._bytes = self._events, [], 0
        return events

    def offer(self, change: Applied, before: _Seen | None, after: _Seen | None) -> bool:
        """Add the change's event, if it is one; False where there is no more room."""
        if self.behind is not None or change.sequence <= self.live_after:
            return True
        selection = self.selection
        was = before is not None and before.place(selection) and before.matches(selection)
        placed = after is not None and after.place(selection)
        if after is not None and placed and after.matches(selection):
            kind = pb.EVENT_KIND_MOVED if was else pb.EVENT_KIND_ENTERED
            self._events.append(Event(kind, after.version.item, change.sequence, change.time_ns))
        elif was:
            self._events.append(left(change.kind, change.id, placed, change.sequence, change.time_ns))
        else:
            return True
        self._bytes += len(self._events[-1].item)
        self.wake.set()
        return len(self._events) <= MOST_EVENTS and self._bytes <= MOST_BYTES

    def fall_behind(self, behind: Behind) -> None:
        """Not live any more: what came after `behind.after` will be read from the log.

        A watch that read the log ahead of the projection has told more than that.
        """
        self.behind = behind = behind._replace(after=max(behind.after, self.live_after))
        self._events = [event for event in self._events if event.sequence <= behind.after]
        self.wake.set()

    def break_off(self, error: PositionError) -> None:
        """The log is another one: start over."""
        self.take()
        self.broken = error
        self.wake.set()


def left(kind: Kind, feature_id: str, in_area: bool, sequence: int, time_ns: int) -> Event:
    """A feature is not in the set after a change of this kind, which left it in the area or not."""
    match kind:
        case Kind.DELETED:
            reason = pb.LEFT_REASON_DELETED
        case Kind.EXPIRED:
            reason = pb.LEFT_REASON_EXPIRED
        case _:
            reason = pb.LEFT_REASON_FILTER if in_area else pb.LEFT_REASON_MOVED
    item = to_item(pb.Feature(id=feature_id).SerializeToString())
    return Event(pb.EVENT_KIND_LEFT, item, sequence, time_ns, reason)


class Watches:
    """All watches of a process, found by where a feature was and is. A projection's listener."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._covers: dict[str, Cover[Watch]] = {}
        self._through = projection.applied
        self._draining = False
        projection.listen(self)

    def __len__(self) -> int:
        return sum(map(len, self._covers.values()))

    def add(self, watch: Watch) -> None:
        """Offer changes to a watch from now on."""
        WATCHES.inc()
        watch.draining = self._draining
        selection = watch.selection
        spans = (WHOLE,) if selection.area is None else selection.area.spans
        self._covers.setdefault(selection.collection, Cover()).add(watch, spans)

    def remove(self, watch: Watch) -> None:
        """Offer it nothing more."""
        WATCHES.dec()
        cover = self._covers[watch.selection.collection]
        cover.remove(watch)
        if not len(cover):
            del self._covers[watch.selection.collection]

    def drain(self) -> None:
        """Tell all watches, and those to come, to move to another server."""
        self._draining = True
        for watch in self._all():
            watch.draining = True
            watch.wake.set()

    def wants(self, collection: str) -> bool:
        """Listener: only what somebody watches."""
        return collection in self._covers

    def applied(self, changes: Sequence[Applied], through: int, position: bytes) -> None:
        """Listener: offer each change to the watches that it may concern."""
        full: dict[Watch, None] = {}
        for change in changes:
            cover = self._covers.get(change.collection)
            if cover is None:
                continue
            before = None if change.before is None else _Seen(change.before)
            after = None if change.after is None else _Seen(change.after)
            concerned: dict[Watch, None] = {}
            for seen in (before, after):
                if seen is not None:
                    concerned |= dict.fromkeys(cover.at(seen.version.latitude, seen.version.longitude))
            for watch in concerned:
                if not watch.offer(change, before, after):
                    full[watch] = None
        FALLEN_BEHIND.inc(len(full))
        for watch in full:
            snapshot = self._projection.snapshot(watch.selection.collection)
            watch.fall_behind(Behind(self._through, snapshot))
        self._through = through

    def reset(self, error: PositionError) -> None:
        """Listener: every watch starts over."""
        self._through = 0
        for watch in self._all():
            watch.break_off(error)

    def _all(self) -> list[Watch]:
        return [watch for cover in self._covers.values() for watch in cover]
