"""What a HAProxy process reads when it starts: chosen, compared with what runs, and written for it."""

import asyncio
import hashlib
import resource
from collections.abc import Iterable, Mapping
from pathlib import Path

from fleet_balancer.access_log.log import AccessLog
from fleet_balancer.certificates.store import CertificateStore, Selection
from fleet_balancer.driver import DriverError, Pool, Route, Target
from fleet_balancer.haproxy import slots
from fleet_balancer.haproxy.access import logged
from fleet_balancer.haproxy.config import CERTIFICATES, render, render_certificates, render_map, skeleton
from fleet_balancer.haproxy.instance import Files, Structure
from fleet_balancer.haproxy.layout import Layout, PoolLayout, entrances, frontend, plain_tcp
from fleet_balancer.haproxy.listeners import Listeners
from fleet_balancer.haproxy.pages import PAGES, page_files
from fleet_core.route import Protocol, TimeoutPolicy

_CONNECTIONS = 10_000
_SPARE_DESCRIPTORS = 500
_Shapes = dict[str, tuple[Route | None, str]]


def addresses(pools: Mapping[str, Pool]) -> set[Target]:
    """All that are listened on."""
    return {address for pool in pools.values() if pool.route is not None for address in pool.route.addresses}


class Preparation:
    def __init__(
        self,
        runtime_dir: Path,
        threads: int,
        listeners: Listeners,
        certificates: CertificateStore,
        access_log: AccessLog,
        secret: bytes,
    ) -> None:
        self._runtime_dir = runtime_dir
        self._threads = threads
        self._listeners = listeners
        self._certificates = certificates
        self._access_log = access_log
        self._secret = secret
        self._hosts: frozenset[str] | None = None
        """Those that certificates were chosen for; None: nothing is reached by HTTPS."""
        self._selection = Selection()
        self._known: tuple[_Shapes, Selection, str] | None = None

    async def choose_certificates(self, pools: Mapping[str, Pool], *, anew: bool = False) -> bool:
        """Have those at hand that `pools` need; `anew`: look at the disk in any case. Returns whether others are now in use.

        Raises DriverError.
        """
        routes = [pool.route for pool in pools.values() if pool.route is not None]
        secure = [route for route in routes if any(one.protocol is Protocol.HTTPS for one in route.entrances)]
        hosts = frozenset(host for route in secure for host in route.policy.hosts) if secure else None
        if hosts == self._hosts and (hosts is None or not anew):
            return False
        before = self._selection.digest
        try:
            found = Selection() if hosts is None else await asyncio.to_thread(self._certificates.select, hosts)
        except OSError as error:
            raise DriverError(f"certificates: {error.filename or ''}: {error.strerror}") from error
        self._hosts, self._selection = hosts, found
        return found.digest != before

    @property
    def notices(self) -> tuple[str, ...]:
        return self._selection.notices

    def skeleton(self, pools: Mapping[str, Pool]) -> str:
        """As config.skeleton: rendered anew only where something in it changed."""
        shapes = {name: (pool.route, pool.health_path) for name, pool in pools.items()}
        known = self._known
        if known is None or known[0] != shapes or known[1] != self._selection:
            known = shapes, self._selection, skeleton(self.layouts(pools), self._threads, self._selection)
            self._known = known
        return known[2]

    def write(self, files: Files, pools: Mapping[str, Pool]) -> Structure:
        """All that the process reads; its listeners must be held. Not synced: a machine that goes down takes the process along.

        Raises OSError.
        """
        layout = self._layout(files, pools)
        structure = Structure(
            layout.listeners,
            tuple(map(frontend, entrances(layout.pools))),
            {pool.name: pool.health_path for pool in layout.pools},
            self.skeleton(pools),
            max((_patience(pool.route.policy.timeouts) for pool in layout.pools), default=0.0),
        )
        certificates, pages = self._runtime_dir / CERTIFICATES, self._runtime_dir / PAGES
        for folder in (certificates, pages):
            folder.mkdir(mode=0o700, exist_ok=True)
        contents = {
            files.configuration: render(layout).encode(),
            files.map: render_map(layout.pools).encode(),
            files.certificates: render_certificates(self._selection).encode(),
            files.structure: structure.dump(),
            **{certificates / f"{one.digest}.pem": one.pem for one in self._selection.certificates},
            **{pages / name: page for name, page in page_files(one.route.policy for one in layout.pools).items()},
        }
        for path, content in contents.items():
            path.touch(mode=0o600)
            path.write_bytes(content)
        # Processes that run have read theirs.
        for path in {*certificates.iterdir(), *pages.iterdir()} - contents.keys():
            path.unlink()
        return structure

    def inherited(self, structure: Structure) -> Iterable[int]:
        """The descriptors that the process needs."""
        yield from structure.listeners.values()
        if self._access_log.active:
            yield self._access_log.descriptor()

    def layouts(self, wanted: Mapping[str, Pool]) -> tuple[PoolLayout, ...]:
        """Of those that have a route here."""
        pools = []
        for name, pool in sorted(wanted.items()):
            if pool.route is not None:
                targets = pool.targets()
                table = slots.initial(targets, slots.capacity(len(targets)))
                key = hashlib.sha256(self._secret + name.encode()).hexdigest()[:32]
                pools.append(PoolLayout(name, pool.route, table, _health_path(pool.route, pool), key))
        return tuple(pools)

    def _layout(self, files: Files, wanted: Mapping[str, Pool]) -> Layout:
        pools = self.layouts(wanted)
        return Layout(
            socket=files.socket,
            map=files.map.name,
            certificates=files.certificates.name,
            threads=self._threads,
            max_connections=_max_connections(sum(len(pool.slots) for pool in pools)),
            listeners={address: self._listeners.descriptor(address) for address in addresses(wanted)},
            pools=pools,
            access_log=self._access_log.descriptor() if any(logged(one.route.policy) for one in pools) else 0,
        )


def _health_path(route: Route, pool: Pool) -> str:
    """By TCP nothing is asked for: to connect is the check."""
    return "" if plain_tcp(route) else pool.health_path


def _patience(timeouts: TimeoutPolicy) -> float:
    return float(max(timeouts.plain().values()))


def _max_connections(servers: int) -> int:
    """What the descriptor limit allows: a client takes two, itself and its server's; a server one for its checks."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return _CONNECTIONS
    return max(100, min(_CONNECTIONS, (hard - servers - _SPARE_DESCRIPTORS) // 2))
