"""Every metric that a dashboard or an alert asks for is one that the services have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.services import ROOT, running

_NAME = re.compile(r"\b(?:grpc_server|signpost|process)_[a-z0-9_]+\b")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)\Z")


def _queries() -> Iterator[tuple[str, str]]:
    """Every query, with where it stands. Recorded series have a colon in their name and are no metric of a service."""
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]
    for path in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml")):
        groups: list[dict[str, Any]] = yaml.safe_load(path.read_text())["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            yield f"{path.name}: {rule.get('alert', rule.get('record'))}", rule["expr"]


def _asked(query: str) -> set[str]:
    without_recorded = re.sub(r"\bjob:[a-z0-9_:]+", "", query)
    without_labels = re.sub(r"\{[^}]*\}", "", without_recorded)
    return set(_NAME.findall(without_labels))


@pytest.mark.long
async def test_dashboards_and_alerts_ask_for_metrics_that_exist(tmp_path: Path) -> None:
    async with (
        running("feature_service", tmp_path / "f") as feature,
        running("notification_service", tmp_path / "n") as notification,
    ):
        text = await feature.metrics() + await notification.metrics()
    there = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    queries = list(_queries())
    assert sum(len(_asked(query)) for _, query in queries) > 100
    missing = {
        f"{name} in {where}"
        for where, query in queries
        for name in _asked(query)
        if name not in there and _SUFFIX.sub("", name) not in there
    }
    assert not missing
