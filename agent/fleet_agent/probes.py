"""Checks every worker against its ready rule and hands the verdicts on; the decisions are `readiness`'s.

One look at the listening sockets serves all workers. While any worker is starting it is taken every 20 ms; it costs well under
a millisecond.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from fleet_agent.http_check import http_finding
from fleet_agent.process_tree import read_processes
from fleet_agent.readiness import Course, Finding, Rule, Verdict, begin, http_pause, judge, uptime_finding
from fleet_agent.sockets import Listener, ListenerTable, holds_socket
from fleet_agent.supervisor.protocol import Key, Worker

_LOG = logging.getLogger(__name__)
_CHECKED_STATES = frozenset({"starting", "running", "unready"})
_MAX_REQUESTS = 64
_SHORTEST_PAUSE_SECONDS = 0.002

OnVerdict = Callable[[Key, int, Verdict], None]


def boot_time() -> float:
    """Seconds since boot, suspended time included: the clock of the supervisor's records."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Probes:
    """Owns the checks under way. `on_verdict(key, pid, verdict)` is called on the event loop."""

    def __init__(self, listeners: ListenerTable, on_verdict: OnVerdict) -> None:
        self._listeners = listeners
        self._on_verdict = on_verdict
        self._rules: dict[Key, Rule] = {}
        self._courses: dict[Key, Course] = {}
        self._requests: dict[Key, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def watch(self, workers: Mapping[Key, Worker], rules: Mapping[Key, Rule]) -> None:
        """These are the workers now, and the rules of those that are to be checked."""
        now = boot_time()
        courses: dict[Key, Course] = {}
        for key, rule in rules.items():
            worker = workers.get(key)
            if worker is None or not worker.pid or worker.state not in _CHECKED_STATES:
                continue
            course = self._courses.get(key)
            known = course is not None and course.pid == worker.pid and self._rules.get(key) == rule
            courses[key] = course if course is not None and known else begin(rule, worker, now)
        if courses == self._courses and rules == self._rules:
            return
        self._courses, self._rules = courses, dict(rules)
        for key in self._requests.keys() - courses.keys():
            self._requests[key].cancel()
        self._changed.set()

    def restart(self) -> None:
        """Forget what was found: verdicts may have been lost with the supervisor's connection."""
        self._courses = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._check_due()
                upcoming = [
                    course.next_check
                    for key, course in self._courses.items()
                    if key not in self._requests and not course.given_up
                ]
                pause = max(_SHORTEST_PAUSE_SECONDS, min(upcoming) - boot_time()) if upcoming else None
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            requests = list(self._requests.values())
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

    def _check_due(self) -> None:
        now = boot_time()
        due = [
            key
            for key, course in self._courses.items()
            if course.next_check <= now and key not in self._requests and not course.given_up
        ]
        if not due:
            return
        by_port: dict[int, list[Listener]] = {}
        if any(self._rules[key].port for key in due):
            by_port = self._listeners_by_port()
        for key in due:
            rule, course = self._rules[key], self._courses[key]
            if not rule.port:
                self._conclude(key, course.pid, uptime_finding(rule, course, now))
                continue
            finding = listen_finding(rule, course.pid, by_port.get(rule.port, []))
            if finding.good and rule.http_path:
                if len(self._requests) < _MAX_REQUESTS:
                    self._requests[key] = asyncio.create_task(
                        self._request(key, rule, course), name=f"http-check {key}"
                    )
            else:
                self._conclude(key, course.pid, finding)

    def _listeners_by_port(self) -> dict[int, list[Listener]]:
        by_port: dict[int, list[Listener]] = {}
        try:
            for listener in self._listeners.read():
                by_port.setdefault(listener.port, []).append(listener)
        except OSError as error:
            _LOG.error("cannot see which sockets listen: %s", error)
        return by_port

    async def _request(self, key: Key, rule: Rule, course: Course) -> None:
        try:
            finding = await http_finding(rule.address, rule.port, rule.http_path, rule.timeout_seconds)
            if not finding.good:
                await asyncio.sleep(http_pause(course))
        finally:
            self._requests.pop(key, None)
            self._changed.set()
        self._conclude(key, course.pid, finding)

    def _conclude(self, key: Key, pid: int, finding: Finding) -> None:
        course = self._courses.get(key)
        if course is None or course.pid != pid:
            return
        self._courses[key], verdict = judge(self._rules[key], course, finding, boot_time())
        if verdict is not None:
            self._on_verdict(key, pid, verdict)


def listen_finding(rule: Rule, pid: int, listeners: list[Listener]) -> Finding:
    """Does a socket of `pid`'s process tree listen where the balancers will connect? `listeners`: those on the rule's port."""
    if not listeners:
        return Finding(good=False, seen=f"nothing listens on port {rule.port}")
    reachable = [listener for listener in listeners if listener.reachable_at(rule.address)]
    if not reachable:
        bound = ", ".join(sorted({listener.address for listener in listeners}))
        return Finding(
            good=False, seen=f"it listens on {bound} port {rule.port}, which {rule.address} does not lead to"
        )
    tree: set[int] | None = None
    for listener in reachable:
        held = holds_socket([pid], listener.inode)
        if held is False:
            tree = read_processes().tree(pid) if tree is None else tree
            held = holds_socket(tree, listener.inode)
        # Where another user's descriptors are hidden from us, the port alone must do: it was given to nobody else.
        if held is not False:
            return Finding(good=True, seen=f"it listens on port {rule.port}")
    return Finding(good=False, seen=f"port {rule.port} is held by another program")
