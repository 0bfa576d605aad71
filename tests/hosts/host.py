"""A host that faults are done to, however it is reached: run a command, cut links, reboot, take the power, freeze."""

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from tests.hosts.links import Cut, mended, rules

COMMAND_SECONDS = 240.0
BOOT_SECONDS = 60.0
_POLL_SECONDS = 0.1


class MachineError(Exception):
    """A command on a host failed; the message is the command and what it printed."""


class Host(ABC):
    """`name`: its machine's, and the agent's there."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def execute(self, script: str, timeout: float) -> "subprocess.CompletedProcess[str]":
        """Carry out a script of bash's, as root, ended by the first command that fails."""

    @abstractmethod
    def reboot(self) -> None:
        """An orderly one; returns once it is up again."""

    @abstractmethod
    def power_cut(self) -> None:
        """Every process is gone at once, and nobody was told."""

    @abstractmethod
    def power_on(self) -> None:
        """Returns once it is up again."""

    @abstractmethod
    def freeze(self) -> None:
        """Nothing of the fleet's runs there any more, until `thaw`."""

    @abstractmethod
    def thaw(self) -> None: ...

    def run(self, script: str, *, timeout: float = COMMAND_SECONDS) -> str:
        """Standard output of a script. Raises MachineError."""
        result = self.execute(script, timeout)
        if result.returncode != 0:
            raise MachineError(
                f"{self.name}: {script.strip()}\nexit status {result.returncode}\n{result.stdout}{result.stderr}"
            )
        return result.stdout

    def succeeds(self, script: str) -> bool:
        return self.execute(script, COMMAND_SECONDS).returncode == 0

    def cut(self, cuts: Sequence[Cut]) -> None:
        """Drop these packets and no others, until `mend` or the next boot."""
        for arguments in mended():
            self.iptables(arguments, may_fail=True)
        for arguments in rules(cuts):
            self.iptables(arguments)

    def mend(self) -> None:
        self.cut([])

    def iptables(self, arguments: Sequence[str], *, may_fail: bool = False) -> None:
        """Raises MachineError."""
        self.run(f"iptables --wait {' '.join(arguments)}" + (" 2>/dev/null || true" if may_fail else ""))

    def main_pid(self, unit: str) -> int:
        """0: it does not run."""
        return int(self.run(f"systemctl show {unit} --property MainPID --value"))

    def journal(self, lines: int = 200, *, programs: Sequence[str] = ()) -> str:
        """What its services said, for whoever has to find out."""
        chosen = " ".join(f"--identifier {program}" for program in programs)
        return self.execute(f"journalctl --no-pager --lines {lines} {chosen} --output short-precise", 30).stdout

    def wait_until_up(self, timeout: float = BOOT_SECONDS) -> None:
        self.wait_for(
            lambda: self.execute("systemctl is-system-running", 20).stdout.strip() in ("running", "degraded"),
            "systemd to start everything",
            timeout,
        )

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise MachineError(f"{self.name}: waited {timeout:g} s for {what}\n{self.journal()}")
            time.sleep(_POLL_SECONDS)
