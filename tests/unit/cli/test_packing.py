"""What is sent of a folder, a commit or an archive; and that the same files make the same bytes."""

import json
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

from fleet.v1 import types_pb2
from fleetctl.code_spec import moved_into
from fleetctl.errors import CliError
from fleetctl.packing import open_archive, pack_folder, pack_npm, pack_ref
from fleetctl.target import Command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    (code / "lib").mkdir(parents=True)
    (code / "server.js").write_text("serve()")
    (code / "lib" / "deep.js").write_text("deep()")
    return code


def _packed(folder: Path) -> dict[str, tarfile.TarInfo]:
    archive = pack_folder(folder)
    with archive.stream, tarfile.open(fileobj=archive.stream) as opened:
        return {member.name: member for member in opened}


def _digest(folder: Path) -> str:
    archive = pack_folder(folder)
    archive.stream.close()
    return archive.digest


def test_the_same_files_make_the_same_bytes_wherever_and_whenever(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    (other / "server.js").chmod(0o600)
    assert _digest(folder) == _digest(other)
    (other / "server.js").chmod(0o700)
    assert _digest(folder) != _digest(other)


def test_a_files_time_follows_from_its_content(folder: Path) -> None:
    """Express makes ETags from size and time: a changed file of the same size must not look unchanged."""
    before = _packed(folder)["server.js"].mtime
    (folder / "server.js").write_text("swerve!")
    assert (folder / "server.js").stat().st_size == len("serve()")
    assert _packed(folder)["server.js"].mtime != before


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ({".gitignore": "*.log\n!keep.log\n"}, {".gitignore", "keep.log", "lib/deep.js", "server.js"}),
        ({".gitignore": "lib/\n"}, {".gitignore", "a.log", "keep.log", "server.js"}),
        ({".gitignore": "/deep.js\n"}, {".gitignore", "a.log", "keep.log", "lib/deep.js", "server.js"}),
        ({"lib/.gitignore": "/deep.js\n"}, {"a.log", "keep.log", "lib/.gitignore", "server.js"}),
        (
            {".gitignore": "*.js\n", "lib/.gitignore": "!deep.js\n"},
            {".gitignore", "a.log", "keep.log", "lib/.gitignore", "lib/deep.js"},
        ),
        (
            {".gitignore": "*.js\n", ".npmignore": "*.log\n"},
            {".gitignore", ".npmignore", "lib/deep.js", "server.js"},
        ),
    ],
)
def test_ignore_files_are_read_as_git_and_npm_read_them(folder: Path, rules: dict[str, str], left: set[str]) -> None:
    (folder / "a.log").touch()
    (folder / "keep.log").touch()
    for never in (".git", "node_modules", "lib/node_modules"):
        (folder / never).mkdir()
        (folder / never / "x").touch()
    for name, text in rules.items():
        (folder / name).write_text(text)

    assert set(_packed(folder)) == left


def test_links_inside_are_kept_and_links_out_are_refused(folder: Path) -> None:
    (folder / "again").symlink_to("lib/deep.js")
    assert _packed(folder)["again"].linkname == "lib/deep.js"
    (folder / "out").symlink_to("../elsewhere")
    with pytest.raises(CliError, match="link out of the folder"):
        pack_folder(folder)
    (folder / "out").unlink()
    (folder / "absolute").symlink_to(folder / "server.js")
    with pytest.raises(CliError, match="link out of the folder"):
        pack_folder(folder)


def test_what_is_neither_file_nor_folder_is_refused(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        with pytest.raises(CliError, match="no file, folder or link"):
            pack_folder(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="no files to deploy"):
        pack_folder(tmp_path)


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_a_commit_is_what_git_has_of_the_folder(folder: Path) -> None:
    before = _digest(folder)
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", "first")
    _git(folder, "tag", "v1")
    (folder / "server.js").write_text("changed()")
    archive = pack_ref(folder, "v1")
    archive.stream.close()
    assert archive.digest == before
    below = pack_ref(folder / "lib", "v1")
    with below.stream, tarfile.open(fileobj=below.stream) as opened:
        assert opened.getnames() == ["deep.js"]
    for ref in ("v2", "--output=x"):
        with pytest.raises(CliError, match="--ref"):
            pack_ref(folder, ref)


def test_an_archive_is_sent_as_it_is_and_anything_else_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "it.tar"
    with tarfile.open(path, "w") as made:
        made.add(folder, arcname="code")
    archive = open_archive(path)
    with archive.stream:
        assert archive.stream.read() == path.read_bytes()
        assert archive.size == path.stat().st_size
    with pytest.raises(CliError, match="no tar archive"):
        open_archive(folder / "server.js")


@pytest.mark.parametrize(
    ("argv", "cwd", "moved", "moved_cwd"),
    [
        (["/usr/bin/node", "/x/code/server.js"], "/x/code", ["/usr/bin/node", "./server.js"], "."),
        (["/usr/bin/node", "/x/code/lib/a.js"], "/x", ["/usr/bin/node", "lib/a.js"], "."),
        (["/usr/bin/node", "/x/code/lib/a.js"], "/x/code/lib", ["/usr/bin/node", "./a.js"], "lib"),
        (["/usr/bin/npm", "start"], "/somewhere", ["/usr/bin/npm", "start"], "."),
        (["/x/code/bin/run", "--quick"], "/x/code", ["bin/run", "--quick"], "."),
        (["/usr/bin/node", "./server.js"], "sub", ["/usr/bin/node", "./server.js"], "sub"),
    ],
)
def test_what_named_the_folder_names_the_deployed_code(
    argv: list[str], cwd: str, moved: list[str], moved_cwd: str
) -> None:
    spec = moved_into(types_pb2.AppSpec(name="shop", argv=argv, cwd=cwd), Path("/x/code"), None)
    assert (list(spec.argv), spec.cwd) == (moved, moved_cwd)


def test_a_command_that_would_not_run_the_new_code_is_refused() -> None:
    spec = types_pb2.AppSpec(name="shop", argv=["/usr/bin/node", "/elsewhere/server.js"], cwd="/y")
    with pytest.raises(CliError, match=r"/elsewhere/server\.js, which is not in what is deployed"):
        moved_into(spec, Path("/x/code"), None)
    assert list(moved_into(spec, Path("/x/code"), Command(("node", "a b.js"), True, "")).argv) == ["node", "a b.js"]


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm on PATH")
def test_npms_own_list_of_files_is_sent_when_it_is_asked_for(tmp_path: Path) -> None:
    package = {"name": "shop", "version": "1.0.0", "files": ["lib"]}
    (tmp_path / "package.json").write_text(json.dumps(package))
    (tmp_path / "package-lock.json").write_text("{}")
    for name in ("lib/server.js", "lib/run.sh", "test/server.test.js", "notes.txt", "node_modules/left-pad/index.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "lib/run.sh").chmod(0o755)
    with pack_npm(tmp_path).stream as stream, tarfile.open(fileobj=stream) as archive:
        modes = {member.name: member.mode for member in archive if member.isfile()}

    assert modes == {"lib/run.sh": 0o755, "lib/server.js": 0o644, "package-lock.json": 0o644, "package.json": 0o644}


def test_without_a_package_there_is_no_list_of_npms(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"no package\.json"):
        pack_npm(tmp_path)
