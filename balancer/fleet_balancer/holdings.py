"""What fleet-balancer holds on disk: its uid, the fleet and the highest epoch it obeyed, and the lists that stand.

All of it survives a power cut (fleet_core.durable), so that traffic goes on after any restart with the controller away.
"""

import logging
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

_log = logging.getLogger(__name__)
_M = TypeVar("_M", bound=Message)


class HoldingsError(Exception):
    """The state folder cannot be read or written; the message is one line."""


class Holdings:
    """The files `uid`, `epoch.json`, `told.json` and `lists.json` in the state folder.

    Once they were read, a disk that refuses is no error: what could not be written is held in memory, said in `trouble`, and
    written as soon as possible.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir
        self.trouble = ""
        """What the disk refuses, in words; empty: nothing."""
        self._unwritten: dict[str, bytes] = {}
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise HoldingsError(f"{state_dir}: {error.strerror}") from error
        self.uid = self._minted_uid()
        self._epoch = Epoch.from_proto(self._read("epoch.json", types_pb2.Epoch()))
        told = self._read("told.json", balancer_pb2.BalancerHello())
        self.fleet_id = told.fleet_id
        """Of the fleet it obeys; empty: of none yet."""
        self._told = told.highest_epoch.era, told.etcd_revision
        lists = self._read("lists.json", balancer_pb2.UpstreamLists())
        self.messages: dict[str, balancer_pb2.Pool] = {pool.name: pool for pool in lists.changed}
        """The lists that stand, by pool."""

    def pools(self, own_address: str = EVERYWHERE) -> dict[str, Pool]:
        """As Pool.from_proto. Raises HoldingsError when a list on disk breaks a rule."""
        try:
            return {name: Pool.from_proto(message, own_address) for name, message in self.messages.items()}
        except ValueError as error:
            raise HoldingsError(f"{self._folder / 'lists.json'}: {error}") from error

    @property
    def epoch(self) -> Epoch:
        return self._epoch

    @property
    def etcd_revision(self) -> int:
        """The highest one sent in the era of `epoch`; 0: none."""
        era, revision = self._told
        return revision if era == self._epoch.era else 0

    @property
    def behind(self) -> bool:
        """The disk refused something that is held in memory alone until `catch_up` could write it."""
        return bool(self._unwritten)

    def obey(self, epoch: Epoch) -> None:
        """Make a higher epoch durable before anything it says is done (invariant 4). Raises ValueError on a lower one."""
        if epoch < self._epoch:
            raise ValueError(f"epoch {epoch} is older than {self._epoch}, which was obeyed already")
        if epoch > self._epoch:
            self._epoch = epoch
            self._keep("epoch.json", _json(epoch.to_proto()))

    def belong(self, fleet_id: str) -> None:
        """A controller of this fleet welcomed us. Raises ValueError where another one was obeyed before."""
        if fleet_id and self.fleet_id and fleet_id != self.fleet_id:
            raise ValueError(f"the controller leads fleet {fleet_id}, this balancer obeys {self.fleet_id}")
        if fleet_id and fleet_id != self.fleet_id:
            self._tell(fleet_id, self.etcd_revision)

    def check_told(self, etcd_revision: int) -> None:
        """Raises ValueError where lists of this revision of etcd are older than others of the same era."""
        if 0 < etcd_revision < self.etcd_revision:
            raise ValueError(
                f"lists of etcd's revision {etcd_revision}, and this balancer was told of {self.etcd_revision}: "
                "etcd is older than the fleet"
            )

    def tell(self, etcd_revision: int) -> None:
        """Lists of this revision of etcd were applied."""
        if etcd_revision > self.etcd_revision:
            self._tell(self.fleet_id, etcd_revision)

    def stand(self, messages: Mapping[str, balancer_pb2.Pool]) -> None:
        """Remember the lists that stand, and make them durable."""
        if dict(messages) != self.messages:
            self.messages = dict(messages)
            lists = balancer_pb2.UpstreamLists(changed=messages.values(), pools=messages.keys())
            self._keep("lists.json", _json(lists))
        elif self.behind:
            self.catch_up()

    def catch_up(self) -> None:
        """Write what the disk refused before, if it takes it now."""
        for name, content in list(self._unwritten.items()):
            self._keep(name, content)

    def _tell(self, fleet_id: str, etcd_revision: int) -> None:
        told = balancer_pb2.BalancerHello(fleet_id=fleet_id, etcd_revision=etcd_revision)
        told.highest_epoch.CopyFrom(self._epoch.to_proto())
        self.fleet_id, self._told = fleet_id, (self._epoch.era, etcd_revision)
        self._keep("told.json", _json(told))

    def _keep(self, name: str, content: bytes) -> None:
        """Write it, or go on without: the load balancer must not wait for a disk."""
        self._unwritten[name] = content
        try:
            self._write(name, content)
        except HoldingsError as error:
            trouble = f"{error}; the load balancer goes on, and a restart would find what was written last"
            if trouble != self.trouble:
                self.trouble = trouble
                _log.error("%s", trouble)
            return
        del self._unwritten[name]
        if not self._unwritten and self.trouble:
            self.trouble = ""
            _log.info("%s is written again", self._folder)

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


def _json(message: Message) -> bytes:
    return json_format.MessageToJson(message, preserving_proto_field_name=True).encode()
