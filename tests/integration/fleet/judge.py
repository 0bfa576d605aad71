"""The verdict on what happened to an app during a test: its journals against its size, its load against zero."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.fleet.harness import Fleet, wait_for
from tests.load.journal import Life, faults, read_journals


def _lives(fleet: Fleet, app: str) -> list[Life]:
    return [life for life in read_journals(fleet.journals) if life.place.app == app]


@contextmanager
def journals_show(
    fleet: Fleet, *, size: int, most_on_host: Callable[[str], int], app: str = "my-app"
) -> Iterator[None]:
    """What runs inside never had fewer than `size` ready workers, nor more than `most_on_host(host)` live ones on a host."""
    begin = time.monotonic()
    yield
    end = time.monotonic()

    def outlived_the_end() -> bool:
        return sum(life.last_beat > end for life in _lives(fleet, app)) >= size

    # A beat after the end proves a life up to the end.
    wait_for(outlived_the_end, f"{size} workers of {app} alive after the end", 10)
    found = faults(_lives(fleet, app), begin=begin, end=end, size=size, most_on_host=most_on_host)
    assert not found, found


def assert_none_failed(summary: dict[str, Any], *, at_least_sent: int = 100) -> None:
    assert summary["failed"] == 0, summary["details"][:20]
    assert summary["sent"] >= at_least_sent, summary
    assert set(summary["sent_by_method"]) == {"GET", "POST"}
