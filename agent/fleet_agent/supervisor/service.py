"""Requests of the agent to calls of the supervisor, and their answers."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from fleet_agent.supervisor import requests
from fleet_agent.supervisor.protocol import PROTOCOL_VERSION, ProtocolError, worker_to_json
from fleet_agent.supervisor.server import Client
from fleet_agent.supervisor.supervisor import Supervisor

Message = dict[str, Any]


class Service:
    """The handler of `server.Server`. A request that is not understood is refused and changes nothing."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._handlers: dict[str, Callable[[Client, Message], None]] = {
            "hello": self._hello,
            "run": self._run,
            "stop": self._stop,
            "forget": self._forget,
            "note": self._note,
            "fail": self._fail,
            "stop_all": self._stop_all,
        }

    def handle(self, client: Client, message: Message) -> None:
        name = message.get("request")
        handler = self._handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            client.refuse(message, f"request {name!r} is not known to protocol {PROTOCOL_VERSION}")
            return
        try:
            handler(client, message)
        except ProtocolError as error:
            client.refuse(message, str(error))

    def _hello(self, client: Client, message: Message) -> None:
        requests.protocol_of(message)
        workers = [worker_to_json(worker) for worker in self._supervisor.workers()]
        client.subscribed = True
        client.answer(message, protocol=PROTOCOL_VERSION, pid=os.getpid(), workers=workers)

    def _run(self, client: Client, message: Message) -> None:
        key, launch = requests.key_of(message), requests.launch_of(message)
        if self._supervisor.stopping_all:
            client.refuse(message, "all workers are being stopped")
            return
        self._supervisor.run(key, launch)
        client.answer(message)

    def _stop(self, client: Client, message: Message) -> None:
        grace_seconds = requests.seconds_of(message, "grace_seconds")
        self._supervisor.stop(requests.key_of(message), requests.signal_of(message), grace_seconds)
        client.answer(message)

    def _forget(self, client: Client, message: Message) -> None:
        refusal = self._supervisor.forget(requests.key_of(message))
        if refusal:
            client.refuse(message, refusal)
        else:
            client.answer(message)

    def _note(self, client: Client, message: Message) -> None:
        key, pid = requests.key_of(message), requests.pid_of(message)
        self._supervisor.note(key, pid, ready=requests.ready_of(message))
        client.answer(message)

    def _fail(self, client: Client, message: Message) -> None:
        key, pid = requests.key_of(message), requests.pid_of(message)
        self._supervisor.fail(key, pid, requests.text_of(message, "reason"))
        client.answer(message)

    def _stop_all(self, client: Client, message: Message) -> None:
        self._supervisor.stop_all(requests.seconds_of(message, "grace_seconds"), partial(client.answer, message))
