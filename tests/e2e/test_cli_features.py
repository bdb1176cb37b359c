"""The command's half for features, run for real against the feature service."""

import fcntl
import gzip
import json
import os
import re
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import Signpost, serve
from tests.support.services import ROOT, ServiceProcess

PLACES = ROOT / "deploy" / "data" / "places.geojsonl.gz"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    yield from serve("feature_service", tmp_path_factory.mktemp("feature"))


@pytest.fixture(scope="module")
def signpost(service: ServiceProcess) -> Signpost:
    """The command, with the 3,000 most populous places loaded."""
    command = Signpost(service.target, "127.0.0.1:1")
    with gzip.open(PLACES, "rt", encoding="utf-8") as lines:
        head = "".join(line for line, _ in zip(lines, range(3000), strict=False))
    command("import", "-", stdin=head)
    return command


def _feature(id: str, longitude: float, latitude: float, **properties: Any) -> dict[str, Any]:
    point = {"type": "Point", "coordinates": [longitude, latitude]}
    return {"type": "Feature", "id": id, "geometry": point, "properties": properties}


def test_near_answers_the_nearest_first_as_geojson(signpost: Signpost) -> None:
    found = signpost("near", "48.85,2.35", "--limit", "3")
    assert found[0]["properties"] == {"name": "Paris", "country": "FR", "population": 2138551}
    assert found[0]["distance_m"] == pytest.approx(389, abs=1)
    assert [item["distance_m"] for item in found] == sorted(item["distance_m"] for item in found)


def test_near_on_a_terminal_is_a_table(signpost: Signpost) -> None:
    with signpost.on_terminal("near", "48.85,2.35", "--radius", "5km", "--limit", "20") as terminal:
        assert terminal.until_end() == 0
    header, first, *_ = re.sub(r"\x1b\[[0-9;]*m", "", terminal.seen).splitlines()
    assert header.split() == ["distance", "name", "id", "properties"]
    distance, unit, name, id, *properties = first.split()
    assert (distance, unit, name, id) == ("389", "m", "Paris", "2988507")
    assert properties == ["country=FR", "population=2138551"]


def test_near_takes_southern_places_and_conditions(signpost: Signpost) -> None:
    (sydney,) = signpost("near", "-33.86,151.2", "--radius", "20km", "--where", "population>1000000", "--limit", "1")
    assert sydney["properties"]["name"] == "Sydney"
    assert signpost("near", "-33.86,151.2", "--radius", "20km", "--where", "country=FR") == []


def test_a_feature_is_put_read_and_deleted(signpost: Signpost) -> None:
    (put,) = signpost("put", "van-1", "-33.5,151", "--name", "Van 1", "--set", "speed=4.5", "--set", "crew=[1,2]")
    (got,) = signpost("get", "van-1")
    assert got["geometry"]["coordinates"] == [151.0, -33.5]
    assert got["properties"] == {"name": "Van 1", "speed": 4.5, "crew": [1, 2]}
    assert got["sequence"] == put["sequence"]
    assert "look at what changed" in signpost.fails("put", "van-1", "0,0", "--if-sequence", "1")
    assert signpost("delete", "van-1") == [{"id": "van-1", "deleted": True}]
    assert "there is no van-1" in signpost.fails("delete", "van-1")
    assert "there is no van-1" in signpost.fails("get", "van-1")


def test_bad_items_are_named_by_line_and_the_rest_is_loaded(signpost: Signpost) -> None:
    lines = [
        json.dumps(_feature("a", 1, 2, name="A")),
        "{broken",
        json.dumps({"type": "Feature", "id": "c", "geometry": {"type": "LineString", "coordinates": []}}),
        "",
        json.dumps(_feature("e", 200, 2)),
        json.dumps({**_feature("", 1, 2), "id": None}),
        json.dumps(_feature("x" * 200, 1, 2)),
        json.dumps(_feature("h", 3, 4)),
    ]
    done = signpost.run("import", "-", "--collection", "mixed", "--json", stdin="\n".join(lines))
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"written": 2, "unchanged": 0, "refused": 5}
    *named, last = done.stderr.splitlines()
    assert [re.match(r"signpost: (line \d+): ", line)[1] for line in named] == [  # type: ignore[index]
        "line 2",
        "line 3",
        "line 5",
        "line 6",
        "line 7",
    ]
    assert "5 of 7 items were left out" in last
    assert [item["id"] for item in signpost("near", "0,0", "--collection", "mixed")] == ["a", "h"]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_feature_collection_is_loaded_from_a_file(signpost: Signpost, tmp_path: Path, compressed: bool) -> None:
    collection = f"pretty-{compressed}"
    features = [_feature(str(number), number, number, n=number) for number in range(50)]
    features[7]["geometry"] = None
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    file = tmp_path / "points.geojson"
    file.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    done = signpost.run("import", str(file), "--collection", collection)
    assert done.returncode == 1
    assert "item 7: its geometry is missing" in done.stderr
    assert len(signpost("near", "0,0", "--collection", collection, "--limit", "100")) == 49


