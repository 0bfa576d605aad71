"""Counting without growing."""

from tests.load.tally import Failure, FailureKind, Tally


def test_percentiles_are_those_of_the_answered_requests() -> None:
    tally = Tally()
    for milliseconds in range(1, 101):
        tally.succeed("GET", milliseconds / 1000)

    assert tally.summary(10.0)["latency_ms"] == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def test_failures_are_counted_by_kind_and_method_and_kept_up_to_a_bound() -> None:
    tally = Tally()
    for number in range(1500):
        tally.fail(Failure(FailureKind.RESET, "POST", float(number), "fresh", "connection ended", 0.0, "127.0.0.1:1"))

    summary = tally.summary(1.0)
    assert (summary["sent"], summary["failed"]) == (1500, 1500)
    assert summary["failed_by_method"] == {"POST": 1500}
    assert summary["failures"] == {"reset": 1500}
    assert len(summary["details"]) == 1000


def test_a_load_that_sent_nothing_has_a_summary_too() -> None:
    assert Tally().summary(0.0)["requests_per_second"] == 0.0
