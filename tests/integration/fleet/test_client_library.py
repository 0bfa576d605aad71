"""docs/client.md, read as one program and run on a whole fleet; and what only a whole fleet can show of the library."""

import re
import shutil
import threading
from pathlib import Path

import pytest

from fleet_core.contexts import load_contexts
from tests.integration.fleet.harness import PLAIN_SERVER, ROOT, Fleet
from tests.ports import free_address

PAGE = ROOT / "docs" / "client.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def at_home(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working folder where what the page names is there: a context, certificates, an app's code."""
    monkeypatch.setenv("FLEET_CONFIG", fleet.environment["FLEET_CONFIG"])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    context = load_contexts().choose(None)[1]
    certificates = tmp_path / ".fleet" / "prod"
    certificates.mkdir(parents=True)
    for path, name in ((context.authority, "ca.pem"), (context.certificate, "cert.pem"), (context.key, "key.pem")):
        shutil.copy(path, certificates / name)
    (tmp_path / "shop").mkdir()
    shutil.copy(PLAIN_SERVER, tmp_path / "shop" / "server.js")
    return tmp_path


def test_the_page_does_what_it_says(at_home: Path) -> None:
    controllers = ",".join(load_contexts().choose(None)[1].controllers)
    elsewhere = {
        "10.0.0.11:7400,10.0.0.12:7400": controllers,
        "/srv/shop": str(at_home / "shop"),
        ":8080": free_address(),
    }
    page = PAGE.read_text()
    names: dict[str, object] = {}
    for block in _BLOCK.finditer(page):
        code = block[1]
        for said, meant in elsewhere.items():
            code = code.replace(f'"{said}"', f'"{meant}"')
        above = page.count("\n", 0, block.start(1))
        exec(compile("\n" * above + code, str(PAGE), "exec"), names)
    assert "fleetctl-client" not in {thread.name for thread in threading.enumerate()}
