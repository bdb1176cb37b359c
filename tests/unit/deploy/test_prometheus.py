"""deploy/prometheus: Prometheus itself reads it, and the alerts fire when they should and not before."""

from pathlib import Path

import pytest
import yaml

from tests.unit.deploy.tools import ROOT, find_tool, run_tool

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def test_configuration_is_valid() -> None:
    run_tool(find_tool("promtool"), "check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts(path: Path) -> None:
    run_tool(find_tool("promtool"), "test", "rules", path)


def test_every_alert_is_tested_and_explained() -> None:
    tested = "".join(path.read_text() for path in RULE_TESTS)
    operations = (ROOT / "docs" / "operations.md").read_text()
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if name := rule.get("alert"):
                    assert f"alertname: {name}\n" in tested, f"{name} has no promtool test"
                    assert f"### {name}\n" in operations, f"{name} has no section in docs/operations.md"
                    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
