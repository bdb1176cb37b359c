"""Logs on NATS JetStream: shared by every process on the same streams."""

from signpost.log.jetstream.log import JetStreamLog
from signpost.log.jetstream.settings import JetStreamSettings
from signpost.log.jetstream.store import JetStreamStore

__all__ = ["JetStreamLog", "JetStreamSettings", "JetStreamStore"]
