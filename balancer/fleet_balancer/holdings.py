"""What fleet-balancer holds on disk: its uid, the highest epoch it obeyed, and the lists that stand.

All of it survives a power cut (fleet_core.durable), so that traffic goes on after any restart with the controller away.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from fleet.v1 import balancer_pb2, types_pb2
from fleet_balancer.driver import Pool
from fleet_core.addresses import EVERYWHERE
from fleet_core.durable import write_durably
from fleet_core.ids import Epoch

_M = TypeVar("_M", bound=Message)


class HoldingsError(Exception):
    """The state folder cannot be read or written; the message is one line."""


class Holdings:
    """The files `uid`, `epoch.json` and `lists.json` in the state folder. Every method that writes may raise HoldingsError."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise HoldingsError(f"{state_dir}: {error.strerror}") from error
        self.uid = self._minted_uid()
        self._epoch = Epoch.from_proto(self._read("epoch.json", types_pb2.Epoch()))
        lists = self._read("lists.json", balancer_pb2.UpstreamLists())
        self.messages: dict[str, balancer_pb2.Pool] = {pool.name: pool for pool in lists.changed}
        """The lists that stand, by pool."""
        self._behind = False
        """The file does not hold them yet."""

    def pools(self, own_address: str = EVERYWHERE) -> dict[str, Pool]:
        """As Pool.from_proto. Raises HoldingsError when a list on disk breaks a rule."""
        try:
            return {name: Pool.from_proto(message, own_address) for name, message in self.messages.items()}
        except ValueError as error:
            raise HoldingsError(f"{self._folder / 'lists.json'}: {error}") from error

    @property
    def epoch(self) -> Epoch:
        return self._epoch

    def obey(self, epoch: Epoch) -> None:
        """Make a higher epoch durable before anything it says is done (invariant 4). Raises ValueError on a lower one."""
        if epoch < self._epoch:
            raise ValueError(f"epoch {epoch} is older than {self._epoch}, which was obeyed already")
        if epoch > self._epoch:
            self._write("epoch.json", _json(epoch.to_proto()))
            self._epoch = epoch

    def stand(self, messages: Mapping[str, balancer_pb2.Pool]) -> None:
        """Remember the lists that stand, and make them durable. Raises HoldingsError when only the first was possible."""
        if dict(messages) != self.messages or self._behind:
            self.messages = dict(messages)
            self._behind = True
            lists = balancer_pb2.UpstreamLists(changed=messages.values(), pools=messages.keys())
            self._write("lists.json", _json(lists))
            self._behind = False

    def _minted_uid(self) -> str:
        path = self._folder / "uid"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            uid = str(uuid.uuid4())
            self._write("uid", f"{uid}\n".encode())
            return uid
        except (OSError, UnicodeDecodeError) as error:
            raise HoldingsError(f"{path} cannot be read: {error}") from error

    def _read(self, name: str, message: _M) -> _M:
        path = self._folder / name
        try:
            return json_format.Parse(path.read_bytes(), message)
        except FileNotFoundError:
            return message
        except (OSError, json_format.ParseError) as error:
            reason = " ".join(str(error).split())
            raise HoldingsError(
                f"{path} cannot be read ({reason}): repair it, or remove it to begin without"
            ) from error

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_durably(self._folder / name, content)
        except OSError as error:
            raise HoldingsError(f"{self._folder / name} cannot be written: {error.strerror}") from error


def _json(message: types_pb2.Epoch | balancer_pb2.UpstreamLists) -> bytes:
    return json_format.MessageToJson(message, preserving_proto_field_name=True).encode()
