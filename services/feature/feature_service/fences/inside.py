"""What was inside fences at their starts, out of the index."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from feature_service.fences.model import Change, Fence, Key
from feature_service.index import Snapshot
from feature_service.items import to_feature_bytes
from feature_service.search import After, Question, search
from feature_service.table import Slots


def insides_at_start(fences: Sequence[Fence], snapshots: Mapping[str, Snapshot | None]) -> Iterator[list[Change]]:
    """For each fence what was inside at its start, of its collection's snapshot (None: nothing was ever put).

    The snapshots reach the starts.
    """
    gone = {name: _gone_since(snapshot, fences) for name, snapshot in snapshots.items() if snapshot is not None}
    for fence in fences:
        snapshot = snapshots[fence.collection]
        yield [] if snapshot is None else _inside_at_start(snapshot, fence, gone[fence.collection])


def _gone_since(snapshot: Snapshot, fences: Sequence[Fence]) -> Slots:
    """What stood at one of the starts and does not now."""
    starts = [fence.start for fence in fences]
    born, died = snapshot.columns.born[: snapshot.end], snapshot.columns.died[: snapshot.end]
    return np.flatnonzero((born <= max(starts)) & (died > min(starts)) & (died <= snapshot.sequence))


def _inside_at_start(snapshot: Snapshot, fence: Fence, gone: Slots) -> list[Change]:
    """What still stands, by the trees, and what has died since the start, which the trees leave out."""
    stands = search(snapshot, Question(None, fence.area, fence.filters, after=After(fence.start, None, ""))).slots
    columns = snapshot.columns
    gone = gone[(columns.born[gone] <= fence.start) & (columns.died[gone] > fence.start)]
    gone = gone[fence.area.contains(columns.latitudes[gone], columns.longitudes[gone])]
    if fence.filters:
        gone = gone[snapshot.properties.accept(fence.filters, columns, gone)]
    return [
        Change(
            Key(fence.collection, columns.ids[slot]),
            int(columns.born[slot]),
            int(columns.times[slot]),
            to_feature_bytes(columns.items[slot]),
            int(columns.latitudes[slot]),
            int(columns.longitudes[slot]),
        )
        for slot in np.concatenate([stands, gone]).tolist()
    ]
