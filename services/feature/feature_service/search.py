"""Questions to a snapshot, in any thread.

Guarantees: every answer equals what comparing all current versions would give: nearest first, ties
(to the micrometre) by id; without an origin, by id. Ids compare by code point.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from feature_service.areas import Area
from feature_service.filters import Filter
from feature_service.geometry import (
    Floats,
    Ints,
    Mask,
    Vector,
    bound,
    chord,
    metres,
    metres_of,
    squared_chords,
    unit_vectors,
)
from feature_service.index import Snapshot
from feature_service.slices import Sliced, tested, whole
from feature_service.table import Slots

_FEW = 8
"""A tree pays where an answer is at most this fraction of its points; otherwise all are compared."""
_SMALL = 2000
"""Versions that may be looked at one by one on the event loop, with an area of at most `_SMALL_EDGES`."""
_SMALL_EDGES = 100
_FIRST_IN_AREA, _FIRST_FILTERED = 512, 64
"""Of a long look: a polygon of 4 MiB takes 12 µs a version, 32 filters of properties never asked for 60 µs and more."""
_SLACK = 1 - 1e-13
_NO_DISTANCES: Floats = np.empty(0)


class After(NamedTuple):
    """Where a list goes on: strictly after this distance (None in lists by id) and id, among what
    has not changed since `sequence`."""

    sequence: int
    distance_m: float | None
    id: str


class Found(NamedTuple):
    """Slots in the order of the list, and their distances in metres; without an origin there are none."""

    slots: Slots
    distances: Floats

    def __len__(self) -> int:
        return len(self.slots)

    def first(self, limit: int | None) -> "Found":
        """At most so many."""
        return Found(self.slots[:limit], self.distances[:limit])


class Part(NamedTuple):
    """A part of an answer; `last`: nothing comes after it."""

    found: Found
    last: bool


class Question(NamedTuple):
    """What is asked. `reach` bounds the squared chord from the origin; `limit` None: everything."""

    origin: Vector | None
    area: Area | None = None
    filters: Sequence[Filter] = ()
    limit: int | None = None
    reach: float = math.inf
    after: After | None = None


def search(snapshot: Snapshot, question: Question) -> Found:
    """The answer, however long it takes."""
    return whole(_search(snapshot, question))


def _search(snapshot: Snapshot, q: Question) -> Sliced[Found]:
    if q.origin is None or q.area is not None or q.limit is None or q.after is not None:
        return (yield from _among(snapshot, q, _candidates(snapshot, q)))
    found = yield from _by_trees(snapshot, q, q.origin, q.limit, snapshot.end // _FEW)
    if found is None:
        found = yield from _among(snapshot, q, _visible(snapshot, q, snapshot.all_alive()))
    return found


def search_quickly(snapshot: Snapshot, question: Question) -> Found | None:
    """The answer, where it takes less time than handing the question to another thread; elsewhere None."""
    q = question
    if snapshot.end <= _SMALL and not q.filters and (q.area is None or q.area.edges <= _SMALL_EDGES):
        return search(snapshot, q)
    if q.origin is None or q.area is not None or q.filters or q.after or q.limit is None or q.limit > 1000:
        return None
    if (q.limit + 1) * _FEW >= snapshot.end:
        return search(snapshot, q)
    # More looks than two are needed where many features are equally far, all in one place for example.
    return whole(_by_trees(snapshot, q, q.origin, q.limit, 4 * (q.limit + 1)))


def search_in_parts(snapshot: Snapshot, question: Question, size: int) -> Iterator[Part | None]:
    """The same answer, its nearest first in parts of which each is found without putting the others in order.

    The first has about `size`, the others more and more. Lists by id come in one, and so does what the trees
    find. Each part takes milliseconds, so `next` is for another thread; None in the place of a part says that
    it takes longer, and that others may go first.
    """
    q = question
    by_trees = q.area is None and q.after is None and q.limit is not None and q.limit * _FEW < snapshot.end
    if q.origin is None or by_trees:
        yield Part((yield from _search(snapshot, q)), last=True)
        return
    slots, squared = yield from _reached(snapshot, q, q.origin, _candidates(snapshot, q))
    left = len(slots) if q.limit is None else min(q.limit, len(slots))
    while len(slots) > size:
        near = squared < np.partition(squared, size)[size]
        distances = metres(np.sqrt(squared[near]))
        # What is told at the same distance as the farthest of these may have twins farther out, of smaller id.
        within = near.copy()
        within[near] = certain = distances < distances.max(initial=0.0)
        size *= 4
        if not certain.any():
            continue
        found = _by_distance(snapshot, slots[within], distances[certain]).first(left)
        left -= len(found)
        yield Part(found, last=not left)
        if not left:
            return
        slots, squared = slots[~within], squared[~within]
    yield Part(_by_distance(snapshot, slots, metres(np.sqrt(squared))).first(left), last=True)


def _by_trees(s: Snapshot, q: Question, origin: Vector, limit: int, most: int) -> Sliced[Found | None]:
    """Ask the trees for a few more than needed until what they have certainly shown is enough.

    None where that takes more than `most` of each tree, or as many as a look at all would pay for.
    """
    reach = math.sqrt(q.reach) * (2 - _SLACK)
    want = limit + 1
    while want * _FEW < s.end and want <= most:
        parts, horizon = [] if s.tail == s.end else [np.arange(s.tail, s.end)], math.inf
        told: Floats = _NO_DISTANCES
        for tree, slots in s.segments:
            chords, places = tree.query(origin, want, distance_upper_bound=reach)
            if chords[-1] == math.inf:
                places = places[: np.searchsorted(chords, math.inf)]
            else:
                # Beyond the last one shown there may be more, perhaps at the same distance.
                horizon = min(horizon, chords[-1])
            parts.append(slots.take(places))
            told = chords[: len(places)]
        alone = len(parts) == 1  # then there is nothing that lies beyond the horizon
        found = _visible(s, q, parts[0] if alone else np.concatenate(parts))
        all_stay = len(found) == len(told) and reach == math.inf and not q.filters
        if alone and all_stay and _TREES_TELL_OUR_CHORDS:
            distances = metres(told)
        else:
            found, squared = yield from _within(s, q, origin, found, math.inf if alone else horizon)
            distances = metres(np.sqrt(squared))
        ordered = _by_distance(s, found, distances)
        certain = metres_of(horizon * _SLACK) - 1e-6 if horizon < math.inf else math.inf
        if horizon == math.inf or (len(ordered) >= limit and ordered.distances[limit - 1] < certain):
            return ordered.first(limit)
        want *= 4
    return None


def _trees_tell_our_chords() -> bool:
    """Whether a tree's distances are those of `squared_chords` to the bit: a compiler may have fused its sums."""
    draw = np.random.default_rng(1)
    vectors = unit_vectors(draw.integers(-900, 900, 1000) * 10**6, draw.integers(-1800, 1800, 1000) * 10**6)
    chords, places = cKDTree(vectors).query(vectors[0], len(vectors))
    (x, y, z) = vectors[0].tolist()
    return np.array_equal(chords, np.sqrt(squared_chords(vectors[places], (x, y, z))))


