"""Hosts reached by ssh, with a program in ssh's place that carries out here what it is told to carry out there."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet.own_fleet import OwnFleet, OwnFleetError
from tests.hosts.host import MachineError
from tests.hosts.links import Cut, Direction
from tests.hosts.ssh_host import SshHost

_SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
[ -e {folder}/down ] && exit 255
echo "$1" >> {folder}/targets
shift
PATH={folder}/bin:$PATH exec sh -c "$*"
"""
_RECORDS_ITS_ARGUMENTS = '#!/bin/sh\necho "$@" >> {folder}/{name}\n'


@pytest.fixture
def host(tmp_path: Path) -> SshHost:
    """Its iptables and systemctl write down what they are asked for."""
    (tmp_path / "bin").mkdir()
    programs = {
        tmp_path / "ssh": _SSH,
        **{tmp_path / "bin" / name: _RECORDS_ITS_ARGUMENTS for name in ("iptables", "systemctl")},
    }
    for path, text in programs.items():
        path.write_text(text.format(folder=tmp_path, name=path.name))
        path.chmod(0o755)
    return SshHost("web1", "root@web1", str(tmp_path / "ssh"))


def test_a_script_is_carried_out_there_as_it_stands(host: SshHost, tmp_path: Path) -> None:
    assert host.run("""for word in "two words" 'and $HOME'; do\n  echo "$word"\ndone""") == "two words\nand $HOME\n"
    assert (tmp_path / "targets").read_text() == "root@web1\n"


def test_the_first_command_that_fails_ends_it_and_is_told(host: SshHost) -> None:
    with pytest.raises(MachineError, match=r"web1: .*\n(.*\n)*exit status 1"):
        host.run("echo begun\nfalse\necho never")
    assert not host.succeeds("false")


def test_links_are_cut_by_the_hosts_own_iptables_and_mended(host: SshHost, tmp_path: Path) -> None:
    host.cut([Cut("10.0.0.11", 7400, Direction.OUT)])
    asked = (tmp_path / "iptables").read_text().splitlines()
    assert asked[-1] == "--wait -A FLEET_FAULTS -d 10.0.0.11 -p tcp -m multiport --ports 7400 -j DROP"
    host.mend()
    assert (tmp_path / "iptables").read_text().splitlines()[-1] == "--wait -X FLEET_FAULTS"


def test_a_host_without_iptables_says_so_when_a_link_is_cut(host: SshHost, tmp_path: Path) -> None:
    (tmp_path / "bin" / "iptables").write_text("#!/bin/sh\necho 'iptables: no such table' >&2\nexit 3\n")
    with pytest.raises(MachineError, match="no such table"):
        host.cut([Cut("10.0.0.11", 7400)])


def test_a_host_is_up_again_once_another_boot_answers(
    host: SshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho running\n")
    boots = iter(["first", "first", "", "", "second", "second"])
    monkeypatch.setattr(host, "_boot", lambda: next(boots))
    host.reboot()
    assert list(boots) == ["second"]


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


def test_freezing_stops_each_process_of_the_fleets_cgroups_and_thawing_lets_them_go_on(
    host: SshHost, tmp_path: Path, process: "subprocess.Popen[bytes]"
) -> None:
    """`find`, in its place, finds one cgroup file, with one process."""
    (tmp_path / "cgroup.procs").write_text(f"{process.pid}\n")
    find = tmp_path / "bin" / "find"
    find.write_text(f"#!/bin/sh\necho {tmp_path}/cgroup.procs\n")
    find.chmod(0o755)
    host.freeze()
    _wait_for_state(process.pid, "T")
    host.thaw()
    _wait_for_state(process.pid, "S")


def _wait_for_state(pid: int, wanted: str) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != wanted:
        assert time.monotonic() < deadline, f"{pid} is not in state {wanted}"
        time.sleep(0.01)


_FILE = """
app = "shop"
port = 8080
[machines.ctl1]
ssh = "root@ctl1"
address = "10.0.0.11"
runs = ["controller", "etcd"]
[machines.lb1]
ssh = "root@lb1"
address = "10.0.0.21"
runs = ["balancer"]
[machines.web1]
ssh = "root@web1"
address = "10.0.0.31"
runs = ["agent"]
"""


def test_a_file_says_who_runs_what_and_what_can_be_struck_follows(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(_FILE)
    fleet = OwnFleet.read(path)
    assert (fleet.app, fleet.port, fleet.hosts, fleet.balancers) == ("shop", 8080, ("web1",), ("lb1",))
    assert ("web1", "fleet-supervisor") in fleet.topology.units
    assert {(link.machine, link.peers, link.port) for link in fleet.topology.links} == {
        ("web1", ("ctl1",), 7400),
        ("lb1", ("ctl1",), 7400),
        ("ctl1", ("ctl1",), 2379),
    }


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('app = "shop"', "", "write app ="),
        ('runs = ["agent"]', 'runs = ["agnet"]', "[machines.web1]: runs must be a list of agent, controller"),
        ('runs = ["agent"]', 'runs = ["etcd"]', 'no machine runs "agent"'),
        ('address = "10.0.0.31"', "", '[machines.web1]: write ssh = "root@HOST" and address'),
        ("port = 8080", "port 8080", "not TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, before: str, after: str, words: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(_FILE.replace(before, after))
    with pytest.raises(OwnFleetError) as caught:
        OwnFleet.read(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
