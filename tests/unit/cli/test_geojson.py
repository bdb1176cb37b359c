"""Reading GeoJSON of any shape and size, and what is wrong with an item."""

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from signpost.cli.errors import CommandError
from signpost.cli.geojson import Item, Source, open_source, to_feature
from signpost.cli.output import to_geojson

A = {"type": "Feature", "id": "a", "geometry": {"type": "Point", "coordinates": [2.35, 48.85]}, "properties": {"n": 1}}


def _items(tmp_path: Path, content: bytes) -> list[Item]:
    file = tmp_path / "in"
    file.write_bytes(content)
    with open_source(str(file)) as source:
        items = list(source.items())
        assert source.fraction_read in (1.0, None)
        return items


def _collection(*features: Any, indent: int | None = None, first: dict[str, Any] | None = None) -> bytes:
    return json.dumps({**(first or {"type": "FeatureCollection"}), "features": features}, indent=indent).encode()


@pytest.mark.parametrize(
    "content",
    [
        _collection(A, A),
        _collection(A, A, indent=2),
        _collection(A, A, first={"name": "x" * 2000, "crs": {"type": "name"}, "type": "FeatureCollection"}),
        json.dumps({"features": [A, A], "type": "FeatureCollection"}).encode(),
        gzip.compress(_collection(A, A)),
        b"\xef\xbb\xbf" + _collection(A, A),
        gzip.compress(b"\xef\xbb\xbf" + _collection(A, A, indent=2)),
    ],
    ids=["one line", "pretty", "members before", "features first", "gzip", "byte order mark", "both"],
)
def test_feature_collections(tmp_path: Path, content: bytes) -> None:
    assert _items(tmp_path, content) == [Item("item 0", A), Item("item 1", A)]


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\n\x1e", b"\n\n"])
@pytest.mark.parametrize("compress", [False, True])
def test_newline_delimited_features(tmp_path: Path, separator: bytes, compress: bool) -> None:
    line = json.dumps(A).encode()
    content = separator.join([line, b"{", line])
    items = _items(tmp_path, gzip.compress(content) if compress else content)
    assert [item.value for item in items] == [A, None, A]
    assert items[1].error.startswith("not JSON")
    assert items[1].where == ("line 3" if separator == b"\n\n" else "line 2")


def test_lines_are_lines_whatever_their_properties_are_called(tmp_path: Path) -> None:
    named = {**A, "properties": {"features": [1], "type": "FeatureCollection"}}
    content = b"\xef\xbb\xbf" + b"\n".join([json.dumps(named).encode(), json.dumps(A).encode()])
    assert _items(tmp_path, content) == [Item("line 1", named), Item("line 2", A)]


@pytest.mark.parametrize("compress", [False, True])
def test_a_collection_that_comes_in_small_pieces(compress: bool) -> None:
    content = _collection(A, A, indent=2)
    content = gzip.compress(content) if compress else content
    reading, writing = os.pipe()

    def write() -> None:
        for start in range(len(content)):
            os.write(writing, content[start : start + 1])
        os.close(writing)

    with ThreadPoolExecutor() as pool:
        pool.submit(write)
        with Source(reading, None) as source:
            assert [item.value for item in source.items()] == [A, A]
    os.close(reading)


def test_lines_that_come_slowly_are_taken_as_they_come() -> None:
    reading, writing = os.pipe()
    os.write(writing, json.dumps(A).encode() + b"\n")
    with Source(reading, None) as source:
        items = source.items()
        assert next(items) == Item("line 1", A)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(lambda: list(items))
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            source.__exit__()  # as after Ctrl-C
            assert waiting.result(20) == []
    os.close(reading)
    os.close(writing)


def test_a_line_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    line = json.dumps(A).encode()
    items = _items(tmp_path, b"\n".join([line, b"[" * 100_000, line]))
    assert [item.error for item in items] == ["", "nested too deeply", ""]


