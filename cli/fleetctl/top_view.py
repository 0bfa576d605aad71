"""What `top` shows: hosts, apps and workers with what they use, cut to a screen. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from rich.text import Text

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.listing import rollout_cell
from fleetctl.output import Column, state, table_lines
from fleetctl.wording import count, duration, printable, size

Thing = TypeVar("Thing")

_FRAME_LINES = 4
"""Head, foot, and a blank line beside each."""
_SECTION_LINES = 2
"""A section's heading and the blank line after it."""
_LEAST_WORKERS = 5
_KEYS = (("c", "CPU"), ("m", "memory"), ("u", "uptime"), ("r", "restarts"), ("n", "name"))
_HOT_PERCENT = 90.0

# Widths are given so that the columns stand still while the figures change.
_HOST_COLUMNS = (
    Column("HOST", width=16),
    Column("STATE", width=8),
    Column("CPU", right=True, width=6),
    Column("MEMORY", right=True, width=8),
    Column("CORES", right=True, rank=2),
    Column("WORKERS", right=True, rank=1),
)
_APP_COLUMNS = (
    Column("APP", width=16),
    Column("READY", width=8),
    Column("CPU", right=True, width=6),
    Column("MEMORY", right=True, width=8),
    Column("RESTARTS", right=True, rank=2),
    Column("ROLLOUT", rank=1),
)
_WORKER_COLUMNS = (
    Column("WORKER", width=16),
    Column("STATE", width=8),
    Column("CPU", right=True, width=6),
    Column("MEMORY", right=True, width=8),
    Column("UPTIME", right=True, rank=1, width=7),
    Column("RESTARTS", right=True, rank=2, width=9),
    Column("PID", right=True, rank=3, width=7),
    Column("FDS", right=True, rank=4, width=4),
    Column("THREADS", right=True, rank=5),
    Column("PORT", right=True, rank=6),
    Column("REV", right=True, rank=8),
    Column("GEN", right=True, rank=7),
)


class Order(Enum):
    """By what workers are sorted, and the heading of that column; the key is the word's first letter."""

    CPU = "CPU"
    MEMORY = "MEMORY"
    UPTIME = "UPTIME"
    RESTARTS = "RESTARTS"
    NAME = "WORKER"

    @property
    def key(self) -> str:
        return self.name[0].lower()


