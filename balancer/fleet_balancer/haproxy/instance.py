"""One HAProxy process and the slots in it."""

import asyncio
import json
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fleet_balancer.driver import DriverError, Target
from fleet_balancer.haproxy import replies, slots
from fleet_balancer.haproxy.layout import USUAL_TIMEOUTS, backends, reserve_backend, server_id, server_name
from fleet_balancer.haproxy.process import HaproxyProcess, first_alert
from fleet_balancer.haproxy.replies import ServerRow
from fleet_balancer.haproxy.runtime import RuntimeApi, RuntimeApiError, require_silence
from fleet_balancer.haproxy.slots import Change, Sample, Slot, SlotState

_START_TIMEOUT = 15.0
_START_POLL = 0.002
_USUAL_PATIENCE = max(USUAL_TIMEOUTS.plain().values())
_COMMANDS = {SlotState.ACTIVE: "ready", SlotState.DRAINING: "drain", SlotState.QUARANTINED: "maint"}


@dataclass(frozen=True, slots=True)
class Files:
    """What belongs to HAProxy process `number` in the runtime folder."""

    runtime_dir: Path
    number: int

    @property
    def configuration(self) -> Path:
        return self.runtime_dir / f"haproxy-{self.number}.cfg"

    @property
    def socket(self) -> Path:
        return self.runtime_dir / f"haproxy-{self.number}.sock"

    @property
    def structure(self) -> Path:
        return self.runtime_dir / f"haproxy-{self.number}.json"

    @property
    def log(self) -> Path:
        return self.runtime_dir / f"haproxy-{self.number}.log"

    @property
    def map(self) -> Path:
        return self.runtime_dir / f"haproxy-{self.number}.map"

    @property
    def certificates(self) -> Path:
        return self.runtime_dir / f"haproxy-{self.number}.certificates"

    def remove(self) -> None:
        for path in (self.configuration, self.map, self.certificates, self.socket, self.structure, self.log):
            path.unlink(missing_ok=True)


def remove_leftovers(runtime_dir: Path, kept: Container[int]) -> int:
    """Remove the files of processes that are gone; returns the highest number ever used."""
    highest = 0
    for path in runtime_dir.glob("haproxy-*.*"):
        text = path.stem.removeprefix("haproxy-")
        if text.isdigit():
            highest = max(highest, int(text))
            if int(text) not in kept:
                Files(runtime_dir, int(text)).remove()
    return highest


