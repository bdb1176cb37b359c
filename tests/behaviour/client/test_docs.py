"""The examples of docs/client.md run as they stand."""

import re
from pathlib import Path

import pytest

from tests.behaviour.client.conftest import Services

TEXT = (Path(__file__).parents[3] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SAYS = [
    "1 features",
    "order 3",
    "certainly not stored",
    "hello",
    "grpc_client_started_total",
    "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
]


def test_every_example_is_here() -> None:
    assert len(EXAMPLES) == len(SAYS)


@pytest.mark.parametrize("number", range(len(SAYS)))
def test_example(number: int, services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    example = EXAMPLES[number]
    for place, module in (("localhost:50051", "feature_service"), ("localhost:50052", "notification_service")):
        example = example.replace(place, services[module].target)
    exec(compile(example, f"docs/client.md, example {number}", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own
    assert SAYS[number] in capsys.readouterr().out
