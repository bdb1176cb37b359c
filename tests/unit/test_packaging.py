"""What an installation pulls in: a client needs grpcio and protobuf, and nothing of the servers'."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "signpost-protos": ROOT / "protos",
    "signpost": ROOT / "services/signpost",
    "signpost-feature-service": ROOT / "services/feature",
    "signpost-notification-service": ROOT / "services/notification",
}
# What stands in none of the extras that a client does without.
CLIENT_NEEDS = {"signpost-protos", "grpcio", "protobuf", "googleapis-common-protos"}

# Run in a new interpreter: refuse everything that a client must not need, then import it.
IMPORT_CLIENT = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    names = {
        "prometheus_client", "opentelemetry", "nats", "numpy", "scipy", "shapely", "uvloop", "pydantic",
        "pydantic_settings", "typer", "rich", "ijson", "grpc_health", "grpc_reflection", "sqlite3",
    }
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names:
            raise ImportError(f"a client without extras needs no {fullname}")
        return None

sys.meta_path.insert(0, Blocker())
import signpost.client
for name in signpost.client.__all__:
    getattr(signpost.client, name)
"""


def project(name: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((PACKAGES[name] / "pyproject.toml").read_text())["project"]
    return table


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0] for requirement in requirements}


def pins(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        if match := re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)", line):
            yield match[1], match[2]


def test_client_declares_only_grpcio_and_protobuf() -> None:
    assert names(project("signpost")["dependencies"]) == CLIENT_NEEDS
    assert names(project("signpost-protos")["dependencies"]) == CLIENT_NEEDS - {"signpost-protos"}


def test_client_imports_without_any_extra() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORT_CLIENT], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_named_and_needs_python_3_11(name: str) -> None:
    table = project(name)
    assert table["name"] == name
    assert table["requires-python"] == ">=3.11"
    assert table["license"] == "Apache-2.0"


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_lock_is_hashed_and_names_no_index(path: Path) -> None:
    text = path.read_text()
    pinned = list(pins(path))
    assert pinned
    assert not re.search(r"https?:|file:|^-|@ ", text, re.MULTILINE)
    for block in re.split(r"\n(?=[a-z0-9])", text):
        assert "--hash=sha256:" in block, block


@pytest.mark.parametrize("part", ["build", "cli", "feature", "notification"])
def test_parts_are_locked_at_the_versions_that_were_tested(part: str) -> None:
    assert set(pins(ROOT / f"requirements/{part}.txt")) <= set(pins(ROOT / "requirements/dev.txt"))


@pytest.mark.parametrize(("part", "foreign"), [("cli", {"numpy", "nats-py", "uvloop"}), ("notification", {"numpy"})])
def test_parts_hold_only_what_they_need(part: str, foreign: set[str]) -> None:
    assert not foreign & {name for name, _ in pins(ROOT / f"requirements/{part}.txt")}
