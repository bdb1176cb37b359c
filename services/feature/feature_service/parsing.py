"""Where a request is checked: a large one in a thread, so that its corners and values do not hold the others up."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

RequestT = TypeVar("RequestT", bound=Message)
ParsedT = TypeVar("ParsedT")
LARGE_BYTES = 32 * 1024
"""A request of this size is checked in a millisecond or two; one of 4 MiB in a tenth of a second."""


async def parsed(parse: Callable[[RequestT], ParsedT], request: RequestT) -> ParsedT:
    """What a request says. Raises what `parse` raises."""
    if request.ByteSize() <= LARGE_BYTES:
        return parse(request)
    return await asyncio.to_thread(parse, request)
