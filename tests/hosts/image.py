"""The hosts' image: Debian's minimal system with systemd as PID 1, made without a registry, once for each recipe."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

_ENTRY = Path(__file__).parent / "entry.sh"
_SUITE = "bookworm"
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "ca-certificates"),
    *("python3", "python3-venv", "libatomic1", "libstdc++6"),
)
_REPOSITORY = "fleetctl-test-host"
_UNWANTED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")


def recipe() -> str:
    """A name of everything the image is made of."""
    ingredients = "\n".join((_SUITE, *_PACKAGES, *_UNWANTED, _ENTRY.read_text()))
    return hashlib.sha256(ingredients.encode()).hexdigest()[:12]


def provide() -> str:
    """The image's name; made where the engine has none of this recipe: a minute or two. Raises CalledProcessError."""
    name = f"{_REPOSITORY}:{recipe()}"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0:
        return name
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        included = ",".join(_PACKAGES)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={included}", _SUITE, str(root)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for unwanted in _UNWANTED:
            shutil.rmtree(root / unwanted, ignore_errors=True)
        shutil.copy(_ENTRY, root / "sbin" / "host-entry")
        (root / "sbin" / "host-entry").chmod(0o755)
        (root / "etc" / "machine-id").write_text("")  # each host makes its own
        _import(root, name)
    return name


def _import(root: Path, name: str) -> None:
    packing = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    try:
        subprocess.run(
            [
                *("docker", "import", "--change", 'ENTRYPOINT ["/sbin/host-entry"]'),
                *("--change", "ENV container=docker", "-", name),
            ],
            stdin=packing.stdout,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    finally:
        if packing.stdout:
            packing.stdout.close()
        packing.wait()
