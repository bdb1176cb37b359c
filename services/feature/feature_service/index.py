"""The index of one collection: an immutable base, a middle, a small tail, and who is dead.

Versions get slots in the order of the log. The first slots, the base, have a k-d tree over unit
vectors; the next, the middle, another; the last are few and searched one by one. When the tail has
grown, the middle's tree is built anew; when the middle has grown, everything alive moves into new
columns with a new base. Both are built by `Rebuild.run`, in any thread, while changes go on, and
handed in by `Index.install`.

A `Snapshot` shows the collection at one sequence for as long as it is held, whatever happens
meanwhile: it keeps the columns and trees of its time, and versions say themselves when they died.

All methods but `Rebuild.run` and those of `Snapshot` belong to the event loop.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from feature_service.geometry import Mask, unit_vectors
from feature_service.records import Change
from feature_service.slotmap import SlotMap
from feature_service.table import ALIVE, Columns, Properties, Slots

_SMALLEST_CAPACITY, _NEXT_CAPACITY = 64, 1024
"""There may be very many collections, of a few features each; what grows beyond that soon grows much more."""
TAIL = 2048
"""Versions that may be searched one by one: more cost every query, fewer cost rebuilds."""
UNASKED_TAIL = 65_536
"""The same while nobody asks, as in most imports: the first question may take a millisecond more."""
MIDDLE = 16_384
"""Least size of the middle before the base is built anew; half the base where that is more."""
_QUIET_TAIL, _QUIET_SHARE = 64, 16
"""While nothing changes, so few stay in the tail, and so small a share of the base outside of it."""

LEAF = 16
"""Points in a leaf of a tree: with scipy's 10, batches of the nearest 1, 10 and 100 take 5 to 15 % longer."""


class Segment(NamedTuple):
    """A tree, and the slot of each of its points."""

    tree: cKDTree
    slots: Slots

    @property
    def size(self) -> int:
        """Points in the tree."""
        return len(self.slots)


class Snapshot(NamedTuple):
    """A collection at one sequence. Slots from `tail` to `end` are in no segment."""

    columns: Columns
    properties: Properties
    segments: tuple[Segment, ...]
    tail: int
    end: int
    sequence: int

    def alive(self, slots: Slots) -> Mask:
        """Which versions are the current ones at the snapshot's sequence."""
        mask: Mask = self.columns.died.take(slots) > self.sequence
        return mask

    def all_alive(self) -> Slots:
        """The slots of all current versions."""
        return np.flatnonzero(self.columns.died[: self.end] > self.sequence)


