"""The Node versions workers are tried with: the machine's own, the others from npm, kept in the user's cache."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

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
