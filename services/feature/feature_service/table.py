"""The versions of a collection's features, in columns; each version has a slot.

A slot is written once, before anyone can know its number; from then on only `died` changes, from
`ALIVE` to the sequence that replaced or deleted the version. So any thread may read a version that
it knows, and whether it was alive at an earlier sequence never changes again. Columns that are
outgrown are replaced, not resized: who holds the old ones still reads what it knew.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from feature_service.filters import Filter, Property, property_of
from feature_service.geometry import Floats, Int32s, Ints, Mask
from feature_service.items import to_feature
from feature_service.reaper import STEP, Objects, retire_with

ALIVE = np.iinfo(np.int64).max
Slots = npt.NDArray[np.intp]
_COLUMNS = ("born", "died", "ids", "items", "latitudes", "longitudes", "times", "vectors")
_PROPERTIES_KEPT = 16


class Columns:
    """The columns at one capacity.

    `items` are encoded features with their length in front, as a repeated field holds them; `born`
    and `died` are sequences, `times` Unix nanoseconds.
    """

    __slots__ = (*_COLUMNS, "__weakref__")

    def __init__(self, capacity: int) -> None:
        self.vectors: Floats = np.empty((capacity, 3))
        self.latitudes: Int32s = np.empty(capacity, np.int32)
        self.longitudes: Int32s = np.empty(capacity, np.int32)
        self.born: Ints = np.empty(capacity, np.int64)
        self.died: Ints = np.empty(capacity, np.int64)
        self.times: Ints = np.empty(capacity, np.int64)
        self.items: Objects = np.empty(capacity, object)
        self.ids: Objects = np.empty(capacity, object)
        # What is not written yet takes no memory but address space, so there may be room to spare.
        retire_with(self, self.items, self.ids)

    @property
    def capacity(self) -> int:
        """Slots that there is room for."""
        return len(self.born)

    def copy_into(self, other: "Columns", slots: Slots, start: int) -> None:
        """Copy versions to consecutive slots of other columns, in steps: other threads run between them."""
        for begin in range(0, len(slots), STEP):
            part = slots[begin : begin + STEP]
            target = slice(start + begin, start + begin + len(part))
            for name in _COLUMNS:
                getattr(other, name)[target] = getattr(self, name)[part]


class PropertyColumn:
    """One property of every version, parsed when it is first asked for. For any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: tuple[Objects, Mask] = np.empty(0, object), np.empty(0, bool)

    def moved(self, slots: Slots, capacity: int) -> "PropertyColumn":
        """The column of a table that begins with these versions."""
        values, known = self._kept
        column = PropertyColumn(self._path)
        new_values, new_known = column._kept = np.empty(capacity, object), np.zeros(capacity, bool)
        within = np.flatnonzero(slots < len(known))
        for begin in range(0, len(within), STEP):
            target = within[begin : begin + STEP]
            part = slots[target]
            # A value is there before it is known: known is read first, so that what is parsed meanwhile is not.
            new_known[target] = known[part]
            new_values[target] = values[part]
        return column

    def values(self, columns: Columns, slots: Slots) -> list[Property]:
        """The values at these slots."""
        values, known = self._kept
        if len(known) < columns.capacity:
            # Another thread may do the same: what it parses meanwhile is parsed again, no more.
            more = columns.capacity - len(known)
            grown = np.concatenate([known, np.zeros(more, bool)])  # first: see `moved`
            values, known = np.concatenate([values, np.empty(more, object)]), grown
            self._kept = values, known
        for slot in slots[~known[slots]].tolist():
            values[slot] = property_of(to_feature(columns.items[slot]).properties, self._path)
            known[slot] = True
        found: list[Property] = values[slots].tolist()
        return found


class Properties:
    """The properties of a table that filters have asked for lately."""

    def __init__(self) -> None:
        self._columns: dict[str, PropertyColumn] = {}

    def column(self, path: str) -> PropertyColumn:
        """The column of a property; the one not asked for longest makes room."""
        column = self._columns.pop(path, None) or PropertyColumn(path)
        self._columns[path] = column
        for oldest in list(self._columns)[:-_PROPERTIES_KEPT]:  # a copy: another thread may do the same
            self._columns.pop(oldest, None)
        return column

    def moved(self, slots: Slots, capacity: int) -> "Properties":
        """The properties of a table that begins with these versions."""
        new = Properties()
        new._columns = {path: column.moved(slots, capacity) for path, column in list(self._columns.items())}
        return new

    def accept(self, filters: Sequence[Filter], columns: Columns, slots: Slots) -> Mask:
        """For which of these slots every filter is true."""
        return self.acceptor(filters, columns)(slots)

    def acceptor(self, filters: Sequence[Filter], columns: Columns) -> Callable[[Slots], Mask]:
        """`accept` for many calls: what one has parsed the next finds, however many filters there are."""
        conditions = [(self.column(path), holds) for path, holds in filters]

        def accept(slots: Slots) -> Mask:
            accepted = np.ones(len(slots), bool)
            for column, holds in conditions:
                among = np.flatnonzero(accepted)
                accepted[among] = [holds(value) for value in column.values(columns, slots[among])]
            return accepted

        return accept
