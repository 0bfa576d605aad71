"""Whatever happens to a worker, in whatever order, its life stays sound."""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet_agent.supervisor import life as lives
from fleet_agent.supervisor.life import SIGKILL, Ask, Effect, Life, Signal, Start
from fleet_agent.supervisor.protocol import Key, Launch

LAUNCH = Launch(["a"], "/", {}, max_restarts=4, window_seconds=30, stable_seconds=5, backoff_initial_seconds=1)

"""Mode and exit code after which nothing is started again."""


class WorkerLife(RuleBasedStateMachine):
    """Plays the shell: keeps a process for each Start, and the signals it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pid = 0
        self.next_pid = 1
        self.signals: list[int] = []
        self.stop_asked = self.failed = False
        self.listens = True
        self.life = Life(Key("a", 1, 1), LAUNCH, LAUNCH)
        self.apply(lives.begin(Key("a", 1, 1), LAUNCH))

    def apply(self, step: lives.Step) -> None:
        self.life, effects = step
        for effect in effects:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Signal):
            assert self.pid, "a signal, and no process"
            assert effect.number == SIGKILL or not self.signals, "the stop signal goes out once"
            self.signals.append(effect.number)
        elif isinstance(effect, Ask):
            assert not self.signals, "a signal overtook the message"
            if not self.listens:
                self.apply(lives.unheard(self.life, self.now))
        else:
            assert effect == Start()
            assert not self.pid, "never two processes for one worker"
            self.pid, self.next_pid, self.signals = self.next_pid, self.next_pid + 1, []
            self.stop_asked = self.failed = False
            self.life = lives.started(self.life, self.pid, 1, self.now)

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.apply(lives.due(self.life, self.now))

    @rule(
        restarts=st.integers(0, 4),
        asks=st.booleans(),
        mode=st.sampled_from(["always", "on_failure", "never"]),
        codes=st.sampled_from([[], [7]]),
    )
    def run(self, restarts: int, asks: bool, mode: str, codes: list[int]) -> None:
        changed = replace(LAUNCH, max_restarts=restarts, shutdown_message=asks)
        wanted = replace(changed, restart_mode=mode, stop_exit_codes=codes)
        down_for_good = self.life.state in lives.ENDED and self.life.wanted == wanted
        self.apply(lives.run(self.life, wanted))
        assert not (down_for_good and self.pid), "an equal request brings back nothing that is down for good"

    @rule(listens=st.booleans())
    def listens_to_messages(self, listens: bool) -> None:
        self.listens = listens

    @rule(grace=st.floats(0, 20))
    def stop(self, grace: float) -> None:
        self.stop_asked = True
        self.apply(lives.stop(self.life, 15, grace, self.now))
        assert self.life.state in {"stopping", "exited"}
        if self.life.deadline is not None:
            assert self.life.deadline <= self.now + grace + 1e-9, "but for rounding"

    @rule(ready=st.booleans(), pid=st.integers(0, 5))
    def note(self, ready: bool, pid: int) -> None:
        before = self.life
        self.apply(lives.note(self.life, pid, ready=ready))
        assert pid == self.pid or self.life == before

    @rule()
    def fail(self) -> None:
        self.failed = True
        self.apply(lives.fail(self.life, self.pid, "no answer", self.now))

    @precondition(lambda self: self.pid)
    @rule(jitter=st.floats(0, 0.999), exit_code=st.sampled_from([None, 0, 1, 7]))
    def process_ends(self, jitter: float, exit_code: int | None) -> None:
        self.pid, self.signals = 0, []
        wanted, by_itself, failing = self.life.wanted, self.life.state != "stopping", bool(self.life.failing)
        self.apply(lives.ended(self.life, "it ended", self.now, jitter, exit_code))
        if wanted is None:
            assert self.life.state == "exited"
        elif by_itself or failing:
            rests_at_success = wanted.restart_mode in {"on_failure", "never"}
            done = by_itself and (exit_code in wanted.stop_exit_codes or (exit_code == 0 and rests_at_success))
            assert (self.life.state == "exited") == done
            assert done or wanted.restart_mode != "never" or self.life.state == "failed"
        else:
            assert self.pid, "a stop that was taken back is followed by a start"

    @invariant()
    def is_sound(self) -> None:
        life = self.life
        assert life.pid == self.pid
        assert bool(life.pid) == (life.state in lives.WITH_PROCESS)
        assert life.deadline is None or life.state in {"backoff", "stopping"}
        assert life.state != "backoff" or life.deadline is not None
        assert life.state != "exited" or life.wanted is None or life.reason
        assert not life.unsent or not self.signals
        assert bool(self.signals or life.unsent) == (life.state == "stopping"), (
            "a process is signalled when, and only when, it shall end"
        )
        assert life.state != "stopping" or self.stop_asked or self.failed
        assert life.killed == (SIGKILL in self.signals)
        assert not life.ever_ready or life.pid
        if life.state == "backoff" and life.deadline is not None:
            assert life.deadline - self.now <= LAUNCH.backoff_max_seconds

    @invariant()
    def never_restarts_more_often_than_allowed(self) -> None:
        window = [at for at in self.life.crashes if at > self.now - LAUNCH.window_seconds]
        assert len(window) <= LAUNCH.max_restarts


TestWorkerLife = WorkerLife.TestCase
