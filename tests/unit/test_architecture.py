"""The arrows of import, as docs/architecture.md draws them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SUPERVISORS = ("fleet_agent.supervisor", "fleet_core.service_manager", "fleet_core.scheduling")
_OWN = {"fleet", "fleet_core", "fleet_agent", "fleet_controller", "fleet_balancer", "fleetctl"}
_FOLDERS = {
    "core/fleet_core": {"fleet"},
    "agent/fleet_agent": {"fleet", "fleet_core"},
    "controller/fleet_controller": {"fleet", "fleet_core"},
    "balancer/fleet_balancer": {"fleet", "fleet_core"},
    "cli/fleetctl": {"fleet", "fleet_core"},
}
_PURE = [
    "controller/fleet_controller/records.py",
    "agent/fleet_agent/reconcile.py",
    "agent/fleet_agent/launch.py",
    "core/fleet_core/controller_link/http2.py",
    "agent/fleet_agent/readiness.py",
    "agent/fleet_agent/supervisor/life.py",
    "agent/fleet_agent/supervisor/limits.py",
    "balancer/fleet_balancer/haproxy/slots.py",
    "balancer/fleet_balancer/haproxy/config.py",
    "balancer/fleet_balancer/haproxy/layout.py",
    "balancer/fleet_balancer/haproxy/frontends.py",
    "balancer/fleet_balancer/haproxy/backends.py",
    "balancer/fleet_balancer/haproxy/access.py",
    "balancer/fleet_balancer/haproxy/complaints.py",
    "balancer/fleet_balancer/access_log/lines.py",
    "core/fleet_core/route.py",
    "cli/fleetctl/apply_outcome.py",
    "cli/fleetctl/apply_plan.py",
    "cli/fleetctl/client/values.py",
    "cli/fleetctl/fleet_file/reader.py",
    "cli/fleetctl/fleet_file/shape.py",
    "cli/fleetctl/fleet_file/writer.py",
    "cli/fleetctl/pm2/convert.py",
    "cli/fleetctl/moving/systemd.py",
    "cli/fleetctl/up/layout.py",
    "cli/fleetctl/up/services.py",
]
_PURE_FOLDERS = ["controller/fleet_controller/planning", "controller/fleet_controller/mutations"]
_OF_THE_WORLD = {"asyncio", "grpc", "socket", "time", "threading", "subprocess"}


_TIME_OF_DAY = {
    "core/fleet_core/authority.py": "how long a certificate is valid",
    "agent/fleet_agent/upkeep.py": "cron restarts, by way of CronClock",
    "agent/fleet_agent/host.py": "which lines of a log are of a process's last moments",
    "agent/fleet_agent/logs.py": "`logs --since`",
    "agent/fleet_agent/supervisor/log_file.py": "how old a log is",
    "agent/fleet_agent/supervisor/rotation.py": "how old a log is",
    "agent/fleet_agent/supervisor/formatted.py": "the time at the beginning of a line",
    "controller/fleet_controller/artifacts.py": "how long nobody asked for code",
    "controller/fleet_controller/time_of_day.py": "when something was done, for people",
    "cli/fleetctl/client/backups.py": "when a backup was taken, for people",
    "agent/fleet_agent/code_folders.py": "how long code was not asked for, by the times of its files",
    "balancer/fleet_balancer/certificates/pem.py": "whether a certificate is valid, as its clients judge",
    "balancer/fleet_balancer/certificates/store.py": "the same",
    "balancer/fleet_balancer/access_log/log.py": "how old the files of apps are that have no log any more",
}
"""Who asks for the time of day, and what for: it may be set at any moment (docs/recovery.md, "Clocks")."""


def imported(path: Path) -> Iterator[str]:
    """Dotted names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def modules(folder: str) -> list[Path]:
    return sorted((_ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", _FOLDERS)
def test_a_package_imports_only_itself_the_core_and_the_contracts(folder: str) -> None:
    allowed = {*_FOLDERS[folder], Path(folder).name}
    for path in modules(folder):
        foreign = {name for name in imported(path) if name.split(".")[0] in _OWN - allowed}
        assert not foreign, f"{path.relative_to(_ROOT)} imports {foreign}"


def test_the_supervisor_needs_nothing_but_the_standard_library() -> None:
    for path in modules("agent/fleet_agent/supervisor"):
        for name in imported(path):
            own = name.startswith(_SUPERVISORS) or name == "fleet_core"
            assert own or name.split(".")[0] in sys.stdlib_module_names, f"{path.name} imports {name}"


@pytest.mark.parametrize("program", ["fleet_agent.main", "fleet_balancer.main"])
def test_who_waits_beside_workers_has_no_threads_of_grpcs(program: str) -> None:
    """ADR 17, whatever imports what."""
    ask = f"import sys, {program}; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0


def test_only_the_store_knows_etcd() -> None:
    for path in modules("controller/fleet_controller"):
        if path.parent.name != "store":
            assert not [name for name in imported(path) if name.startswith("etcd3aio")], path.name


def test_the_client_library_knows_no_terminal() -> None:
    """commands → client → contracts: what the library imports, whatever that imports, is free of click and rich."""
    todo, seen = modules("cli/fleetctl/client"), set[Path]()
    while todo:
        path = todo.pop()
        seen.add(path)
        names = set(imported(path))
        assert not {name.split(".")[0] for name in names} & {"click", "rich"}, path.relative_to(_ROOT)
        own = {_ROOT / "cli" / f"{name.replace('.', '/')}.py" for name in names if name.startswith("fleetctl.")}
        todo += [module for module in own if module.is_file() and module not in seen]


def test_only_whoever_carries_the_leaders_fence_writes_to_the_store() -> None:
    """Guards invariant 4. The election writes its own key, and a controller what it says of itself (`Leadership._register`); all
    else goes through `Office.commit`, or is a rollout's end, and both are tested against a replaced leader."""
    writers = set()
    for path in modules("controller/fleet_controller"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "commit":
                owner = ast.unparse(node.value)
                if owner.endswith("store") and "self" in owner:
                    writers.add(path.name)
    assert writers == {"leader.py", "leadership.py", "conductor.py"}


@pytest.mark.parametrize("module", [*_PURE, *_PURE_FOLDERS])
def test_decisions_touch_no_clock_and_no_wire(module: str) -> None:
    for path in modules(module) or [_ROOT / module]:
        touched = {name for name in imported(path) if name.split(".")[0] in _OF_THE_WORLD}
        assert not touched, f"{path} imports {touched}"


def test_nothing_else_goes_by_the_time_of_day() -> None:
    """Leases, deadlines, back-offs and ages of workers count on clocks that nobody sets."""
    asking = {
        str(path.relative_to(_ROOT))
        for folder in _FOLDERS
        for path in modules(folder)
        if re.search(r"\btime\.time\b|\bdatetime\.now\b|\bCLOCK_REALTIME\b|\butcnow\b", path.read_text())
    }
    assert asking == _TIME_OF_DAY.keys()


def test_what_is_planned_knows_nothing_of_how_it_was_asked_for_nor_of_who_carries_it_out() -> None:
    """In the controller: services → mutations → planning → records."""
    below = {"planning": ("planning", "records"), "mutations": ("mutations", "planning", "records")}
    for folder, allowed in below.items():
        for path in modules(f"controller/fleet_controller/{folder}"):
            own = {name.split(".")[1] for name in imported(path) if name.startswith("fleet_controller.")}
            assert own <= set(allowed), f"{path.name} imports {own - set(allowed)}"


def test_no_module_is_too_long_to_be_read_at_a_sitting() -> None:
    lengths = {path: len(path.read_text().splitlines()) for folder in _FOLDERS for path in modules(folder)}
    written_by_a_script = _ROOT / "cli/fleetctl/client/sync.py"
    too_long = {path for path, length in lengths.items() if length > 450} - {written_by_a_script}
    assert not too_long
