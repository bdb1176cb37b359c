"""The embedded engine: one SQLite file, one process."""

from signpost.log.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