_TREES_TELL_OUR_CHORDS = _trees_tell_our_chords()


def _visible(s: Snapshot, q: Question, slots: Slots) -> Slots:
    alive = s.alive(slots)
    if np.count_nonzero(alive) < len(alive):
        slots = slots[alive]
    if q.after is not None:
        slots = slots[s.columns.born[slots] <= q.after.sequence]
    return slots


def _within(s: Snapshot, q: Question, origin: Vector, slots: Slots, horizon: float) -> Sliced[tuple[Slots, Floats]]:
    squared = squared_chords(s.columns.vectors[slots], origin)
    limit = min(q.reach, horizon * horizon)
    if limit < math.inf:
        near = squared <= limit
        slots, squared = slots[near], squared[near]
    if q.filters:
        true = yield from _accepted(s, q, slots)
        slots, squared = slots[true], squared[true]
    return slots, squared


def _candidates(s: Snapshot, q: Question) -> Slots:
    """The visible versions that may be in the answer: those in the area's cap."""
    cap = q.area.cap if q.area is not None else None
    if cap is None or cap.chord == math.inf:
        return _visible(s, q, s.all_alive())
    parts = [np.arange(s.tail, s.end)]
    for tree, slots in s.segments:
        if tree.query_ball_point(cap.center, cap.chord, return_length=True) * _FEW > len(slots):
            parts.append(slots)
        else:
            places = tree.query_ball_point(cap.center, cap.chord, return_sorted=False)
            parts.append(slots[np.array(places, np.intp)])
    return _visible(s, q, np.concatenate(parts))


def _inside(s: Snapshot, area: Area, slots: Slots) -> Sliced[Mask]:
    columns = s.columns
    return tested(lambda some: area.contains(columns.latitudes[some], columns.longitudes[some]), slots, _FIRST_IN_AREA)


