"""`python -m tests.bench [GROUP ...] [--repeats N] [--json]`: measure, beside the floor of the same run.

Without a group: all of them. A group is a module `tests/bench/bench_<group>.py` with

    async def rows(repeats: int) -> AsyncIterator[Row]

that yields each `Row` (tests/bench/harness.py) once it is measured. Every row is printed as a line of
a table, or with --json as one JSON object a line: name, value, unit, floor, ratio. Values are medians
of `repeats` runs; the floor's runs lie between them, so that the machine's speed and noise cancel out.
"""

import argparse
import gc
import importlib
import json
import sys
from pathlib import Path

import uvloop

from tests.bench.harness import Row


def groups() -> list[str]:
    """What can be measured."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def line(row: Row) -> str:
    """A row of the table."""
    floor = "" if row.floor is None else f"{row.floor:>14,.1f}"
    ratio = "" if row.ratio is None else f"{row.ratio:>8.2f}"
    return f"{row.name:<64} {row.value:>14,.1f} {row.unit:<12} {floor:>14} {ratio:>8}"


async def main(chosen: list[str], repeats: int, as_json: bool) -> None:
    """Measure the groups, one after the other."""
    if not as_json:
        print(f"{'':<64} {'value':>14} {'unit':<12} {'floor':>14} {'ratio':>8}", flush=True)  # noqa: T201 - printing is its work
    for group in chosen:
        module = importlib.import_module(f"tests.bench.bench_{group}")
        async for row in module.rows(repeats):
            print(json.dumps(row.as_dict()) if as_json else line(row), flush=True)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Benchmarks, beside their floors.")
    parser.add_argument("group", nargs="*", help=f"of {', '.join(groups())}; all unless named")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the median counts (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.group) - set(groups())):
        sys.exit(f"no group {', '.join(unknown)}; there are: {', '.join(groups())}")
    gc.set_threshold(50_000, 20, 100)  # as the services do
    uvloop.run(main(arguments.group or groups(), arguments.repeats, arguments.json))
