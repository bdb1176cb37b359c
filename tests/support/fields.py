"""Whether a path that an error names is one of the request's own."""

import re

from google.protobuf.descriptor import Descriptor


def has_field(message: Descriptor, path: str) -> bool:
    """Whether a message has a field of that path, as in `area.polygon.holes[0].latitudes[7]`."""
    within: Descriptor | None = message
    for name in re.sub(r"\[\d+\]", "", path).split("."):
        if within is None or (field := within.fields_by_name.get(name)) is None:
            return False
        within = field.message_type
    return True
