"""Calls about the fleet file, and about code that is sent to hosts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from shlex import quote
from typing import Unpack

from fleet.v1 import control_pb2
from fleetctl.apply_outcome import DONE, Outcome, code_digest, difference_view, planned, unchanged
from fleetctl.apply_plan import Plan, Request, Verdict
from fleetctl.client.base import Part, options, translated
from fleetctl.client.changing import size_to_start, workers_to_start
from fleetctl.client.code import Code
from fleetctl.client.errors import ApplyFailed, FleetError, StillRunning, Unreachable, UsageError
from fleetctl.client.handles import AsyncRollout, deadline_in, logger
from fleetctl.client.present import fetch_present
from fleetctl.client.rollouts import WAIT_SECONDS, new_request_id, newest_rollout
from fleetctl.client.spec import DeployFields, Names, names_of, words_of
from fleetctl.client.values import Applied, Difference, Result, from_view
from fleetctl.code_spec import build_policy, check_same_place
from fleetctl.exported import exported
from fleetctl.fleet_code import FleetCode, packed
from fleetctl.fleet_file.writer import document
from fleetctl.fleet_source import Source, load
from fleetctl.upload import upload

_Removal = control_pb2.RemoveAppRequest


class Files(Part):
    async def diff(self, path: str | Path, *, env_name: str = "", only: Names = ()) -> tuple[Difference, ...]:
        """How the apps of a fleet file, or of PM2's ecosystem file, differ from what runs; changes nothing."""
        source = await _source(path, env_name, only)
        async with _packed(source) as code:
            present = await fetch_present(self._connection, code.unsent())
        return tuple(
            from_view(difference_view(planned(wanted, present, code.digests)), Difference)
            for wanted in source.content.apps
        )

    async def apply(
        self,
        path: str | Path,
        *,
        env_name: str = "",
        only: Names = (),
        prune: bool = False,
        supersede: bool = False,
        timeout: float = WAIT_SECONDS,
    ) -> tuple[Applied, ...]:
        """Make the apps of a file what it says, one after the other, and wait for each; `timeout` seconds in all.

        What is as the file says is left alone. `env_name`: PM2's --env; `only`: these apps of the file; `prune`: remove the apps
        that are not in it. Raises ApplyFailed, whose `apps` say what became of each.
        """
        if prune and only:
            raise UsageError("prune removes what is not in the whole file: it does not go with only")
        deadline = deadline_in(timeout)
        source = await _source(path, env_name, only)
        async with _packed(source) as code:
            present = await fetch_present(self._connection, code.unsent())
            run = _Run(self, supersede, deadline, code)
            for wanted in source.content.apps:
                await run.carry_out(planned(wanted, present, code.digests), present.app(wanted.name))
            if prune:
                named = {wanted.name for wanted in source.content.apps}
                for other in sorted(app.name for app in present.apps if app.name not in named):
                    await run.attempt(Outcome(other, Result.REMOVED), (_Removal(app=other),))
        return run.conclude(source.content.file)

    async def export(self, apps: Names = ()) -> str:
        """A fleet file, in YAML, of the apps that run, or of those named; to apply it changes nothing. Raises NotFound."""
        entries, notes = exported((await fetch_present(self._connection)).apps, names_of(apps))
        for note in notes:
            logger.warning("%s", note)
        return document(entries)

    async def deploy(
        self,
        app: str,
        path: str | Path = ".",
        argv: Names = (),
        *,
        ref: str | None = None,
        npm_pack: bool = False,
        build: Names | None = None,
        no_build: bool = False,
        build_timeout: float | None = None,
        run: Names | None = None,
        size: int | str | None = None,
        hosts: Names = (),
        http: str = "",
        progress: Callable[[int, int], None] | None = None,
        supersede: bool = False,
        ignore_balancers: Names = (),
        **fields: Unpack[DeployFields],
    ) -> AsyncRollout:
        """Send code to an app's hosts, and begin to roll it out as a new revision; returns when it is sent.

        `path`: a folder, without what its .gitignore or .npmignore leaves out, or a .tar or .tar.gz; `ref`: what git has in this
        commit instead; `npm_pack`: what `npm pack` would publish. `build`: the command that builds it on each host (default: as
        the code asks for). An app that does not exist begins with the code: `argv` is what to run in it, `size`, `hosts`, `http`
        and the fields of AppSpec are `start`'s. Of one that does, `argv` (or `run`) and fields hold from now on, variables are
        added, and `size` and `hosts` are `set_size`'s. `progress` is called with the bytes that are there, and with those there
        are, from the thread of the event loop. The same code again changes nothing.
        """
        if no_build and build:
            raise UsageError("build and no_build exclude each other")
        if argv and run:
            raise UsageError("argv and run say the same: give one of them")
        words = words_of("run" if run else "argv", run or argv) if run is not None or argv else ()
        amount = None if size is None else size_to_start(size)
        with translated():
            policy = build_policy(_line("build", build), no_build=no_build, seconds=build_timeout)
            code = await asyncio.to_thread(Code.at, path, ref, npm_pack=npm_pack)
        with code.archive.stream, translated():
            known = next((each for each in (await fetch_present(self._connection)).apps if each.name == app), None)
            request: control_pb2.StartAppRequest | control_pb2.UpdateAppRequest
            if known is None:
                spec = code.new_spec(app, words, http, fields)
                request = control_pb2.StartAppRequest(spec=spec, hosts=names_of(hosts))
                request.size = await workers_to_start(self._connection, amount, tuple(request.hosts))
            else:
                check_same_place(known, amount, names_of(hosts))
                spec = code.changed_spec(known.spec, words, http, fields)
                request = control_pb2.UpdateAppRequest(app=app, spec=spec, expected_revision=known.revision)
            if policy is not None:
                request.spec.build.CopyFrom(policy)
            request.request_id, request.cause = new_request_id(), f"deploy {code.name}"
            request.artifact_digest = code.archive.digest
            request.options.CopyFrom(options(supersede, ignore_balancers))
            of = code.archive.size
            told = (lambda there: progress(there, of)) if progress is not None else _tell_nobody
            await upload(self._connection, code.archive, told)
            return await self._begin(request, may_change_nothing=True)


