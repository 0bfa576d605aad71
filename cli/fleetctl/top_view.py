"""What `top` shows: hosts, apps and workers with what they use, cut to a screen. Pure."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.text import Text

from fleet.v1 import control_pb2, types_pb2
from fleetctl import views
from fleetctl.listing import rollout_cell
from fleetctl.output import COLUMN_GAP, Column, state, table_lines
from fleetctl.usage import Order, Snapshot, Usage, ordered
from fleetctl.wording import count, duration, printable, size

Thing = TypeVar("Thing")

_FRAME_LINES = 4
"""Head, foot, and a blank line beside each."""
_SECTION_LINES = 2
"""A section's heading and the blank line after it."""
_LEAST_WORKERS = 5
_SHORTEST_NAME = 16
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


def screen(snapshot: Snapshot, order: Order, *, width: int, height: int, skip: int = 0, remark: str = "") -> list[Text]:
    """At most `height` lines, the first `skip` workers left out. `remark` stands where the keys would."""
    room = height - _FRAME_LINES
    share = max(1, (room - 2 * _SECTION_LINES - 1 - _LEAST_WORKERS) // 3)
    lines = [_head(snapshot), Text()]
    by_host, by_app = snapshot.by_host(), snapshot.by_app()
    hosts, apps = _cut(snapshot.hosts, share, _is_away), _cut(snapshot.apps, share, _is_short)
    for columns, rows, hidden, noun in (
        (_HOST_COLUMNS, [_host_row(h, by_host[h.name]) for h in hosts], len(snapshot.hosts) - len(hosts), "host"),
        (_APP_COLUMNS, [_app_row(a, by_app[a.name]) for a in apps], len(snapshot.apps) - len(apps), "app"),
    ):
        needed = len(rows) + (hidden > 0) + _SECTION_LINES
        if rows and needed + 1 + _LEAST_WORKERS <= room:
            lines += _table(columns, rows, width)
            if hidden:
                lines.append(Text(f"and {count(hidden, f'more {noun}')}", "dim"))
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
    by_host, by_app = snapshot.by_host(), snapshot.by_app()
    if snapshot.hosts:
        lines += [*table_lines(_HOST_COLUMNS, [_host_row(h, by_host[h.name]) for h in snapshot.hosts], width), Text()]
    if snapshot.apps:
        lines += [*table_lines(_APP_COLUMNS, [_app_row(a, by_app[a.name]) for a in snapshot.apps], width), Text()]
    rows = [_worker_row(worker) for worker in ordered(snapshot.workers, order)]
    return lines + (table_lines(_WORKER_COLUMNS, rows, width) if rows else [Text("no workers")])


def _cut(things: Sequence[Thing], most: int, troubled: Callable[[Thing], bool]) -> list[Thing]:
    """As they are, if they take no more than `most` lines; else those in trouble first, one line left to count the rest."""
    if len(things) <= most:
        return list(things)
    return sorted(things, key=lambda thing: not troubled(thing))[: most - 1]


def _is_away(host: control_pb2.Host) -> bool:
    return host.state != control_pb2.HOST_STATE_ONLINE


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
    lines = _table(columns, [_worker_row(worker) for worker in shown], width)
    if len(shown) < len(left):
        lines.append(Text(f"and {count(len(left) - len(shown), 'more worker')}", "dim"))
    return lines


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int) -> list[Text]:
    """Long names are cut in their middle, so that the figures beside them are on the screen."""
    needed = [
        max(column.width, len(column.title), *(len(row[index]) for row in rows))
        for index, column in enumerate(columns)
        if index and not column.rank
    ]
    room = max(_SHORTEST_NAME, width - sum(COLUMN_GAP + each for each in needed))
    return table_lines(columns, [[_shortened(str(name), room), *cells] for name, *cells in rows], width)


def _shortened(name: str, room: int) -> str:
    """With more of its end, which tells the workers of an app apart."""
    if len(name) <= room:
        return name
    begin = (room - 1) // 3
    return f"{name[:begin]}…{name[begin + 1 - room :]}"


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
