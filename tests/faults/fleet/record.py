"""What a run left behind, in one folder, and nothing else: whoever judges it later sees what we saw. It judges nothing.

| file | holds |
|---|---|
| `meta.json` | the seed, the app, its size and surge, the hosts |
| `history.jsonl` | faults, operations with their answers, and what was seen whenever the fleet was to have settled |
| `failures.jsonl`, `load.json` | every request that failed; how many were sent |
| `journals/` | each worker's own, as tests/load/journal.js keeps it |
| `services/MACHINE.log` | what the daemons of each machine said |

Times are seconds of CLOCK_MONOTONIC of the machine that all containers share.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.load.journal import Life, read_journals
from tests.load.tally import Failure, FailureKind

_SEEN_EPOCH = re.compile(r"(?:session with controller \S+|subscribed), epoch (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """`end`: infinity where it was never ended."""

    kind: str
    machine: str
    begin: float
    end: float
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind} {self.machine}{detail} from {self.begin:.3f} to {self.end:.3f}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One command of fleetctl's. `code` is None where it was still running at the end."""

    argv: tuple[str, ...]
    begin: float
    end: float
    code: int | None
    output: str = ""

    def __str__(self) -> str:
        return f"fleetctl {' '.join(self.argv)}, from {self.begin:.3f} to {self.end:.3f}, exit status {self.code}"


@dataclass(frozen=True, slots=True)
class Sight:
    """The fleet, looked at when no fault was left and it had had its time to settle."""

    at: float
    seconds: float
    """How long it took."""
    difference: str
    """What was not as it should be; "": it settled."""
    size: int = 0
    generation: int = 0
    revision: int = 0
    variable: str = ""
    """The value of the variable that `env-set` operations change; "": not set."""
    placement: Mapping[str, int] = field(default_factory=dict)
    """Host → its share of the size."""
    reported: Mapping[str, int] = field(default_factory=dict)
    """Worker → pid, as `ps` has it."""
    running: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Host → pids of the app's processes, as the host has them."""
    strangers: Mapping[str, bool] = field(default_factory=dict)
    """Host → whether the process that is none of ours still runs there."""
    writes: int = 0
    """Of etcd while nothing happened."""


@dataclass(frozen=True, slots=True)
class SeenEpoch:
    """A machine began a session or subscription of this epoch."""

    service: str
    epoch: tuple[int, int]
    line: str


@dataclass(frozen=True, slots=True)
class Record:
    seed: int
    app: str
    size: int
    """At the beginning."""
    surge: int
    hosts: tuple[str, ...]
    addresses: Mapping[str, str]
    lost_after: float
    """Seconds until the share of a host that is not heard of is started elsewhere."""
    begin: float
    end: float
    lives: Sequence[Life] = ()
    failures: Sequence[Failure] = ()
    sent: int = 0
    faults: Sequence[Fault] = ()
    operations: Sequence[Operation] = ()
    sights: Sequence[Sight] = ()
    epochs: Sequence[SeenEpoch] = ()
    """In the order of each service's log."""


class Recorder:
    """Writes the history line by line, each before what it tells of is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "services").mkdir(parents=True, exist_ok=True)
        self._file = (folder / "history.jsonl").open("a")

    def add(self, event: str, at: float, **details: object) -> None:
        self._file.write(json.dumps({"at": at, "event": event, **details}) + "\n")
        self._file.flush()

    def keep(self, name: str, value: object) -> None:
        (self.folder / name).write_text(json.dumps(value, indent=2) + "\n")

    def keep_failures(self, failures: Iterable[Failure]) -> None:
        lines = [json.dumps(asdict(failure)) + "\n" for failure in failures]
        (self.folder / "failures.jsonl").write_text("".join(lines))

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> Record:
    """Raises OSError, ValueError and KeyError for a folder that is no record."""
    meta = json.loads((folder / "meta.json").read_text())
    events = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    return Record(
        seed=meta["seed"],
        app=meta["app"],
        size=meta["size"],
        surge=meta["surge"],
        hosts=tuple(meta["hosts"]),
        addresses=meta["addresses"],
        lost_after=meta["lost_after"],
        begin=next(event["at"] for event in events if event["event"] == "begin"),
        end=next((event["at"] for event in events if event["event"] == "end"), float("inf")),
        lives=[life for life in read_journals(folder / "journals") if life.place.app == meta["app"]],
        failures=[Failure(**{**failure, "kind": FailureKind(failure["kind"])}) for failure in failures],
        sent=json.loads((folder / "load.json").read_text())["sent"],
        faults=faults_of(events),
        operations=operations_of(events),
        sights=[Sight(at=event["at"], **event["sight"]) for event in events if event["event"] == "sight"],
        epochs=[
            epoch
            for path in sorted((folder / "services").glob("*.log"))
            for epoch in epochs_of(path.stem, path.read_text(errors="replace").splitlines())
        ],
    )


def faults_of(events: Sequence[Mapping[str, Any]]) -> list[Fault]:
    ends = {event["id"]: event["at"] for event in events if event["event"] == "fault ends"}
    return [
        Fault(event["kind"], event["machine"], event["at"], ends.get(event["id"], float("inf")), event["detail"])
        for event in events
        if event["event"] == "fault begins"
    ]


def operations_of(events: Sequence[Mapping[str, Any]]) -> list[Operation]:
    answers = {event["id"]: event for event in events if event["event"] == "answer"}
    found = []
    for event in events:
        if event["event"] != "operation":
            continue
        answer = answers.get(event["id"])
        end, code, output = (answer["at"], answer["code"], answer["output"]) if answer else (float("inf"), None, "")
        found.append(Operation(tuple(event["argv"]), event["at"], end, code, output))
    return found


def epochs_of(service: str, lines: Iterable[str]) -> list[SeenEpoch]:
    """Sessions of one service, or services of one machine that obey on their own: told apart by the log's file."""
    return [
        SeenEpoch(service, (int(match[1]), int(match[2])), line)
        for line in lines
        if (match := _SEEN_EPOCH.search(line)) is not None
    ]
