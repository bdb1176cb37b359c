"""docker-compose.yml and the Dockerfile: pinned, without privileges, and on the loopback only."""

import re
from typing import Any

import pytest
import yaml

from tests.unit.deploy.tools import ROOT

DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
NATS = yaml.safe_load((ROOT / "deploy/docker/compose.nats.yml").read_text())["services"]
EVERY = [*COMPOSE.items(), ("nats", NATS["nats"])]


@pytest.mark.parametrize(("name", "service"), EVERY, ids=[name for name, _ in EVERY])
def test_containers_have_no_privileges(name: str, service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"], name
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True


@pytest.mark.parametrize(("name", "service"), EVERY, ids=[name for name, _ in EVERY])
def test_images_are_pinned_and_ports_published_on_the_loopback(name: str, service: dict[str, Any]) -> None:
    tag = service["image"].partition(":")[2]
    assert re.search(r"\d+\.\d+", tag), name
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", ["feature", "notification"])
def test_each_service_has_a_target_with_a_health_check_and_no_root(name: str) -> None:
    assert COMPOSE[name]["build"]["target"] == name
    stage = DOCKERFILE.partition(f"FROM runtime AS {name}\n")[2].partition("\nFROM ")[0]
    assert "HEALTHCHECK" in stage
    assert f'ENTRYPOINT ["python", "-m", "{name}_service"]' in stage
    assert "USER" not in stage
    assert "USER 10001:10001" in DOCKERFILE.partition("AS runtime\n")[2].partition("\nFROM ")[0]


def test_base_images_are_pinned() -> None:
    bases = {line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")}
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert bases - stages == {"python:3.13-slim-trixie"}