@dataclass(frozen=True, slots=True)
class Usage:
    """What several workers use together: memory in bytes, per cent of one core."""

    cpu_percent: float
    rss_bytes: int
    restarts: int
    workers: int

    @classmethod
    def of(cls, workers: Iterable[types_pb2.WorkerStatus]) -> "Usage":
        chosen = list(workers)
        return cls(
            sum(worker.cpu_percent for worker in chosen),
            sum(worker.rss_bytes for worker in chosen),
            sum(worker.restarts for worker in chosen),
            sum(worker.pid > 0 for worker in chosen),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet, or one app of it, at about one time."""

    hosts: tuple[control_pb2.Host, ...]
    apps: tuple[control_pb2.App, ...]
    workers: tuple[types_pb2.WorkerStatus, ...]

    def on(self, host: control_pb2.Host) -> Usage:
        return Usage.of(worker for worker in self.workers if worker.id.host == host.name)

    def by(self, app: control_pb2.App) -> Usage:
        return Usage.of(worker for worker in self.workers if worker.id.app == app.name)


def ordered(workers: Iterable[types_pb2.WorkerStatus], order: Order) -> list[types_pb2.WorkerStatus]:
    """The most interesting first: what uses most, has lived shortest, was restarted most; equals stand by name."""
    keys: dict[Order, Callable[[types_pb2.WorkerStatus], float]] = {
        # As it is shown: noise behind the point would make lines change places.
        Order.CPU: lambda worker: -round(worker.cpu_percent, 1),
        Order.MEMORY: lambda worker: -(worker.rss_bytes >> 20),
        Order.UPTIME: lambda worker: worker.uptime_seconds if worker.pid else 0,
        Order.RESTARTS: lambda worker: -worker.restarts,
        Order.NAME: lambda _worker: 0,
    }
    by_name = sorted(workers, key=lambda worker: (worker.id.app, worker.id.host, worker.id.slot, worker.id.generation))
    return sorted(by_name, key=keys[order])


def screen(snapshot: Snapshot, order: Order, *, width: int, height: int, skip: int = 0, remark: str = "") -> list[Text]:
    """At most `height` lines, the first `skip` workers left out. `remark` stands where the keys would."""
    hosts = _troubled_first(snapshot.hosts, lambda host: host.state != control_pb2.HOST_STATE_ONLINE)
    apps = _troubled_first(snapshot.apps, _is_short)
    room = height - _FRAME_LINES
    share = max(1, (room - 2 * _SECTION_LINES - 1 - _LEAST_WORKERS) // 3)
    lines = [_head(snapshot), Text()]
    for columns, rows, noun in (
        (_HOST_COLUMNS, [_host_row(host, snapshot.on(host)) for host in hosts], "host"),
        (_APP_COLUMNS, [_app_row(app, snapshot.by(app)) for app in apps], "app"),
    ):
        shown = rows if len(rows) <= share else rows[: share - 1]
        needed = len(shown) + (len(shown) < len(rows)) + _SECTION_LINES
        if rows and shown and needed + 1 + _LEAST_WORKERS <= room:
            lines += table_lines(columns, shown, width)
            if len(shown) < len(rows):
                lines.append(Text(f"and {count(len(rows) - len(shown), f'more {noun}')}", "dim"))
            lines.append(Text())
            room -= needed
    lines += _worker_lines(snapshot, order, width, max(room, 2), skip)
    del lines[max(height - 2, 1) :]
    # The foot stays at the foot.
    lines += [Text()] * (height - 1 - len(lines))
    lines.append(Text(printable(remark), "yellow") if remark else _foot(order))
    return lines[:height]


def whole(snapshot: Snapshot, order: Order, width: int) -> list[Text]:
    """All of it, however long: for a pipe, or once."""
    lines = [_head(snapshot), Text()]
    if snapshot.hosts:
        lines += [*table_lines(_HOST_COLUMNS, [_host_row(h, snapshot.on(h)) for h in snapshot.hosts], width), Text()]
    if snapshot.apps:
        lines += [*table_lines(_APP_COLUMNS, [_app_row(a, snapshot.by(a)) for a in snapshot.apps], width), Text()]
    rows = [_worker_row(worker) for worker in ordered(snapshot.workers, order)]
    return lines + (table_lines(_WORKER_COLUMNS, rows, width) if rows else [Text("no workers")])


def snapshot_view(snapshot: Snapshot, order: Order) -> dict[str, Any]:
    """The object -o json prints."""
    return {
        "hosts": [{**views.host_view(host), **_usage_view(snapshot.on(host))} for host in snapshot.hosts],
        "apps": [{**views.app_view(app), **_usage_view(snapshot.by(app))} for app in snapshot.apps],
        "workers": [views.worker_view(worker) for worker in ordered(snapshot.workers, order)],
    }


def _usage_view(usage: Usage) -> dict[str, Any]:
    return {"cpu_percent": round(usage.cpu_percent, 1), "rss_bytes": usage.rss_bytes, "restarts": usage.restarts}


def _troubled_first(things: Sequence[Thing], troubled: Callable[[Thing], bool]) -> list[Thing]:
    """By name, but those in trouble first: what a small screen leaves out is well."""
    return sorted(things, key=lambda thing: not troubled(thing))


def _is_short(app: control_pb2.App) -> bool:
    return app.state == control_pb2.APP_STATE_RUNNING and app.ready < app.size


def _head(snapshot: Snapshot) -> Text:
    usage = Usage.of(snapshot.workers)
    online = sum(host.state == control_pb2.HOST_STATE_ONLINE for host in snapshot.hosts)
    cores = sum(host.cpus for host in snapshot.hosts if host.state == control_pb2.HOST_STATE_ONLINE)
    hosts = f"{online} of {count(len(snapshot.hosts), 'host')}"
    return Text.assemble(
        (hosts, "" if online == len(snapshot.hosts) else "red"),
        f"  {count(len(snapshot.apps), 'app')}  {count(usage.workers, 'worker')}  CPU ",
        (_percent(usage.cpu_percent), "bold"),
        f" of {count(cores, 'core')}  memory ",
        (size(usage.rss_bytes), "bold"),
    )


def _foot(order: Order) -> Text:
    foot = Text.assemble(("q ", "bold dim"), ("quit   sort by ", "dim"))
    for key, word in _KEYS:
        chosen = key == order.key
        foot.append(f"{key} ", "bold" if chosen else "bold dim").append(f"{word}  ", "bold" if chosen else "dim")
    return foot.append(" ↑↓ ", "bold dim").append("scroll", "dim")


def _worker_lines(snapshot: Snapshot, order: Order, width: int, room: int, skip: int) -> list[Text]:
    workers = ordered(snapshot.workers, order)
    if not workers:
        return [Text("no workers", "dim")]
    skip = min(skip, last_skip(len(workers)))
    left = workers[skip:]
    shown = left if len(left) <= room - 1 else left[: max(room - 2, 1)]
    columns = [
        Column(
            f"{column.title}▾" if column.title == order.value else column.title, column.right, column.rank, column.width
        )
        for column in _WORKER_COLUMNS
    ]
    lines = table_lines(columns, [_worker_row(worker) for worker in shown], width)
    if len(shown) < len(left):
        lines.append(Text(f"and {count(len(left) - len(shown), 'more worker')}", "dim"))
    return lines


def last_skip(workers: int) -> int:
    """One worker stays in sight however far somebody scrolls."""
    return max(0, workers - 1)


def _host_row(host: control_pb2.Host, usage: Usage) -> list[str | Text]:
    hot = host.cpus > 0 and usage.cpu_percent >= _HOT_PERCENT * host.cpus
    return [
        host.name,
        state(views.host_state(host)),
        Text(_percent(usage.cpu_percent), "yellow" if hot else ""),
        size(usage.rss_bytes),
        str(host.cpus),
        str(host.workers),
    ]


def _app_row(app: control_pb2.App, usage: Usage) -> list[str | Text]:
    wanted = 0 if app.state == control_pb2.APP_STATE_STOPPED else app.size
    return [
        Text(app.name),
        Text(f"{app.ready}/{wanted}", "red" if _is_short(app) else "green" if wanted else "dim"),
        _percent(usage.cpu_percent),
        size(usage.rss_bytes),
        Text(str(usage.restarts), "yellow" if usage.restarts else ""),
        rollout_cell(app),
    ]


def _worker_row(worker: types_pb2.WorkerStatus) -> list[str | Text]:
    alive = worker.pid > 0
    dash = Text("-", "dim")
    return [
        views.worker_name(worker.id),
        state(views.worker_state(worker)),
        Text(_percent(worker.cpu_percent), "yellow" if worker.cpu_percent >= _HOT_PERCENT else "") if alive else dash,
        size(worker.rss_bytes) if alive else dash,
        duration(int(worker.uptime_seconds)) if alive else dash,
        Text(str(worker.restarts), "yellow" if worker.restarts else ""),
        str(worker.pid) if alive else dash,
        str(worker.open_files) if alive else dash,
        str(worker.threads) if alive else dash,
        str(worker.port) if worker.port else dash,
        str(worker.revision),
        str(worker.id.generation),
    ]


def _percent(value: float) -> str:
    return f"{value:.1f}%" if value < 999.95 else f"{value:.0f}%"
