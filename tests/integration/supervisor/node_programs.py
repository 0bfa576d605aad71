"""Node programs as workers, and the Node versions they are tried with."""

import functools
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest

import fleet_agent
from fleet_agent.supervisor.protocol import Launch
from tests.integration.supervisor.running import eventually, launch

PRELOAD = Path(fleet_agent.__file__).parent / "node" / "preload.js"
VERSIONS = ["20", "22", "24"]
_INSTALL_SECONDS = 180


@functools.cache
def node_folder(version: str) -> Path:
    """The folder to put first on PATH. Skips the test where that Node is neither here nor to be had from npm."""
    here = shutil.which("node")
    if here is None:
        pytest.skip("needs node on PATH")
    if subprocess.run([here, "--version"], capture_output=True, text=True, check=True).stdout.startswith(
        f"v{version}."
    ):
        return Path(here).parent
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fleetctl-tests"
    installed = cache / f"node-{version}"
    if not (installed / "node_modules/node/bin/node").exists():
        cache.mkdir(parents=True, exist_ok=True)
        _install(f"node@{version}", cache, installed)
    return installed / "node_modules/node/bin"


def _install(package: str, cache: Path, installed: Path) -> None:
    """Under another name first: tests that run at the same time must not find half of it."""
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "made"
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(made), package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{package} could not be installed from npm: {error}")
        if done.returncode != 0:
            pytest.skip(f"{package} could not be installed from npm: {done.stderr.strip().splitlines()[-1:]}")
        try:
            made.rename(installed)
        except OSError:
            assert installed.exists()


def program(
    source: str, folder: Path, *argv: str, version: str = "20", name: str = "app.js", **changes: object
) -> Launch:
    """With the preload, and a `package.json` for `npm start`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source)
    (folder / "package.json").write_text('{"name": "app", "scripts": {"start": "node ' + name + '"}}')
    made = launch(*(argv or ("node", name)), cwd=folder, **changes)
    made.env.update(
        PATH=f"{node_folder(version)}:{os.environ['PATH']}",
        HOME=str(folder),
        npm_config_update_notifier="false",
        NODE_OPTIONS=f'--require "{PRELOAD}"',
    )
    return made


def sharing(source: str, folder: Path, port: int, *argv: str, **changes: object) -> Launch:
    """In listen mode `socket`."""
    settings = {"listen_address": "127.0.0.1", "listen_port": port, "channel": True, "ready_by": "listening", **changes}
    made = program(source, folder, *argv, **settings)  # type: ignore[arg-type]
    made.env.update(FLEET_ADDRESS="127.0.0.1", FLEET_PORT=str(port), PORT=str(port))
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answer(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        return str(response.read().decode())


async def answered_by(port: int, *pids: int) -> None:
    """By each of them at some time, and by nobody else."""
    seen: set[int] = set()

    def all_seen() -> bool:
        seen.add(int(answer(port)))
        return seen >= set(pids)

    await eventually(all_seen, "every worker answers")
    assert seen == set(pids)
