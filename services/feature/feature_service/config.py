"""The feature service's settings."""

from typing import ClassVar

from pydantic import Field
from signpost.server import ServerSettings


class FeatureSettings(ServerSettings):
    """What the feature service can be told."""

    default_database: ClassVar[str] = "feature.db"
    distribution: ClassVar[str] = "signpost-feature-service"

    history_s: float = Field(
        24 * 3600,
        gt=0,
        description="How long every change is kept, in seconds: watches resume and fences lag within it; longer costs "
        "disk. Beyond it the last version of each feature stays",
    )
    dedupe_window_s: float = Field(
        3600, ge=0, description="How long message ids of writes are remembered, in seconds; about 40 bytes a write"
    )
    seed_limit: int = Field(
        100, ge=1, le=100_000, description="Features that the seed's ListFeatures answers, the nearest first"
    )
    notification: str = Field(
        "localhost:50052",
        description="The notification service that fences publish to, as a gRPC target; while it is away their events "
        "wait, within --history-s",
    )
