"""NearestFeatures: the nearest k of many origins at once.

Guarantees: each origin's answer is what `search` would give it alone: nearest first, ties (to the
micrometre) by id. The batch is answered by a few calls of the trees; only origins whose answer a tie
or a dead version touches are asked again alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from feature_service.filters import Filter
from feature_service.geometry import Floats, Ints, bound, metres, unit_vectors
from feature_service.index import Segment, Snapshot
from feature_service.search import Found, Question, search, search_quickly
from feature_service.table import Columns, Properties, Slots

_SLACK = 1 - 1e-13
_MORE = 4
_FEW_ORIGINS = 16
_SAMPLE = 1000
_AT_ONCE = 1 << 17
"""Origins times k of a part: all of them took a gigabyte for what no message could hold."""
_FILTERED_K = 64
"""An origin that filters are asked for takes as long as one with so many features to find."""
Ask = Callable[[Snapshot, Question], Found]


class NearestQuery(NamedTuple):
    """Origins as unit vectors, how many features for each, and what may be among them."""

    origins: Floats
    k: int
    reach: float
    filters: Sequence[Filter] = ()

    @classmethod
    def of(
        cls, latitudes: Ints, longitudes: Ints, k: int, max_distance_m: float, filters: Sequence[Filter]
    ) -> "NearestQuery":
        """From E7 coordinates; `max_distance_m` 0: no bound."""
        reach = bound(max_distance_m) if max_distance_m else math.inf
        return cls(unit_vectors(latitudes, longitudes), k, reach, filters)


class Nearest(NamedTuple):
    """The answers one after another: `counts[0]` of them are the first origin's."""

    counts: Ints
    slots: Slots
    distances: Floats


