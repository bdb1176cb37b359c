"""GeoJSON points from files: a FeatureCollection or newline-delimited Features, gzip too, streamed.

Nothing is held but the item at hand, whatever the size of the file. A bad item is handed on as an
`Item` with its error, so that the rest is loaded.
"""

import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ijson

from signpost.cli.errors import CommandError
from signpost.cli.reading import Input
from signpost.client import Feature

_HEAD_BYTES = 64 * 1024
_COLLECTION = re.compile(rb'"type"\s*:\s*"FeatureCollection"|"features"\s*:\s*\[')
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n\x1e"
_KINDS = {
    "null": "null",
    "boolean": "true or false",
    "number": "a number",
    "string": "a text",
    "start_map": "an object",
}
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a source: where it stands (`line 3`, `item 0`), and a GeoJSON object or what is wrong with it."""

    where: str
    value: Any
    error: str = ""


class Ahead(io.RawIOBase):
    """A stream whose beginning can be looked at before it is read. A damaged gzip file is a CommandError."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self.head = b""

    def look(self) -> bool:
        """Have more in `head`, as much as comes at once; False at the end."""
        more = bytearray(_HEAD_BYTES)
        count = self._read(more)
        self.head += more[:count]
        return count > 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.head:
            return self._read(buffer)
        count = min(len(buffer), len(self.head))
        buffer[:count], self.head = self.head[:count], self.head[count:]
        return count

    def _read(self, buffer: Any) -> int:
        try:
            return self._stream.readinto1(buffer)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise CommandError(f"the gzip file is damaged ({error}); what came before it is loaded") from None


class Features:
    """A FeatureCollection for its parser to read. Raises CommandError where its `features` are no list.

    That parser passes over what is not a list, as it does over what it was not asked for.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._found = ijson.sendable_list()
        self._parser = ijson.parse_coro(self._found)
        self._are_a_list = False

    def read(self, size: int = -1) -> bytes:
        """More of it."""
        data = self._stream.read(size)
        if size and not self._are_a_list:  # the parser asks for nothing once, to see that it gets bytes
            self._look(data)
        return data

    def _look(self, data: bytes) -> None:
        with suppress(StopIteration):  # so it ends with the last byte of a whole text
            self._parser.send(data)
        kind = next((event for prefix, event, _ in self._found if prefix == "features"), "")
        self._found.clear()
        self._are_a_list = kind == "start_array"
        if not self._are_a_list and (kind or not data):
            wrong = f'"features" is {_KINDS[kind]}, not a list' if kind else 'there is no "features" in it'
            raise CommandError(f"{wrong}; write a FeatureCollection with a list of Features, or one Feature a line")


class Source:
    """An open file or stdin. `fraction_read` is how far reading has come, 0 to 1; None where the end is unknown.

    Nothing waits for more after the block of a `with`, not even a thread.
    """

    def __init__(self, descriptor: int, size_bytes: int | None) -> None:
        self._descriptor, self._size_bytes = descriptor, size_bytes
        self._input = Input(descriptor)
        ahead = _ahead(io.BufferedReader(self._input, _HEAD_BYTES))
        if ahead.head.startswith(_GZIP):
            ahead = _ahead(gzip.GzipFile(fileobj=io.BufferedReader(ahead)))
        ahead.head = ahead.head.removeprefix(_BOM)
        self.is_json = ahead.head.lstrip(_BLANK)[:1] in (b"{", b"")
        self.is_collection = self.is_json and _is_collection(ahead)
        self.stream: io.BufferedReader[Any] = io.BufferedReader(ahead, _HEAD_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.end()

    @property
    def fraction_read(self) -> float | None:
        if not self._size_bytes:
            return None
        return min(1.0, os.lseek(self._descriptor, 0, os.SEEK_CUR) / self._size_bytes)

    def items(self) -> Iterator[Item]:
        """The items, in order."""
        return self._collection() if self.is_collection else self._lines()

    def _collection(self) -> Iterator[Item]:
        index = 0
        try:
            for value in ijson.items(Features(self.stream), "features.item", use_float=True):
                yield Item(f"item {index}", value)
                index += 1
        except ijson.JSONError as error:
            reason = str(error).splitlines()[0]
            yield Item(f"item {index}", None, f"not JSON, and nothing after it can be read: {reason}")

    def _lines(self) -> Iterator[Item]:
        for number, line in enumerate(self.stream, 1):
            text = line.strip(_BLANK)
            if not text:
                continue
            try:
                yield Item(f"line {number}", json.loads(text.decode()))  # bytes would be searched for their encoding
            except ValueError as error:
                yield Item(f"line {number}", None, f"not JSON: {error}")
            except RecursionError:
                yield Item(f"line {number}", None, "nested too deeply")


@contextmanager
def open_source(name: str) -> Iterator[Source]:
    """Open a file by its path, or stdin by `-`."""
    if name == STDIN:
        yield Source(sys.stdin.fileno(), None)
        return
    path = Path(name)
    with path.open("rb", buffering=0) as raw:
        yield Source(raw.fileno(), path.stat().st_size)


def _ahead(stream: io.BufferedIOBase) -> Ahead:
    """With enough of its beginning to know its kind."""
    made = Ahead(stream)
    while len(made.head.lstrip(_BLANK)) <= len(_BOM) and len(made.head) < _HEAD_BYTES and made.look():
        pass
    return made


def _is_collection(ahead: Ahead) -> bool:
    """Whether it is a FeatureCollection and not one Feature a line. Lines that come slowly are taken as they come."""
    ended = False
    while True:
        line, complete, _ = ahead.head.lstrip(_BLANK).partition(b"\n")
        ended = ended or len(ahead.head) >= _HEAD_BYTES
        if complete or ended:
            first = _object(line)
            if first is not None:
                return first.get("type") == "FeatureCollection" or ("features" in first and "type" not in first)
            if _COLLECTION.search(ahead.head):
                return True
        if ended:
            return False
        ended = not ahead.look()


def _object(line: bytes) -> dict[str, Any] | None:
    """A line as a JSON object; None where it is none by itself."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def to_feature(value: Any, id_property: str = "") -> Feature:
    """The feature that a GeoJSON object describes. Raises ValueError with what is wrong.

    The id is GeoJSON's own, or the property `id_property`; the name is the property `name`.
    """
    longitude, latitude = to_point(value)
    properties = to_properties(value)
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


def to_properties(value: dict[str, Any]) -> dict[str, Any]:
    """The properties of a GeoJSON Feature, which may have none. Raises ValueError where they are no object."""
    properties = value.get("properties") or {}
    if not isinstance(properties, dict):
        raise ValueError("properties is not an object")
    return properties


def to_point(value: Any) -> tuple[float, float]:
    """Longitude and latitude of a GeoJSON Feature with a Point. Raises ValueError with what is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"not a GeoJSON Feature but {_kind(value)}")
    if value.get("type") != "Feature":
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


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
    return "a list"
