"""Which folders of deployed code may be run: marks of this boot and of another, settled and not."""

import os
import time
from pathlib import Path

import pytest

from fleet_agent.code_folders import GONE_SECONDS, VERSIONS_KEPT, CodeFolders

_BOOT, _NEXT = "boot-1", "boot-2"


def _made(folders: CodeFolders, identity: str, app: str = "shop") -> None:
    (folders.begin(identity) / "server.js").write_text("serve()")
    folders.finish(identity, app)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "artifacts"
    root.mkdir()
    return root


def test_what_is_ready_but_not_on_the_disk_for_certain_is_not_run_after_a_power_cut(root: Path) -> None:
    before = CodeFolders(root, _BOOT)
    _made(before, "one")
    assert before.code("one") == root / "one" / "code"
    assert CodeFolders(root, _BOOT).code("one") is not None

    after = CodeFolders(root, _NEXT)
    assert after.code("one") is None
    after.clean()
    assert [path.name for path in root.iterdir()] == ["lock"]


def test_what_was_settled_is_run_after_a_power_cut(root: Path) -> None:
    before = CodeFolders(root, _BOOT)
    _made(before, "one")
    before.settle()
    after = CodeFolders(root, _NEXT)
    after.clean()

    assert after.code("one") == root / "one" / "code"


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_a_mark_that_is_damaged_marks_nothing(root: Path, content: str) -> None:
    folders = CodeFolders(root, _BOOT)
    folders.begin("one")
    (root / "one.ready").write_text(content)

    assert folders.code("one") is None
    folders.clean()
    assert [path.name for path in root.iterdir()] == ["lock"]


def test_the_newest_few_are_kept_and_what_is_in_use(root: Path) -> None:
    folders = CodeFolders(root, _BOOT)
    names = [f"version{number}" for number in range(VERSIONS_KEPT + 3)]
    for age, name in enumerate(names):
        _made(folders, name)
        os.utime(root / f"{name}.ready", (time.time() - 100 * age,) * 2)
    folders.prune({names[-1]})

    assert {path.name for path in root.iterdir() if path.is_dir()} == {*names[: VERSIONS_KEPT - 1], names[-1]}


def test_the_code_of_an_app_that_is_gone_goes_after_a_day(root: Path) -> None:
    folders = CodeFolders(root, _BOOT)
    for name, age in (("young", GONE_SECONDS - 60), ("old", GONE_SECONDS + 60), ("used", GONE_SECONDS + 60)):
        _made(folders, name, app=name)
        os.utime(root / f"{name}.ready", (time.time() - age,) * 2)
    folders.prune({"used"})

    assert {path.name for path in root.iterdir() if path.is_dir()} == {"young", "used"}
    assert time.time() - (root / "used.ready").stat().st_mtime < 60