class _Run:
    """One run over a file: an app that fails does not keep the next from its turn, a lost controller and the deadline do."""

    def __init__(self, part: Files, supersede: bool, deadline: float, code: FleetCode) -> None:  # noqa: FBT001
        self._part = part
        self._code = code
        self._supersede = supersede
        self._deadline = deadline
        self._outcomes: list[Outcome] = []
        self._over = False

    async def carry_out(self, plan: Plan | Outcome, present: control_pb2.App | None) -> None:
        if isinstance(plan, Outcome):
            self._outcomes.append(plan)
        elif plan.verdict is not Verdict.SAME or present is None:
            await self.attempt(Outcome(plan.app, DONE[plan.verdict], plan.differences), plan.requests)
        else:
            await self.attempt(unchanged(present), (), under_way=present.HasField("rollout"))

    async def attempt(
        self, outcome: Outcome, requests: Sequence[Request | _Removal], *, under_way: bool = False
    ) -> None:
        """Each request's rollout is waited for before the next is sent; with `under_way` the newest one, if it goes on."""
        self._outcomes.append(outcome)
        if self._over:
            outcome.result = Result.NOT_BEGUN
            return
        try:
            for request in requests:
                request.request_id = new_request_id()
                request.options.supersede = self._supersede
                await self._send_code(request)
                await (await self._part._begin(request)).wait(self._left)
            if under_way:
                connection = self._part._connection
                newest = AsyncRollout(connection, await newest_rollout(connection, outcome.app))
                if newest.status.under_way:
                    await newest.wait(self._left)
        except FleetError as error:
            outcome.result, outcome.message, outcome.details = Result.FAILED, error.message, error.details
            self._over = isinstance(error, Unreachable | StillRunning)

    async def _send_code(self, request: Request | _Removal) -> None:
        archive = self._code.archives.get(code_digest(request))
        if archive is not None:
            async with asyncio.timeout(self._left):
                await upload(self._part._connection, archive, _tell_nobody)

    @property
    def _left(self) -> float:
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def conclude(self, file: str) -> tuple[Applied, ...]:
        """Raises ApplyFailed."""
        apps = tuple(from_view(outcome.view(), Applied) for outcome in self._outcomes)
        bad = [outcome for outcome in self._outcomes if outcome.result in (Result.FAILED, Result.NOT_BEGUN)]
        if bad:
            reasons: list[str] = []
            for outcome in bad:
                reasons.append(f"{outcome.app}: {outcome.message or outcome.result.value}")
                reasons += [f"  {line}" for line in outcome.details]
            raise ApplyFailed(f"not as {file} says: {', '.join(outcome.app for outcome in bad)}", apps, reasons)
        return apps


@asynccontextmanager
async def _packed(source: Source) -> AsyncIterator[FleetCode]:
    """In a thread: it reads every file of the code. Raises FleetError."""
    with translated():
        context = packed(source.content)
        code = await asyncio.to_thread(context.__enter__)
    try:
        yield code
    finally:
        context.__exit__(None, None, None)


async def _source(path: str | Path, env_name: str, only: Names) -> Source:
    """Raises FleetError."""
    with translated():
        # In a thread: PM2's files are JavaScript, and Node reads them.
        source = await asyncio.to_thread(lambda: load(Path(path).expanduser(), env_name, names_of(only)))
    for warning in source.warnings:
        logger.warning("%s: %s", path, warning)
    return source


def _tell_nobody(_bytes_there: int) -> None:
    """Of an upload's progress."""


def _line(what: str, command: Names | None) -> str | None:
    """A command as one line for a shell's rules. Raises UsageError."""
    return None if command is None else " ".join(map(quote, words_of(what, command)))
