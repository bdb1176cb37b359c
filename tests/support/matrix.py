"""Prints the matrix of faults at the end of a test run: a pytest plugin, named in tests/conftest.py.

A test `test_fault_05_...[WatchFeatures]` fills the cell (5, WatchFeatures); one without a method in its
name has its columns from the marker `columns`.
"""

import re
from collections.abc import Iterator

import pytest

COLUMNS = ("ListFeatures", "WatchFeatures", "subscribe", "publish", "unary")
_FAULT = re.compile(r"test_fault_(\d+)")
_CELL = "fault_cell"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "columns(*names): which columns of the matrix of faults this test fills")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note each test's cells where they travel with its report, from other processes too."""
    for item in items:
        if "behaviour/client" in item.nodeid:
            item.user_properties += [(_CELL, cell) for cell in cells(item)]


def cells(item: pytest.Item) -> Iterator[str]:
    """The cells that a test fills, as `number column`."""
    found = _FAULT.search(item.name)
    if found is None:
        return
    callspec = getattr(item, "callspec", None)
    method = callspec.params.get("method") if callspec is not None else None
    marker = item.get_closest_marker("columns")
    for column in [method] if method in COLUMNS else marker.args if marker else ():
        yield f"{int(found[1])} {column}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table; nothing where no cell was run."""
    table: dict[tuple[int, str], str] = {}
    for outcome, sign in (("passed", "ok"), ("failed", "FAILED"), ("error", "FAILED")):
        for report in terminalreporter.stats.get(outcome, []):
            for name, cell in getattr(report, "user_properties", ()):
                if name == _CELL:
                    row, column = str(cell).split()
                    table[int(row), column] = sign
    if not table:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line("FAULTS  " + "".join(f"{column:<15}" for column in COLUMNS))
    for number in sorted({number for number, _ in table}):
        signs = [table.get((number, column), "") for column in COLUMNS]
        terminalreporter.write_line(f"{number:>6}  " + "".join(f"{sign:<15}" for sign in signs))
