"""GeoJSON points from files: a FeatureCollection or newline-delimited Features, gzip too, streamed.

Nothing is held but the item at hand, whatever the size of the file. A bad item is handed on as an
`Item` with its error, so that the rest is loaded.
"""

import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ijson

from signpost.cli.errors import CommandError
from signpost.client import Feature

_HEAD_BYTES = 64 * 1024
_COLLECTION = re.compile(rb'"type"\s*:\s*"FeatureCollection"|"features"\s*:\s*\[')
_GZIP = b"\x1f\x8b"
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a source: where it stands (`line 3`, `item 0`), and a GeoJSON object or what is wrong with it."""

    where: str
    value: Any
    error: str = ""


class Source:
    """An open file or stdin. `fraction_read` is how far reading has come, 0 to 1; None where the end is unknown."""

    def __init__(self, raw: IO[bytes], size_bytes: int | None) -> None:
        self._raw, self._size_bytes = raw, size_bytes
        buffered: io.BufferedReader[Any] = io.BufferedReader(raw, _HEAD_BYTES)
        if buffered.peek(2)[:2] == _GZIP:
            buffered = io.BufferedReader(gzip.GzipFile(fileobj=buffered), _HEAD_BYTES)
        self.stream = buffered
        head = self.stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        self.is_json = head.lstrip(b" \t\r\n\x1e\xef\xbb\xbf")[:1] in (b"{", b"")
        self.is_collection = bool(_COLLECTION.search(head))

    @property
    def fraction_read(self) -> float | None:
        if not self._size_bytes:
            return None
        return min(1.0, self._raw.tell() / self._size_bytes)

    def items(self) -> Iterator[Item]:
        """The items, in order."""
        try:
            yield from self._collection() if self.is_collection else self._lines()
        except (gzip.BadGzipFile, EOFError) as error:
            raise CommandError(f"the gzip file is damaged ({error}); what came before it is loaded") from None

    def _collection(self) -> Iterator[Item]:
        index = 0
        try:
            for value in ijson.items(self.stream, "features.item", use_float=True):
                yield Item(f"item {index}", value)
                index += 1
        except ijson.JSONError as error:
            reason = str(error).splitlines()[0]
            yield Item(f"item {index}", None, f"not JSON, and nothing after it can be read: {reason}")

    def _lines(self) -> Iterator[Item]:
        for number, line in enumerate(self.stream, 1):
            text = line.strip(b" \t\r\n\x1e")
            if not text:
                continue
            try:
                yield Item(f"line {number}", json.loads(text.decode()))  # bytes would be searched for their encoding
            except ValueError as error:
                yield Item(f"line {number}", None, f"not JSON: {error}")


@contextmanager
def open_source(name: str) -> Iterator[Source]:
    """Open a file by its path, or stdin by `-`."""
    if name == STDIN:
        yield Source(sys.stdin.buffer.raw if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer, None)
        return
    path = Path(name)
    with path.open("rb", buffering=0) as raw:
        yield Source(raw, path.stat().st_size)


def to_feature(value: Any, id_property: str = "") -> Feature:
    """The feature that a GeoJSON object describes. Raises ValueError with what is wrong.

    The id is GeoJSON's own, or the property `id_property`; the name is the property `name`.
    """
    longitude, latitude = to_point(value)
    properties = value.get("properties") or {}
    if not isinstance(properties, dict):
        raise ValueError("properties is not an object")
    id = properties.get(id_property) if id_property else value.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | float) or id == "":
        wanted = f"the property {id_property!r}" if id_property else "an id (or say which property holds it: --id KEY)"
        raise ValueError(f"it needs {wanted}")
    name = properties.get("name")
    return Feature(
        f"{id:.0f}" if isinstance(id, float) and id.is_integer() else str(id),
        latitude,
        longitude,
        name=name if isinstance(name, str) else "",
        properties=properties,
    )


def to_point(value: Any) -> tuple[float, float]:
    """Longitude and latitude of a GeoJSON Feature with a Point. Raises ValueError with what is wrong."""
    if not isinstance(value, dict) or value.get("type") != "Feature":
        raise ValueError('not a GeoJSON Feature ("type": "Feature" is missing)')
    geometry = value.get("geometry")
    if not isinstance(geometry, dict) or geometry.get("type") != "Point":
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        raise ValueError(f"its geometry is {kind or 'missing'}; only points are features here")
    match geometry.get("coordinates"):
        case [float() | int() as longitude, float() | int() as latitude, *_]:
            if -180 <= longitude <= 180 and -90 <= latitude <= 90:
                return float(longitude), float(latitude)
            raise ValueError(f"coordinates out of range: {longitude},{latitude} (GeoJSON has the longitude first)")
    raise ValueError("coordinates are not [longitude, latitude]")
