"""What commands print on a terminal that is narrow."""

import io

from rich.console import Console
from rich.text import Text
from signpost.cli.output import Rows, table


def printed(rows: Rows, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False)
    with console.capture() as capture:
        console.print(rows)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_what_is_long_makes_room_for_ids_and_numbers() -> None:
    rows = table("distance", "name", "id", "properties", right=["distance"], whole=["id"])
    rows.add_row("1.2 km", "a name of very many words " * 4, "place-0123456789", "key=value  " * 9)
    header, line = printed(rows, 60)
    assert header.split() == ["distance", "name", "id", "properties"]
    assert line.strip().startswith("1.2 km  a name of")
    assert "…  place-0123456789  key=value" in line
    assert line.endswith("…")
    assert len(line) <= 60


def test_a_row_of_brackets_is_data() -> None:
    rows = table("topic")
    rows.add_row("[bold]x[/bold]")
    assert printed(rows, 40) == ["topic", "[bold]x[/bold]"]


def test_a_text_of_its_own_wraps() -> None:
    rows = table("key", "value", whole=["key"])
    rows.add_row("description", Text("one two three " * 9, overflow="fold"))
    lines = printed(rows, 40)
    assert "description" in lines[1]
    assert " ".join(" ".join(lines[1:]).split()).count("one two three") == 9
