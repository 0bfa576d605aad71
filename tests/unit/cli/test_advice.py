"""The next step."""

from fleet.v1 import control_pb2, types_pb2
from fleetctl.advice import app_advice, fleet_advice


def app(state: control_pb2.RolloutState.ValueType | None = None, **fields: int) -> control_pb2.App:
    made = control_pb2.App(name="a", state=control_pb2.APP_STATE_RUNNING, size=1, ready=1)
    for field, value in fields.items():
        setattr(made, field, value)
    if state is not None:
        made.rollout.state = state
        made.rollout.kind = control_pb2.ROLLOUT_KIND_SET_SIZE
    return made


def worker(state: types_pb2.WorkerState.ValueType, slot: int = 1) -> types_pb2.WorkerStatus:
    return types_pb2.WorkerStatus(id=types_pb2.WorkerId(app="a", host="h", slot=slot), state=state)


def test_where_all_is_well_nothing_needs_doing() -> None:
    assert app_advice(app(), [worker(types_pb2.WORKER_STATE_READY)]) == []
    assert app_advice(app(control_pb2.ROLLOUT_STATE_DONE), []) == []
    assert (
        fleet_advice(
            [control_pb2.Host(name="h", state=control_pb2.HOST_STATE_ONLINE)], [control_pb2.Balancer(connected=True)]
        )
        == []
    )


def test_the_worst_worker_is_looked_at_first() -> None:
    workers = [
        worker(types_pb2.WORKER_STATE_UNREADY, 1),
        worker(types_pb2.WORKER_STATE_FAILED, 2),
        worker(types_pb2.WORKER_STATE_BACKOFF, 3),
    ]
    first, second = app_advice(app(ready=0), workers)
    assert "fleetctl logs --worker a/h/2" in first
    assert "fleetctl restart --worker a/h/2" in second


def test_a_failed_rollout_names_the_command_that_tries_again() -> None:
    (step,) = app_advice(app(control_pb2.ROLLOUT_STATE_FAILED, size=5, ready=5), [])
    assert "`fleetctl set-size a 5`" in step


def test_an_app_that_never_started_can_be_forgotten() -> None:
    failed = app(control_pb2.ROLLOUT_STATE_FAILED, revision=1)
    failed.rollout.kind = control_pb2.ROLLOUT_KIND_START
    again, other = app_advice(failed, [])
    assert "`fleetctl soft-restart a`" in again
    assert "`fleetctl remove a`" in other


def test_a_rollout_under_way_can_be_followed() -> None:
    assert app_advice(app(control_pb2.ROLLOUT_STATE_RUNNING, ready=0), []) == [
        "follow the rollout: `fleetctl rollout status a --watch`"
    ]


def test_a_worker_that_does_not_come_up_is_looked_at_and_not_the_hosts() -> None:
    """Between two starts it is neither failed nor in backoff."""
    starting = worker(types_pb2.WORKER_STATE_STARTING)
    starting.reason = "not ready within 5 s: it did not send READY=1"
    (step,) = app_advice(app(ready=0), [starting])
    assert "fleetctl logs --worker a/h/1" in step
    starting.reason = ""
    (step,) = app_advice(app(ready=0), [starting])
    assert step == "workers are starting: `fleetctl logs a -f` shows what they write"


def test_a_worker_that_rests_by_its_policy_can_be_started_again() -> None:
    done = worker(types_pb2.WORKER_STATE_EXITED)
    done.reason = "exit code 0"
    assert app_advice(app(ready=0), [done]) == [
        "a/h/1 has ended, and its restart policy lets it rest: `fleetctl restart --worker a/h/1` starts it again"
    ]


def test_missing_workers_point_to_the_hosts() -> None:
    (step,) = app_advice(app(ready=0), [])
    assert "fleetctl host ls" in step


def test_a_stopped_app_can_be_started() -> None:
    (step,) = app_advice(stopped(), [])
    assert "fleetctl start a" in step


def stopped() -> control_pb2.App:
    return control_pb2.App(name="a", state=control_pb2.APP_STATE_STOPPED, size=3)


def test_hosts_and_balancers_that_are_away_are_named() -> None:
    steps = fleet_advice(
        [control_pb2.Host(name="h2", state=control_pb2.HOST_STATE_UNKNOWN)],
        [control_pb2.Balancer(name="lb1"), control_pb2.Balancer(name="lb2", connected=True, error="port in use")],
    )
    assert len(steps) == 3
    assert "h2" in steps[0]
    assert "lb1 is away" in steps[1]
    assert "port in use" in steps[2]
