"""What the state log holds of fences, as a new leader takes it up."""

from collections.abc import AsyncIterator, Container
from typing import NamedTuple

from signpost.log.base import Log, Record

from feature_service.fences.stored import FENCES, STARTS, Start, StoredFence, start_of, stored_fence
from protos.feature.v1.feature_pb2 import Fence

PAGE = 1000


class KeptFences(NamedTuple):
    """`begun`: fences that have begun, each as it was then. `coming`: what was done to fences and has not taken effect,
    in order. `forgotten`: uids of fences that had begun and were removed so long ago that nobody knows how."""

    begun: list[tuple[Fence, Start]]
    coming: list[StoredFence]
    forgotten: list[str]


async def kept_fences(state: Log) -> KeptFences:
    """The fences in a state log.

    What has been superseded in it is known as far back as its history goes; a fence that began as what nobody knows
    any more has begun as it is now. One that was removed before it began is passed over.
    """
    latest = {f.message.uid: f async for r in last_of_all(state, FENCES) for f in [stored_fence(r)]}
    starts = {s.uid: s async for r in last_of_all(state, STARTS) if not r.tombstone for s in [start_of(r)]}
    changed = {
        uid for uid, start in starts.items() if uid not in latest or latest[uid].message.revision != start.revision
    }
    changed |= {u for u, f in latest.items() if u not in starts and not f.removed and f.message.revision > 1}
    done = {f.sequence: f for f in latest.values()} | {f.sequence: f async for f in _done_to(state, changed)}
    began: dict[str, Fence] = {}
    coming: list[StoredFence] = []
    for _, stored in sorted(done.items()):
        uid, revision = stored.message.uid, stored.message.revision
        start = starts.get(uid)
        if start is None:
            if not latest[uid].removed:
                coming.append(stored)
            continue
        if revision <= start.revision or uid not in began:
            began[uid] = stored.message
        if stored.removed or revision > start.revision:
            coming.append(stored)
    begun = [(message, starts[uid]) for uid, message in began.items()]
    return KeptFences(begun, coming, [uid for uid in starts if uid not in began])


async def last_of_all(state: Log, subjects: str) -> AsyncIterator[Record]:
    """The last record of each subject, in pages."""
    after = ""
    while records := await state.last_of_each(subjects, after_subject=after, limit=PAGE):
        for record in records:
            yield record
        after = records[-1].subject


async def _done_to(state: Log, uids: Container[str]) -> AsyncIterator[StoredFence]:
    """All that was done to some fences, in order, as far back as the log's history goes."""
    after, head = 0, (await state.bounds()).last if uids else 0
    while after < head:
        page = await state.read(after, subjects=FENCES, allow_gaps=True)
        for record in page.records:
            stored = stored_fence(record)
            if stored.message.uid in uids:
                yield stored
        after = page.through
