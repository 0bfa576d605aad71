"""What the kernel says after a program asked for short slices."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from fleet_core import scheduling

_GET_ATTRIBUTES = {"x86_64": 315, "aarch64": 275}

_PROGRAM = """
import os, sys
from fleet_core.scheduling import take_short_slices
from tests.unit.test_core_scheduling import slice_and_nice
os.nice(5)
print(take_short_slices(children=sys.argv[1] == "children"), *slice_and_nice(), flush=True)
if not os.fork():
    print(*slice_and_nice(), flush=True)
    os._exit(0)
os.wait()
"""


def slice_and_nice() -> tuple[int, int]:
    """Of this process; as kernels before 6.12 know it: 0."""
    found = scheduling._Attributes()
    number = _GET_ATTRIBUTES[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, ctypes.byref(found), ctypes.sizeof(found), 0) == 0
    return found.runtime, found.nice


@pytest.mark.skipif(platform.machine() not in _GET_ATTRIBUTES, reason="the system call's number is not known here")
@pytest.mark.parametrize("children", [True, False])
def test_a_program_gets_short_slices_keeps_its_niceness_and_hands_both_on_only_where_told(children: bool) -> None:
    if not slice_and_nice()[0]:
        pytest.skip("slices can be asked for from Linux 6.12 on")
    command = [sys.executable, "-c", _PROGRAM, "children" if children else "none"]
    ours, child = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.splitlines()
    assert ours == f"True {scheduling.SLICE_NANOSECONDS} 5"
    child_slice, child_nice = map(int, child.split())
    assert (child_slice == scheduling.SLICE_NANOSECONDS) is children
    assert child_nice == 5


def test_a_machine_whose_call_is_not_known_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert not scheduling.take_short_slices(children=True)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
