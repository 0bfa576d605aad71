"""cgroup v2 limits: what is written, what is read, and what becomes of leaves, in a folder that looks like one."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_agent.supervisor.cgroups import CgroupError, Cgroups, Leaf
from fleet_agent.supervisor.limits import asks_for_limits, enabling, number_in, texts_of, with_kills
from fleet_agent.supervisor.loop import Loop, now
from fleet_agent.supervisor.processes import UNKNOWN_END, End
from fleet_agent.supervisor.protocol import Key, Launch

KEY = Key("shop", 1, 2)
PLAIN = Launch(["a"], "/", {})
LIMITED = replace(PLAIN, memory_max_bytes=300 * 2**20, cpu_max_cores=0.5, pids_max=64)
SIGKILLED = End("killed by SIGKILL")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as made:
        yield made


def leaf_with(folder: Path, *files: str) -> Path:
    """As the kernel makes one."""
    leaf = folder / "shop.1.2"
    leaf.mkdir()
    for name in files:
        (leaf / name).touch()
    return leaf


def run_for(loop: Loop, seconds: float) -> None:
    loop.at(now() + seconds, loop.stop)
    loop.run()


def test_limits_are_written_as_the_kernel_reads_them() -> None:
    assert texts_of(LIMITED) == {"memory.max": "314572800", "cpu.max": "50000 100000", "pids.max": "64"}
    assert texts_of(PLAIN) == {"memory.max": "max", "cpu.max": "max", "pids.max": "max"}
    assert texts_of(replace(PLAIN, cpu_max_cores=0.0001))["cpu.max"] == "1000 100000"
    assert (asks_for_limits(LIMITED), asks_for_limits(PLAIN)) == (True, False)


def test_only_controllers_that_are_there_and_not_enabled_are_enabled() -> None:
    assert enabling("cpuset cpu io memory pids\n", "cpu\n") == "+memory +pids"
    assert enabling("hugetlb\n", "") == ""


def test_events_are_read_by_their_whole_name() -> None:
    text = "low 0\noom 2\noom_kill 13\noom_group_kill 1\n"
    assert (number_in(text, "oom_kill"), number_in(text, "oom"), number_in(text, "max"), number_in("", "oom")) == (
        13,
        2,
        0,
        0,
    )


def test_an_end_for_want_of_memory_is_told_with_its_limit() -> None:
    limit = 300 * 2**20
    assert with_kills(SIGKILLED, 0, limit) == SIGKILLED
    assert with_kills(SIGKILLED, 1, limit) == End("killed by the kernel: out of memory (limit 300 MiB)")
    assert with_kills(UNKNOWN_END, 1, limit + 1) == End("killed by the kernel: out of memory (limit 314572801 bytes)")
    assert with_kills(SIGKILLED, 1, 0) == End("killed by the kernel: out of memory")
    of_a_child = "exit code 1, after a process of it was killed by the kernel: out of memory (limit 2 GiB)"
    assert with_kills(End("exit code 1", 1), 1, 2**31) == End(of_a_child, 1)


def test_a_leaf_has_its_limits_before_anybody_joins_and_counts_from_there(folder: Path, loop: Loop) -> None:
    made = leaf_with(folder, "memory.max", "cpu.max", "pids.max")
    (made / "memory.events").write_text("oom_kill 3\n")
    with closing(Cgroups(loop, folder)) as cgroups:
        leaf = cgroups.make(KEY, LIMITED)
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
        assert {name: (made / name).read_text() for name in texts_of(LIMITED)} == texts_of(LIMITED)
        assert leaf.new_kills() == 0
        (made / "memory.events").write_text("oom_kill 5\n")
        assert leaf.new_kills() == 2
        assert Leaf(made).from_the_start().new_kills() == 5


def test_a_limit_that_cannot_be_set_is_refused_and_no_limit_needs_no_file(folder: Path, loop: Loop) -> None:
    with closing(Cgroups(loop, folder)) as cgroups:
        assert cgroups.make(KEY, PLAIN).path == folder / "shop.1.2"
        with pytest.raises(
            CgroupError, match=r"memory\.max is not there: enable the controller memory in .*drop --memory-limit"
        ):
            cgroups.make(KEY, LIMITED)
        assert not (folder / "shop.1.2").exists(), "nothing is left of the attempt"
        leaf_with(folder)
        (folder / "shop.1.2/memory.max").symlink_to("/dev/full")
        with pytest.raises(CgroupError, match=r"314572800 cannot be written to .*: No space left on device"):
            cgroups.make(KEY, LIMITED)


def test_a_retired_leaf_is_killed_once_and_removed_when_all_in_it_are_dead(folder: Path, loop: Loop) -> None:
    made = leaf_with(folder, "cgroup.kill")
    (made / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with closing(Cgroups(loop, folder)) as cgroups:
        cgroups.retire(Leaf(made))
        assert (made / "cgroup.kill").read_text() == "1"
        run_for(loop, 0.05)
        assert made.is_dir()
        (made / "cgroup.kill").unlink()
        (made / "cgroup.events").unlink()
        loop_again(loop)
        assert not made.exists()
        assert loop._seconds_to_wait() is None, "nothing is left to wake up for"


def loop_again(loop: Loop) -> None:
    loop._stopped = False
    run_for(loop, 0.3)


def test_a_leaf_that_is_wanted_again_is_not_removed(folder: Path, loop: Loop) -> None:
    made = leaf_with(folder)
    (made / "cgroup.events").write_text("populated 1\n")
    with closing(Cgroups(loop, folder)) as cgroups:
        cgroups.retire(Leaf(made))
        cgroups.make(KEY, PLAIN)
        (made / "cgroup.events").unlink()
        run_for(loop, 0.1)
        assert made.is_dir()


def test_what_dead_supervisors_left_is_removed_and_nothing_else_is(folder: Path, loop: Loop) -> None:
    for name in ("shop.1.2", "shop.1.1", "ghost.12.7", "init.scope", "mine"):
        (folder / name).mkdir()
    with closing(Cgroups(loop, folder)) as cgroups:
        cgroups.keep_only({KEY})
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"shop.1.2", "init.scope", "mine"}


def test_a_folder_that_is_no_cgroup_and_one_that_is_taken_are_refused(
    tmp_path: Path, folder: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(OSError, match="is no cgroup v2 folder"):
        Cgroups(loop, tmp_path / "plain")
    monkeypatch.setattr("fleet_agent.supervisor.cgroups._LOCK_SECONDS", 0.0)
    with closing(Cgroups(loop, folder)), pytest.raises(BlockingIOError, match="another supervisor uses the cgroup"):
        Cgroups(loop, folder)
    Cgroups(loop, folder).close()


def test_controllers_that_cannot_be_enabled_are_complained_about(
    folder: Path, loop: Loop, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "cgroup.subtree_control").unlink()
    (folder / "cgroup.subtree_control").symlink_to("/dev/full")
    Cgroups(loop, folder).close()
    assert "(+memory +cpu +pids): No space left on device" in capfd.readouterr().err
