"""What Prometheus reads from an agent, also while no controller can be reached."""

import asyncio
import urllib.request
from pathlib import Path

from fleet_core.spec import AppSpec
from tests.integration.agent.fake_controller import FakeController, target
from tests.integration.agent.running import RunningHost
from tests.ports import free_address


async def scrape(address: str) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


async def test_workers_are_told_by_slot_with_or_without_a_controller(
    tmp_path: Path, controller: FakeController
) -> None:
    address = free_address()
    host = RunningHost(tmp_path, controller.folder, controller.address)
    host.config.write_text(f'metrics = "{address}"\n' + host.config.read_text())
    try:
        await host.start()
        await controller.until(controller.complete_reports)
        spec = AppSpec.model_validate({"name": "job", "argv": ["sleep", "600"], "cwd": "/", "listen_mode": "none"})
        controller.assign(target(spec, 1), specs=(spec,))
        await controller.until_state(("job", 1, 1), "READY")
        text = await scrape(address)
        worker = 'app="job",generation="1",slot="1"'
        assert "fleet_agent_session_up 1.0" in text
        assert "fleet_agent_supervisor_up 1.0" in text
        assert f'fleet_worker_state{{{worker},state="ready"}} 1.0' in text
        assert f"fleet_worker_restarts_total{{{worker}}} 0.0" in text
        assert f"fleet_worker_threads{{{worker}}} 1.0" in text
        for name in ("cpu_seconds_total", "resident_bytes", "open_files", "uptime_seconds"):
            assert f"fleet_worker_{name}{{{worker}}}" in text
        await controller.stop()
        async with asyncio.timeout(20):
            while "fleet_agent_session_up 0.0" not in text:
                text = await scrape(address)
        assert f"fleet_worker_threads{{{worker}}} 1.0" in text
    finally:
        await host.clean_up()
