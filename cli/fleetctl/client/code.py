"""Code that a program sends, and the spec of the app that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.v1 import types_pb2
from fleet_core.spec import Runtime
from fleetctl.client.errors import UsageError
from fleetctl.client.spec import checked, known_spec, plain
from fleetctl.code_spec import command_of, folder_within, moved_into, without_command
from fleetctl.packing import Archive, open_archive, pack_folder, pack_npm, pack_ref


@dataclass(frozen=True, slots=True)
class Code:
    """What is sent; `folder` is where it lies here, None for an archive."""

    archive: Archive
    folder: Path | None
    name: str

    @classmethod
    def at(cls, path: str | Path, ref: str | None, *, npm_pack: bool) -> "Code":
        """Raises CliError, UsageError."""
        source = Path(path).expanduser()
        if source.is_dir():
            folder = source.absolute()
            if npm_pack and ref is not None:
                raise UsageError("npm_pack takes the files as they are: no ref")
            if npm_pack:
                return cls(pack_npm(folder), folder, source.resolve().name)
            archive = pack_folder(folder) if ref is None else pack_ref(folder, ref)
            return cls(archive, folder, ref or source.resolve().name)
        if ref is not None:
            raise UsageError(f"ref needs a folder of a git repository, and {source} is none")
        if npm_pack:
            raise UsageError(f"npm_pack needs a folder, and {source} is none")
        return cls(open_archive(source), None, source.resolve().name)

    def new_spec(self, app: str, words: tuple[str, ...], http: str, fields: Mapping[str, Any]) -> types_pb2.AppSpec:
        """Of an app that begins with it. Raises CliError, UsageError, InvalidSpec."""
        if not words:
            raise without_command(app, f"deploy({app!r}, path, ['node', 'server.js'])")
        command = command_of(words, self.folder)
        values = self._values(http, fields)
        values.setdefault("runtime", Runtime.NODE if command.node else Runtime.PROGRAM)
        return checked({"cwd": ".", **values, "name": app, "argv": command.argv}).to_proto()

    def changed_spec(
        self, known: types_pb2.AppSpec, words: tuple[str, ...], http: str, fields: Mapping[str, Any]
    ) -> types_pb2.AppSpec:
        """Of an app that exists: what is given takes the place of what it has, and variables are added.

        Raises CliError, UsageError, InvalidSpec.
        """
        values = self._values(http, fields)
        cwd = values.pop("cwd", None)
        spec = known
        if values:
            before = known_spec(known).plain()
            if "env" in values:
                values["env"] = {**before["env"], **values["env"]}
            if http:
                values["route"] = {**before["route"], "http": http}
            spec = checked({**before, **values}).to_proto()
        moved = moved_into(spec, self.folder, command_of(words, self.folder) if words else None)
        if cwd is not None:
            moved.cwd = cwd
        if "runtime" in values:
            moved.runtime = spec.runtime
        return moved

    def _values(self, http: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        values = {key: plain(value) for key, value in fields.items()}
        if "cwd" in values:
            values["cwd"] = folder_within(Path(values["cwd"]).expanduser().absolute(), self.folder)
        if http:
            if "route" in fields:
                raise UsageError("http and route say the same: give one of them")
            values["route"] = {"http": http}
        return values
