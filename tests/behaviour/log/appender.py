"""A process that appends until it is killed: `python -m tests.behaviour.log.appender FILE ROUND`.

Each acknowledged append is told as a line, written at once: sequence and message id.
"""

import asyncio
import os
import random
import sys

from signpost.log import Append, LogSettings, open_store

WORKERS = 30


async def main(path: str, round_number: str) -> None:
    """Append from many tasks, some records alone and some together."""
    async with open_store(f"sqlite:///{path}", [LogSettings("notes")]) as store:

        async def worker(number: int) -> None:
            sent = 0
            while True:
                ids = [f"{round_number}.{number}.{sent + i}" for i in range(random.choice((1, 1, 1, 20)))]
                entries = [Append(f"s.{sent % 50}.{number}", os.urandom(random.randrange(300)), each) for each in ids]
                answers = await store["notes"].append_many(entries)
                told = [f"{answer.sequence} {each}\n" for answer, each in zip(answers, ids, strict=True)]  # type: ignore[union-attr]
                os.write(1, "".join(told).encode())
                sent += len(ids)

        await asyncio.gather(*[worker(number) for number in range(WORKERS)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