def test_an_import_on_a_terminal_shows_its_progress_and_rate(signpost: Signpost) -> None:
    with signpost.on_terminal("import", str(PLACES), "--collection", "world") as terminal:
        assert terminal.until_end() == 0
    assert "100%" in terminal.seen
    assert "61,712 features" in terminal.seen
    assert re.search(r"signpost: 61,712 written, 0 unchanged in [0-9.]+ s \([0-9,]+/s\)", terminal.seen)


def test_locate_adds_the_nearest_place_to_every_row_of_a_csv(signpost: Signpost, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('who,Lat,Lon\n"a, b",48.85,2.35\nnobody,x,1\nc,-33.86,151.2\n')
    output = tmp_path / "out.csv"
    done = signpost.run("locate", str(file), "--output", str(output))
    assert done.returncode == 1
    assert "line 3: 'x', '1' are not two numbers" in done.stderr
    header, *rows = output.read_text().splitlines()
    assert header == "who,Lat,Lon,place_id,place,place_distance_m"
    assert rows[0].startswith('"a, b",48.85,2.35,2988507,Paris,389.')
    assert rows[1] == "nobody,x,1,,,"
    assert ",Sydney" in rows[2]


def test_locate_keeps_the_order_of_many_rows(signpost: Signpost) -> None:
    sent = [_feature(str(number), (number * 7) % 360 - 180, number % 180 - 90) for number in range(2500)]
    located = signpost("locate", "-", stdin="\n".join(map(json.dumps, sent)))
    assert [item["id"] for item in located] == [item["id"] for item in sent]
    assert all(item["properties"]["place_distance_m"] >= 0 for item in located)


def test_locate_writes_a_feature_collection_as_one(signpost: Signpost) -> None:
    for features in ([], [_feature("1", 2.35, 48.85, mine=1)]):
        done = signpost.run("locate", "-", stdin=json.dumps({"type": "FeatureCollection", "features": features}))
        assert done.returncode == 0
        made = json.loads(done.stdout)
        assert made["type"] == "FeatureCollection"
        assert [item["properties"]["place"] for item in made["features"]] == ["Paris"] * len(features)


def test_locate_keeps_columns_in_their_places(signpost: Signpost) -> None:
    done = signpost.run("locate", "-", stdin="lat,lon,note\n48.85,2.35\n48.85,2.35,x,\n48.85,2.35,y\n")
    assert done.returncode == 1
    assert "line 3: more columns than the header" in done.stderr
    _, short, long, whole = done.stdout.splitlines()
    assert short.startswith("48.85,2.35,,2988507,Paris,")
    assert long == "48.85,2.35,x,,,,"
    assert whole.startswith("48.85,2.35,y,2988507,Paris,")


def test_locate_names_a_row_that_ends_before_its_numbers(signpost: Signpost) -> None:
    done = signpost.run("locate", "-", stdin="lat,lon\nfar\n48.85,2.35\n")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "signpost: line 2: too few columns"
    assert done.stdout.splitlines()[1:] == ["far,,,,", "48.85,2.35,2988507,Paris,389.2"]


def test_locate_does_not_write_over_what_it_reads(signpost: Signpost, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    text = "lat,lon\n" + "48.85,2.35\n" * 20_000
    file.write_text(text)
    assert "written over" in signpost.fails("locate", str(file), "--output", str(file))
    assert file.read_text() == text


def test_locate_says_where_a_quote_was_left_open(signpost: Signpost) -> None:
    done = signpost.run("locate", "-", stdin='lat,lon,n\n1,1,"open\n' + "1,1,x\n" * 50_000)
    assert done.returncode == 1
    assert re.fullmatch(r"signpost: line \d+: field larger .*; is a quote left open before it\?\n", done.stderr)


def test_locate_passes_over_empty_lines_before_the_header(signpost: Signpost) -> None:
    done = signpost.run("locate", "-", stdin="\n\r\nlat,lon\n48.85,2.35\n")
    assert done.stdout.splitlines() == ["lat,lon,place_id,place,place_distance_m", "48.85,2.35,2988507,Paris,389.2"]


def test_locate_says_where_a_file_is_not_utf_8(signpost: Signpost, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    for content in (b"lat,lon,caf\xe9\n1,1,x\n", "lat,lon\n".encode("utf-16")):
        file.write_bytes(content)
        assert signpost.fails("locate", str(file)) == "line 1 or later is not UTF-8: convert the file, as with iconv"
    file.write_bytes(b"lat,lon,n\n" + b"1,1,x\n" * 20_000 + b"1,1,\xe9\n")
    done = signpost.run("locate", str(file))
    assert done.returncode == 1
    assert re.fullmatch(r"signpost: line \d+ or later is not UTF-8: .*\n", done.stderr)


def test_locate_names_what_has_no_properties(signpost: Signpost) -> None:
    done = signpost.run("locate", "-", stdin=json.dumps({**_feature("1", 1, 1), "properties": [1]}))
    assert done.returncode == 1
    assert "line 1: properties is not an object" in done.stderr
    assert json.loads(done.stdout)["properties"] == [1]


def test_an_item_that_cannot_be_sent_is_named_and_the_rest_is_loaded(signpost: Signpost) -> None:
    feature = _feature("deep", 1, 1, a="HERE")
    deep = json.dumps(feature).replace('"HERE"', "[" * 500 + "]" * 500)
    lines = [
        json.dumps(_feature("a", 1, 1)),
        deep,
        json.dumps(_feature("b", 1, 1, n=10**400)),
        json.dumps(_feature("c", 1, 1)),
    ]
    done = signpost.run("import", "-", "--collection", "sendable", "--json", stdin="\n".join(lines))
    assert json.loads(done.stdout) == {"written": 2, "unchanged": 0, "refused": 2}
    assert re.findall(r"line (\d+): a number in it is too large", done.stderr) == ["2", "3"]


def test_an_import_that_waits_for_its_input_ends_at_once_when_interrupted(signpost: Signpost) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"".join(json.dumps(_feature(str(number), 1, 1)).encode() + b"\n" for number in range(100)))
    with signpost.background("import", "-", "--collection", "waiting", stdin=reading) as process:
        deadline = time.monotonic() + 20
        while struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, bytes(4)))[0]:
            assert time.monotonic() < deadline, "it does not read"
            time.sleep(0.05)
        time.sleep(1)  # until it waits for more
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    os.close(reading)
    os.close(writing)


