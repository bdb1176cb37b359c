"""What changes are to selections: each selection is asked once, and what is seen alike is encoded once.

Guarantees: a part holds an event for each change that is one to the selection, in log order; selections to
which the changes are the same get the same part, whoever they are. Whether a feature was in a set is read
from the feature as it was.

All of it is work for the event loop, in steps: the generators yield after each, which takes about a millisecond.
"""

from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from google.protobuf.struct_pb2 import Struct

from feature_service.areas import Area
from feature_service.events import Event, batches, encoded, left
from feature_service.geometry import Int32s
from feature_service.items import to_feature
from feature_service.projection import Applied, Version
from feature_service.selections import Selection
from protos.feature.v1 import feature_pb2 as pb

_FEW = 8
"""So many points are compared one by one: numpy takes longer."""
_EDGED_POINTS, _FILTERED = 100, 100
"""Points compared with a polygon, and features with filters, in a step."""
_LEFT, _LEFT_FILTER, _ENTERED, _MOVED = 1, 2, 3, 4
_CODES = bytes((0, _LEFT, 0, 0, 0, _LEFT_FILTER, _ENTERED, _MOVED)).ljust(256, b"\0")
"""By whether a feature was in the set (1), is in it (2), and is in the area (4)."""


class Part(NamedTuple):
    """Events, encoded, that are all of a selection's up to `through`, whose token is `position` where it is known."""

    content: bytes
    events: int
    through: int
    position: bytes


class Outcomes:
    """Some changes of one collection, in log order, the last of those up to `through`.

    Points are the features before and after them, by number: of n changes those after begin at n.
    """

    def __init__(self, changes: Sequence[Applied], through: int, position: bytes) -> None:
        self.through = through
        self._changes, self._position = changes, position
        self._versions: list[Version | None] = [change.before for change in changes]
        self._versions += [change.after for change in changes]
        self._columns: tuple[Int32s, Int32s] | None = None
        self._properties: dict[int, Struct] = {}
        self._true: dict[tuple[bytes, ...], dict[int, bool]] = {}
        self._parts: dict[bytes, list[Part]] = {}

    def points(self) -> Iterator[tuple[int, int, int]]:
        """Number, latitude and longitude of each point."""
        for number, version in enumerate(self._versions):
            if version is not None:
                yield number, version.latitude, version.longitude

    def codes(self, selection: Selection, points: Sequence[Sequence[int]]) -> Generator[None, None, bytes]:
        """What each change is to a selection, whose area may hold these points, as a byte each."""
        placed = yield from self._placed(selection, points)
        matching = (yield from self._matching(selection, placed)) if selection.filters else placed
        count = len(self._changes)
        # As numbers of so many digits the flags of all changes are added at once; no sum has a carry.
        was, now, there = (int.from_bytes(flags) for flags in (matching[:count], matching[count:], placed[count:]))
        return (was + 2 * now + 4 * there).to_bytes(count).translate(_CODES)

    def parts(self, codes: bytes) -> list[Part]:
        """The events of these codes; several parts only where they are too large for a frame."""
        found = self._parts.get(codes)
        if found is None:
            events = [_event(change, code) for change, code in zip(self._changes, codes, strict=True) if code]
            found = self._parts[codes] = [
                Part(encoded(batch), len(batch), batch[-1].sequence, b"") for batch in batches(events)
            ]
            if found:
                found[-1] = found[-1]._replace(through=self.through, position=self._position)
        return found

    def _placed(self, selection: Selection, points: Sequence[Sequence[int]]) -> Generator[None, None, bytes]:
        """Which of all points are in the area: 1 or 0 for each."""
        area, versions = selection.area, self._versions
        flags = bytearray(len(versions))
        if area is None or sum(map(len, points)) <= _FEW:
            for number in chain.from_iterable(points):
                version = versions[number]
                if version is not None and selection.in_area(version.latitude, version.longitude, version.vector):
                    flags[number] = 1
            return bytes(flags)
        placed = np.frombuffer(flags, np.uint8)
        for group in points:
            step = _EDGED_POINTS if area.edges else len(group)
            for begin in range(0, len(group), step):
                numbers = np.array(group[begin : begin + step])
                placed[numbers] = self._contains(area, numbers)
                yield
        return bytes(flags)

    def _contains(self, area: Area, numbers: "np.typing.NDArray[np.intp]") -> "np.typing.NDArray[np.bool_]":
        if self._columns is None:
            places = [(0, 0) if each is None else (each.latitude, each.longitude) for each in self._versions]
            latitudes, longitudes = np.array(places, np.int32).T
            self._columns = latitudes.copy(), longitudes.copy()
        latitudes, longitudes = self._columns
        return area.contains(latitudes[numbers], longitudes[numbers])

    def _matching(self, selection: Selection, placed: bytes) -> Generator[None, None, bytes]:
        """Which of these are true to the filters; those are asked once for all selections that have them."""
        known = self._true.setdefault(selection.filters_key, {})
        flags = bytearray(len(placed))
        asked = 0
        number = placed.find(1)
        while number >= 0:
            version = self._versions[number]
            if version is not None and number not in known:
                known[number] = selection.in_filters(self._properties_of(number, version))
                asked += 1
                if asked % _FILTERED == 0:
                    yield
            flags[number] = known[number]
            number = placed.find(1, number + 1)
        return bytes(flags)

    def _properties_of(self, number: int, version: Version) -> Struct:
        properties = self._properties.get(number)
        if properties is None:
            properties = self._properties[number] = to_feature(version.item).properties
        return properties


def _event(change: Applied, code: int) -> Event:
    if change.after is None or code in (_LEFT, _LEFT_FILTER):
        return left(change.kind, change.id, code == _LEFT_FILTER, change.sequence, change.time_ns)
    kind = pb.EVENT_KIND_MOVED if code == _MOVED else pb.EVENT_KIND_ENTERED
    return Event(kind, change.after.item, change.sequence, change.time_ns)
