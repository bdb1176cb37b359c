"""Which slot holds the current version of each id.

Many small dictionaries: growing a large one would hold everything up for tens of milliseconds.
"""

from collections.abc import Iterable

from feature_service.reaper import retire_with

_SHARDS = 256


class SlotMap:
    """From id to slot. For one thread at a time."""

    def __init__(self) -> None:
        self._shards: list[dict[str, int]] = [{} for _ in range(_SHARDS)]
        retire_with(self, self._shards)

    def get(self, key: str) -> int | None:
        """The slot of an id, if it has one."""
        return self._shards[hash(key) % _SHARDS].get(key)

    def put(self, key: str, slot: int) -> int | None:
        """Set the slot of an id; answers the one it had."""
        shard = self._shards[hash(key) % _SHARDS]
        before = shard.setdefault(key, slot)  # a new id, the usual one of a load, is looked up once
        if before == slot:
            return None
        shard[key] = slot
        return before

    def put_all(self, items: Iterable[tuple[str, int]]) -> None:
        """Set many."""
        shards = self._shards
        for key, slot in items:
            shards[hash(key) % _SHARDS][key] = slot

    def pop(self, key: str) -> int | None:
        """Forget an id; answers the slot it had."""
        return self._shards[hash(key) % _SHARDS].pop(key, None)

    def __len__(self) -> int:
        return sum(map(len, self._shards))
