"""Workers that are not well, and what is known of each. Pure."""

from collections.abc import Iterable, Sequence

from fleet.v1 import types_pb2
from fleetctl import views
from fleetctl.wording import count, printable, printed_line

# The worst first.
_SICK = (types_pb2.WORKER_STATE_FAILED, types_pb2.WORKER_STATE_BACKOFF, types_pb2.WORKER_STATE_UNREADY)
_COMING = (types_pb2.WORKER_STATE_STARTING, types_pb2.WORKER_STATE_PENDING, types_pb2.WORKER_STATE_EXITED)
_SOME_LINES = 10


def is_sick(worker: types_pb2.WorkerStatus) -> bool:
    return worker.state in _SICK


def is_ailing(worker: types_pb2.WorkerStatus) -> bool:
    """Sick, or on its way up again after an end nobody asked for."""
    ended = bool(worker.reason or worker.last_lines)
    return is_sick(worker) or (worker.phase != types_pb2.PHASE_STOP and worker.state in _COMING and ended)


def rests(worker: types_pb2.WorkerStatus) -> bool:
    """It ended, and its restart policy does not start it again."""
    return worker.phase != types_pb2.PHASE_STOP and worker.state == types_pb2.WORKER_STATE_EXITED


def is_done(worker: types_pb2.WorkerStatus) -> bool:
    """It rests after an end that is none to worry about."""
    return rests(worker) and worker.reason == "exit code 0"


def worst_first(workers: Iterable[types_pb2.WorkerStatus]) -> list[types_pb2.WorkerStatus]:
    """Those that are ailing."""
    return sorted(
        filter(is_ailing, workers),
        key=lambda worker: _SICK.index(worker.state) if worker.state in _SICK else len(_SICK),
    )


def culprits(workers: Sequence[types_pb2.WorkerStatus], message: str) -> list[types_pb2.WorkerStatus]:
    """Who made a rollout fail: the workers its message names, whatever they are by now, before others that are ailing."""
    words = {word.strip(",:;.") for word in message.split()}
    named = [
        worker
        for worker in workers
        if views.worker_name(worker.id) in words and (is_ailing(worker) or worker.last_lines)
    ]
    return named + [worker for worker in worst_first(workers) if worker not in named]


def headline(worker: types_pb2.WorkerStatus) -> str:
    """What it is now: "failed after 2 restarts"."""
    word = views.worker_state(worker)
    return f"{word} after {count(worker.restarts, 'restart')}" if worker.restarts else word


def symptoms(worker: types_pb2.WorkerStatus, most: int = _SOME_LINES) -> list[str]:
    """Why, what it said of itself, and the last it printed, `most` lines of it; a line each, all harmless on a terminal."""
    told = [printable(worker.reason)] if worker.reason else []
    if worker.status_text:
        told.append(f"its status: {printable(worker.status_text)}")
    lines = [printed_line(line) for line in worker.last_lines[-most:]]
    if lines:
        told += ["it printed last:", *(f"  | {line}".rstrip() for line in lines)]
    return told
