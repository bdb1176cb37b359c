"""What compose and Kubernetes set are settings that the services have, and their values are valid."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from feature_service.config import FeatureSettings
from notification_service.settings import NotificationSettings
from signpost.server import ServerSettings
from signpost.server.settings import load_settings

from tests.unit.deploy.tools import ROOT

SETTINGS: dict[str, type[ServerSettings]] = {"feature": FeatureSettings, "notification": NotificationSettings}
COMPOSE_FILES = ("docker-compose.yml", "deploy/docker/compose.nats.yml")
KUSTOMIZATIONS = ("k8s/base/kustomization.yaml", "k8s/overlays/nats/kustomization.yaml")


def _environments(service: str) -> dict[str, str]:
    """Every variable that is set for a service, by compose files, the Dockerfile and the config maps."""
    found: dict[str, str] = {}
    for file in COMPOSE_FILES:
        found |= _load(file)["services"][service].get("environment", {})
    for file in KUSTOMIZATIONS:
        for generator in _load(file)["configMapGenerator"]:
            if generator["name"] == service:
                found |= dict(literal.split("=", 1) for literal in generator["literals"])
    return found


def _load(file: str) -> Any:
    return yaml.safe_load((ROOT / file).read_text())


@pytest.mark.parametrize("service", SETTINGS)
def test_every_variable_is_a_setting_with_a_valid_value(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = _environments(service)
    fields = {f"SIGNPOST_{name.upper()}" for name in SETTINGS[service].model_fields}
    assert environment.keys() <= fields
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(SETTINGS[service], [], program=service)
    assert settings.log == "nats://nats:4222"
    assert settings.data_dir == Path("/data")
    assert settings.nats_replicas == 3
