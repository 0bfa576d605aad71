"""A worker, and what this process holds of it while it lives."""

import os
import signal
from dataclasses import dataclass, field

from fleet_agent.supervisor.cgroups import Leaf
from fleet_agent.supervisor.contact import Contact
from fleet_agent.supervisor.life import Life
from fleet_agent.supervisor.limits import with_kills
from fleet_agent.supervisor.logs import WorkerLogs
from fleet_agent.supervisor.loop import Loop, Timer
from fleet_agent.supervisor.processes import UNKNOWN_END, End, Tree, send
from fleet_agent.supervisor.spawn import read_report


@dataclass(eq=False)
class Held:
    """Owns what is not None, and the descriptors."""

    life: Life
    tree: Tree | None = None
    logs: WorkerLogs | None = None
    contact: Contact | None = None
    leaf: Leaf | None = None
    timer: Timer | None = None
    report: int = -1
    """Descriptor on which execve's failure is told; -1 once that is settled."""
    refused: str = ""
    """Why there was no execve."""
    members: set[int] = field(default_factory=set)
    """Pidfds of what outlived the leader of a stopping tree."""
    leader_end: End | None = None
    """How the leader ended; None while it lives."""

    def settle_report(self, loop: Loop) -> str:
        """Why execve failed, "" where it did not; to be asked once that is known, or of no interest any more."""
        if self.report < 0:
            return self.refused
        reason = read_report(self.report)
        loop.unwatch(self.report)
        os.close(self.report)
        self.report = -1
        return reason or ""

    def kill_all(self) -> None:
        """The last rung."""
        if self.leaf is not None:
            self.leaf.kill()
        if self.tree is not None:
            self.tree.kill_all()
        for member in self.members:
            send(member, signal.SIGKILL)

    def how_it_ended(self) -> End:
        end = self.leader_end or UNKNOWN_END
        return end if self.leaf is None else with_kills(end, self.leaf.new_kills(), self.life.launch.memory_max_bytes)

    def end_contact(self) -> None:
        if self.contact is not None:
            self.contact.close(for_good=True)
            self.contact = None

    def drop_member(self, loop: Loop, member: int) -> None:
        loop.unwatch(member)
        os.close(member)
        self.members.discard(member)

    def close(self, loop: Loop) -> None:
        """The process lives on."""
        self.settle_report(loop)
        for member in list(self.members):
            self.drop_member(loop, member)
        if self.tree is not None and self.tree.pidfd is not None:
            loop.unwatch(self.tree.pidfd)
            self.tree.close()
        if self.timer is not None:
            self.timer.cancel()
        if self.logs is not None:
            self.logs.close()
        if self.contact is not None:
            self.contact.close(for_good=False)
