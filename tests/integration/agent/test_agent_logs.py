"""Followers of a log that floods, is rotated and compressed: each sees every line once, in order."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.v1 import agent_pb2
from fleet_core.spec import AppSpec, Runtime
from tests.integration.agent.fake_controller import FakeController, target
from tests.integration.agent.running import RunningHost

LINES = 30_000
FLOOD = f"""
import os, time
while not os.path.exists('go'): time.sleep(0.01)
for number in range({LINES}): os.write(1, b'%d %s\\n' % (number, b'x' * 90))
time.sleep(1000)
"""


@pytest.mark.parametrize("log", [{}, {"timestamps": True}], ids=["plain", "timestamps"])
async def test_two_followers_see_every_line_of_a_flood_that_is_rotated(
    controller: FakeController, host: RunningHost, app_folder: Path, log: dict[str, Any]
) -> None:
    spec = AppSpec.model_validate(
        {
            "name": "flood",
            "argv": [sys.executable, "-S", "-c", FLOOD],
            "cwd": str(app_folder),
            "runtime": Runtime.PROGRAM,
            "listen_mode": "none",
            "ready": {"min_uptime_seconds": 0.1},
            "log": {"max_bytes": 200_000, "max_files": 1000, "compress": True, **log},
        }
    )
    controller.assign(target(spec, 1), specs=(spec,))
    await controller.until_state(("flood", 1, 1), "READY")
    names = ("one", "two")
    for name in names:
        controller.send(log_request=agent_pb2.LogRequest(request_id=name, app="flood", lines=LINES, follow=True))
    (app_folder / "go").touch()

    def followed(name: str) -> list[bytes]:
        chunks = [chunk for chunk in controller.chunks if chunk.request_id == name]
        return [line.text for chunk in chunks for line in chunk.lines]

    await controller.until(lambda: all(len(followed(name)) >= LINES for name in names))
    for name in names:
        numbers = [int(line.split()[-2]) for line in followed(name)]
        assert numbers == list(range(LINES))
    assert len(list((host.log_dir / "flood").iterdir())) > 3
