"""The projection: the features log, replayed and followed into one index for each collection.

Guarantees: what a reader sees is the log up to `applied`, all of it, never part of a page. Replay and
tail go through the same code. Where the log was recreated, rewound or compacted under the follower,
everything is read anew, and listeners are told to forget. A record that this release does not
understand stops it for good: `fault` says why, and it is never passed over.

Listeners get every page of changes after it is in the indexes, with each feature before and after:
`Listener` is where watches and fences are hung in.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import NamedTuple, Protocol, TypeVar

from signpost.errors import InvalidArgument, PositionAhead, PositionError, Unavailable
from signpost.log import positions
from signpost.log.base import Log, Page, Record

from feature_service.geometry import Vector
from feature_service.index import Index, Rebuild, Snapshot
from feature_service.metrics import APPLIED, FEATURES, REBUILD_SECONDS
from feature_service.records import Change, Kind, collections, decode
from feature_service.table import Columns
from protos.feature.v1.feature_pb2 import Position

_LOG = logging.getLogger(__name__)
ExceptionT = TypeVar("ExceptionT", bound=Exception)
_RETRY_S = 0.5
INSTALL_CHANGES = 2000
"""Changes that may be taken into a new index on the event loop: about a millisecond."""
SLICE = 500
"""Records applied before others get their turn: about 3 ms."""
QUIET_S = 0.25
"""So long without a change, the parts of an index are made one: every question is quicker then."""
AHEAD_WAIT_S = 10.0
"""How long a read waits for a position that the log has not reached, before it says so."""


class Version(NamedTuple):
    """A feature as it stands after a change. `item` as in `feature_service.items`."""

    item: bytes
    latitude: int
    longitude: int
    vector: Vector
    sequence: int
    time_ns: int


class Applied(NamedTuple):
    """One change and what it did. `before` or `after` is None where there is no feature.

    `expires_ns` is 0 where the feature after it never expires.
    """

    collection: str
    kind: Kind
    id: str
    before: Version | None
    after: Version | None
    sequence: int
    time_ns: int
    expires_ns: int


class Listener(Protocol):
    """Is told of every change that it wants, on the event loop, in log order. Must not raise."""

    def wants(self, collection: str) -> bool:
        """Whether changes of a collection are to be told; asked for each page."""

    def applied(self, changes: Sequence[Applied], through: int, position: bytes) -> None:
        """These changes are all that was wanted up to `through`, whose token is `position`. Must be quick."""

    async def settle(self) -> None:
        """Return once there is room for more changes: what takes long about these is done here, in turns."""

    def reset(self, error: PositionError) -> None:
        """Forget everything: the log is another one, or has moved on too far. A replay follows."""


class Projection:
    """The indexes of a features log."""

    def __init__(self, log: Log, executor: Executor) -> None:
        self.log = log
        self.applied = 0
        self.position = b""
        self.fault: Exception | None = None
        self._ready = asyncio.Event()
        self._executor = executor
        self._indexes: dict[str, Index] = {}
        self._unsettled: set[str] = set()  # collections to look at for rebuilds; there may be very many of them
        self._listeners: list[Listener] = []
        self._expiries: Callable[[str, str, int, int], None] | None = None
        self._forget_expiries: Callable[[], None] = lambda: None
        self._collection_of = collections()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._given_up = 0  # of those that wait, about
        self._tickets = itertools.count()
        self._quiet: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """Whether the replay is over and nothing has stopped the projection."""
        return self._ready.is_set() and self.fault is None

    async def until_ready(self) -> None:
        """Wait for the end of the replay. Raises Unavailable where the log cannot be read on."""
        if not self._ready.is_set():
            await self._ready.wait()
        self._check_fault()

    def listen(self, listener: Listener) -> None:
        """Tell a listener of every change from now on."""
        self._listeners.append(listener)

    def on_expiry(self, note: Callable[[str, str, int, int], None], forget: Callable[[], None]) -> None:
        """Call `note(collection, id, sequence, expires_ns)` for every feature that will expire, replay included.

        And for every one that is gone, with 0; `forget` where the log is another one: a replay follows.
        """
        self._expiries, self._forget_expiries = note, forget

    def index(self, collection: str) -> Index | None:
        """A collection's index; None where nothing was ever put."""
        return self._indexes.get(collection)

    def snapshot(self, collection: str) -> Snapshot | None:
        """A collection as it is now."""
        index = self._indexes.get(collection)
        if index is None:
            return None
        index.known_through(self.applied)
        return index.snapshot()

    def sizes(self) -> dict[str, int]:
        """Features in each collection."""
        return {name: len(index) for name, index in self._indexes.items()}

    def version(self, collection: str, feature_id: str) -> Version | None:
        """A feature as it is now."""
        index = self._indexes.get(collection)
        slot = index.slot(feature_id) if index is not None else None
        return _version(index.columns, slot) if index is not None and slot is not None else None

    def sequence_of(self, collection: str, feature_id: str) -> int:
        """Sequence of a feature's current version; 0 where there is none."""
        index = self._indexes.get(collection)
        slot = index.slot(feature_id) if index is not None else None
        return int(index.columns.born[slot]) if index is not None and slot is not None else 0

    async def wait_for(self, sequence: int) -> None:
        """Return once everything up to `sequence` is visible.

        Raises PositionAhead where the log itself does not reach it for `AHEAD_WAIT_S`, Unavailable where it
        cannot be read on.
        """
        if sequence <= self.applied:
            return
        self._check_fault()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (sequence, next(self._tickets), future))
        try:
            while not future.done():
                await asyncio.wait([future], timeout=AHEAD_WAIT_S)
                if not future.done() and sequence > self.log.head:
                    raise PositionAhead(
                        f"position {sequence} is beyond the head of the log, {self.log.head}",
                        first_available=self.log.head,
                    )
            await future
        except BaseException:
            future.cancel()
            self._waited_in_vain()
            raise

    async def wait_visible(self, position: Position) -> None:
        """Wait for a request's `min_position`. Raises PositionError where it is of another log, InvalidArgument."""
        match position.WhichOneof("position"):
            case "sequence":
                await self.wait_for(position.sequence)
            case "token":
                try:
                    place = positions.decode(position.token)
                except InvalidArgument as error:
                    raise error.within("min_position") from None
                if place.epoch != self.log.epoch:
                    await self.log.resolve(position.token)
                await self.wait_for(place.sequence)

    async def run(self) -> None:
        """Replay and follow until cancelled, or until a record stops it."""
        while self.fault is None:
            try:
                async with asyncio.TaskGroup() as rebuilds:
                    await self._follow(rebuilds)
            except* PositionError as group:
                error = _first(group)
                _LOG.warning("the features log cannot be continued: replaying", extra={"fields": {"why": str(error)}})
                self._forget(error)
            except* Unavailable as group:
                _LOG.warning("the features log is away", extra={"fields": {"why": str(_first(group))}})
            except* Exception as group:
                self._stop(_first(group))
            for index in self._indexes.values():  # the rebuilds were cancelled, some before they began
                index.give_up()
            await asyncio.sleep(_RETRY_S)

    async def _follow(self, rebuilds: asyncio.TaskGroup) -> None:
        if not self.ready:
            await self._replay()
        try:
            async for page in self.log.follow(self.applied):
                await self._take(page)
                self._rebuild_where_due(rebuilds)
                self._when_quiet(rebuilds)
        finally:
            if self._quiet is not None:
                self._quiet.cancel()

    async def _replay(self) -> None:
        """Read what there is, as it was compacted, up to the head of this moment."""
        bounds = await self.log.bounds()
        if not self.position:
            self.position = await self.log.position(0)
        # Below the horizon gaps are what compaction left; above it one would hide a deletion.
        while self.applied < bounds.last:
            compacted = self.applied < bounds.horizon
            page = await self.log.read(self.applied, allow_gaps=compacted, limit=2000, max_bytes=1 << 21)
            await self._take(page)
        for index in self._indexes.values():
            await self._run_rebuild(index, everything=True)
        self._ready.set()

    async def _take(self, page: Page) -> None:
        """Apply a page in slices, after each of which others get their turn: the next page may be there already."""
        records = page.records
        for begin in range(0, len(records) - SLICE, SLICE):
            part = records[begin : begin + SLICE]
            self._apply(part, part[-1].sequence, self.log.position_of(part[-1]))
            await self._settle()
            await asyncio.sleep(0)
        rest = records[max(0, (len(records) - 1) // SLICE * SLICE) :]
        if page.through > self.applied:
            self._apply(rest, page.through, page.position or self.position)
            await self._settle()
        if len(rest) > SLICE // 2:
            await asyncio.sleep(0)

    async def _settle(self) -> None:
        for listener in self._listeners:
            await listener.settle()

    def _apply(self, records: Sequence[Record], through: int, position: bytes) -> None:
        batches: dict[str, list[Change]] = {}
        for record in records:
            batches.setdefault(self._collection_of(record.subject), []).append(decode(record))
        told: list[Applied] = []
        for collection, batch in batches.items():
            told += self._apply_to(collection, batch, through)
        self.applied, self.position = through, position
        APPLIED.set(through)
        if self._listeners:
            if len(batches) > 1:
                told.sort(key=_sequence)
            for listener in self._listeners:
                listener.applied(told, through, position)
        while self._waiting and self._waiting[0][0] <= through:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)

    def _apply_to(self, collection: str, batch: list[Change], through: int) -> list[Applied]:
        index = self._indexes.get(collection)
        if index is None:
            index = self._indexes[collection] = Index()
        moving = [change for change in batch if change.kind is not Kind.DWELLED]
        slots = index.apply(moving, through)
        self._unsettled.add(collection)
        FEATURES.labels(collection).set(len(index))
        if self._expiries is not None:
            for change in moving:
                if change.expires_ns or change.item is None:
                    self._expiries(collection, change.id, change.sequence, change.expires_ns)
        if not self.ready or not any(listener.wants(collection) for listener in self._listeners):
            return []
        columns = index.columns
        told = [
            Applied(
                collection,
                change.kind,
                change.id,
                None if before is None else _version(columns, before),
                None if after is None else _version(columns, after),
                change.sequence,
                change.time_ns,
                change.expires_ns,
            )
            for change, (before, after) in zip(moving, slots, strict=True)
        ]
        if len(moving) < len(batch):
            dwells = [change for change in batch if change.kind is Kind.DWELLED]
            told += [Applied(collection, c.kind, c.id, None, None, c.sequence, c.time_ns, 0) for c in dwells]
            told.sort(key=_sequence)
        return told

    def _when_quiet(self, rebuilds: asyncio.TaskGroup) -> None:
        """Look again once nothing has changed for a while."""
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._is_quiet, rebuilds)

    def _is_quiet(self, rebuilds: asyncio.TaskGroup) -> None:
        self._rebuild_where_due(rebuilds, quiet=True)
        if any(self._indexes[collection].rebuilding for collection in self._unsettled):
            self._when_quiet(rebuilds)

    def _rebuild_where_due(self, rebuilds: asyncio.TaskGroup, *, quiet: bool = False) -> None:
        for collection in tuple(self._unsettled):
            index = self._indexes[collection]
            rebuild = index.due(quiet=quiet)
            if rebuild is not None:
                rebuilds.create_task(self._finish(index, rebuild))
            elif index.settled:
                self._unsettled.remove(collection)

    async def _run_rebuild(self, index: Index, *, everything: bool) -> None:
        await self._finish(index, index.begin(everything=everything))

    async def _finish(self, index: Index, rebuild: Rebuild) -> None:
        loop = asyncio.get_running_loop()
        with REBUILD_SECONDS.time():
            await loop.run_in_executor(self._executor, rebuild.run)
            # What came meanwhile is taken in over there too, until little is left to do on the loop.
            while rebuild.behind(progress := index.progress(rebuild)) > INSTALL_CHANGES:
                await loop.run_in_executor(self._executor, rebuild.catch_up, *progress)
        index.install(rebuild)

    def _waited_in_vain(self) -> None:
        """Whoever waits for what never comes leaves nothing behind for long."""
        self._given_up += 1
        if 2 * self._given_up > len(self._waiting):
            self._waiting = [waiting for waiting in self._waiting if not waiting[2].done()]
            heapq.heapify(self._waiting)
            self._given_up = 0

    def _check_fault(self) -> None:
        if self.fault is not None:
            raise Unavailable(f"the features log cannot be read on: {self.fault}", reason="PROJECTION_STOPPED")

    def _forget(self, error: PositionError) -> None:
        self._indexes = {}
        self._unsettled.clear()
        self.applied, self.position = 0, b""
        self._ready.clear()
        self._forget_expiries()
        for listener in self._listeners:
            listener.reset(error)

    def _stop(self, fault: Exception) -> None:
        self.fault = fault
        self._ready.set()
        _LOG.error("the features log cannot be read on", exc_info=fault)
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(fault)


def _version(columns: Columns, slot: int) -> Version:
    x, y, z = columns.vectors[slot].tolist()
    return Version(
        columns.items[slot],
        int(columns.latitudes[slot]),
        int(columns.longitudes[slot]),
        (x, y, z),
        int(columns.born[slot]),
        int(columns.times[slot]),
    )


def _sequence(applied: Applied) -> int:
    return applied.sequence


def _first(group: BaseExceptionGroup[ExceptionT]) -> ExceptionT:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
