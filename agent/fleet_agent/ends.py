"""Sees workers' processes end in the moment they do, beside their supervisor.

A balancer sends requests to a process until it is told of its end, so that word takes the shortest way: not by the supervisor,
which has more to do at that moment, or may be away. What follows from an end, and why it came, is the supervisor's to say.
"""

import asyncio
import os
from collections.abc import Callable, Mapping

from fleet_agent.supervisor.protocol import Key, Worker

_SERVING_STATES = frozenset({"running", "unready"})


class EndWatch:
    """Owns a pidfd (pidfd_open(2)) for each process that balancers may know. `on_end(key, pid)` is called on the event loop.

    Where no descriptor can be had, nothing is called for that process.
    """

    def __init__(self, on_end: Callable[[Key, int], None]) -> None:
        self._on_end = on_end
        self._watched: dict[Key, tuple[int, int]] = {}
        """Process and pidfd; -1: it is known to have ended, or cannot be watched."""

    def watch(self, workers: Mapping[Key, Worker]) -> None:
        """These are the workers now."""
        serving = {key: worker.pid for key, worker in workers.items() if _serves(worker)}
        for key, (pid, _) in list(self._watched.items()):
            if serving.get(key) != pid:
                self._drop(key)
                del self._watched[key]
        for key in serving.keys() - self._watched.keys():
            self._begin(key, serving[key])

    def close(self) -> None:
        self.watch({})

    def _begin(self, key: Key, pid: int) -> None:
        loop = asyncio.get_running_loop()
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            loop.call_soon(self._on_end, key, pid)
        except OSError:
            pass  # the supervisor tells
        else:
            loop.add_reader(pidfd, self._ended, key, pid)
        self._watched[key] = pid, pidfd

    def _ended(self, key: Key, pid: int) -> None:
        self._drop(key)
        self._watched[key] = pid, -1
        self._on_end(key, pid)

    def _drop(self, key: Key) -> None:
        _, pidfd = self._watched[key]
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)


def _serves(worker: Worker) -> bool:
    return bool(worker.pid and (worker.launch.port or worker.launch.listen_port)) and worker.state in _SERVING_STATES
