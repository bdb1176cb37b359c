"""Watches: what each one must hear of a change.

Guarantees: a watch that is live is offered every change after `live_after`, in log order; whether a
feature was in its set is read from the feature as it was, so a live watch holds no set. What waits
for a slow reader is bounded: beyond it the watch turns from live to behind, at a page's end, with
a snapshot of that moment, from which the stream rebuilds the set and goes on by reading the log.

Watches of one selection are told together, by their lane. Telling a page's changes to very many lanes
takes several turns of the event loop; the projection waits for the end of it before it applies more.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from time import perf_counter

from signpost.errors import PositionError

from feature_service.cover import Cover
from feature_service.geometry import WHOLE
from feature_service.index import Snapshot
from feature_service.lanes import Lane
from feature_service.metrics import FALLEN_BEHIND, WATCHES
from feature_service.outcomes import Outcomes, Part
from feature_service.projection import Applied, Projection
from feature_service.rounds import Rounds, let_others
from feature_service.selections import Key, Selection
from feature_service.watch import Behind, Watch

MOST_EVENTS = 10_000
MOST_BYTES = 1 << 20
_TURN_S = 0.003
"""Lanes are told of changes for so long, or one step longer, before others get their turn."""
_CROWDED = 4
"""Where a lane has more than this part of what may wait, and it is not shown yet, no more is applied: who is
quick would be taken for slow."""


class Watches:
    """All watches of a process, found by where a feature was and is. A projection's listener."""

    def __init__(self, projection: Projection) -> None:
        self.through, self.position = projection.applied, projection.position
        self._projection = projection
        self._watches: dict[Watch, None] = {}
        self._lanes: dict[Key, Lane] = {}
        self._covers: dict[str, Cover[Lane]] = {}
        self._unshown: dict[Lane, None] = {}
        self._ahead: dict[Watch, None] = {}  # those that know more than was told
        self._told = self.through  # to all lanes; `through` where a part of a page has been told
        self._telling: Iterator[None] | None = None
        self._snapshots: dict[str, Snapshot | None] = {}  # as they were when what is being told was applied
        self._draining = False
        self._rounds = Rounds(self._show)
        projection.listen(self)

    def __len__(self) -> int:
        return len(self._watches)

    def open(self, selection: Selection) -> Watch:
        """A new watch; `close` it."""
        WATCHES.inc()
        watch = Watch(self, selection)
        watch.draining = self._draining
        self._watches[watch] = None
        return watch

    def close(self, watch: Watch) -> None:
        """Offer it nothing more."""
        WATCHES.dec()
        self.leave(watch)
        del self._watches[watch]

    def enter(self, watch: Watch, after: int) -> None:
        """Offer a watch what comes after a sequence."""
        self.leave(watch)
        selection = watch.selection
        lane = self._lanes.get(selection.key)
        if lane is None:
            lane = self._lanes[selection.key] = Lane(selection)
            spans = (WHOLE,) if selection.area is None else selection.area.spans
            self._covers.setdefault(selection.collection, Cover()).add(lane, spans)
        watch.enter(lane, after)
        if after > self._told:
            self._ahead[watch] = None

    def leave(self, watch: Watch, behind: Behind | None = None) -> None:
        """A watch is not live any more."""
        lane = watch.lane
        self._ahead.pop(watch, None)
        watch.leave(behind)
        if lane is not None and not lane.busy and not lane.waiting:
            self._unshown.pop(lane, None)
            selection = lane.selection
            del self._lanes[selection.key]
            cover = self._covers[selection.collection]
            cover.remove(lane)
            if not len(cover):
                del self._covers[selection.collection]

    def drain(self) -> None:
        """Tell all watches, and those to come, to move to another server."""
        self._draining = True
        for watch in self._watches:
            watch.draining = True
        self._rounds.wake(self._watches)

    def wants(self, collection: str) -> bool:
        """Listener: only what somebody watches."""
        return collection in self._covers

    def applied(self, changes: Sequence[Applied], through: int, position: bytes) -> None:
        """Listener: offer each change to the watches that it may concern; what takes long, in `settle`."""
        if self._telling is not None:
            for _ in self._telling:  # following was cut short, and has begun anew
                pass
            self._snapshots = {}
        self._telling = self._tell(changes, through, position)
        if not self._go_on():
            concerned = {change.collection for change in changes} & self._covers.keys()
            self._snapshots = {each: self._projection.snapshot(each) for each in concerned}

    async def settle(self) -> None:
        """Listener: return once all have been offered what was applied, and have room for more."""
        while not self._go_on():
            await let_others()
        while any(map(_is_crowded, self._unshown)):
            await self._rounds.begun()

    def reset(self, error: PositionError) -> None:
        """Listener: every watch starts over."""
        self.through, self.position = 0, b""
        self._told, self._telling, self._snapshots = 0, None, {}
        for watch in self._watches:
            watch.break_off(error)
        self._rounds.wake(self._watches)

    def _go_on(self) -> bool:
        """Tell for a while; whether it is done."""
        telling, until = self._telling, perf_counter() + _TURN_S
        if telling is not None:
            for _ in telling:
                if perf_counter() > until:
                    break
            else:
                self._telling, self._snapshots = None, {}
            if self._unshown:
                self._rounds.due()
        return self._telling is None

    def _tell(self, changes: Sequence[Applied], through: int, position: bytes) -> Iterator[None]:
        """Offer changes, in steps of about a millisecond."""
        begin = 0
        # A watch that knows a part of these is told from there on.
        for after in sorted({watch.live_after for watch in self._ahead if watch.live_after < through}):
            end = next((n for n in range(begin, len(changes)) if changes[n].sequence > after), len(changes))
            yield from self._tell_part(changes[begin:end], after, b"")
            begin = end
        yield from self._tell_part(changes[begin:], through, position)
        self.through, self.position = through, position

    def _tell_part(self, changes: Sequence[Applied], through: int, position: bytes) -> Iterator[None]:
        collection_of = attrgetter("collection")
        for collection, those in groupby(sorted(changes, key=collection_of), collection_of):
            cover = self._covers.get(collection)
            if cover is not None:
                outcomes = Outcomes(list(those), through, position)
                concerned: dict[Lane, list[Sequence[int]]] = {}
                for lanes, points in cover.among(outcomes.points()):
                    for lane in lanes:
                        concerned.setdefault(lane, []).append(points)
                for lane, groups in concerned.items():
                    parts = outcomes.parts((yield from outcomes.codes(lane.selection, groups)))
                    if parts:
                        self._add(lane, parts, through)
                    yield
        self._told = through
        for watch in [watch for watch in self._ahead if watch.live_after <= through]:
            del self._ahead[watch]

    def _add(self, lane: Lane, parts: Sequence[Part], through: int) -> None:
        for part in parts:
            lane.add(part)
        self._unshown[lane] = None
        for watch in self._ahead:
            if watch.lane is lane and watch.live_after >= through:
                watch.skip(lane)
        full = [watch for watch in lane.busy if _is_over(*watch.unread(lane), 1)]
        FALLEN_BEHIND.inc(len(full))
        if full:
            collection = lane.selection.collection
            if collection not in self._snapshots:
                self._snapshots[collection] = self._projection.snapshot(collection)
            behind = Behind(self._told, self._snapshots[collection])
            for watch in full:
                self.leave(watch, behind)

    def _show(self) -> Iterable[Watch]:
        """A round begins: what the lanes have may be taken."""
        waiting: list[Watch] = []
        for lane in self._unshown:
            lane.show()
            waiting += lane.waiting
        self._unshown.clear()
        return waiting


def _is_crowded(lane: Lane) -> bool:
    return _is_over(lane.end.count - lane.shown.count, lane.end.bytes - lane.shown.bytes, _CROWDED)


def _is_over(events: int, size: int, parts: int) -> bool:
    """Whether this is more than one of so many parts of what may wait."""
    return events > MOST_EVENTS // parts or size > MOST_BYTES // parts
