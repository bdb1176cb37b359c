"""The sample of real places: what `make run` loads on the first start."""

import gzip
import json
from typing import Any

import pytest

from deploy.data.make_places import FILE, write_sample


def _lines() -> list[str]:
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        return list(lines)


def test_holds_30_000_places_in_2_megabytes() -> None:
    assert len(_lines()) >= 30_000
    assert FILE.stat().st_size <= 2_000_000


def test_every_place_has_an_id_coordinates_and_properties() -> None:
    ids = set()
    last_population = 10**9
    for line in _lines():
        feature: dict[str, Any] = json.loads(line)
        longitude, latitude = feature["geometry"]["coordinates"]
        assert -180 <= longitude <= 180
        assert -90 <= latitude <= 90
        properties = feature["properties"]
        assert properties["name"]
        assert len(properties["country"]) == 2
        assert 6_000 <= properties["population"] <= last_population
        last_population = properties["population"]
        ids.add(feature["id"])
    assert len(ids) == len(_lines())


def test_attribution_stands_beside_it() -> None:
    for name in ("README.md", "LICENSE"):
        text = (FILE.parent / name).read_text()
        assert "GeoNames" in text
        assert "creativecommons.org/licenses/by/4.0" in text


@pytest.mark.long
def test_the_script_makes_the_same_file_again(tmp_path: Any) -> None:
    write_sample(tmp_path / "places.geojsonl.gz")
    with gzip.open(tmp_path / "places.geojsonl.gz", "rt", encoding="utf-8") as again:
        assert list(again) == _lines()
