"""Read masks: which parts of a feature are answered."""

from collections.abc import Sequence

from feature_service.items import to_feature, to_item
from feature_service.validation import MAX_MASK_PATHS, Problems
from protos.feature.v1.feature_pb2 import Feature

_WHOLE = ("name", "location", "id", "properties", "expire_time")
_PROPERTY = "properties."


class ReadMask:
    """Re-encodes items with only some of their parts."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._fields = [path for path in _WHOLE if path in paths]
        keys = [path.removeprefix(_PROPERTY) for path in paths if path.startswith(_PROPERTY)]
        self._keys = [] if "properties" in self._fields else sorted(set(keys))

    def apply(self, item: bytes) -> bytes:
        """An item with the masked parts only."""
        whole, kept = to_feature(item), Feature()
        for name in self._fields:
            if name in ("name", "id"):
                setattr(kept, name, getattr(whole, name))
            elif whole.HasField(name):
                getattr(kept, name).CopyFrom(getattr(whole, name))
        for key in self._keys:
            if key in whole.properties.fields:
                kept.properties.fields[key].CopyFrom(whole.properties.fields[key])
        return to_item(kept.SerializeToString(deterministic=True))


def read_mask_of(problems: Problems, paths: Sequence[str], field: str = "read_mask") -> ReadMask | None:
    """The mask; None where everything is asked for."""
    if len(paths) > MAX_MASK_PATHS:
        problems.add(field, f"must be at most {MAX_MASK_PATHS} paths")
        return None
    for n, path in enumerate(paths):
        if path not in _WHOLE and not (path.startswith(_PROPERTY) and len(path) > len(_PROPERTY)):
            problems.add(f"{field}[{n}]", f"must be one of {', '.join(_WHOLE)} or properties.KEY")
    return ReadMask(paths) if paths else None
