"""One worker's life as a pure state machine: what happened, and when, to the next state and what to do about it.

```
             run                note ready
 (nothing) ──────► starting ──────────────► running ⇄ unready
                   ▲   ▲  │                    │         │      crash: the process ended and nobody asked for it
             due   │   │  └──────── crash ─────┴─────────┤
                 backoff │◄──────────────────────────────┤──► failed: more than max_restarts in window_seconds
                         │ the first one at once         │──► exited: `restart_mode` or `stop_exit_codes` says so
                         └─── run ── exited ◄── stopping ◄┘ stop, or fail (whose end is a crash)
```

Times are CLOCK_BOOTTIME seconds, which mean the same to the next supervisor of this boot. Nothing here reads a clock, rolls a
die or touches a process; jitter comes in as a value.
"""

from dataclasses import dataclass
from typing import NamedTuple

from fleet_agent.supervisor.protocol import Key, Launch, Worker

SIGKILL = 9
WITH_PROCESS = frozenset({"starting", "running", "unready", "stopping"})
ENDED = frozenset({"exited", "failed"})
_LARGEST_EXPONENT = 32


@dataclass(frozen=True)
class Start:
    """Start a process now, and report `started` or `ended`."""


@dataclass(frozen=True)
class Signal:
    """Send this signal to the whole process tree."""

    number: int


@dataclass(frozen=True)
class Ask:
    """Send the message "shutdown" to the program, and report `unheard` where nothing takes it."""


Effect = Start | Signal | Ask


class Life(NamedTuple):
    """All that must be known to go on with one worker, and all that is journaled of it.

    A tuple, as it is copied three times between a crash and the next process, and a dataclass takes five times as long for it.
    """

    key: Key
    launch: Launch
    """Of the present process, else of the last or the next one."""
    wanted: Launch | None
    """What the next start uses; None: this worker shall be down."""
    state: str = "starting"
    pid: int = 0
    start_ticks: int = 0
    started: float = 0.0
    restarts: int = 0
    reason: str = ""
    ever_ready: bool = False
    deadline: float | None = None
    """In backoff: when to start. In stopping: when to kill, or, where `unsent`, to signal; None once killed."""
    unsent: int = 0
    """In stopping: the signal that is held back while a program that was asked shuts down; 0: it was sent."""
    signal_seconds: float = 0.0
    """With `unsent`: how long after that signal to kill."""
    unsure: int = 0
    """In stopping: a signal that may not have been sent: it is, again, by a supervisor that finds this; 0: none."""
    status_text: str = ""
    """What the present process last said of itself."""
    channel_inode: int = 0
    """By which the supervisor's end of the present process's channel is known again; 0: it has none."""
    failing: str = ""
    """In stopping: why its end counts as a crash; empty where a stop was asked for."""
    streak: int = 0
    """Crashes in a row, none of them after a stable time."""
    crashes: tuple[float, ...] = ()
    """Times of the crashes that may still lie in the window."""

    @property
    def killed(self) -> bool:
        """The ladder came to its last rung."""
        return self.state == "stopping" and self.deadline is None


Step = tuple[Life, tuple[Effect, ...]]


def begin(key: Key, launch: Launch) -> Step:
    """A worker that was not there before."""
    return Life(key=key, launch=launch, wanted=launch), (Start(),)


def run(life: Life, launch: Launch) -> Step:
    """It shall run. A process that runs already is left alone: another launch than its own counts from the next start on.

    One that failed, or exited for good by its policy, stays so under an equal launch, because this request is a state that is
    sent again and again.
    """
    if life.state in ENDED and life.wanted != launch:
        return begin(life.key, launch)
    return life._replace(wanted=launch), ()


def stop(life: Life, number: int, grace_seconds: float, now: float) -> Step:
    """It shall be down. A repeated stop can bring the kill forward, never put it off, and sends no second signal."""
    if life.state == "stopping":
        before_signal = grace_seconds / 2 if life.unsent else grace_seconds
        deadline = None if life.deadline is None else min(life.deadline, now + before_signal)
        signal_seconds = min(life.signal_seconds, grace_seconds / 2)
        return life._replace(wanted=None, failing="", deadline=deadline, signal_seconds=signal_seconds), ()
    if not life.pid:
        return life._replace(wanted=None, state="exited", deadline=None), ()
    if life.launch.shutdown_message:
        half = grace_seconds / 2
        asked = life._replace(wanted=None, state="stopping", deadline=now + half, unsent=number, signal_seconds=half)
        return asked, (Ask(),)
    return _signalled(life._replace(wanted=None, state="stopping", deadline=now + grace_seconds), number)


def unheard(life: Life, now: float) -> Step:
    """Nothing took the message: the signal now, and what is left of the grace after it."""
    if not life.unsent or life.deadline is None:
        return life, ()
    left = max(0.0, life.deadline - now) + life.signal_seconds
    return _signalled(life._replace(deadline=now + left, unsent=0, signal_seconds=0.0), life.unsent)


def _signalled(life: Life, number: int) -> Step:
    return life._replace(unsure=number), (Signal(number),)


def sent(life: Life) -> Life:
    """The signal was sent."""
    return life._replace(unsure=0)


