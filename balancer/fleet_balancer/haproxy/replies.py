"""What HAProxy answers on its stats socket, read into values: pure. Formats: HAProxy Management Guide §9."""

import csv
import io
from dataclasses import dataclass

from fleet_balancer.driver import Target
from fleet_balancer.haproxy.layout import RESERVE_IDS
from fleet_balancer.haproxy.slots import Sample, Slot, SlotState

_MAINTENANCE = 0x01 | 0x02 | 0x20  # forced, inherited, resolution; 0x04 only remembers "disabled" in the configuration
_DRAIN = 0x08 | 0x10  # forced, inherited
_STOPPED = 0  # srv_op_state


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A line of `show servers state`."""

    backend: str
    number: int
    """Its slot's."""
    reserve: bool
    target: Target
    maintenance: bool
    draining: bool
    hidden: bool

    def slot(self) -> Slot:
        """As a slot; one in maintenance counts as quarantined, for its past is not known."""
        if self.maintenance:
            return Slot(self.number, SlotState.QUARANTINED, self.target)
        return Slot(self.number, SlotState.DRAINING if self.draining else SlotState.ACTIVE, self.target)


def servers_state(reply: str) -> list[ServerRow]:
    """Read `show servers state`; raises ValueError when it is something else."""
    lines = reply.strip().splitlines()
    if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
        raise ValueError(f"not a server state: {_first_line(reply)}")
    columns = lines[1][2:].split()
    rows = []
    for line in lines[2:]:
        fields = dict(zip(columns, line.split(), strict=False))
        admin = int(fields["srv_admin_state"])
        rows.append(
            ServerRow(
                backend=fields["be_name"],
                number=int(fields["srv_id"]) % RESERVE_IDS,
                reserve=int(fields["srv_id"]) > RESERVE_IDS,
                target=Target(fields["srv_addr"], int(fields["srv_port"])),
                maintenance=bool(admin & _MAINTENANCE),
                draining=bool(admin & _DRAIN),
                hidden=int(fields["srv_op_state"]) == _STOPPED,
            )
        )
    return rows


def statistics(reply: str) -> list[dict[str, str]]:
    """Read `show stat`, one dictionary a line; raises ValueError when it is something else."""
    if not reply.startswith("# pxname,"):
        raise ValueError(f"not statistics: {_first_line(reply)}")
    return list(csv.DictReader(io.StringIO(reply[2:].strip())))


def sessions(reply: str) -> Sample:
    """Sessions and queued requests of all servers in a `show stat` reply together."""
    total = Sample()
    for row in statistics(reply):
        total += Sample(sessions=int(row["scur"] or 0), queued=int(row["qcur"] or 0))
    return total


def connections(reply: str) -> dict[int, Sample]:
    """Connections by slot number (a reserve's are its slot's), from `show servers conn BACKEND`; else raises ValueError."""
    lines = reply.strip().splitlines()
    if not lines or not lines[0].startswith("# "):
        raise ValueError(f"not server connections: {_first_line(reply)}")
    columns = lines[0][2:].split()
    found: dict[int, Sample] = {}
    for line in lines[1:]:
        fields = dict(zip(columns, line.split(), strict=False))
        number = int(fields["bkid/svid"].partition("/")[2]) % RESERVE_IDS
        sample = Sample(used=int(fields["used_cur"]), idle=int(fields["idle_cur"]))
        found[number] = found.get(number, Sample()) + sample
    return found


def process_info(reply: str) -> dict[str, str]:
    """Read `show info`; raises ValueError when it is something else."""
    pairs = [line.partition(": ") for line in reply.strip().splitlines()]
    info = {key: value.strip() for key, separator, value in pairs if separator}
    if "Pid" not in info:
        raise ValueError(f"not process information: {_first_line(reply)}")
    return info


def _first_line(reply: str) -> str:
    return repr(reply.strip().partition("\n")[0][:200])
