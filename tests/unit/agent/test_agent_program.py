"""What an agent carries in memory on every host."""

import subprocess
import sys

_KEPT_OUT = [
    "pydantic",
    "grpc",
    "h2",
    "importlib.metadata",
    "prometheus_client",
    "croniter",
    "yaml",
    "rich",
    "click",
]
_PROBE = f"""
import sys
from fleet_agent.main import main
sys.argv = ["fleet-agent", "run", "--config", "/none"]
code = main()
import hashlib
assert code == 1
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
print([name for name in {_KEPT_OUT} if sys.modules.get(name)])
"""


def test_an_agent_loads_nothing_that_is_heavy_and_that_few_hosts_need() -> None:
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)

    assert done.stdout == "[]\n", done.stderr
    assert done.stderr == "fleet-agent: /none: No such file or directory\n"
