"""PM2's file as plain values: JavaScript by running it in Node, JSON with what PM2 lets pass as JSON, YAML."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetctl.fleet_file.document import MOST_BYTES, read_text
from fleetctl.fleet_file.tree import plain, refuse
from fleetctl.fleet_file.yaml_tree import yaml_tree

SCRIPT_SUFFIXES = frozenset({".js", ".cjs", ".mjs"})
MOST_SECONDS = 20.0
_TOP = frozenset({"apps", "pm2", "deploy", "static"})
_RUN = r"""
const fs = require('fs'), url = require('url');
process.stdout.write = process.stderr.write.bind(process.stderr);
const say = (answer) => { fs.writeSync(1, JSON.stringify(answer)); process.exit(0); };
import(url.pathToFileURL(process.argv[1])).then((found) => {
  let config = found.default ?? found;
  if (config && !config.apps && config.default) config = config.default;
  if (typeof config === 'function') throw new Error('it exports a function; PM2 wants an object');
  say({ config });
}).catch((error) => say({
  error: String((error && error.message) || error).split('\n')[0],
  where: String((error && error.stack) || '').split('\n')[0],
}));
"""
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<colon>:)|(?P<tab>\t)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Ecosystem:
    file: str
    folder: Path
    apps: tuple[Mapping[str, Any], ...]
    deploy_env: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the file's `deploy` part: environment → its variables, the weakest of all."""
    warnings: tuple[str, ...] = ()


def is_ecosystem(value: Any) -> bool:
    """Plain values that PM2 would take, and that are no fleet file: a list of apps, or an app itself."""
    if isinstance(value, list):
        return True
    if not isinstance(value, dict):
        return False
    apps = value.get("apps", value.get("pm2"))
    return isinstance(apps, list) or (isinstance(apps, dict) and "script" in apps) or "script" in value


def run_script(path: Path) -> Ecosystem:
    """Run by Node in the file's own folder, within MOST_SECONDS. Raises FleetFileError."""
    read_text(path)  # says in words what is wrong with a file that is not there
    node = shutil.which("node")
    if node is None:
        raise refuse(path, None, "to read it takes node, which is not on PATH: install it, or write a fleet file")
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaint:
        try:
            done = subprocess.run(
                [node, "-e", _RUN, str(path.absolute())],
                cwd=path.absolute().parent,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=complaint,
                timeout=MOST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise refuse(path, None, f"it did not end within {MOST_SECONDS:g} s in node") from None
        answer.seek(0)
        text = answer.read(MOST_BYTES + 1)
        complaint.seek(0)
        said = complaint.read(4096).decode(errors="replace").strip()
    if len(text) > MOST_BYTES:
        raise refuse(path, None, f"what it exports is longer than {MOST_BYTES // 1024 // 1024} MiB")
    try:
        told = json.loads(text)
    except ValueError:
        reason = said.splitlines()[-1] if said else f"node ended with {done.returncode}"
        raise refuse(path, None, f"node cannot read it: {reason}") from None
    if "error" in told:
        where = f" ({told['where']})" if ":" in told["where"] and told["error"] not in told["where"] else ""
        raise refuse(path, None, f"node cannot read it: {told['error']}{where}")
    return from_plain(told.get("config"), path)


def read_json(text: str, file: str) -> Any:
    """JSON; else what JavaScript takes for an object: comments, bare keys, single quotes, commas at the end. Raises
    FleetFileError. Nothing is run."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    tree = yaml_tree(_TOKEN.sub(_as_yaml, text), file)
    return None if tree is None else plain(tree)


def _as_yaml(match: re.Match[str]) -> str:
    if match["string"]:
        return match["string"]
    if match["comment"]:
        # Lines stay where they are, for complaints that name them.
        return "".join(character if character == "\n" else " " for character in match["comment"])
    return ": " if match["colon"] else " "


def from_plain(config: Any, path: Path) -> Ecosystem:
    """Raises FleetFileError."""
    deploy: Mapping[str, Any] = {}
    warnings: list[str] = []
    apps = config
    if isinstance(config, dict) and ("apps" in config or "pm2" in config):
        apps = config.get("apps") or config.get("pm2")
        if isinstance(config.get("deploy"), dict):
            deploy = config["deploy"]
            warnings.append("deploy: pm2 deploy's part is not kept")
        if config.get("static"):
            warnings.append("static: PM2's file server is not kept: run one of your own as an app")
        warnings += [f"{key}: PM2 takes no notice of it, nor does fleetctl" for key in config if key not in _TOP]
    listed = apps if isinstance(apps, list) else [apps]
    if not listed or not all(isinstance(app, dict) for app in listed):
        raise refuse(path, None, "there are no apps in it: PM2 wants apps: [{script: …}, …]")
    variables = {
        name: part["env"]
        for name, part in deploy.items()
        if isinstance(part, dict) and isinstance(part.get("env"), dict)
    }
    return Ecosystem(str(path), path.absolute().parent, tuple(listed), variables, tuple(warnings))
