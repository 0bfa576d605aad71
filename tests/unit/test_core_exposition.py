"""What our daemons write is what Prometheus' own parser reads."""

from prometheus_client.parser import text_string_to_metric_families

from fleet_core.exposition import counter, exposition, gauge, single


def test_prometheus_reads_what_was_meant() -> None:
    names = ["plain", 'with "quotes"', "two\nlines", "back\\slash", "ümläut", ""]
    ready = gauge("fleet_ready", "Help with \\ and\nanother line.", "app", "state")
    restarts = counter("fleet_restarts", "Restarts.", "app")
    for number, name in enumerate(names):
        ready.add(number / 3, name, "up")
        restarts.add(number * 10**15, name)
    empty = gauge("fleet_empty", "Nothing to say.", "app")

    text = exposition([single("fleet_leads", "1 if so.", True), ready, restarts, empty]).decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}

    assert {name: family.type for name, family in found.items()} == {
        "fleet_leads": "gauge",
        "fleet_ready": "gauge",
        "fleet_restarts": "counter",
        "fleet_empty": "gauge",
    }
    assert found["fleet_leads"].samples[0].value == 1
    assert found["fleet_ready"].documentation == "Help with \\ and\nanother line."
    assert [(sample.labels, sample.value) for sample in found["fleet_ready"].samples] == [
        ({"app": name, "state": "up"}, number / 3) for number, name in enumerate(names)
    ]
    assert [(sample.name, sample.labels["app"], sample.value) for sample in found["fleet_restarts"].samples] == [
        ("fleet_restarts_total", name, number * 1e15) for number, name in enumerate(names)
    ]
    assert found["fleet_empty"].samples == []
