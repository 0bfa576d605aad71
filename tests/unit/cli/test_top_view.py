"""The screen of `top`."""

import pytest

from fleet.v1 import control_pb2, types_pb2
from fleetctl.keyboard import names
from fleetctl.top_view import screen, whole
from fleetctl.usage import Order, Snapshot, ordered, snapshot_view

Worker = types_pb2.WorkerStatus


def worker(slot: int, host: str = "host1", app: str = "shop", **fields: float) -> Worker:
    made = Worker(
        id=types_pb2.WorkerId(app=app, host=host, slot=slot), state=types_pb2.WORKER_STATE_READY, pid=100 + slot
    )
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def host(name: str, *, online: bool = True) -> control_pb2.Host:
    state = control_pb2.HOST_STATE_ONLINE if online else control_pb2.HOST_STATE_UNKNOWN
    return control_pb2.Host(name=name, state=state, cpus=2)


def app(name: str, size: int = 2, ready: int = 2) -> control_pb2.App:
    return control_pb2.App(name=name, state=control_pb2.APP_STATE_RUNNING, size=size, ready=ready)


def fleet(hosts: int, apps: int, workers: int) -> Snapshot:
    return Snapshot(
        tuple(host(f"host{n}") for n in range(hosts)),
        tuple(app(f"app{n}") for n in range(apps)),
        tuple(worker(n + 1, cpu_percent=n) for n in range(workers)),
    )


def shown(snapshot: Snapshot, width: int = 80, height: int = 24, **more: int | str) -> list[str]:
    return [line.plain for line in screen(snapshot, Order.CPU, width=width, height=height, **more)]  # type: ignore[arg-type]


def slots(workers: list[Worker]) -> list[int]:
    return [worker.id.slot for worker in workers]


def test_the_most_interesting_worker_is_first() -> None:
    workers = [
        worker(1, cpu_percent=1, rss_bytes=3 << 20, uptime_seconds=50, restarts=0),
        worker(2, cpu_percent=3, rss_bytes=1 << 20, uptime_seconds=70, restarts=1),
        worker(3, cpu_percent=2, rss_bytes=2 << 20, uptime_seconds=60, restarts=2),
    ]
    assert slots(ordered(workers, Order.CPU)) == [2, 3, 1]
    assert slots(ordered(workers, Order.MEMORY)) == [1, 3, 2]
    assert slots(ordered(workers, Order.UPTIME)) == [1, 3, 2]
    assert slots(ordered(workers, Order.RESTARTS)) == [3, 2, 1]
    assert slots(ordered(workers, Order.NAME)) == [1, 2, 3]


def test_what_differs_by_less_than_is_shown_keeps_its_place() -> None:
    workers = [worker(1, cpu_percent=0.01, rss_bytes=1 << 20), worker(2, cpu_percent=0.04, rss_bytes=(1 << 20) + 9)]
    assert slots(ordered(workers, Order.CPU)) == slots(ordered(workers, Order.MEMORY)) == [1, 2]


@pytest.mark.parametrize("height", [*range(1, 31), 100])
@pytest.mark.parametrize(("hosts", "apps", "workers"), [(0, 0, 0), (1, 1, 1), (3, 2, 8), (50, 40, 400)])
def test_a_screen_is_filled_exactly(hosts: int, apps: int, workers: int, height: int) -> None:
    lines = shown(fleet(hosts, apps, workers), height=height)
    assert len(lines) == height
    if height >= 6 and workers:
        assert any("shop/host1/" in line for line in lines)
    if height >= 2:
        assert "quit" in lines[-1]


@pytest.mark.parametrize("width", [50, 80])
def test_long_names_are_cut_in_the_middle_and_no_figure_is(width: int) -> None:
    name = "an-app-whose-name-is-as-long-as-a-name-may-be-and-says-much"
    workers = tuple(worker(n + 1, app=name, cpu_percent=n, rss_bytes=5 << 20) for n in range(12))
    lines = shown(Snapshot((host("host1"),), (app(name),), workers), width=width)
    assert max(map(len, lines[2:-1])) <= width
    assert sum("5.00 MiB" in line for line in lines) >= 8
    assert any(line.startswith("an-app") and "…" in line and "/host1/12 " in line for line in lines)