class Index:
    """One collection, changing."""

    def __init__(self, sequence: int = 0) -> None:
        self._columns = Columns(_SMALLEST_CAPACITY)
        self._properties = Properties()
        self._slots = SlotMap()
        self._base: Segment | None = None
        self._middle: Segment | None = None
        self._tail = 0
        self._count = 0
        self._alive = 0
        self._rebuild: Rebuild | None = None
        self._asked = False  # since the last rebuild began
        self._sequence = sequence

    def __len__(self) -> int:
        return self._alive

    def apply(self, changes: Sequence[Change], through: int) -> list[tuple[int | None, int | None]]:
        """Take in puts and removals, in log order; answers the slots of the versions before and after each.

        `through` is the sequence up to which the collection is then known.
        """
        puts = [c for c in changes if c.item is not None]
        slot, end = self._count, self._count + len(puts)
        self._write(puts, slot, end)
        columns, slots = self._columns, self._slots
        died, journal = columns.died, self._rebuild.deaths if self._rebuild else None
        answer: list[tuple[int | None, int | None]] = []
        for change in changes:
            if change.item is None:
                after, before = None, slots.pop(change.id)
            else:
                after, before = slot, slots.put(change.id, slot)
                slot += 1
                self._alive += 1
            if before is not None:
                self._alive -= 1
                died[before] = change.sequence
                if journal is not None:
                    journal.append(before)
            answer.append((before, after))
        self._count, self._sequence = end, through
        return answer

    def slot(self, feature_id: str) -> int | None:
        """The slot of a feature's current version."""
        return self._slots.get(feature_id)

    @property
    def columns(self) -> Columns:
        """Where the current slots are to be read; another object after each `install`."""
        return self._columns

    def snapshot(self) -> Snapshot:
        """The collection now."""
        self._asked = True
        return self._shown()

    def _shown(self) -> Snapshot:
        segments = tuple(s for s in (self._base, self._middle) if s is not None and s.size)
        return Snapshot(self._columns, self._properties, segments, self._tail, self._count, self._sequence)

    def known_through(self, sequence: int) -> None:
        """Nothing changed up to this sequence."""
        self._sequence = sequence

    def due(self, *, quiet: bool = False) -> "Rebuild | None":
        """A rebuild to run now, if one is due and none is on its way; `quiet`: there is time for more of them."""
        everything = None if self._rebuild is not None else self._due(quiet=quiet)
        return None if everything is None else self.begin(everything=everything)

    @property
    def settled(self) -> bool:
        """Whether no rebuild is on its way, nor will be due before something changes."""
        return self._rebuild is None and self._due(quiet=True) is None

    def _due(self, *, quiet: bool) -> bool | None:
        """Whether a rebuild is to be of everything; None where none is due."""
        middle = self._middle.size if self._middle else 0
        tail, share = max(TAIL if self._asked else UNASKED_TAIL, middle // 16), 2
        if quiet:
            tail, share = _QUIET_TAIL, _QUIET_SHARE
        base = self._base.size if self._base else 0
        outside = self._count - base
        everything = outside > max(tail if quiet else MIDDLE, base // share)
        return everything if self._count - self._tail > tail or (quiet and everything) else None

    @property
    def rebuilding(self) -> bool:
        """Whether a rebuild is on its way."""
        return self._rebuild is not None

    def begin(self, *, everything: bool) -> "Rebuild":
        """A rebuild of the base, or of the middle alone. One at a time."""
        base = self._base.size if self._base else 0
        self._asked = False
        self._rebuild = Rebuild(self._shown(), 0 if everything else base, everything)
        return self._rebuild

    def install(self, rebuild: "Rebuild") -> None:
        """Go on with what a finished rebuild has built."""
        self._rebuild = None
        if not rebuild.everything:
            self._middle, self._tail = rebuild.segment, rebuild.count
            return
        rebuild.catch_up(*self.progress(rebuild))
        start = rebuild.segment.size
        self._columns, self._properties, self._slots = rebuild.columns, rebuild.properties, rebuild.slots
        self._base, self._middle = rebuild.segment, None
        self._tail, self._count = start, start + self._count - rebuild.count

    def give_up(self) -> None:
        """Go on without the rebuild that is on its way, if one is: another one may begin."""
        self._rebuild = None

    def progress(self, rebuild: "Rebuild") -> "Progress":
        """What has happened since a rebuild began, as far as of now."""
        return Progress(self._columns, self._count, len(rebuild.deaths))

    def _write(self, puts: Sequence[Change], start: int, end: int) -> None:
        if not puts:
            return
        if end > self._columns.capacity:
            self._columns = _grown(self._columns, start, end)
        columns, here = self._columns, slice(start, end)
        _, ids, sequences, times, items, latitudes, longitudes, _ = zip(*puts, strict=True)
        columns.latitudes[here] = latitudes
        columns.longitudes[here] = longitudes
        columns.vectors[here] = unit_vectors(columns.latitudes[here], columns.longitudes[here])
        columns.born[here] = sequences
        columns.died[here] = ALIVE
        columns.times[here] = times
        columns.items[here] = items
        columns.ids[here] = ids


class Progress(NamedTuple):
    """Up to where a rebuild is to catch up: slots of these columns, and deaths."""

    columns: Columns
    end: int
    deaths: int


class Rebuild:
    """What `run` builds from a snapshot, while changes go on; `catch_up` takes in what they were."""

    def __init__(self, snapshot: Snapshot, start: int, everything: bool) -> None:
        self.everything = everything
        self.count = snapshot.end
        self.deaths: list[int] = []
        self._taken, self._told = snapshot.end, 0
        self._snapshot, self._start = snapshot, start
        self.segment: Segment
        self.columns: Columns
        self.properties: Properties
        self.places: Slots
        self.slots: SlotMap

    def run(self) -> None:
        """Build. In any thread; lets others run at least every few milliseconds."""
        columns, count = self._snapshot.columns, self.count
        alive = self._start + np.flatnonzero(columns.died[self._start : count] > self._snapshot.sequence)
        if not self.everything:
            self.segment = Segment(cKDTree(columns.vectors[alive], LEAF), alive)
            return
        # What is near is asked for together: it lies together, and so does the tree's data.
        alive = alive[cKDTree(columns.vectors[alive], LEAF).indices]
        # A column of objects takes memory for all of its room.
        capacity = max(_SMALLEST_CAPACITY, 2 * len(alive) + 4 * min(len(alive), MIDDLE))
        self.columns = Columns(capacity)
        columns.copy_into(self.columns, alive, 0)
        # What died since is told by `deaths`, with the rest of what happened since.
        self.columns.died[: len(alive)] = ALIVE
        self.properties = self._snapshot.properties.moved(alive, capacity)
        self.places = np.empty(count, np.intp)
        self.places[alive] = np.arange(len(alive))
        self.slots = SlotMap()
        ids = self.columns.ids
        for begin in range(0, len(alive), 4096):
            self.slots.put_all(
                zip(ids[begin : begin + 4096].tolist()[: len(alive) - begin], range(begin, len(alive)), strict=False)
            )
        self.segment = Segment(cKDTree(self.columns.vectors[: len(alive)], LEAF), np.arange(len(alive)))

    def behind(self, progress: Progress) -> int:
        """How many changes `catch_up` has not taken in yet."""
        return progress.end - self._taken + progress.deaths - self._told if self.everything else 0

    def catch_up(self, columns: Columns, end: int, deaths: int) -> None:
        """Take in what has happened up to here. After `run`; in any thread, one at a time.

        A version that dies while this copies it is left out of the slots; its death comes with the next.
        """
        begin, shift = self._taken, self.segment.size - self.count
        if end + shift > self.columns.capacity:
            self.columns = _grown(self.columns, begin + shift, end + shift)
        for slot in self.deaths[self._told : deaths]:
            if slot < begin:
                place = int(self.places[slot]) if slot < self.count else slot + shift
                self.columns.died[place] = columns.died[slot]
                if self.slots.get(columns.ids[slot]) == place:
                    self.slots.pop(columns.ids[slot])
        columns.copy_into(self.columns, np.arange(begin, end), begin + shift)
        for place in (begin + shift + np.flatnonzero(self.columns.died[begin + shift : end + shift] == ALIVE)).tolist():
            self.slots.put(self.columns.ids[place], place)
        self._taken, self._told = end, deaths


def _grown(columns: Columns, count: int, needed: int) -> Columns:
    # Copying holds the loop up, and so should be rare.
    grown = Columns(max(4 * columns.capacity, _NEXT_CAPACITY, needed))
    columns.copy_into(grown, np.arange(count), 0)
    return grown
