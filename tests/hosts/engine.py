"""The Docker engine that hosts need: found, or installed and started where this is root on Debian, or a line on what to do.

    python -m tests.hosts.engine     what `make test-hosts` does first

An engine that was started here goes on running: it is a service of this machine, which the next run uses.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

_LOG = Path("/var/log/dockerd-for-tests.log")
_START_SECONDS = 40.0
_PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap", "iptables": "iptables"}


class EngineError(Exception):
    """One line: what is missing, and how to get it."""


def running() -> bool:
    """Does an engine answer."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        result = subprocess.run([docker, "version", "--format", "{{.Server.Version}}"], capture_output=True, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def require() -> None:
    """Raises EngineError unless hosts can be made here."""
    if not running():
        raise EngineError("no Docker engine answers: `make test-hosts` as root starts one")
    if shutil.which("debootstrap") is None:
        raise EngineError("debootstrap is not installed: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise EngineError("only root can make the hosts' image (debootstrap)")


def provide() -> None:
    """Install what is missing from Debian, and start the engine. Raises EngineError."""
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if running():
        missing = [package for package in missing if package == "debootstrap"]
    if missing:
        _install(missing)
    if not running():
        _start()
    require()


def _install(packages: list[str]) -> None:
    command = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise EngineError(f"missing here: {', '.join(packages)}. As root, on Debian or Ubuntu: {command}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]):
        result = subprocess.run(argv, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise EngineError(f"{' '.join(argv)}: {result.stderr.strip().splitlines()[-1:]}")


def _start() -> None:
    if os.geteuid() != 0:
        raise EngineError(
            "the Docker engine does not run: start it as root, with `systemctl start docker` or `dockerd &`"
        )
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], check=False)
    else:
        with _LOG.open("ab") as log:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + _START_SECONDS
    while not running():
        if time.monotonic() > deadline:
            raise EngineError(f"dockerd does not come up; it says why in {_LOG}")
        time.sleep(0.5)


def main() -> int:
    try:
        provide()
    except EngineError as error:
        print(f"test-hosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
