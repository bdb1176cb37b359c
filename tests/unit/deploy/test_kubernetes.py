"""k8s/: what kustomize renders is complete, and right for a cluster that enforces `restricted` pods."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from protos.feature.v1 import feature_pb2
from protos.notification.v1 import notification_pb2
from tests.unit.deploy.tools import ROOT, find_tool, run_tool

KUSTOMIZATIONS = ("k8s/base", "k8s/overlays/nats")
PORTS = {"feature": (50051, 9101), "notification": (50052, 9102)}
SERVICES = {
    "feature": feature_pb2.DESCRIPTOR.services_by_name["FeatureService"].full_name,
    "notification": notification_pb2.DESCRIPTOR.services_by_name["NotificationService"].full_name,
}


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[tuple[str, str], Any]]:
    """Every object of every kustomization, by kind and name."""
    tool = find_tool("kustomize", "kubectl")
    command = [tool, "build"] if Path(tool).name == "kustomize" else [tool, "kustomize"]
    return {
        folder: {
            (item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(run_tool(*command, folder))
        }
        for folder in KUSTOMIZATIONS
    }


def patience_s(container: Any) -> int:
    """How long a start may take before the container is killed."""
    probe = container["startupProbe"]
    seconds: int = probe["periodSeconds"] * probe["failureThreshold"]
    return seconds


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
@pytest.mark.parametrize("name", SERVICES)
def test_probes_ask_the_grpc_health_of_the_service(rendered: Any, folder: str, name: str) -> None:
    (container,) = rendered[folder]["Deployment", name]["spec"]["template"]["spec"]["containers"]
    port, metrics_port = PORTS[name]
    assert container["readinessProbe"]["grpc"] == {"port": port, "service": SERVICES[name]}
    assert container["livenessProbe"]["grpc"] == {"port": port}
    assert container["startupProbe"]["grpc"] == {"port": port}
    assert patience_s(container) >= 1800
    assert [item["containerPort"] for item in container["ports"]] == [port, metrics_port]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_pods_are_restricted_and_bounded(rendered: Any, folder: str) -> None:
    pods = [
        item["spec"]["template"]["spec"]
        for (kind, _), item in rendered[folder].items()
        if "Set" in kind or kind == "Deployment"
    ]
    assert len(pods) >= 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            image, _, tag = container["image"].partition(":")
            assert image
            assert tag not in ("", "latest")


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
@pytest.mark.parametrize("name", SERVICES)
def test_every_name_that_is_referred_to_exists(rendered: Any, folder: str, name: str) -> None:
    objects = rendered[folder]
    deployment = objects["Deployment", name]
    pod = deployment["spec"]["template"]
    for source in pod["spec"]["containers"][0]["envFrom"]:
        assert ("ConfigMap", source["configMapRef"]["name"]) in objects
    for volume in pod["spec"]["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in objects
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        objects["Service", name]["spec"]["selector"],
        objects["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= pod["metadata"]["labels"].items() for selector in selectors)


def test_one_process_owns_a_sqlite_log(rendered: Any) -> None:
    for name in SERVICES:
        spec = rendered["k8s/base"]["Deployment", name]["spec"]
        assert spec["replicas"] == 1
        assert spec["strategy"] == {"type": "Recreate"}


def test_on_jetstream_two_replicas_roll_one_at_a_time_without_a_disk(rendered: Any) -> None:
    objects = rendered["k8s/overlays/nats"]
    assert not [name for kind, name in objects if kind == "PersistentVolumeClaim"]
    for name in SERVICES:
        spec = objects["Deployment", name]["spec"]
        assert spec["replicas"] == 2
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        config = objects["ConfigMap", spec["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]]
        assert config["data"]["SIGNPOST_LOG"] == "nats://nats:4222"
    assert objects["StatefulSet", "nats"]["spec"]["replicas"] == 3


def test_a_nats_server_hands_on_before_it_goes_and_may_read_a_large_disk(rendered: Any) -> None:
    pod = rendered["k8s/overlays/nats"]["StatefulSet", "nats"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["nats-server", "--signal", "ldm=1"]
    assert patience_s(container) >= 1800
    lame_duck = re.findall(r"^lame_duck_\w+: (\d+)s$", (ROOT / "k8s/overlays/nats/nats.conf").read_text(), re.MULTILINE)
    assert pod["terminationGracePeriodSeconds"] > sum(map(int, lame_duck)) > 0


def test_nats_reads_its_configuration() -> None:
    run_tool(find_tool("nats-server"), "-t", "-c", ROOT / "k8s/overlays/nats/nats.conf", env={"POD_NAME": "nats-0"})
