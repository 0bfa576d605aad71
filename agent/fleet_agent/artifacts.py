"""Deployed code on this host: fetched from the leading controller, verified, unpacked and built before a worker runs it.

Owned by the agent's event loop. A plan asks `local` for the code of each target; what is not here yet is begun then, and the plan
is made anew when that changes. Without a controller it waits; a build that failed is tried again after a minute, as long as it is
wanted.
"""

import asyncio
import hashlib
import logging
import os
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from fleet.v1 import agent_pb2
from fleet_agent.accounts import find_account, find_group
from fleet_agent.agent_service import AgentServiceClient, FetchCall
from fleet_agent.builds import BuildFailedError, build, build_steps, shown
from fleet_agent.code_folders import CodeFolders, folder_id, give_to
from fleet_agent.identity import boot_id
from fleet_agent.launch import HostContext, Local
from fleet_agent.unpack import HostileArchiveError, unpack
from fleet_core.controller_link.calls import CallError, Code
from fleet_core.spec import AppSpec

_LOG = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")
_AT_ONCE = 2
_RETRY_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_SILENCE_SECONDS = 30.0
_SETTLE_SECONDS = 2.0
_PRUNE_SECONDS = 3600.0
_COUNT_SECONDS = 0.5
"""So often the bytes that came are reported."""
_FETCHES = 3
"""So often bytes with a wrong digest are fetched again."""


