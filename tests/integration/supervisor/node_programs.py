"""Node programs as workers."""

import os
import urllib.request
from pathlib import Path

import fleet_agent
from fleet_agent.supervisor.protocol import Launch
from tests.integration.node_versions import node_folder
from tests.integration.supervisor.running import eventually, launch

PRELOAD = Path(fleet_agent.__file__).parent / "node" / "preload.js"


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
