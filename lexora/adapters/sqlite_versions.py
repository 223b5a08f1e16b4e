"""SQLite on one machine: the versions of the prepared answers, and what the gateway serves of them."""

import sqlite3
from pathlib import Path

import msgspec

from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.ports import InForce, Overtaken
from lexora.core.versions import Version

# As the gateway's own tables: whichever of us comes first makes them.
_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS answer_versions (id TEXT NOT NULL PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers_in_force (version TEXT, begun TEXT, begun_at REAL NOT NULL, was TEXT);
"""
_SERVED = """
SELECT (SELECT content FROM catalogue), prompt, variant, response FROM answers
UNION ALL SELECT content, NULL, NULL, NULL FROM catalogue
"""
# How long a write waits while another program holds the file.
_PATIENCE_SECONDS = 5.0

_decode = msgspec.json.Decoder(Version).decode


class _CatalogueFile(msgspec.Struct):
    prompts: list[PreparedPrompt]


class SqliteVersions:
    """The port `VersionStore`, in the gateway's file; the gateway may be running."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be used."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, timeout=_PATIENCE_SECONDS, isolation_level=None)
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from None

    def served(self) -> Version | None:
        """The content that the gateway serves, or served when it last ran; None if it has never run. Raises OSError."""
        try:
            rows = self._connection.execute(_SERVED).fetchall()  # one statement: of one moment
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise OSError(f"{self._path}: {error}") from None
        if not rows or not rows[0][0]:
            return None
        catalogue = Catalogue(msgspec.json.decode(rows[0][0], type=_CatalogueFile).prompts)
        return Version.of(catalogue, {(row[1], row[2]): row[3] for row in rows if row[1] is not None})

    def add(self, version: Version) -> None:
        self._run("INSERT OR IGNORE INTO answer_versions VALUES (?, ?)", version.id, msgspec.json.encode(version))

    def get(self, version_id: str) -> Version | None:
        rows = self._run("SELECT content FROM answer_versions WHERE id = ?", version_id)
        return _decode(rows[0][0]) if rows else None

    def ids(self) -> list[str]:
        return [row[0] for row in self._run("SELECT id FROM answer_versions ORDER BY id DESC")]

    def in_force(self) -> InForce:
        rows = self._run("SELECT version, begun, begun_at, was FROM answers_in_force")
        return msgspec.convert(rows[0], InForce) if rows else InForce()

    def begin(self, version_id: str, now: float, as_seen: InForce) -> InForce | None:
        begun = as_seen.beginning(version_id, now)
        return begun if self._change(as_seen, begun) else None

    def switch(self, version: Version, as_seen: InForce) -> InForce:
        switched = as_seen._replace(version=version.id)
        if not self._change(as_seen, switched):
            raise Overtaken
        return switched

    def finish(self, as_seen: InForce) -> InForce:
        finished = InForce(as_seen.version)
        if not self._change(as_seen, finished):
            raise Overtaken
        return finished

    def close(self) -> None:
        self._connection.close()

    def _change(self, before: InForce, after: InForce) -> bool:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self.in_force() != before:
                    return False
                self._connection.execute("DELETE FROM answers_in_force")
                self._connection.execute("INSERT INTO answers_in_force VALUES (?, ?, ?, ?)", after)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from None
        return True

    def _run(self, statement: str, *values: str | bytes) -> list[tuple[str, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from None
