"""The peers, installed by their own clients into one folder: npm for PM2, pip in a virtual environment for the others."""

import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.bench.host.processes import BenchError

_INSTALL_SECONDS = 600.0
_PM2 = "pm2@7"
_PYTHON_PEERS = ("supervisor", "circus")


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the programs lie."""

    folder: Path

    @property
    def pm2(self) -> Path:
        return self.folder / "node_modules" / ".bin" / "pm2"

    @property
    def bin(self) -> Path:
        """Of the virtual environment with supervisord and circusd."""
        return self.folder / "python" / "bin"

    @property
    def own(self) -> Path:
        """Of the environment this runs in, with fleetctl."""
        return Path(sys.executable).parent

    def install(self) -> None:
        """What is missing. Raises BenchError."""
        self.folder.mkdir(exist_ok=True)
        if not self.pm2.exists():
            _run("npm", "install", "--prefix", self.folder, _PM2, "--no-audit", "--no-fund", "--loglevel=error")
        if not all((self.bin / name).exists() for name in ("supervisord", "circusd")):
            venv.create(self.folder / "python", with_pip=True)
            _run(self.bin / "pip", "install", "--quiet", "--disable-pip-version-check", *_PYTHON_PEERS)

    def versions(self) -> dict[str, str]:
        pm2 = json.loads((self.folder / "node_modules" / "pm2" / "package.json").read_text())["version"]
        listed = _run(self.bin / "pip", "list", "--disable-pip-version-check", "--format=json")
        installed = {package["name"]: package["version"] for package in json.loads(listed)}
        return {
            "node": _run("node", "--version").strip(),
            "python": sys.version.split()[0],
            "pm2": pm2,
            **{name: installed[name] for name in _PYTHON_PEERS},
        }


def _run(*argv: str | Path) -> str:
    try:
        done = subprocess.run(
            [str(argument) for argument in argv], capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except OSError as error:
        raise BenchError(f"{argv[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise BenchError(f"{' '.join(str(argument) for argument in argv)}: {done.stderr.strip()[-1000:]}")
    return done.stdout
