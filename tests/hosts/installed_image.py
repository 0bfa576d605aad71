"""A machine with the programs on it, as docs/install.md has "every machine", kept as an image: they are installed once."""

import fcntl
import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

from testcontainers.core.network import Network

from tests.hosts import image, wheels
from tests.hosts.handbook import blocks
from tests.hosts.machine import Machine, Mount

_ROOT = Path(__file__).resolve().parents[2]
_REPOSITORY = "fleetctl-test-host"
OFFLINE = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n"
APP_FOLDER = "/srv/my-app"
_APP = _ROOT / "tests" / "load" / "apps" / "plain_server.js"
# What its services said is to outlive a power cut.
_KEEP_JOURNAL = "mkdir -p /var/log/journal"
# Each machine makes an id of its own.
_FORGET_WHO_IT_IS = "journalctl --rotate; rm -rf /var/log/journal/*; : > /etc/machine-id"


def provide(root: Path = _ROOT) -> str:
    """The image's name; made when the programs of the checkout `root` differ from those of the last one. Raises MachineError."""
    (root / ".hosts").mkdir(exist_ok=True)
    with (root / ".hosts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of those who make it at the same time, one does
        return _provide(root)


def _provide(root: Path) -> str:
    folder = wheels.provide(root)
    (block,) = [block for block in blocks((root / "docs" / "install.md").read_text()) if block.where == "every machine"]
    name = f"{_REPOSITORY}:installed-{_recipe(wheels.wheel(folder), folder, block.text)}"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0:
        return name
    label = f"fleetctl.checkout={root}"
    _remove(label)
    with Network() as network:
        machine = Machine("every-machine", image.provide(), network, [Mount(folder, "/wheels"), *node()])
        try:
            machine.put(wheels.wheel(folder), "/root/")
            machine.run(f"mkdir -p {APP_FOLDER}; {_KEEP_JOURNAL}")
            machine.put(_APP, f"{APP_FOLDER}/server.js")
            machine.run(OFFLINE + block.text)
            machine.run(_FORGET_WHO_IT_IS)
            machine.keep_as(name, label)
        finally:
            machine.close()
    return name


def _remove(label: str) -> None:
    """Those of this checkout's earlier programs, but for what another run uses."""
    listed = subprocess.run(
        ["docker", "images", "--quiet", "--filter", f"label={label}"], check=True, capture_output=True, text=True
    )
    for identifier in listed.stdout.split():
        subprocess.run(["docker", "rmi", identifier], capture_output=True)


def node() -> list[Mount]:
    """This machine's, for a host. Raises FileNotFoundError."""
    found = shutil.which("node")
    if found is None:
        raise FileNotFoundError("there is no node on PATH")
    return [Mount(Path(found).resolve(), "/usr/bin/node")]


def _recipe(wheel: Path, folder: Path, script: str) -> str:
    """Of what the image is made of. A wheel's own digest would change with the times of its files."""
    with zipfile.ZipFile(wheel) as archive:
        content = sorted(f"{entry.filename} {entry.CRC}" for entry in archive.infolist())
    ingredients = [image.recipe(), folder.name, script, _APP.read_text(), _KEEP_JOURNAL, _FORGET_WHO_IT_IS, *content]
    return hashlib.sha256("\n".join(ingredients).encode()).hexdigest()[:12]