@dataclass(frozen=True, slots=True)
class Structure:
    """What cannot be changed in a running HAProxy."""

    listeners: Mapping[Target, int]
    """The inherited descriptor of each address it listens on."""
    frontends: tuple[str, ...]
    pools: Mapping[str, str]
    """The health path of each; "": it has none, and no reserves."""
    skeleton: str = ""
    """As config.skeleton; empty: not known, another process takes its place."""
    patience: float = _USUAL_PATIENCE
    """Seconds: the longest of all timeouts in it. A connection that is silent for so long is closed by HAProxy itself."""

    @property
    def health_paths(self) -> dict[str, str]:
        """Of the pools that have one: those have reserves."""
        return {name: path for name, path in self.pools.items() if path}

    def dump(self) -> bytes:
        return json.dumps(
            {
                "listeners": [[one.address, one.port, number] for one, number in sorted(self.listeners.items())],
                "frontends": self.frontends,
                "health_paths": self.pools,
                "skeleton": self.skeleton,
                "patience": self.patience,
            }
        ).encode()

    @classmethod
    def load(cls, content: bytes) -> Self:
        """Raises ValueError."""
        try:
            fields = json.loads(content)
            if "health_paths" not in fields:
                return cls._of_one_frontend_a_pool(fields["pools"])
            return cls(
                {Target(str(address), int(port)): int(number) for address, port, number in fields["listeners"]},
                tuple(map(str, fields["frontends"])),
                {str(name): str(path) for name, path in fields["health_paths"].items()},
                str(fields["skeleton"]),
                float(fields.get("patience", _USUAL_PATIENCE)),
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError("the structure of a HAProxy process is not readable") from error

    @classmethod
    def _of_one_frontend_a_pool(cls, pools: Mapping[str, list[Any]]) -> Self:
        """As it was before apps shared addresses: each pool had a frontend of its name."""
        listeners = {Target(str(pool[0]), int(pool[1])): int(pool[2]) for pool in pools.values()}
        paths = {str(name): str(pool[3]) if len(pool) > 3 else "" for name, pool in pools.items()}
        return cls(listeners, tuple(paths), paths)


class NotStartedError(DriverError):
    """The process ended before it answered; `output` is what it said."""

    def __init__(self, output: str) -> None:
        super().__init__(f"HAProxy did not start: {first_alert(output)}")
        self.output = output


def _address(server: str, target: Target) -> str:
    return f"set server {server} addr {target.address} port {target.port}"


class Instance:
    """A running HAProxy and its slot tables, which are kept equal to what it reports. The owner calls `close`."""

    def __init__(self, process: HaproxyProcess, files: Files, structure: Structure) -> None:
        self.process = process
        self.files = files
        self.structure = structure
        self._api = RuntimeApi(files.socket)
        self._slots: dict[str, tuple[Slot, ...]] = {}

    async def await_ready(self) -> None:
        """Return when this very process answers and its slots are known. Raises DriverError."""
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            if not self.process.alive:
                self.process.reap()
                raise NotStartedError(self._log())
            try:
                reply = (await self._api.ask(["show info"]))[0]
                if replies.process_info(reply).get("Pid") == str(self.process.pid):
                    await self.load()
                    return
            except RuntimeApiError as error:
                if time.monotonic() > deadline:
                    raise DriverError(str(error)) from error
            except ValueError as error:
                raise DriverError(f"HAProxy's stats socket: {error}") from error
            await asyncio.sleep(_START_POLL)

    def _log(self) -> str:
        try:
            return self.files.log.read_text(errors="replace")
        except OSError:
            return ""

    async def load(self) -> None:
        """Read the slots from HAProxy; what is in maintenance counts as quarantined. Raises RuntimeApiError, ValueError."""
        rows = await self._rows()
        self._slots = {
            pool: tuple(row.slot() for row in rows if row.backend == backends(pool)[0] and not row.reserve)
            for pool in self.structure.pools
        }
        await self._mend(rows)

    async def _mend(self, rows: Iterable[ServerRow]) -> None:
        """Make the copies of each slot agree where whoever changed them was killed in between."""
        commands = []
        for pool in self.structure.pools:
            copies, holders = self._copies(pool), self._state_holders(pool)
            table = {slot.number: slot for slot in self._slots[pool]}
            for row in rows:
                slot = table.get(row.number) if (row.backend, row.reserve) in copies else None
                if slot is None:
                    continue
                server = f"{row.backend}/{server_name(row.number, reserve=row.reserve)}"
                if row.target != slot.target and slot.state is SlotState.QUARANTINED and slot.target is not None:
                    commands.append(_address(server, slot.target))
                if (row.backend, row.reserve) in holders and row.slot().state is not slot.state:
                    commands.append(f"set server {server} state {_COMMANDS[slot.state]}")
        if commands:
            await self._api.ask(commands)

    def _copies(self, pool: str) -> tuple[tuple[str, bool], ...]:
        """(backend, whether it is the reserve) of every server line that is a slot's."""
        plain = tuple((name, False) for name in backends(pool))
        if pool not in self.structure.health_paths:
            return plain
        return (*plain, *((name, True) for name in (*backends(pool), reserve_backend(pool))))

    def _state_holders(self, pool: str) -> tuple[tuple[str, bool], ...]:
        """Those of the copies whose state is set; the others track them."""
        own = ((backends(pool)[0], False),)
        return (*own, (reserve_backend(pool), True)) if pool in self.structure.health_paths else own

    async def rows(self) -> list[tuple[str, ServerRow]]:
        """What each pool's servers are now. Raises RuntimeApiError."""
        names = {backends(pool)[0]: pool for pool in self.structure.pools}
        rows = await self._rows()
        return [(names[row.backend], row) for row in rows if row.backend in names and not row.reserve]

    async def _rows(self) -> list[ServerRow]:
        return self._read_rows(await self._api.ask(["show servers state"]))

    @staticmethod
    def _read_rows(answers: Iterable[str]) -> list[ServerRow]:
        try:
            return [row for answer in answers for row in replies.servers_state(answer)]
        except (ValueError, KeyError) as error:
            raise RuntimeApiError(f"HAProxy's stats socket: {error}") from error

    async def apply(self, pool: str, targets: Mapping[Target, bool], *, keeps: bool = False) -> tuple[Target, ...]:
        """Make `targets` true in `pool` and read it back; `keeps` as slots.plan. Returns the ready targets that found no slot.

        Raises RuntimeApiError; the slots are then read anew at the next call.
        """
        table = self._slots.get(pool) or await self._reloaded(pool)
        plan = slots.plan(table, targets, keeps=keeps)
        if plan.missing and await self._release(pool):
            plan = slots.plan(self._slots[pool], targets, keeps=keeps)
        if plan.changes:
            # Until read back, what the slots hold is unknown.
            table = self._slots.pop(pool)
            await self._carry_out(pool, plan.changes)
            self._slots[pool] = slots.changed(table, plan.changes)
        return tuple(target for target in plan.missing if not targets[target])

    async def _reloaded(self, pool: str) -> tuple[Slot, ...]:
        await self.load()
        return self._slots[pool]

    async def _carry_out(self, pool: str, changes: Iterable[Change]) -> None:
        copies, holders = self._copies(pool), self._state_holders(pool)
        addresses: list[str] = []
        states: list[str] = []
        expected: dict[int, Slot] = {}
        for change in changes:
            number, target = change.slot.number, change.slot.target
            expected[number] = change.slot
            if change.new_address and target is not None:
                addresses += [
                    _address(f"{name}/{server_name(number, reserve=reserve)}", target) for name, reserve in copies
                ]
            command = _COMMANDS[change.slot.state]
            states += [
                f"set server {name}/{server_name(number, reserve=reserve)} state {command}" for name, reserve in holders
            ]
        if addresses:
            await self._give(pool, addresses, expected, states=False)
        await self._give(pool, states, expected, states=True)

    async def _give(self, pool: str, commands: Sequence[str], expected: Mapping[int, Slot], *, states: bool) -> None:
        """Give commands and read back what became of them, in one exchange.

        Raises RuntimeApiError unless the pool's servers then have these addresses and, if asked, these states.
        """
        copies = self._copies(pool)
        shows = [f"show servers state {name}" for name in dict.fromkeys(name for name, _ in copies)]
        answers = await self._api.ask([*commands, *shows])
        if states:
            require_silence(commands, answers)
        for row in self._read_rows(answers[len(commands) :]):
            slot = expected.get(row.number) if (row.backend, row.reserve) in copies else None
            if slot is None:
                continue
            server = f"{row.backend}/{server_name(row.number, reserve=row.reserve)}"
            if row.target != slot.target:
                raise RuntimeApiError(f"HAProxy's server {server} is at {row.target}, not at {slot.target}")
            if states and row.slot().state is not slot.state:
                raise RuntimeApiError(f"HAProxy's server {server} is {row.slot().state.value}, not {slot.state.value}")

    async def _release(self, pool: str) -> bool:
        """Free the quarantined slots nothing leads to any more. Two samples: a thread may be between choosing and counting."""
        before = self._slots[pool]
        numbers = [slot.number for slot in before if slot.state is SlotState.QUARANTINED]
        if not numbers:
            return False
        first = await self._samples(pool, numbers)
        await asyncio.sleep(0.01)
        second = await self._samples(pool, numbers)
        self._slots[pool] = slots.released(before, {number: first[number] + second[number] for number in numbers})
        return self._slots[pool] != before

    async def _samples(self, pool: str, numbers: Iterable[int]) -> dict[int, Sample]:
        samples = await self._sessions(pool, numbers)
        for name in backends(pool):
            try:
                found = replies.connections((await self._api.ask([f"show servers conn {name}"]))[0])
            except (ValueError, KeyError) as error:
                raise RuntimeApiError(f"HAProxy's stats socket: {error}") from error
            samples = {number: sample + found[number] for number, sample in samples.items()}
        return samples

    async def _sessions(self, pool: str, numbers: Iterable[int]) -> dict[int, Sample]:
        copies = [(name, reserve) for name, reserve in self._copies(pool) if name in backends(pool)]
        asked = [(number, name, server_id(number, reserve=reserve)) for number in numbers for name, reserve in copies]
        answers = await self._api.ask([f"show stat {name} 4 {identifier}" for _, name, identifier in asked])
        samples: dict[int, Sample] = {}
        for (number, _, _), answer in zip(asked, answers, strict=True):
            try:
                samples[number] = samples.get(number, Sample()) + replies.sessions(answer)
            except (ValueError, KeyError) as error:
                raise RuntimeApiError(f"HAProxy's stats socket: {error}") from error
        return samples

    async def in_flight(self, pool: str, targets: Iterable[Target]) -> dict[Target, int]:
        """Requests and other sessions at each of `targets`. Raises RuntimeApiError."""
        if pool not in self.structure.pools:
            return {}
        wanted = set(targets)
        table = self._slots.get(pool) or await self._reloaded(pool)
        holders = {slot.number: slot.target for slot in table if slot.state is not SlotState.FREE}
        numbers = [number for number, target in holders.items() if target in wanted]
        counts: dict[Target, int] = {}
        for number, sample in (await self._sessions(pool, numbers)).items():
            target = holders[number]
            if target is not None:
                counts[target] = counts.get(target, 0) + sample.in_flight
        return counts

    async def retire(self) -> None:
        """Accept nothing new; what is connected goes on, and lists can still be applied. Raises RuntimeApiError.

        Not by SIGUSR1, after which HAProxy refuses changes of its servers ("Proxy is disabled").
        """
        replies_ = await self._api.ask([f"shutdown frontend {name}" for name in self.structure.frontends])
        for reply in replies_:
            if reply.strip() and "already shut down" not in reply.lower():
                raise RuntimeApiError(f"HAProxy does not shut a frontend: {reply.strip().splitlines()[0]}")

    async def client_connections(self) -> int:
        """How many clients are connected. Raises RuntimeApiError."""
        answers = await self._api.ask([f"show stat {name} 1 -1" for name in self.structure.frontends])
        try:
            return sum(replies.sessions(answer).sessions for answer in answers) if answers else 0
        except (ValueError, KeyError) as error:
            raise RuntimeApiError(f"HAProxy's stats socket: {error}") from error

    async def dropped_lines(self) -> int:
        """Of access logs, that found no room in the pipe since the process began. Raises RuntimeApiError."""
        try:
            return int(replies.process_info((await self._api.ask(["show info"]))[0])["DroppedLogs"])
        except (ValueError, KeyError) as error:
            raise RuntimeApiError(f"HAProxy's stats socket: {error}") from error

    async def close(self) -> None:
        await self._api.close()
        self.process.close()
