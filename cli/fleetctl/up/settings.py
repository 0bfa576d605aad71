"""What `up.json` records: how much of everything there is, and which ports it has. Pure."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleetctl.up.errors import UpError
from fleetctl.up.ports import BLOCK_PORTS

MAX_HOSTS = 50
MAX_CONTROLLERS = 9
MAX_BALANCERS = 9
ETCD_MEMBERS: tuple[Literal[1, 3, 5], ...] = (1, 3, 5)
"""An even number survives no more losses than one member less."""
_FIRST_CONTROLLER_OFFSET = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """The numbers given on the command line; None: as recorded, or 1."""

    hosts: int | None = None
    balancers: int | None = None
    controllers: int | None = None
    etcd_members: int | None = None
    cgroup: str | None = None
    """An absolute path; "": none; None: as recorded."""


class Settings(BaseModel):
    """Ports come in blocks of BLOCK_PORTS: one for etcd and the controllers, one for the workers of each host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    fleet_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    """Minted with the folder; every daemon carries it in its environment."""
    hosts: Annotated[int, Field(ge=1, le=MAX_HOSTS)]
    balancers: Annotated[int, Field(ge=1, le=MAX_BALANCERS)]
    controllers: Annotated[int, Field(ge=1, le=MAX_CONTROLLERS)]
    etcd_members: Literal[1, 3, 5] = 1
    system_block: int
    """First port of the block of etcd and the controllers."""
    host_blocks: tuple[int, ...]
    """First port of each host's block."""
    cgroup: str = ""
    """The cgroup v2 folder that holds one for each host; "": workers have none, and limits are refused."""
    memory: str = ""
    """The file system in memory that holds sockets and runtime files; "": they lie on disk. Chosen at each start, unless
    something of the last run may live."""

    @classmethod
    def parse(cls, text: str, path: str) -> Self:
        """Raises UpError on a damaged record."""
        try:
            settings = cls.model_validate_json(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UpError(f"{path} is damaged ({reason}): use another --data-dir, or remove this one") from error
        if len(settings.host_blocks) != settings.hosts:
            raise UpError(f"{path} is damaged (ports of hosts are missing): use another --data-dir, or remove this one")
        return settings

    @property
    def etcd_client_ports(self) -> list[int]:
        return [self.system_block + 2 * number for number in range(self.etcd_members)]

    @property
    def etcd_peer_ports(self) -> list[int]:
        return [port + 1 for port in self.etcd_client_ports]

    @property
    def controller_ports(self) -> list[int]:
        first = self.system_block + _FIRST_CONTROLLER_OFFSET
        return list(range(first, first + self.controllers))

    @property
    def controller_addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.controller_ports]

    def worker_ports(self, host_index: int) -> tuple[int, int]:
        """First and last port of a host's workers."""
        first = self.host_blocks[host_index]
        return first, first + BLOCK_PORTS - 1


def cgroup_of(wanted: Wanted, recorded: Settings | None) -> str:
    """As `Settings.cgroup`."""
    if wanted.cgroup is not None:
        return wanted.cgroup
    return recorded.cgroup if recorded else ""


def etcd_members_of(wanted: Wanted, recorded: Settings | None) -> Literal[1, 3, 5]:
    """How many members etcd has: chosen once, when the folder is made. Raises UpError."""
    had = recorded.etcd_members if recorded else None
    if had is not None and wanted.etcd_members not in (None, had):
        raise UpError(
            f"this data folder's etcd has {had} member{'s' if had > 1 else ''}, for good: leave --etcd-members away, "
            "or use another --data-dir"
        )
    for number in ETCD_MEMBERS:
        if number == (had or wanted.etcd_members or 1):
            return number
    raise UpError(f"--etcd-members is one of {', '.join(map(str, ETCD_MEMBERS))}")


def resolve(wanted: Wanted, recorded: Settings | None) -> tuple[int, int, int]:
    """(hosts, balancers, controllers) to run. Raises UpError: a fleet here may grow, not shrink, because what would go may
    still run workers."""
    numbers = []
    for kind in ("hosts", "balancers", "controllers"):
        asked: int | None = getattr(wanted, kind)
        had: int = getattr(recorded, kind) if recorded else 1
        if recorded and asked is not None and asked < had:
            raise UpError(
                f"this data folder has {had} {kind} and cannot shrink to {asked}: leave --{kind} away, or use another --data-dir"
            )
        numbers.append(had if asked is None else asked)
    hosts, balancers, controllers = numbers
    return hosts, balancers, controllers
