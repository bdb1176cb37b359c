"""grpcurl, which knows nothing of this repository, lists, describes and calls every method."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.grpcurl import find, grpcurl
from tests.support.services import ServiceProcess

DEADLINE_EXCEEDED = 64 + 4
INFRASTRUCTURE = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}

AREA = '{"circle": {"center": {"latitude": 488566000, "longitude": 23522000}, "radiusM": 5000}}'
PARIS = '{"id": "paris", "name": "Paris", "location": {"latitude": 488566000, "longitude": 23522000}}'
FENCE = f'{{"id": "centre", "area": {AREA}, "topic": "fences.centre", "events": ["FENCE_EVENT_ENTERED"]}}'

# Method: what to send (JSON messages, one after the other), what must be in the answer, whether it ends by itself.
FEATURE_CALLS = {
    "feature.v1.FeatureService/PutFeature": (f'{{"feature": {PARIS}}}', '"sequence"', True),
    "feature.v1.FeatureService/GetFeature": ('{"id": "paris"}', '"Paris"', True),
    "feature.v1.FeatureService/ListFeatures": (f'{{"area": {AREA}}}', '"Paris"', True),
    "feature.v1.FeatureService/WatchFeatures": (f'{{"area": {AREA}}}', '"Paris"', False),
    "feature.v1.FeatureService/NearestFeatures": (
        '{"id": 1, "latitudes": [488000000], "longitudes": [23000000]}{"id": 2, "latitudes": [0], "longitudes": [0]}',
        '"paris"',
        True,
    ),
    "feature.v1.FeatureService/ImportFeatures": (f'{{"id": 1, "features": [{PARIS}]}}', '"unchanged": 1', True),
    "feature.v1.FeatureService/PutFence": (f'{{"fence": {FENCE}}}', '"uid"', True),
    "feature.v1.FeatureService/ListFences": ("{}", '"centre"', True),
    "feature.v1.FeatureService/DeleteFence": ('{"id": "centre"}', '"deleted": true', True),
    "feature.v1.FeatureService/DeleteFeature": ('{"id": "paris"}', '"deleted": true', True),
    "stream_service.StreamService/ListFeatures": ('{"latitude": 488566000, "longitude": 23522000}', "", True),
}

PAYLOAD = base64.b64encode(b"hi").decode()
NOTIFICATION_CALLS = {
    "notification.v1.NotificationService/Publish": (
        f'{{"topic": "demo.hello", "payload": "{PAYLOAD}", "messageId": "1"}}',
        '"sequence"',
        True,
    ),
    "notification.v1.NotificationService/Subscribe": (
        '{"filter": "demo.>", "start": {"earliest": {}}}',
        f'"payload": "{PAYLOAD}"',
        False,
    ),
    "notification.v1.NotificationService/Connect": (
        '{"hello": {"clientId": "grpcurl", "sessionId": "AAAA"}}'
        '{"subscribe": {"subscription": "s", "filter": "demo.>"}}'
        f'{{"publish": {{"id": 1, "publications": [{{"topic": "demo.more", "payload": "{PAYLOAD}"}}]}}}}',
        '"published"',
        True,
    ),
    "notification.v1.NotificationService/ListTopics": ("{}", '"demo.hello"', True),
    "notification.v1.NotificationService/ListPresence": ("{}", "", True),
    "pb.NotificationService/Connect": ('{"message": "a"}{"message": "b"}', '"New Notification"', True),
    "example.Greeter/Chat": ('{"content": "hi"}{"content": "there"}', '"Received: there"', True),
}

CALLS = {"feature_service": FEATURE_CALLS, "notification_service": NOTIFICATION_CALLS}
both = pytest.mark.parametrize("module", CALLS)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServiceProcess]]:
    find()
    made = {module: ServiceProcess(module, tmp_path_factory.mktemp(module)) for module in CALLS}
    try:
        for service in made.values():
            asyncio.run(service.start())
        yield made
    finally:
        for service in made.values():
            service.kill()


@both
async def test_lists_and_describes_every_method_and_each_has_a_call_here(
    services: dict[str, ServiceProcess], module: str
) -> None:
    target = services[module].target
    listed = (await grpcurl(target, "list")).out.split()
    assert set(listed) >= INFRASTRUCTURE
    methods: list[str] = []
    for service in listed:
        described = await grpcurl(target, "describe", service)
        assert described.exit_code == 0, described.err
        assert f"{service} is a service" in described.out
        if service not in INFRASTRUCTURE:
            methods += (await grpcurl(target, "list", service)).out.split()
    assert set(methods) == {name.replace("/", ".") for name in CALLS[module]}
    for method in methods:
        described = await grpcurl(target, "describe", method)
        assert "is a method" in described.out, described.err


@both
async def test_calls_every_method(services: dict[str, ServiceProcess], module: str) -> None:
    """In the order of the table: later calls see what earlier ones have done."""
    target = services[module].target
    for method, (messages, expected, ends) in CALLS[module].items():
        limit = [] if ends else ["-max-time", "1"]
        answer = await grpcurl("-d", "@", *limit, target, method, stdin=messages)
        assert answer.exit_code == (0 if ends else DEADLINE_EXCEEDED), f"{method}: {answer.err}"
        assert expected in answer.out, f"{method}: {answer.out}{answer.err}"


@both
async def test_health_and_an_error_with_its_reason(services: dict[str, ServiceProcess], module: str) -> None:
    target = services[module].target
    service = "feature.v1.FeatureService" if module == "feature_service" else "notification.v1.NotificationService"
    healthy = await grpcurl("-d", f'{{"service": "{service}"}}', target, "grpc.health.v1.Health/Check")
    assert '"SERVING"' in healthy.out
    wrong = '{"id": "nowhere"}' if module == "feature_service" else '{"topic": "a.*"}'
    method = "GetFeature" if module == "feature_service" else "Publish"
    refused = await grpcurl("-d", wrong, target, f"{service}/{method}")
    assert refused.exit_code > 64
    assert "google.rpc.ErrorInfo" in refused.err
    assert '"domain": "signpost"' in refused.err


async def test_without_grpcurl_the_test_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"PATH": str(tmp_path), "GOBIN": str(tmp_path), "CI": ""}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(pytest.skip.Exception, match="grpcurl is not installed"):
        find()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="grpcurl is not installed"):
        find()
