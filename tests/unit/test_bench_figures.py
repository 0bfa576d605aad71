"""The benchmark's own arithmetic: spreads, ratios and verdicts."""

from tests.bench.host.report import Outcome, document, ratios, spread, table
from tests.bench.host.targets import Target

_SAMPLES = {"ms": {"floor": [2.0, 1.0, 3.0], "fleetctl": [3.0, 4.0, 2.0], "pm2": [8.0]}, "lost": {"fleetctl": [0.0]}}


def _outcome(*targets: Target) -> Outcome:
    return Outcome("crash", "what is measured", targets, {metric: dict(of) for metric, of in _SAMPLES.items()})


def test_a_spread_names_median_quartiles_and_both_ends() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {
        "median": 3.0, "min": 1.0, "q1": 2.0, "q3": 4.0, "max": 5.0, "samples": 5,
    }  # fmt: skip


def test_one_sample_is_its_own_quartiles() -> None:
    assert spread([7.0]) == {"median": 7.0, "min": 7.0, "q1": 7.0, "q3": 7.0, "max": 7.0, "samples": 1}


def test_ratios_are_of_medians_and_leave_out_the_subject_itself() -> None:
    assert ratios(_outcome(), "ms", "fleetctl") == {"floor": 1.5, "pm2": 0.375}
    assert "pm2" not in ratios(_outcome(), "ms", "pm2")


def test_nothing_is_divided_by_what_was_not_measured() -> None:
    assert ratios(_outcome(), "lost", "fleetctl") == {}


def test_a_target_at_its_bound_is_met_unless_it_is_strict() -> None:
    assert Target("ms", "fleetctl", 1.5, of="floor").met(_SAMPLES) is True
    assert Target("ms", "fleetctl", 1.4, of="floor").met(_SAMPLES) is False
    assert Target("ms", "fleetctl", 1.5, of="floor", strict=True).met(_SAMPLES) is False
    assert Target("ms", "fleetctl", 1.5, of="floor", at_least=True).met(_SAMPLES) is True
    assert Target("lost", "fleetctl", 0).met(_SAMPLES) is True


def test_a_target_whose_other_side_was_not_measured_is_neither_met_nor_missed() -> None:
    assert Target("ms", "fleetctl", 1.5, of="circus").met(_SAMPLES) is None
    assert Target("ms", "circus", 1.5, of="floor").met(_SAMPLES) is None


def test_the_table_names_the_target_in_the_row_of_its_metric_and_subject() -> None:
    rows = table(_outcome(Target("ms", "fleetctl", 1.2, of="floor"))).splitlines()
    (row,) = [row for row in rows if "| fleetctl" in row and row.startswith("| ms")]
    assert "≤ 1.2 · floor" in row
    assert "not met" in row
    assert not any("not met" in other for other in rows if other != row)


def test_the_document_holds_every_sample_and_what_was_not_available() -> None:
    outcome = _outcome()
    outcome.add("pm2", {"ms": [9.0]})
    outcome.unavailable["circus"] = "it cannot"
    case = document([outcome], {"cpus": 2})["cases"]["crash"]
    assert case["metrics"]["ms"]["pm2"]["values"] == [8.0, 9.0]
    assert case["unavailable"] == {"circus": "it cannot"}
