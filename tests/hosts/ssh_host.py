"""A host of your own, reached by ssh as root, for whoever runs the fault suite on a fleet that is not in containers.

What cannot be done from outside is done from within: a power cut is the kernel's own restart without a farewell (it comes back by
itself), and what is frozen is every process of fleetctl's services and of the workers, not the kernel below them.
"""

import shlex
import subprocess

from tests.hosts.host import Host

_BOOT_SECONDS = 300.0
_NOBODY_THERE = 255
"""ssh(1): the exit status of ssh itself."""
_EACH_PROCESS = (
    "for file in $(find /sys/fs/cgroup -path '*/fleet-*.service*' -name cgroup.procs); do"
    " for pid in $(cat $file); do kill -{signal} $pid 2>/dev/null || true; done; done"
)


class SshHost(Host):
    def __init__(self, name: str, target: str, ssh: str = "ssh") -> None:
        """`target`: as ssh takes it, with root's rights there; `ssh`: the program."""
        super().__init__(name)
        self._command = [ssh, "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", target]
        self._boot_before = ""

    def execute(self, script: str, timeout: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self._command, f"/bin/bash -ec {shlex.quote(script)}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )

    def reboot(self) -> None:
        self._boot_before = self._boot()
        self.execute("systemctl reboot", 30)
        self.power_on()

    def power_cut(self) -> None:
        """The kernel's sysrq b, which syncs nothing and says goodbye to nobody; by a process that outlives the connection."""
        self._boot_before = self._boot()
        self.run("setsid sh -c 'sleep 0.2; echo b > /proc/sysrq-trigger' >/dev/null 2>&1 </dev/null &")

    def power_on(self) -> None:
        before = self._boot_before
        self.wait_for(lambda: self._boot() not in ("", before), "another boot", _BOOT_SECONDS)
        self.wait_until_up(_BOOT_SECONDS)

    def freeze(self) -> None:
        self.run(_EACH_PROCESS.format(signal="STOP"))

    def thaw(self) -> None:
        self.run(_EACH_PROCESS.format(signal="CONT"))

    def _boot(self) -> str:
        """Names the present boot; "": nobody is there."""
        result = self.execute("cat /proc/sys/kernel/random/boot_id", 30)
        return "" if result.returncode == _NOBODY_THERE else result.stdout.strip()
