"""`python -m signpost.cli` is the `signpost` command."""

from signpost.cli.main import run

run()