def _accepted(s: Snapshot, q: Question, slots: Slots) -> Sliced[Mask]:
    return tested(s.properties.acceptor(q.filters, s.columns), slots, _FIRST_FILTERED)


def _among(s: Snapshot, q: Question, slots: Slots) -> Sliced[Found]:
    """The answer out of these visible versions."""
    if q.origin is not None:
        slots, squared = yield from _reached(s, q, q.origin, slots)
        return _by_distance(s, slots, metres(np.sqrt(squared))).first(q.limit)
    if q.area is not None:
        slots = slots[(yield from _inside(s, q.area, slots))]
    if q.filters:
        slots = slots[(yield from _accepted(s, q, slots))]
    return _by_id(s, q, slots)


def _reached(s: Snapshot, q: Question, origin: Vector, slots: Slots) -> Sliced[tuple[Slots, Floats]]:
    """Which of these visible versions the answer is taken from, in no order, with their squared chords."""
    if q.area is not None:
        slots = slots[(yield from _inside(s, q.area, slots))]
    vectors = s.columns.vectors
    # Without an area slots are in order: as many as there are, they are all of them.
    everything = q.area is None and len(slots) == s.end
    squared = squared_chords(vectors[: s.end] if everything else vectors[slots], origin)
    if q.reach < math.inf:
        near = squared <= q.reach
        slots, squared = slots[near], squared[near]
    if q.after is not None and q.after.distance_m is not None:
        near = squared >= (chord(max(q.after.distance_m - 2e-6, 0.0)) * _SLACK) ** 2
        slots, squared = slots[near], squared[near]
    if q.filters:
        true = yield from _accepted(s, q, slots)
        slots, squared = slots[true], squared[true]
    if q.after is not None and q.after.distance_m is not None:
        later = _is_after(s, q.after.distance_m, q.after.id, slots, metres(np.sqrt(squared)))
        slots, squared = slots[later], squared[later]
    if q.limit is not None and q.limit < len(slots):
        last = np.partition(squared, q.limit - 1)[q.limit - 1]
        # Up to the last one's distance as it is told: what ties with it competes by id.
        near = squared <= max(last, bound(metres_of(math.sqrt(last)) + 1e-6)) * (2 - _SLACK)
        slots, squared = slots[near], squared[near]
    return slots, squared


def _is_after(s: Snapshot, distance_m: float, feature_id: str, slots: Slots, distances: Floats) -> Mask:
    later: Mask = distances > distance_m
    for place in np.flatnonzero(distances == distance_m).tolist():
        later[place] = s.columns.ids[slots[place]] > feature_id
    return later


def _by_distance(s: Snapshot, slots: Slots, distances: Floats) -> Found:
    if np.count_nonzero(distances[1:] > distances[:-1]) == len(distances) - 1:  # as a tree tells them
        return Found(slots, distances)
    order = np.argsort(distances)
    distances, slots = distances[order], slots[order]
    same = distances[1:] == distances[:-1]
    if same.any():
        slots = slots.copy()
        for begin, end in _runs(same):
            slots[begin:end] = _in_order_of_id(s, slots[begin:end])
    return Found(slots, distances)


def _by_id(s: Snapshot, q: Question, slots: Slots) -> Found:
    ids = s.columns.ids
    if q.after is not None:
        after = q.after.id
        slots = slots[np.fromiter((key > after for key in ids[slots]), bool, len(slots))]
    return Found(_in_order_of_id(s, slots)[: q.limit], _NO_DISTANCES)


def _in_order_of_id(s: Snapshot, slots: Slots) -> Slots:
    ids = s.columns.ids
    if len(slots) <= 1024:
        return np.array(sorted(slots.tolist(), key=ids.__getitem__), np.intp)
    # Sorting strings would hold everything up; sorting bytes of fixed width lets others run. They
    # are filled in step by step for the same reason.
    parts = [slots[begin : begin + 4096] for begin in range(0, len(slots), 4096)]
    width = max(len(key.encode()) for part in parts for key in ids[part])
    keys = np.empty(len(slots), f"S{width}")
    for n, part in enumerate(parts):
        keys[n * 4096 : n * 4096 + len(part)] = [key.encode() for key in ids[part]]
    ordered: Slots = slots[np.argsort(keys)]
    return ordered


def _runs(same: Mask) -> list[tuple[int, int]]:
    """The ranges of equal neighbours: `same[i]` says that i and i + 1 are equal."""
    edges: Ints = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
    return [(begin, end + 1) for begin, end in edges.reshape(-1, 2).tolist()]
