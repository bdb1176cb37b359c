"""Put, delete, expire: appends to the features log."""

from collections.abc import Sequence
from typing import NamedTuple

from signpost.errors import SignpostError, StaleSequence
from signpost.log.base import Append, Appended, Log

from feature_service.items import to_item
from feature_service.projection import Projection
from feature_service.records import Kind, gone_payload, put_payload, subject_of

_IMPOSSIBLE = (1 << 62) - 1
"""An expected sequence that no record has: such an append stores nothing, but recognises a retry and
tells the current sequence."""


class Deleted(NamedTuple):
    """What became of a deletion. `sequence` 0: there was nothing."""

    sequence: int
    duplicate: bool


class Writer:
    """Writes features. Each call is atomic and durable when it returns."""

    def __init__(self, log: Log, projection: Projection) -> None:
        self._log, self._projection = log, projection

    async def put(
        self,
        collection: str,
        feature_id: str,
        feature: bytes,
        *,
        message_id: str = "",
        expected_sequence: int | None = None,
        principal: str = "",
        traceparent: str = "",
    ) -> Appended:
        """Create or replace a valid feature, given encoded. Raises StaleSequence and what the log raises."""
        return await self._log.append(
            Append(
                subject_of(collection, feature_id),
                put_payload(to_item(feature), principal, traceparent),
                message_id,
                principal,
                expected_sequence,
            )
        )

    async def delete(
        self,
        collection: str,
        feature_id: str,
        *,
        message_id: str = "",
        expected_sequence: int | None = None,
        principal: str = "",
        traceparent: str = "",
    ) -> Deleted:
        """Delete a feature; of one that is not there nothing is stored.

        Raises StaleSequence, where an expected sequence was given, and what the log raises.
        """
        append = Append(
            subject_of(collection, feature_id),
            gone_payload(Kind.DELETED, principal, traceparent),
            message_id,
            principal,
            tombstone=True,
        )
        if expected_sequence:
            stored = await self._log.append(append._replace(expected_sequence=expected_sequence))
            return Deleted(*stored)
        standing = self._projection.version(collection, feature_id)
        guess = standing.sequence if standing is not None and expected_sequence is None else _IMPOSSIBLE
        while True:
            try:
                stored = await self._log.append(append._replace(expected_sequence=guess))
            except StaleSequence as stale:
                if stale.actual == 0:
                    return Deleted(0, False)
                if expected_sequence is not None:
                    raise StaleSequence(stale.subject, expected_sequence, stale.actual) from stale
                guess = stale.actual
            else:
                return Deleted(*stored)

    async def expire(self, versions: Sequence[tuple[str, str, int]]) -> None:
        """Record that versions (collection, id, sequence) have expired; those that are not current any more live on.

        Raises what the log raises; then some may be recorded.
        """
        payload = gone_payload(Kind.EXPIRED)
        appends = [
            Append(subject_of(collection, feature_id), payload, expected_sequence=sequence, tombstone=True)
            for collection, feature_id, sequence in versions
        ]
        if appends:
            for answer in await self._log.append_many(appends):
                if isinstance(answer, SignpostError) and not isinstance(answer, StaleSequence):
                    raise answer
