"""Checks every worker against its ready rule and hands the verdicts on; the decisions are `readiness`'s.

One look at the listening sockets serves all workers. While any worker is starting it is taken every 20 ms; it costs well under
a millisecond. Whose a socket is need be found out only once: it cannot change hands without the process that holds it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fleet_agent.command_check import command_finding
from fleet_agent.http_check import http_finding, tcp_finding
from fleet_agent.process_tree import read_processes
from fleet_agent.readiness import (
    OWN_WORD,
    Course,
    Finding,
    Rule,
    Verdict,
    asking_pause,
    begin,
    heed,
    judge,
    silence_finding,
    times_out,
    uptime_finding,
)
from fleet_agent.sockets import Listener, ListenerTable, holds_socket
from fleet_agent.supervisor.protocol import Key, Launch, Worker
from fleet_core.spec import ReadyMethod

_LOG = logging.getLogger(__name__)
_CHECKED_STATES = frozenset({"starting", "running", "unready"})
_MAX_REQUESTS = 64
_MOST_PORTS = 5
"""So many are named in a sentence."""
_SHORTEST_PAUSE_SECONDS = 0.002
_ASKED = frozenset({ReadyMethod.HTTP, ReadyMethod.TCP, ReadyMethod.COMMAND})

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
        self._launches: dict[Key, Launch] = {}
        self._requests: dict[Key, asyncio.Task[None]] = {}
        self._found: dict[Key, tuple[int, int]] = {}
        """The process, and the inode of a socket it was found to hold."""
        self._changed = asyncio.Event()

    def watch(self, workers: Mapping[Key, Worker], rules: Mapping[Key, Rule]) -> None:
        """These are the workers now, and the rules of those that are to be checked."""
        now = boot_time()
        courses: dict[Key, Course] = {}
        launches: dict[Key, Launch] = {}
        for key, rule in rules.items():
            worker = workers.get(key)
            if worker is None or not worker.pid or worker.state not in _CHECKED_STATES:
                continue
            course = self._courses.get(key)
            known = course is not None and course.pid == worker.pid and self._rules.get(key) == rule
            course = course if course is not None and known else begin(rule, worker, now)
            courses[key] = heed(rule, course, worker)
            launches[key] = worker.launch
        self._launches = launches
        if courses == self._courses and rules == self._rules:
            return
        self._courses, self._rules = courses, dict(rules)
        self._found = {key: found for key, found in self._found.items() if key in courses}
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
        if any(_looks(self._rules[key], self._courses[key]) for key in due):
            by_port = self._listeners_by_port()
        now = boot_time()
        for key in due:
            rule, course = self._rules[key], self._courses[key]
            finding: Finding | None = None
            if _looks(rule, course):
                finding = self._listen_finding(key, rule, course, by_port.get(rule.port, []))
                if not finding.good and rule.port not in by_port and times_out(rule, course, now):
                    finding = replace(finding, seen=finding.seen + elsewhere(course.pid, by_port))
            elif rule.method in OWN_WORD:
                finding = silence_finding(rule)
            elif rule.method is ReadyMethod.UPTIME or rule.shared:
                finding = uptime_finding(rule, course, now)
            asks = rule.method in _ASKED and (finding is None or finding.good)
            if not asks and finding is not None:
                self._conclude(key, course.pid, finding)
            elif len(self._requests) < _MAX_REQUESTS:
                asking = self._ask(key, rule, course, self._launches[key])
                self._requests[key] = asyncio.create_task(asking, name=f"check {key}")

    def _listen_finding(self, key: Key, rule: Rule, course: Course, listeners: list[Listener]) -> Finding:
        found = self._found.get(key)
        if found is not None and any(found == (course.pid, listener.inode) for listener in listeners):
            return Finding(good=True, seen=f"it listens on port {rule.port}")
        finding, inode = listen_finding(rule, course.pid, listeners)
        if inode:
            self._found[key] = course.pid, inode
        return finding

    def _listeners_by_port(self) -> dict[int, list[Listener]]:
        by_port: dict[int, list[Listener]] = {}
        try:
            for listener in self._listeners.read():
                by_port.setdefault(listener.port, []).append(listener)
        except OSError as error:
            _LOG.error("cannot see which sockets listen: %s", error)
        return by_port

    async def _ask(self, key: Key, rule: Rule, course: Course, launch: Launch) -> None:
        try:
            finding = await _answer(rule, launch)
            if not finding.good and rule.method is not ReadyMethod.COMMAND:
                await asyncio.sleep(asking_pause(course))
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


def elsewhere(pid: int, by_port: Mapping[int, Sequence[Listener]]) -> str:
    """Where the process tree listens instead, in words; "" where it does not."""
    tree = read_processes().tree(pid)
    ports = sorted(
        port for port, there in by_port.items() if any(holds_socket(tree, listener.inode) for listener in there)
    )
    if not ports:
        return ""
    return f", which PORT says is its own; it listens on {', '.join(map(str, ports[:_MOST_PORTS]))}"


def _looks(rule: Rule, course: Course) -> bool:
    """Before HTTP is first asked, the socket must be the worker's own; afterwards its answer tells more than its socket."""
    if rule.method is ReadyMethod.HTTP:
        return not course.was_ready and not rule.shared
    return rule.method is ReadyMethod.LISTEN


async def _answer(rule: Rule, launch: Launch) -> Finding:
    if rule.method is ReadyMethod.COMMAND:
        return await command_finding(rule.command, launch, rule.timeout_seconds)
    if rule.method is ReadyMethod.TCP:
        return await tcp_finding(rule.address, rule.port, rule.timeout_seconds)
    return await http_finding(rule.address, rule.port, rule.http_path, rule.timeout_seconds)


def listen_finding(rule: Rule, pid: int, listeners: list[Listener]) -> tuple[Finding, int]:
    """Does a socket of `pid`'s process tree listen where the balancers will connect, and which inode is it (0: not found out)?
    `listeners`: those on the rule's port."""
    if not listeners:
        return Finding(good=False, seen=f"nothing listens on port {rule.port}"), 0
    reachable = [listener for listener in listeners if listener.reachable_at(rule.address)]
    if not reachable:
        bound = ", ".join(sorted({listener.address for listener in listeners}))
        seen = f"it listens on {bound} port {rule.port}, which {rule.address} does not lead to"
        return Finding(good=False, seen=seen), 0
    tree: set[int] | None = None
    for listener in reachable:
        held = holds_socket([pid], listener.inode)
        if held is False:
            tree = read_processes().tree(pid) if tree is None else tree
            held = holds_socket(tree, listener.inode)
        # Where another user's descriptors are hidden from us, the port alone must do: it was given to nobody else.
        if held is not False:
            return Finding(good=True, seen=f"it listens on port {rule.port}"), listener.inode if held else 0
    return Finding(good=False, seen=f"port {rule.port} is held by another program"), 0