@pytest.mark.parametrize("width", [50, 80, 120])
def test_lines_fit_a_terminal_of_usual_width(width: int) -> None:
    lines = shown(fleet(3, 2, 8), width=width)
    assert max(map(len, lines[2:-1])) <= width


def test_figures_that_change_leave_the_columns_where_they_are() -> None:
    calm, busy = (
        Snapshot((), (), (worker(1, cpu_percent=cpu, rss_bytes=rss, uptime_seconds=up, restarts=restarts),))
        for cpu, rss, up, restarts in ((0, 0, 1, 0), (398.7, 812 << 20, 86_399, 1234))
    )
    assert shown(calm)[2] == shown(busy)[2]
    assert len(shown(calm)[3]) == len(shown(busy)[3])


def test_a_small_screen_leaves_out_what_is_well() -> None:
    hosts = (*(host(f"a{n}") for n in range(50)), host("zurich", online=False))
    apps = (*(app(f"a{n}") for n in range(50)), app("zoo", ready=1))
    lines = shown(Snapshot(hosts, apps, (worker(1),)))
    assert any(line.startswith("zurich") for line in lines)
    assert any(line.startswith("zoo") for line in lines)
    assert any(line.endswith("more hosts") for line in lines)
    assert any(line.endswith("more apps") for line in lines)


def test_where_all_fits_nothing_changes_its_place() -> None:
    apps = (app("aa"), app("bb", ready=1))
    lines = shown(Snapshot((host("h1"), host("h2", online=False)), apps, (worker(1),)))
    starts = [line.split()[0] for line in lines if line and line.split()[0] in ("aa", "bb", "h1", "h2")]
    assert starts == ["h1", "h2", "aa", "bb"]


def test_a_worker_of_a_host_nobody_lists_is_shown_all_the_same() -> None:
    assert any("shop/gone/1" in line for line in shown(Snapshot((host("h1"),), (), (worker(1, "gone"),))))


def test_what_does_not_fit_is_counted_and_can_be_scrolled_to() -> None:
    fifty = fleet(1, 1, 50)
    assert "and 38 more workers" in shown(fifty)
    assert not any("shop/host1/1 " in line for line in shown(fifty))
    assert any("shop/host1/1 " in line for line in shown(fifty, skip=45))
    assert any("shop/host1/1 " in line for line in shown(fifty, skip=1000))


def test_a_remark_stands_where_the_keys_stood() -> None:
    assert shown(fleet(1, 1, 1), remark="no news for 3s: \x1b[2Jgone")[-1] == "no news for 3s: gone"


def test_once_shows_everything() -> None:
    text = "\n".join(line.plain for line in whole(fleet(50, 40, 400), Order.CPU, 200))
    assert text.count("\nhost") == 50
    assert text.count("\napp") == 40
    assert text.count("\nshop/") == 400


def test_json_has_what_hosts_and_apps_use_together() -> None:
    workers = (
        worker(1, cpu_percent=1.5, rss_bytes=10, restarts=1),
        worker(2, cpu_percent=2.5, rss_bytes=20),
        worker(1, "host2", cpu_percent=4, rss_bytes=5),
    )
    view = snapshot_view(Snapshot((host("host1"), host("host2")), (app("shop"),), workers), Order.CPU)
    assert [(each["name"], each["cpu_percent"], each["rss_bytes"]) for each in view["hosts"]] == [
        ("host1", 4.0, 30),
        ("host2", 4.0, 5),
    ]
    assert (view["apps"][0]["cpu_percent"], view["apps"][0]["restarts"]) == (8.0, 1)
    assert [each["id"] for each in view["workers"]] == ["shop/host2/1", "shop/host1/2", "shop/host1/1"]


def test_keys_are_told_apart_also_when_they_come_together() -> None:
    assert names(b"cq") == ["c", "q"]
    assert names(b"\x1b[Aj\x1bOB\x1b[6~") == ["up", "j", "down", "page down"]
    assert names(b"\x1b[15~\xc3\xa9m") == ["m"]