class _CannotPrepareError(Exception):
    """The code cannot be made ready; the text says why."""

    def __init__(self, text: str, last_lines: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.last_lines = last_lines


class _FetchBrokeError(Exception):
    """The stream ended early: go on later."""


@dataclass
class _Preparation:
    waiting: str = ""
    state: agent_pb2.PreparationState.ValueType = agent_pb2.PREPARATION_STATE_FETCHING
    received_bytes: int = 0
    size_bytes: int = 0
    said_at: float = 0.0
    attempt: int = 0
    """The last one that was asked for; 0: a target wants it."""
    problem: str = ""
    last_lines: tuple[str, ...] = ()
    task: asyncio.Task[None] | None = None


class Artifacts:
    def __init__(self, root: Path, context: HostContext, changed: Callable[[], None]) -> None:
        """`changed`: called when `local` has another answer."""
        self._context = context
        self._changed = changed
        self._root = root.absolute()
        self._folders = CodeFolders(self._root, boot_id())
        self._unsettled = asyncio.Event()
        self._unsettled.set()  # an agent before may have left something
        self._preparations: dict[str, _Preparation] = {}
        self._clean = asyncio.Event()
        self._ending: dict[str, asyncio.Task[None]] = {}
        """Given up, and not ended yet."""
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._in_use: frozenset[str] = frozenset()
        self._source: AgentServiceClient | None = None
        self._connected = asyncio.Event()

    def serve_from(self, source: AgentServiceClient | None) -> None:
        """The leading controller that code is fetched from; None: there is none now."""
        self._source = source
        if source is None:
            self._connected.clear()
        else:
            self._connected.set()

    async def run(self) -> None:
        """Until cancelled; then what is under way ends, builds included."""
        try:
            while True:
                try:
                    await asyncio.to_thread(self._folders.clean)
                except OSError as error:
                    _LOG.error("%s cannot be cleaned: %s; no code is fetched until it can", self._root, error)
                    await asyncio.sleep(_PAUSE_SECONDS)
                else:
                    break
            self._clean.set()
            while True:
                try:
                    async with asyncio.timeout(_PRUNE_SECONDS):
                        await self._unsettled.wait()
                except TimeoutError:
                    await self._tidy(lambda: self._folders.prune(self._in_use))
                else:
                    await asyncio.sleep(_SETTLE_SECONDS)
                    self._unsettled.clear()
                    await self._tidy(self._folders.settle)
        finally:
            tasks = [entry.task for entry in self._preparations.values() if entry.task is not None]
            tasks += self._ending.values()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tidy(self, work: Callable[[], None]) -> None:
        try:
            await _in_thread(work)
        except OSError as error:
            _LOG.error("%s: %s", self._root, error)

    def local(self, digest: str, spec: AppSpec) -> Local:
        """Where the code is, or what is in the way; begins to make it ready."""
        identity = self.identity(digest, spec)
        code = self._folders.code(identity)
        if code is not None:
            return Local(code=str(code), programs=self._folders.programs(identity))
        entry = self._preparations.get(identity) or self._begin(identity, digest, spec, 0)
        return Local(waiting=entry.waiting, problem=entry.problem, last_lines=entry.last_lines)

    def prepare(self, wanted: agent_pb2.Preparation, spec: AppSpec | str) -> agent_pb2.PreparationStatus:
        """How far the code is that no target needs yet; begins to make it ready, and again what failed in another attempt.

        `spec`: or why it cannot be used here.
        """
        status = agent_pb2.PreparationStatus(preparation=wanted, state=agent_pb2.PREPARATION_STATE_FAILED)
        if isinstance(spec, str):
            status.reason = spec
            return status
        identity = self.identity(wanted.artifact_digest, spec)
        if self._folders.code(identity) is not None:
            status.state = agent_pb2.PREPARATION_STATE_READY
            return status
        entry = self._preparations.get(identity)
        if entry is None or (entry.problem and entry.attempt != wanted.attempt):
            entry = self._begin(identity, wanted.artifact_digest, spec, wanted.attempt)
        if not entry.problem:
            entry.attempt = wanted.attempt
            status.state = entry.state
            status.received_bytes, status.size_bytes = entry.received_bytes, entry.size_bytes
        status.reason = entry.problem or entry.waiting
        status.last_lines.extend(entry.last_lines)
        return status

    def _begin(self, identity: str, digest: str, spec: AppSpec, attempt: int) -> _Preparation:
        before = self._preparations.get(identity)
        if before is not None and before.task is not None and not before.task.done():
            self._ending[identity] = before.task  # it failed, and still clears away what it left
        entry = self._preparations[identity] = _Preparation(f"fetching code {digest[:12]}…", attempt=attempt)
        entry.task = asyncio.create_task(self._prepare(identity, digest, spec, entry), name=f"code {digest[:12]}")
        return entry

    def identity(self, digest: str, spec: AppSpec) -> str:
        """Names the code as this host builds it for this spec."""
        return folder_id(digest, spec, self._context.user_of(spec))

    def keep(self, identities: Collection[str]) -> None:
        """These are run or wanted now, and no others: give the rest up, and let a failure be forgotten."""
        self._in_use = frozenset(identities)
        for identity in self._preparations.keys() - self._in_use:
            entry = self._preparations.pop(identity)
            if entry.task is not None and not entry.task.done():
                entry.task.cancel()
                self._ending[identity] = entry.task

    def identity_in(self, folder: str) -> str:
        """The code that a working directory lies in; empty: in none of ours."""
        try:
            return Path(folder).relative_to(self._root).parts[0]
        except (ValueError, IndexError):
            return ""

    async def _prepare(self, identity: str, digest: str, spec: AppSpec, entry: _Preparation) -> None:
        try:
            await self._clean.wait()
            before = self._ending.pop(identity, None)
            if before is not None:
                await asyncio.wait([before])
            async with self._at_once:
                await self._make(identity, digest, spec, entry)
        except (_CannotPrepareError, OSError) as error:
            _LOG.error("code %s of %s: %s", digest[:12], spec.name, error)
            entry.problem, entry.waiting = str(error), ""
            entry.last_lines = error.last_lines if isinstance(error, _CannotPrepareError) else ()
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._forget, identity, entry)
        except Exception as error:
            # Whoever waits for the code must not wait for ever on account of a mistake of ours.
            _LOG.exception("code %s of %s", digest[:12], spec.name)
            entry.problem, entry.waiting = f"code {digest[:12]} cannot be made ready: {error!r}", ""
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._forget, identity, entry)
        else:
            self._preparations.pop(identity, None)
        finally:
            if self._folders.code(identity) is None:
                await _in_thread(self._folders.discard, identity)
        self._changed()

    def _forget(self, identity: str, entry: _Preparation) -> None:
        if self._preparations.get(identity) is entry:
            del self._preparations[identity]
            self._changed()

    async def _make(self, identity: str, digest: str, spec: AppSpec, entry: _Preparation) -> None:
        for attempt in range(1, _FETCHES + 1):
            found = await self._fetch(identity, digest, entry)
            if found == digest:
                break
            self._folders.part(identity).unlink(missing_ok=True)
            if attempt == _FETCHES:
                raise _CannotPrepareError(f"fetched code has the digest {found[:12]}, not {digest[:12]}")
        self._say(entry, f"unpacking code {digest[:12]}…", agent_pb2.PREPARATION_STATE_UNPACKING)
        user = self._context.user_of(spec)
        account = find_account(user) if user else None
        if user and account is None:
            raise _CannotPrepareError(f"user {user!r} is not known on this host")
        gid = find_group(spec.identity.group) if spec.identity.group else None
        owner = (account.uid, account.gid if gid is None else gid) if account else None
        code = await _in_thread(self._folders.begin, identity)
        try:
            await _in_thread(unpack, self._folders.part(identity), code)
        except HostileArchiveError as error:
            raise _CannotPrepareError(f"code {digest[:12]} is refused: {error}") from error
        self._folders.part(identity).unlink()
        if owner is not None and os.geteuid() == 0:
            await _in_thread(self._open_to, identity, owner)
        try:
            for argv in build_steps(spec.build, code / spec.cwd, code.parent / "venv"):
                self._say(entry, f"building code {digest[:12]}: {shown(argv)}…", agent_pb2.PREPARATION_STATE_BUILDING)
                lock = await _in_thread(self._folders.lock)
                try:
                    await build(argv, code / spec.cwd, spec, self._context, account, owner, lock)
                finally:
                    os.close(lock)
        except BuildFailedError as error:
            raise _CannotPrepareError(str(error), error.last_lines) from error
        await _in_thread(self._folders.finish, identity, spec.name)
        self._unsettled.set()
        await _in_thread(self._folders.prune, {identity, *self._in_use})

    def _open_to(self, identity: str, owner: tuple[int, int]) -> None:
        """Another user must be able to pass through the state folder, whose files are closed one by one."""
        for folder in (self._root.parent, self._root):
            folder.chmod(0o711)
        give_to(self._folders.folder(identity), *owner)

    def _say(
        self,
        entry: _Preparation,
        waiting: str,
        state: agent_pb2.PreparationState.ValueType = agent_pb2.PREPARATION_STATE_FETCHING,
    ) -> None:
        entry.waiting, entry.state = waiting, state
        self._changed()

    def _count(self, entry: _Preparation, digest: str, received: int, size: int) -> None:
        """So much is here; said now and then."""
        now = asyncio.get_running_loop().time()
        entry.received_bytes, entry.size_bytes = received, size
        if now >= entry.said_at + _COUNT_SECONDS:
            entry.said_at = now
            percent = 100 * received // size if size else 0
            self._say(entry, f"fetching code {digest[:12]}: {percent} %")

    async def _fetch(self, identity: str, digest: str, entry: _Preparation) -> str:
        """Until all bytes are there, from whichever controller leads; returns their digest.

        Raises _CannotPrepareError, OSError.
        """
        hashed = hashlib.sha256()

        def take(data: bytes) -> None:
            stream.write(data)
            hashed.update(data)

        with self._folders.part(identity).open("wb") as stream:
            while True:
                await self._connected.wait()
                source = self._source
                if source is None:
                    continue
                try:
                    request = agent_pb2.FetchArtifactRequest(digest=digest, offset=stream.tell())
                    await self._read(source, request, take, stream.tell, partial(self._count, entry, digest))
                except (_FetchBrokeError, TimeoutError) as error:
                    self._say(entry, f"fetching code {digest[:12]}: {error or 'nothing came'}; trying again…")
                    await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - spreads retries
                else:
                    return hashed.hexdigest()

    async def _read(
        self,
        source: AgentServiceClient,
        request: agent_pb2.FetchArtifactRequest,
        take: Callable[[bytes], None],
        tell: Callable[[], int],
        count: Callable[[int, int], None],
    ) -> None:
        size = -1
        call: FetchCall | None = None
        try:
            call = source.fetch_artifact(request)
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    chunk = await call.read()
                if chunk is None:
                    break
                size = chunk.size_bytes
                await _in_thread(take, chunk.data)
                count(tell(), size)
        except CallError as error:
            if error.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED):
                raise _CannotPrepareError(f"code cannot be fetched: {error.details}") from error
            raise _FetchBrokeError(error.details or error.code.name) from error
        finally:
            if call is not None:
                call.cancel()
        if tell() != size:
            raise _FetchBrokeError(f"{tell()} of {size} bytes came")


async def _in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As asyncio.to_thread; but a cancelled caller goes on only when the thread, too, has let go of what it works on."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
