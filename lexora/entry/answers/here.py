"""The gateway on this machine, as a target of `lexora answers`: it may be running or not."""

import argparse
import getpass
import os
import time
from contextlib import closing, suppress
from pathlib import Path

from lexora.adapters.sqlite import SqliteAnswers
from lexora.adapters.sqlite_versions import SqliteVersions
from lexora.core.ports import Overtaken
from lexora.core.versions import Version
from lexora.entry.answers.files import AnswerFiles
from lexora.entry.answers.folder import chosen_folder, own_folder
from lexora.entry.config import load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.folders import data_folder
from lexora.entry.keys import require_owner
from lexora.entry.prepared import SHIPPED, load_prepared
from lexora.entry.publishing import Plan, begin, overtaken, say, stamped

# How long a gateway may take to read its files again.
_TAKEN_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.05


class Here:
    """It reads its answers from a folder, so that is where a version is put; what it serves is in its database."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises ConfigError and OSError."""
        settings = load_settings(options.config)
        self._options = options
        self._data = data_folder(options.data, settings)
        self._reads = settings.answers or SHIPPED
        self._database = self._data / "lexora.db"
        self.name = f"the gateway with its data in {self._data}"
        self.user = getpass.getuser()
        if not self._database.exists():
            require_owner(self._data, "answers")
            os.umask(0o077)  # what the gateway will write there is nobody else's either
        self.store = SqliteVersions(self._database)

    def close(self) -> None:
        self.store.close()

    def in_force(self) -> Version | None:
        return self.store.served()

    def check(self, version: Version) -> None:
        del version
        folder = chosen_folder(self._options)
        if folder.resolve() != self._reads.resolve():
            raise ConfigError(
                f"the gateway reads its answers in {self._reads}, not in {folder}; "
                f"name that one in the config (answers: {folder}), or publish the other with --folder"
            )

    def keep_what_is_served(self) -> None:
        """Makes a version of what came by a reload or a start, so that there is a way back to it."""
        served, seen = self.store.served(), self.store.in_force()
        known = self.store.get(seen.version) if seen.version else None
        if served is None or seen.begun or (known is not None and known.says_the_same(served)):
            return
        version = stamped(served, time.time() - 1, self.user, "what was served before, never published", seen.version)
        self._note(Plan(version, known, seen, unfinished=False))

    def put_in_force(self, plan: Plan) -> None:
        """What is in the folder by then is kept as a version if it is another one. Raises ConfigError and OSError."""
        folder = chosen_folder(self._options)
        if not _is_in(folder, plan.version):
            folder = own_folder(self._options)
            self._keep_what_lies_in(AnswerFiles(folder), plan)
        begun = begin(self.store, plan)
        if not _is_in(folder, plan.version):
            AnswerFiles(folder).replace(plan.version)
        self._have_it_served(plan.version)
        try:
            self.store.finish(self.store.switch(plan.version, begun))
        except Overtaken:
            raise overtaken() from None

    def _keep_what_lies_in(self, files: AnswerFiles, plan: Plan) -> None:
        try:
            found = Version.of(*load_prepared(files.folder))
        except ConfigError as error:
            raise ConfigError(f"{error}; what lies there would be lost: mend it, or move {files.folder} away") from None
        if any(known is not None and known.says_the_same(found) for known in map(self.store.get, self.store.ids())):
            return
        kept = stamped(found, time.time(), self.user, "lay in the folder, never published", plan.seen.version)
        self.store.add(kept)
        say(f"what lies in {files.folder} was never published; it is kept as version {kept.id}")

    def _have_it_served(self, version: Version) -> None:
        from lexora.entry.local import tell_to_reload  # a server, and what it needs

        if not tell_to_reload(self._data):
            with closing(SqliteAnswers(self._database)) as answers:
                answers.replace(version.items(), version.catalogue())
            say("no gateway is running; it will serve this when it starts")
            return
        until = time.monotonic() + _TAKEN_SECONDS
        while (served := self.store.served()) is None or not served.says_the_same(version):
            if time.monotonic() > until:
                raise ConfigError(
                    "the running gateway has not taken these answers and serves what it served: its log says why. "
                    "Does it run with the same --config? Once that is mended, do this again"
                )
            time.sleep(_LOOK_AGAIN_SECONDS)
        say("the running gateway serves it")

    def _note(self, plan: Plan) -> None:
        begun = begin(self.store, plan)
        with suppress(Overtaken):
            self.store.finish(self.store.switch(plan.version, begun))


def _is_in(folder: Path, version: Version) -> bool:
    try:
        return Version.of(*load_prepared(folder)).says_the_same(version)
    except ConfigError:
        return False
