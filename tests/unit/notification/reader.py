"""A stream without gRPC: takes frames from its subscriptions as fast as it is told to, and checks the promises."""

import asyncio
from collections.abc import Callable

from notification_service.hub import Hub
from notification_service.subscription import CONNECT_WIRE, Subscription
from signpost.errors import SignpostError

from protos.notification.v1 import notification_pb2 as pb


class Reader:
    """Holds one subscription and everything that it was handed.

    Each delivery is checked as it comes: its interval touches the one before, its records rise and lie within it.
    """

    def __init__(self, hub: Hub, pattern: str, *, window: int | None = None) -> None:
        self.subscription = Subscription(hub, self, CONNECT_WIRE, "s", pattern, window=window)
        self.records: list[pb.Notification] = []
        self.gaps: list[pb.Gap] = []
        self.deliveries: list[pb.Delivery] = []
        self.through: int | None = None
        self.position = b""
        self.error: SignpostError | None = None
        self.on_wake: Callable[[], None] = lambda: None

    def begin(self, through: int, position: bytes) -> "Reader":
        self.through, self.position = through, position
        self.subscription.begin(through, position)
        return self

    def wake(self, subscription: Subscription) -> bool:
        if subscription.queued:
            return False
        subscription.queued = True
        self.on_wake()
        return True

    def failed(self, subscription: Subscription, error: SignpostError) -> None:
        self.error = error

    def take(self) -> bool:
        """One frame, if there is one."""
        self.subscription.queued = False
        frame = self.subscription.take()
        if frame is None:
            return False
        response = pb.ConnectResponse.FromString(frame)
        if response.HasField("gap"):
            self.gaps.append(response.gap)
            self.through = response.gap.first_available - 1
            return True
        delivery = response.delivery
        assert delivery.after == self.through, "the intervals touch"
        assert delivery.through >= delivery.after
        sequences = [n.sequence for n in delivery.notifications]
        assert sequences == sorted(set(sequences)), "in order, each once"
        assert all(delivery.after < s <= delivery.through for s in sequences), "within the interval"
        self.through, self.position = delivery.through, delivery.position.token
        self.deliveries.append(delivery)
        self.records += delivery.notifications
        return True

    async def take_to(self, through: int, timeout_s: float = 20.0) -> "Reader":
        """Everything up to a sequence."""
        async with asyncio.timeout(timeout_s):
            while self.through is None or self.through < through:
                assert self.error is None, self.error
                if not self.take():
                    await asyncio.sleep(0.001)
        return self

    @property
    def sequences(self) -> list[int]:
        return [n.sequence for n in self.records]