def test_names_mean_nothing_to_the_terminal(signpost: Signpost) -> None:
    signpost("put", "odd[red]", "70,70", "--name", "[/b]:fire:\x1b[2J", "--set", "k=[bold]", "--collection", "odd")
    for arguments in (("near", "70,70"), ("get", "odd[red]")):
        with signpost.on_terminal(*arguments, "--collection", "odd") as terminal:
            assert terminal.until_end() == 0
        for text in ("odd[red]", "[/b]:fire:\N{REPLACEMENT CHARACTER}[2J", "[bold]"):
            assert text in terminal.seen
    with signpost.on_terminal("near", "1,1", "--collection", "[/nothing]") as terminal:
        assert terminal.until_end() == 0
    assert "nothing in [/nothing]" in terminal.seen


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_is_utf_8_for_programs_and_never_an_error(service: ServiceProcess, encoding: str) -> None:
    command = Signpost(service.target, "127.0.0.1:1", PYTHONIOENCODING=encoding)
    command("put", "ü", "71,71", "--name", "Zürich →", "--collection", encoding)
    assert command("get", "ü", "--collection", encoding)[0]["properties"]["name"] == "Zürich →"
    with command.on_terminal("get", "ü", "--collection", encoding) as terminal:
        assert terminal.until_end() == 0


def test_closed_streams_are_no_error(signpost: Signpost) -> None:
    for closed in ("<&-", ">&-", "2>&-"):
        done = signpost.shell(f'"$0" put closed 1,1 {closed}')
        assert (done.returncode, done.stderr) == (0, "")


def test_watch_prints_events_as_they_happen(signpost: Signpost) -> None:
    signpost("put", "w1", "10,10", "--collection", "moving")
    with signpost.background("watch", "--near", "10,10", "--radius", "5km", "--collection", "moving") as watch:
        assert watch.stdout is not None
        events = (json.loads(line) for line in watch.stdout)
        assert next(events)["event"] == "entered"
        assert next(events) == {"event": "caught_up"}
        signpost("put", "w1", "10.01,10", "--collection", "moving")
        moved = next(events)
        assert (moved["event"], moved["feature"]["geometry"]["coordinates"]) == ("moved", [10.0, 10.01])
        signpost("put", "w1", "20,20", "--collection", "moving")
        left = next(events)
        assert (left["event"], left["reason"]) == ("left", "moved")


def test_watch_on_a_terminal_is_a_table_that_updates(signpost: Signpost) -> None:
    signpost("put", "t1", "20,20", "--name", "Here", "--collection", "shown")
    with signpost.on_terminal("watch", "--near", "20,20", "--radius", "5km", "--collection", "shown") as terminal:
        terminal.until("1 inside")
        signpost("put", "t2", "20.01,20", "--name", "Newcomer", "--collection", "shown")
        terminal.until("2 inside")
        terminal.until("Newcomer")
        terminal.type("\x03")
        assert terminal.until_end() == 130
    assert "Traceback" not in terminal.seen


def test_a_reader_that_goes_away_is_no_error(signpost: Signpost) -> None:
    with signpost.background("near", "0,0", "--limit", "3000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(10) == 1
        process.stdout = None