def nearest_in_parts(snapshot: Snapshot, query: NearestQuery) -> Iterator[Nearest]:
    """Answer a batch, some origins at a time: a part takes megabytes and milliseconds, however large the whole is."""
    slots: Slots | None = None
    if query.filters and len(query.origins) > _FEW_ORIGINS and _are_rare(snapshot, query):
        snapshot, slots = _rare(snapshot, query.filters)
        query = query._replace(filters=())
    step = max(1, _AT_ONCE // max(query.k, _FILTERED_K if query.filters else 1))
    for begin in range(0, len(query.origins), step):
        found = _answered(snapshot, query._replace(origins=query.origins[begin : begin + step]), search)
        yield found if slots is None else found._replace(slots=slots[found.slots])


def nearest(snapshot: Snapshot, query: NearestQuery) -> Nearest:
    """Answer a batch as a whole."""
    parts = list(nearest_in_parts(snapshot, query))
    return parts[0] if len(parts) == 1 else Nearest(*map(np.concatenate, zip(*parts, strict=True)))


def nearest_quickly(snapshot: Snapshot, query: NearestQuery) -> Nearest | None:
    """The nearest of a few origins, without filters, where `search_quickly` answers them; elsewhere None."""
    try:
        return _answered(snapshot, query, _ask_quickly)
    except _TakesLong:
        return None


class _TakesLong(Exception):
    """Not to be answered on the event loop."""


def _ask_quickly(snapshot: Snapshot, question: Question) -> Found:
    found = search_quickly(snapshot, question)
    if found is None:
        raise _TakesLong
    return found


def _answered(snapshot: Snapshot, query: NearestQuery, ask: Ask) -> Nearest:
    if query.filters or query.k * 8 > snapshot.end:
        return _each(snapshot, query, ask)
    # One more than asked for shows whether the last one is tied; the origins go in an order that
    # keeps neighbours together, so that the tree's nodes are found in the cache.
    order = _along_a_curve(query.origins)
    origins, k = query.origins[order], query.k
    segments = list(snapshot.segments)
    if snapshot.tail < snapshot.end:
        tail = np.arange(snapshot.tail, snapshot.end)
        segments.append(Segment(cKDTree(snapshot.columns.vectors[tail]), tail))
    width = k + 1 + (_MORE if len(segments) > 1 else 0)
    chords = np.empty((len(origins), width * len(segments)))
    slots = np.empty(chords.shape, np.intp)
    horizon = np.full(len(origins), math.inf)
    for n, (tree, of_place) in enumerate(segments):
        found, places = tree.query(origins, width)
        missing = places == len(of_place)
        if missing.any():
            places[missing] = 0
        here = slice(n * width, (n + 1) * width)
        np.take(of_place, places, out=slots[:, here])
        gone = snapshot.columns.died[slots[:, here]] <= snapshot.sequence
        np.minimum(horizon, found[:, -1], out=horizon)
        found[gone | missing] = math.inf
        chords[:, here] = found
    if len(segments) > 1:
        best = np.argsort(chords, axis=1, kind="stable")[:, : k + 1]
        chords, slots = np.take_along_axis(chords, best, 1), np.take_along_axis(slots, best, 1)
    return _checked(snapshot, query, _Rows(order, chords, slots, horizon), ask)


class _Rows(NamedTuple):
    """What the trees said: row i is about origin `order[i]`, and complete up to `horizon[i]`."""

    order: Slots
    chords: Floats
    slots: Slots
    horizon: Floats


def _checked(snapshot: Snapshot, query: NearestQuery, rows: _Rows, ask: Ask) -> Nearest:
    """Ask again, alone, what the batch has not decided; put everything back in the caller's order."""
    k, (order, chords, slots, horizon) = query.k, rows
    distances = np.full(chords.shape, math.inf)
    there = np.isfinite(chords)
    distances[there] = metres(chords[there])
    # Undecided: neighbours at one distance (by id, then), dead ones among the nearest, or fewer than
    # the horizon vouches for.
    with np.errstate(invalid="ignore"):
        tied = (np.diff(distances, axis=1) <= 0).any(axis=1)
    short = chords[:, k - 1] >= np.minimum(horizon * _SLACK, math.inf)
    undecided = tied | (short & np.isfinite(horizon)) | (~there).any(axis=1)
    reach = math.sqrt(query.reach)
    near = chords[:, :k] <= reach if reach < math.inf else there[:, :k]
    inverse = np.empty(len(order), np.intp)
    inverse[order] = np.arange(len(order))
    if not undecided.any() and near.all():
        flat = slots[inverse, :k].ravel()
        return Nearest(np.full(len(order), k), flat, distances[inverse, :k].ravel())
    parts: list[tuple[Slots, Floats]] = []
    for row in inverse.tolist():
        if undecided[row]:
            x, y, z = query.origins[order[row]].tolist()
            alone = ask(snapshot, Question((x, y, z), limit=k, reach=query.reach))
            parts.append((alone.slots, alone.distances))
        else:
            keep = int(np.count_nonzero(near[row]))
            parts.append((slots[row, :keep], distances[row, :keep]))
    return _joined(parts)


def _are_rare(snapshot: Snapshot, query: NearestQuery) -> bool:
    """Whether so few features pass the filters that each origin would have to look at all there are."""
    alive = snapshot.all_alive()
    sample = alive[:: max(1, len(alive) // _SAMPLE)]
    passed = np.count_nonzero(snapshot.properties.accept(query.filters, snapshot.columns, sample))
    return bool(passed * snapshot.end < 16 * query.k * len(sample))


def _rare(snapshot: Snapshot, filters: Sequence[Filter]) -> tuple[Snapshot, Slots]:
    """What passes the filters, as a snapshot of its own, and the slot that each of its versions had."""
    slots = snapshot.all_alive()
    slots = slots[snapshot.properties.accept(filters, snapshot.columns, slots)]
    count, columns = len(slots), Columns(len(slots))
    snapshot.columns.copy_into(columns, slots, 0)
    segments = (Segment(cKDTree(columns.vectors), np.arange(count)),) if count else ()
    return Snapshot(columns, Properties(), segments, count, count, snapshot.sequence), slots


def _each(snapshot: Snapshot, query: NearestQuery, ask: Ask) -> Nearest:
    parts = []
    for x, y, z in query.origins.tolist():
        found = ask(snapshot, Question((x, y, z), None, query.filters, query.k, query.reach))
        parts.append((found.slots, found.distances))
    return _joined(parts)


def _joined(parts: Sequence[tuple[Slots, Floats]]) -> Nearest:
    counts = np.array([len(slots) for slots, _ in parts], np.int64)
    return Nearest(counts, np.concatenate([s for s, _ in parts]), np.concatenate([d for _, d in parts]))


def _along_a_curve(origins: Floats) -> Slots:
    """An order of the origins in which neighbours are close: along a Z-curve through the unit cube."""
    cells = ((origins + 1.0) * 511.5).astype(np.int64)
    for shift, mask in ((16, 0x30000FF), (8, 0x300F00F), (4, 0x30C30C3), (2, 0x9249249)):
        cells = (cells | cells << shift) & mask
    order: Slots = np.argsort(cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2)
    return order
