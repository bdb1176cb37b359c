"""From a `Start` to a place in the log: before the first delivery it is settled where that begins."""

from typing import NamedTuple

from signpost.errors import InvalidArgument, PositionAhead, PositionCompacted, PositionError
from signpost.log.base import Log, Record

from notification_service.codec import delivery_frame, encode_records, field, footer
from notification_service.cursors import Cursor
from notification_service.hub import Hub
from notification_service.lane import BATCH_BYTES
from notification_service.subscription import EXACT_WINDOW_BYTES, Wire
from protos.notification.v1 import notification_pb2 as pb

SNAPSHOT_PAGE = 1000


class Lost(NamedTuple):
    """A start that could not be kept: what was asked for, and why."""

    requested: pb.Position
    error: PositionError


class Place(NamedTuple):
    """Deliveries go on strictly after `sequence`. `lost`: records before it may be missing."""

    sequence: int
    position: bytes
    lost: Lost | None = None
    snapshot: bool = False


async def find_place(hub: Hub, start: pb.Start, cursor: Cursor | None) -> Place:
    """Where a subscription starts.

    A position that retention or a recreated or rewound log has overtaken becomes a place with `lost`.
    Raises PositionAhead for a plain sequence beyond the head, InvalidArgument for what is no position.
    """
    log = hub.log
    match start.WhichOneof("start"):
        case None | "new":
            return await _newest(hub)
        case "earliest":
            return await _at(log, (await log.bounds()).horizon)
        case "time_ns":
            return await _at(log, await log.before_time(max(0, start.time_ns)))
        case "after":
            try:
                return await _after(log, start.after)
            except InvalidArgument as error:
                raise error.within("start.after") from None
        case "cursor":
            if cursor is None:
                raise InvalidArgument.of("start.cursor", "needs `durable`")
            if not cursor.position:
                return await _newest(hub)
            return await _after(log, pb.Position(token=cursor.position))
        case _:
            return (await _newest(hub))._replace(snapshot=True)


async def snapshot_frames(
    hub: Hub, wire: Wire, name: str, pattern: str, place: Place, *, window: int | None = None
) -> tuple[Place, list[tuple[bytes, int, int, bytes]]]:
    """The last record of each topic up to a place, in log order, as deliveries that end there; and where they begin.
    For a small window each holds one record: they are made before it is known how much of it is left."""
    log, head = hub.log, place.sequence
    limit = BATCH_BYTES if window is None or window >= EXACT_WINDOW_BYTES else 1
    found: list[Record] = []
    after = ""
    while True:
        page = await log.last_of_each(pattern, after_subject=after, limit=SNAPSHOT_PAGE)
        found += [record for record in page if record.sequence <= head and not record.tombstone]
        if len(page) < SNAPSHOT_PAGE:
            break
        after = page[-1].subject
    found.sort()
    first = await _at(log, max(found[0].sequence - 1, (await log.bounds()).horizon)) if found else place
    now = hub.clock()
    kept = [(r, e[2]) for r, e in zip(found, encode_records(found), strict=True) if not e[3] or e[3] > now]
    frames: list[tuple[bytes, int, int, bytes]] = []
    parts: list[bytes] = []
    size, begun = 0, first.sequence
    name_field = field(1, name.encode())
    for index, (record, data) in enumerate(kept):
        parts.append(data)
        size += len(data)
        ends = index + 1 == len(kept)
        if ends or size >= limit:
            through, position = (head, place.position) if ends else (record.sequence, log.position_of(record))
            frame, cost = delivery_frame(wire.delivery, name_field, parts, footer(begun, through, position))
            frames.append((frame, cost, through, position))
            parts, size, begun = [], 0, through
    return (first if kept else place), frames


def check_window(name: str, window: int) -> int:
    """A window or an addition to it, in bytes, out of the field `name`; raises InvalidArgument."""
    if not 1 <= window <= 1 << 26:
        raise InvalidArgument.of(name, f"must be 1 to {1 << 26}")
    return window


async def _newest(hub: Hub) -> Place:
    head = hub.log.head
    if head == hub.through:
        return Place(head, hub.position)
    return Place(head, await hub.log.position(head))


async def _at(log: Log, sequence: int) -> Place:
    return Place(sequence, await log.position(sequence))


async def _after(log: Log, requested: pb.Position) -> Place:
    try:
        if requested.WhichOneof("position") == "token":
            return Place(await log.resolve(requested.token), requested.token)
        return await _at(log, await _plain(log, requested.sequence))
    except PositionError as error:
        if isinstance(error, PositionAhead) and requested.WhichOneof("position") != "token":
            raise
        # A token beyond the head was given by a log that has been rewound since; a plain number is a mistake.
        place = await _at(log, error.first_available - 1)
        return place._replace(lost=Lost(requested, error))


async def _plain(log: Log, sequence: int) -> int:
    bounds = await log.bounds()
    if sequence > bounds.last:
        raise PositionAhead(
            f"position {sequence} is beyond the head of the log, {bounds.last}", first_available=bounds.horizon + 1
        )
    if sequence < bounds.horizon:
        first = bounds.horizon + 1
        raise PositionCompacted(f"records after {sequence} are gone; the first is {first}", first_available=first)
    return sequence
