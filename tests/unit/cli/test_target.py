"""What TARGET stands for."""

from pathlib import Path

import pytest

from fleetctl.errors import CliError, ExitCode
from fleetctl.target import resolve, sanitised


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `Web Shop`, and a PATH that holds node, python3, npm and gunicorn only."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("node", "python3", "npm", "gunicorn"):
        executable(programs / name)
    monkeypatch.setenv("PATH", str(programs))
    folder = tmp_path / "Web Shop"
    folder.mkdir()
    return folder


def executable(path: Path, first_line: str = "#!/bin/sh") -> None:
    path.write_text(first_line + "\n")
    path.chmod(0o755)


def program(folder: Path, name: str) -> str:
    return str(folder.parent / "bin" / name)


@pytest.mark.parametrize(
    ("script", "interpreter", "node"),
    [("api.js", "node", True), ("api.mjs", "node", True), ("api.cjs", "node", True), ("api.py", "python3", False)],
)
def test_a_script_runs_under_its_interpreter(folder: Path, script: str, interpreter: str, node: bool) -> None:
    (folder / script).touch()
    for target in (script, f"./{script}", f"../{folder.name}/{script}", str(folder / script)):
        command = resolve(target, ("-v",), folder)
        assert command.argv == (program(folder, interpreter), str(folder / script), "-v")
        assert command.node is node
        assert command.default_name == "api"


@pytest.mark.parametrize("stem", ["index", "server", "app", "main"])
def test_a_script_with_a_common_name_is_called_after_its_folder(folder: Path, stem: str) -> None:
    (folder / f"{stem}.js").touch()
    assert resolve(f"./{stem}.js", (), folder).default_name == "web-shop"


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ('{"name": "till"}', "till"),
        ('{"name": "@acme/till"}', "till"),
        ('{"name": "@acme/"}', "web-shop"),
        ('{"name": 3}', "web-shop"),
        ("[]", "web-shop"),
        ("{", "web-shop"),
    ],
)
def test_package_json_names_the_app_where_it_can(folder: Path, package: str, name: str) -> None:
    (folder / "server.js").touch()
    (folder / "package.json").write_text(package)
    assert resolve("server.js", (), folder).default_name == name
    assert resolve("npm", ("start",), folder).default_name == name


def test_an_executable_is_run_itself_and_node_is_noticed(folder: Path) -> None:
    executable(folder / "run-it", "#!/usr/bin/env node")
    command = resolve("./run-it", (), folder)
    assert (command.argv, command.node, command.default_name) == ((str(folder / "run-it"),), True, "run-it")


def test_a_file_with_an_interpreter_line_need_not_be_executable(folder: Path) -> None:
    (folder / "job").write_text("#!/bin/sh -e\necho")
    assert resolve("job", ("x",), folder).argv == ("/bin/sh", "-e", str(folder / "job"), "x")


def test_a_file_that_names_no_interpreter_is_refused(folder: Path) -> None:
    (folder / "notes").write_text("hello")
    with pytest.raises(CliError, match="not executable and names no interpreter") as raised:
        resolve("./notes", (), folder)
    assert raised.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("target", "arguments", "node", "name"),
    [
        ("npm", ("start",), True, "web-shop"),
        ("gunicorn", ("shop:app",), False, "gunicorn"),
        ("node", ("--inspect", "api.js"), True, "api"),
        ("python3", ("-m", "http.server"), False, "python3"),
    ],
)
def test_a_command_is_found_on_path(
    folder: Path, target: str, arguments: tuple[str, ...], node: bool, name: str
) -> None:
    (folder / "api.js").touch()
    command = resolve(target, arguments, folder)
    assert command.argv == (program(folder, target), *arguments)
    assert (command.node, command.default_name) == (node, name)


def test_a_missing_interpreter_is_named(folder: Path) -> None:
    (folder / "api.js").touch()
    (folder.parent / "bin" / "node").unlink()
    with pytest.raises(CliError, match="needs node, which is not on PATH") as raised:
        resolve("api.js", (), folder)
    assert raised.value.exit_code is ExitCode.NOT_FOUND


@pytest.mark.parametrize("target", ["./nope.js", "nope.js", "nope", "./gunicorn", "/nope/nope"])
def test_what_is_not_there_is_not_found(folder: Path, target: str) -> None:
    with pytest.raises(CliError) as raised:
        resolve(target, (), folder)
    assert raised.value.exit_code is ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("text", "name"), [("My_App", "my-app"), ("--", ""), ("é!", ""), ("a" * 70, "a" * 63), ("a" * 62 + "-b", "a" * 62)]
)
def test_a_name_is_made_of_anything_or_nothing(text: str, name: str) -> None:
    assert sanitised(text) == name