def test_a_collection_that_is_cut_off_says_where(tmp_path: Path) -> None:
    *read, last = _items(tmp_path, _collection(A, A, A)[:-40])
    assert len(read) == 2
    assert (last.where, last.value) == ("item 2", None)
    assert "nothing after it can be read" in last.error


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b'{"features":null}', '"features" is null'),
        (b'{"type":"FeatureCollection","features":{"item":[{}]}}', '"features" is an object'),
        (b'{"type":"FeatureCollection","features":5,"bbox":[[1]]}', '"features" is a number'),
        (b'{"type":"FeatureCollection","features":"item"}', '"features" is a text'),
        (b'{"type":"FeatureCollection",\n"features":false}\n', '"features" is true or false'),
        (b'{"type":"FeatureCollection"}', 'there is no "features"'),
        (b'{"type":"FeatureCollection","bbox":[%s0]}' % (b"0," * 100_000), 'there is no "features"'),
        (gzip.compress(b'{"type":"FeatureCollection","of":{"features":[1]}}'), 'there is no "features"'),
    ],
    ids=["null", "object", "number", "text", "boolean", "missing", "missing in a large one", "elsewhere, gzip"],
)
def test_a_collection_without_a_list_of_features_is_refused(tmp_path: Path, content: bytes, wrong: str) -> None:
    with pytest.raises(CommandError, match=f"{wrong}.*; write a FeatureCollection with a list of Features"):
        _items(tmp_path, content)


def test_a_collection_whose_features_come_late_is_read(tmp_path: Path) -> None:
    late = _collection(A, first={"type": "FeatureCollection", "bbox": [0] * 100_000, "features ": None})
    assert _items(tmp_path, late) == [Item("item 0", A)]


@pytest.mark.parametrize("content", [b"42", b"null", b'"x"', b"[]", b"true"])
def test_what_is_no_feature_is_an_item_with_an_error(tmp_path: Path, content: bytes) -> None:
    for where, whole in (("line 1", content), ("item 0", b'{"features":[%s]}' % content)):
        (item,) = _items(tmp_path, whole)
        assert item.where == where
        with pytest.raises(ValueError, match=r"not a GeoJSON Feature but (a number|null|a text|a list|true or false)"):
            to_feature(item.value)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"\n" * 1_000_000)[:-200],
        gzip.compress(b"\n")[:5],
        b"\x1f\x8bgarbage, and no header",
        gzip.compress(b"\n" * 1_000_000)[:200] + b"\xff" * 200,
    ],
    ids=["cut off", "cut off in its header", "no header", "overwritten"],
)
def test_a_damaged_gzip_file_says_so(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CommandError, match="gzip file is damaged"):
        _items(tmp_path, content)


def test_an_empty_file_has_no_items(tmp_path: Path) -> None:
    assert _items(tmp_path, b"") == []
    assert _items(tmp_path, _collection()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Point"}, "not a GeoJSON Feature"),
        ({"geometry": None}, "its geometry is missing"),
        ({"geometry": {"type": "Polygon", "coordinates": []}}, "only points"),
        ({"geometry": {"type": "Point", "coordinates": [1]}}, "not \\[longitude, latitude\\]"),
        ({"geometry": {"type": "Point", "coordinates": ["1", "2"]}}, "not \\[longitude, latitude\\]"),
        ({"geometry": {"type": "Point", "coordinates": [48.85, 91]}}, "longitude first"),
        ({"geometry": {"type": "Point", "coordinates": [float("nan"), 1]}}, "out of range"),
        ({"properties": "x"}, "not an object"),
        ({"id": None}, "--id KEY"),
        ({"id": ""}, "it needs"),
        ({"id": True}, "it needs"),
    ],
)
def test_what_is_wrong_with_an_item(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_feature({**A, **change})


def test_an_id_may_be_a_number_or_a_property() -> None:
    assert to_feature({**A, "id": 7}).id == "7"
    assert to_feature({**A, "id": 7.0}).id == "7"
    assert to_feature(A, "n").id == "1"
    with pytest.raises(ValueError, match="the property 'm'"):
        to_feature(A, "m")


def test_a_feature_comes_out_as_it_went_in() -> None:
    properties = {"name": "Å", "n": 1, "x": 1.5, "deep": {"list": [1, None, True, "s"]}}
    assert to_geojson(to_feature({**A, "properties": properties})) == {**A, "properties": properties}