def note(life: Life, pid: int, *, ready: bool, by: str = "") -> Step:
    """The process was found ready or not, or said so itself; of a process that is gone or on its way out that means nothing.

    The first word of being ready counts only from the one `Launch.ready_by` names, so that no probe overtakes it; later the
    agent's findings count too.
    """
    if not pid or life.pid != pid or life.state == "stopping":
        return life, ()
    if ready and by != life.launch.ready_by and (by or not life.ever_ready):
        return life, ()
    if ready:
        return life._replace(state="running", ever_ready=True), ()
    return life._replace(state="unready" if life.ever_ready else "starting"), ()


def status(life: Life, pid: int, text: str) -> Step:
    """The process said what it is doing."""
    return (life._replace(status_text=text) if pid and life.pid == pid else life), ()


def fail(life: Life, pid: int, reason: str, now: float, number: int = 0) -> Step:
    """The process was given up: the ladder, from signal `number` on (0: the launch's own), then what follows a crash."""
    if not pid or life.pid != pid or life.state == "stopping":
        return life, ()
    failing = life._replace(
        state="stopping",
        failing=reason or "failed",
        reason=reason,
        deadline=now + life.launch.grace_seconds,
    )
    return _signalled(failing, number or life.launch.stop_signal)


def started(life: Life, pid: int, start_ticks: int, now: float) -> Life:
    """A process was made for it, and will run what was wanted."""
    return life._replace(
        launch=life.wanted or life.launch,
        state="starting",
        pid=pid,
        start_ticks=start_ticks,
        started=now,
        ever_ready=False,
        deadline=None,
        status_text="",
    )


def ended(life: Life, reason: str, now: float, jitter: float, exit_code: int | None = None) -> Step:
    """Its process is gone, with its tree, or could not be made.

    `exit_code` is None after a signal, where the status is unknown and where there was no program. `jitter`, in [0, 1),
    shortens a back-off by up to half.
    """
    ran_seconds = now - life.started if life.pid else 0.0
    failing = life.failing
    asked_for = life.state == "stopping" and not failing
    gone = _without_process(life, failing or reason)
    if life.wanted is None:
        return gone._replace(state="exited"), ()
    if asked_for:
        return gone._replace(state="starting", streak=0), (Start(),)
    code = None if failing else exit_code
    if not _restarts(life.wanted, code):
        done = code == 0 or code in life.wanted.stop_exit_codes
        return gone._replace(state="exited" if done else "failed"), ()
    return _crashed(gone, life.wanted, ran_seconds, now, jitter)


def _restarts(policy: Launch, exit_code: int | None) -> bool:
    """Whether a process that ended by itself is followed by another. An end without an exit code is a failure."""
    if policy.restart_mode == "never" or (exit_code is not None and exit_code in policy.stop_exit_codes):
        return False
    return policy.restart_mode == "always" or exit_code != 0


def _without_process(life: Life, reason: str) -> Life:
    return life._replace(
        pid=0,
        start_ticks=0,
        started=0.0,
        ever_ready=False,
        deadline=None,
        unsent=0,
        signal_seconds=0.0,
        unsure=0,
        status_text="",
        failing="",
        reason=reason,
    )


def _crashed(gone: Life, policy: Launch, ran_seconds: float, now: float, jitter: float) -> Step:
    streak = 0 if ran_seconds >= policy.stable_seconds else gone.streak
    recent = tuple(at for at in gone.crashes if at > now - policy.window_seconds)
    if len(recent) >= policy.max_restarts:
        reason = f"{gone.reason}; given up after {len(recent)} restarts in {policy.window_seconds:g} s"
        return gone._replace(state="failed", reason=reason, crashes=recent), ()
    crashed = gone._replace(state="starting", restarts=gone.restarts + 1, streak=streak + 1, crashes=(*recent, now))
    if streak == 0:
        return crashed, (Start(),)
    pause = policy.backoff_initial_seconds * 2.0 ** min(streak - 1, _LARGEST_EXPONENT)
    pause = min(pause, policy.backoff_max_seconds) * (1 - jitter / 2)
    return crashed._replace(state="backoff", deadline=now + pause), ()


def due(life: Life, now: float) -> Step:
    """The time is `now`; to be called at `deadline`."""
    if life.deadline is None or now < life.deadline:
        return life, ()
    if life.state == "backoff":
        return life._replace(state="starting", deadline=None), (Start(),)
    if life.unsent:
        return _signalled(life._replace(deadline=now + life.signal_seconds, unsent=0, signal_seconds=0.0), life.unsent)
    return life._replace(deadline=None), (Signal(SIGKILL),)


def resume(life: Life, now: float) -> Step:
    """Taken over from another supervisor, where no process of it was ever made or all of an earlier boot are gone."""
    if life.state in ENDED:
        return life, ()
    if life.state == "backoff":
        latest = now + (life.wanted or life.launch).backoff_max_seconds
        return life._replace(deadline=min(life.deadline or now, latest)), ()
    gone = _without_process(life, life.reason)
    if life.wanted is None or (life.pid and not _restarts(life.wanted, None)):
        return gone._replace(state="exited"), ()
    return gone._replace(state="starting"), (Start(),)


def report(life: Life) -> Worker:
    """What the agent is told."""
    return Worker(
        key=life.key,
        launch=life.launch,
        state=life.state,
        pid=life.pid,
        start_ticks=life.start_ticks,
        started_monotonic=life.started,
        restarts=life.restarts,
        reason=life.reason,
        ever_ready=life.ever_ready,
        status_text=life.status_text,
    )
