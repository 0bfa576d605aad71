"""A program driven by JSON lines: one request in, one answer out."""

import json
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.host.processes import BenchError
from tests.bench.host.subject import COMMAND_SECONDS


class Conversation:
    """The program's life; one request at a time."""

    def __init__(self, argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path, errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as sink:
            self._process = subprocess.Popen(
                [str(argument) for argument in argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **request: Any) -> "Answer":
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return Answer(self)

    def answered(self, seconds: float) -> bool:
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def answer(self, seconds: float) -> dict[str, Any]:
        """Raises BenchError when none came, or it says `error`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline() if self.answered(seconds) else b""
        if not line:
            raise BenchError(f"no answer in {seconds:g} s: {self._errors.read_text(errors='replace')[-2000:]}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise BenchError(str(message["error"]))
        return message

    def close(self, seconds: float = 20.0) -> None:
        """End of its input is its order to stop; a deaf one is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        deadline = time.monotonic() + seconds
        try:
            self._process.wait(deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Answer:
    """An answer to come: a `Work`."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @property
    def running(self) -> bool:
        return not self._conversation.answered(0.0)

    def finish(self, seconds: float = COMMAND_SECONDS) -> str:
        return json.dumps(self._conversation.answer(seconds))
