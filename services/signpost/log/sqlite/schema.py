"""The file: its tables, its version, who may open it.

One file holds the logs of one process. It is refused, untouched, where it is no SQLite file, is
another program's, damaged, or of a newer version. It belongs to one process through a lock on a
file beside it: SQLite's own exclusive mode would lock out our readers.
"""

import contextlib
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from signpost.errors import LogRefused
from signpost.log.sqlite import batches

APPLICATION_ID = 0x5369676E  # "Sign"
QUICK_CHECK_BYTES = 64 * 1024 * 1024  # larger files are checked where they are read
BUSY_TIMEOUT_S = 60.0  # a restore from another process holds the write lock for its length

# Each log's own tables.
LOG_TABLES = (
    # `last` and `time_ns` are at least the highest of the batch: they stay where its last record goes.
    """CREATE TABLE batches_{id} (
        last INTEGER PRIMARY KEY,
        first INTEGER NOT NULL,
        records INTEGER NOT NULL,
        time_ns INTEGER NOT NULL,
        batch BLOB NOT NULL              -- storage.v1.RecordBatch
    )""",
    """CREATE TABLE subjects_{id} (
        subject TEXT PRIMARY KEY,
        last INTEGER NOT NULL,
        records INTEGER NOT NULL,
        first INTEGER NOT NULL,      -- at most the first one still there
        tombstone INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # A row for each commit: after which sequence it stands, and 4 bytes of distance and 16 of key for each record.
    "CREATE TABLE dedupe_{id} (base INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, keys BLOB NOT NULL)",
)


def _batch_the_records(connection: sqlite3.Connection) -> None:
    # Format 1 kept a row for each record.
    for (log_id,) in connection.execute("SELECT id FROM logs").fetchall():
        connection.execute(LOG_TABLES[0].format(id=log_id))
        rows = connection.execute(
            "SELECT sequence, subject, message_id, time_ns, payload, tombstone, previous"  # noqa: S608 - our own table
            f" FROM records_{log_id} ORDER BY sequence"
        )
        while some := rows.fetchmany(batches.BATCH_RECORDS):
            try:
                batches.insert(connection, log_id, batches.Columns(*zip(*some, strict=True)))
            except (TypeError, ValueError) as error:
                place = f"between {some[0][0]} and {some[-1][0]} of log {log_id}"
                raise sqlite3.DatabaseError(f"a record {place} is damaged: {error}") from error
        connection.execute(f"DROP TABLE records_{log_id}")


# Index n migrates version n to n + 1, in one transaction: statements, or functions of the connection.
MIGRATIONS: list[Sequence[str | Callable[[sqlite3.Connection], None]]] = [
    (
        """CREATE TABLE logs (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            epoch BLOB NOT NULL,
            last INTEGER NOT NULL DEFAULT 0,      -- highest sequence ever given
            horizon INTEGER NOT NULL DEFAULT 0,   -- highest sequence ever removed
            examined INTEGER NOT NULL DEFAULT 0,  -- compaction has decided about everything up to here
            flushed INTEGER NOT NULL DEFAULT 0,   -- `subjects` is exact up to here at least
            records INTEGER NOT NULL DEFAULT 0,
            bytes INTEGER NOT NULL DEFAULT 0,
            subjects INTEGER NOT NULL DEFAULT 0,
            time_ns INTEGER NOT NULL DEFAULT 0    -- of the newest record: times never go back
        )""",
    ),
    (_batch_the_records,),
]
VERSION = len(MIGRATIONS)


class FileLock:
    """The right of one process to a file; held until `release` or the process' end."""

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}.lock")
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LogRefused(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise LogRefused(
                f"{path} is in use by another process{f' ({holder})' if holder else ''}: "
                "an SQLite log belongs to one process; stop it, or use NATS JetStream"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, b"pid %d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Give it back. The file stays: removing it would race with the next process."""
        os.close(self._file)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection for any thread, one at a time, with autocommit."""
    uri = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S, cached_statements=256
    )
    if not read_only:
        connection.execute("PRAGMA synchronous=FULL")
    return connection


def prepare(path: Path, *, owned: bool = False) -> None:
    """Make the file where it is missing, check it, and bring it to this version; LogRefused where that must not be.

    `owned`: the caller holds its `FileLock`. Otherwise that is taken for a migration, so that no file changes
    under a service of an older release.
    """
    with refusing(path, " cannot be opened"):
        if not path.exists() or path.stat().st_size == 0:
            _create(path)
        if _check(path) < VERSION:
            lock = None if owned else FileLock(path)
            try:
                _migrate(path)
            finally:
                if lock:
                    lock.release()


@contextlib.contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A file of this version to read from: the one at the path, which is not touched, or a copy where it is older.

    LogRefused where it is missing, or no log that can be read.
    """
    if not path.exists() or path.stat().st_size == 0:
        raise LogRefused(f"{path} does not exist, or is empty")
    with contextlib.ExitStack() as stack:
        with refusing(path, " cannot be opened"):
            if _check(path) < VERSION:
                directory = stack.enter_context(tempfile.TemporaryDirectory(dir=path.parent))
                original, path = path, Path(directory) / path.name
                with (
                    contextlib.closing(connect(original, read_only=True)) as source,
                    contextlib.closing(sqlite3.connect(path)) as copy,
                ):
                    source.backup(copy)
                _migrate(path)
        yield path


@contextlib.contextmanager
def refusing(path: Path, fault: str = "") -> Iterator[None]:
    """What SQLite or the system has against a file, as a LogRefused that names it."""
    try:
        yield
    except OSError as error:
        raise LogRefused(f"{path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise LogRefused(f"{path}{fault}: {error}") from error


def new_log(connection: sqlite3.Connection, name: str) -> int:
    """Add an empty log within the caller's transaction; answers its id."""
    connection.execute("INSERT INTO logs (name, epoch) VALUES (?, ?)", (name, os.urandom(8)))
    identity: int
    (identity,) = connection.execute("SELECT id FROM logs WHERE name = ?", (name,)).fetchone()
    for statement in LOG_TABLES:
        connection.execute(statement.format(id=identity))
    return identity


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE ... COMMIT; rolled back where the block or the commit fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def create(path: Path) -> None:
    """A new file of this version, in journal mode WAL; replaces what is there."""
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        _apply(connection)
        connection.execute("PRAGMA journal_mode=WAL")


def _create(path: Path) -> None:
    # Made aside and moved into place: a process that is killed here leaves no half file behind.
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.new")
    create(aside)
    with aside.open("rb") as made:
        os.fsync(made.fileno())
    aside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check(path: Path) -> int:
    with path.open("rb") as file:
        header = file.read(100)
    if header[:16] != b"SQLite format 3\0" or len(header) < 100:
        raise LogRefused(f"{path} is no SQLite file, or it is damaged; move it away, or name another one")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise LogRefused(f"{path} belongs to another program; name another file")
    version = int.from_bytes(header[60:64], "big")
    if version > VERSION:
        raise LogRefused(
            f"{path} was written by a newer release (format {version}, this one knows {VERSION}); use that release"
        )
    with contextlib.closing(connect(path, read_only=True)) as connection:
        try:
            if path.stat().st_size <= QUICK_CHECK_BYTES:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            else:
                verdict = "ok"
                for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()  # noqa: S608 - our own tables
        except sqlite3.OperationalError:
            raise  # not damaged: it cannot be opened, or is locked
        except sqlite3.DatabaseError as error:
            verdict = str(error)
    if verdict != "ok":
        raise LogRefused(f"{path} is damaged ({verdict}); restore it from a backup, or move it away")
    return version


def _migrate(path: Path) -> None:
    with contextlib.closing(connect(path)) as connection:
        _apply(connection)


def _apply(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                if isinstance(statement, str):
                    connection.execute(statement)
                else:
                    statement(connection)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


def empty_wal(connection: sqlite3.Connection, path: Path, max_bytes: int, wait_s: float) -> None:
    """Empty the write-ahead log where it is larger, if readers let it within the time.

    By itself SQLite begins it anew only where no reader is in it: among many readers that moment never comes.
    """
    try:
        if path.with_name(f"{path.name}-wal").stat().st_size <= max_bytes:
            return
    except OSError:
        return
    connection.execute(f"PRAGMA busy_timeout={int(wait_s * 1000)}")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")


def free_bytes(path: Path) -> int:
    """Room on the file's disk for this process."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize
