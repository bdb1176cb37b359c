"""What the library tells those who measure it. By default nobody does, at no cost.

`signpost.client.metrics` (Prometheus) and `signpost.client.tracing` (OpenTelemetry) are the two
that come with it; neither is imported unless asked for.
"""

from typing import Any, Protocol

from signpost.client.methods import Method

AnyMethod = Method[Any, Any]
MetadataItems = list[tuple[str, str]]


class CallInstrument(Protocol):
    """One call, from its start to its end."""

    def sent(self) -> None:
        """A message went out."""

    def received(self) -> None:
        """A message came in."""

    def ended(self, code: str) -> None:
        """The call is over; called exactly once, with gRPC's code in UPPER_SNAKE."""


class Instruments(Protocol):
    """Hooks of the whole library. They run in the event loop and must not block or raise."""

    def call(self, method: AnyMethod, metadata: MetadataItems) -> CallInstrument:
        """A call begins; may add to its metadata."""

    def traceparent(self) -> str:
        """The W3C traceparent of the running span, for what is published in it; empty: none."""

    def reconnected(self, stream: str) -> None:
        """A stream was opened again after it was lost."""

    def resumed(self, stream: str) -> None:
        """A stream went on from a position."""

    def duplicates(self, stream: str, count: int) -> None:
        """Records came again and were dropped."""

    def gap(self, stream: str) -> None:
        """Records may have been lost."""

    def lag(self, stream: str, records: int, seconds: float) -> None:
        """How far a subscription's caller is behind: records not taken yet, age of the newest taken."""


class NoCall:
    """A call that nobody measures."""

    def sent(self) -> None: ...

    def received(self) -> None: ...

    def ended(self, code: str) -> None: ...


class NoInstruments:
    """Nobody measures."""

    _CALL = NoCall()

    def call(self, method: AnyMethod, metadata: MetadataItems) -> CallInstrument:
        return self._CALL

    def traceparent(self) -> str:
        return ""

    def reconnected(self, stream: str) -> None: ...

    def resumed(self, stream: str) -> None: ...

    def duplicates(self, stream: str, count: int) -> None: ...

    def gap(self, stream: str) -> None: ...

    def lag(self, stream: str, records: int, seconds: float) -> None: ...
