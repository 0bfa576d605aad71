"""The code that the apps of a fleet file name: packed before anything is planned, since its digest tells what differs."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fleetctl.errors import CliError, ExitCode
from fleetctl.fleet_file.code import Code
from fleetctl.fleet_file.document import FleetFile, WantedApp
from fleetctl.packing import Archive, open_archive, pack_folder, pack_npm, pack_ref


@dataclass(frozen=True, slots=True)
class FleetCode:
    digests: Mapping[str, str]
    """App → its code, of those that name any."""
    archives: Mapping[str, Archive]
    """By digest; code that is named by its digest alone has none."""

    def unsent(self) -> tuple[str, ...]:
        """Digests that nothing here could be sent for."""
        return tuple(dict.fromkeys(digest for digest in self.digests.values() if digest not in self.archives))


@contextmanager
def packed(content: FleetFile) -> Iterator[FleetCode]:
    """What several apps share is packed once. The file itself is no part of it: another size in it is no other code.

    Raises CliError, with a line for each app whose code cannot be packed.
    """
    with ExitStack() as streams:
        made: dict[Code, Archive] = {}
        digests: dict[str, str] = {}
        problems: list[CliError] = []
        for app in content.apps:
            if app.code is None:
                continue
            if app.code.digest:
                digests[app.name] = app.code.digest
                continue
            try:
                archive = made.get(app.code)
                if archive is None:
                    archive = made[app.code] = _archive(app.code, Path(content.file).absolute())
                    streams.callback(archive.stream.close)
                _check_command(app)
            except CliError as error:
                problems.append(_placed(app.code, error))
            else:
                digests[app.name] = archive.digest
        if problems:
            raise _together(problems)
        yield FleetCode(digests, {archive.digest: archive for archive in made.values()})


def _archive(code: Code, file: Path) -> Archive:
    """Raises CliError."""
    path = Path(code.path)
    if path.is_dir():
        left_out = frozenset({str(file.relative_to(path))}) if file.is_relative_to(path) else frozenset[str]()
        if code.npm_pack:
            return pack_npm(path, left_out)
        return pack_ref(path, code.ref, left_out) if code.ref else pack_folder(path, left_out)
    if not path.exists():
        raise CliError(ExitCode.USAGE, f"there is no {path}")
    if code.ref or code.npm_pack:
        raise CliError(ExitCode.USAGE, f"{path} is no folder: an archive is taken as it is, without ref and npm_pack")
    return open_archive(path)


def _check_command(app: WantedApp) -> None:
    """What the file names in the code must be there; of a commit and an archive it is not looked at. Raises CliError."""
    code, spec = app.code, app.spec
    if code is None or code.ref or not Path(code.path).is_dir():
        return
    for word in spec.argv[:2]:
        if word.startswith("./") and not Path(code.path, PurePosixPath(spec.cwd, word)).exists():
            raise CliError(ExitCode.USAGE, f"there is no file {word} in {Path(code.path, spec.cwd)}")


def _placed(code: Code, error: CliError) -> CliError:
    return CliError(ExitCode.USAGE, f"{code.written}: {error.message}", error.hint, error.details)


def _together(problems: Iterable[CliError]) -> CliError:
    first, *others = problems
    return CliError(ExitCode.USAGE, first.message, first.hint, (*first.details, *(other.message for other in others)))
