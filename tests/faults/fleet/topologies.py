"""What can be struck of a fleet: derived from who runs what. Pure."""

from collections.abc import Mapping, Sequence

from tests.faults.fleet.plan import Link, Topology

CONTROLLER_PORT, ETCD_PORT, PEER_PORT = 7400, 2379, 2380
_UNITS = {
    "agent": ("fleet-agent", "fleet-supervisor"),
    "controller": ("fleet-controller",),
    "etcd": ("fleet-etcd",),
    "balancer": ("fleet-balancer",),
}
ROLES = tuple(_UNITS)


def topology(roles: Mapping[str, Sequence[str]]) -> Topology:
    """Of machines by what each runs. One controller or etcd member alone is struck too: there the design promises less."""

    def having(role: str) -> tuple[str, ...]:
        return tuple(name for name, runs in roles.items() if role in runs)

    controllers, members = having("controller"), having("etcd")
    links = [
        *(Link("agent and controllers", name, controllers, CONTROLLER_PORT) for name in having("agent")),
        *(Link("balancer and controllers", name, controllers, CONTROLLER_PORT) for name in having("balancer")),
        *(Link("controller and etcd", name, members, ETCD_PORT) for name in controllers if members),
        *(Link("a member of etcd and the others", name, members, PEER_PORT) for name in members if len(members) > 1),
    ]
    return Topology(
        workers=having("agent"),
        controllers=controllers,
        balancers=having("balancer"),
        units=tuple((name, unit) for role, units in _UNITS.items() for name in having(role) for unit in units),
        links=tuple(links),
    )


WIDE = topology(
    {
        "ctl1": ("controller", "etcd"),
        "ctl2": ("controller", "etcd"),
        "lb1": ("balancer", "etcd"),
        "lb2": ("balancer",),
        "web1": ("agent",),
        "web2": ("agent",),
        "web3": ("agent",),
    }
)
"""tests.hosts.wide_fleet's."""
