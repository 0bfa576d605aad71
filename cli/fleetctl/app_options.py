"""The options of `start` that describe an app. Each knows the field of the spec it fills and its section of the help."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fleet_core.route import AccessLogFormat, Forwarded
from fleet_core.spec import ListenMode, OnFailure, ReadyMethod
from fleetctl.command import BYTES, DURATION, POSITIVE_DURATION, Number, SectionOption, WholeNumber
from fleetctl.option_types import (
    CommandType,
    LimitType,
    ModeType,
    PageType,
    PairType,
    RateType,
    ReadyType,
    SignalType,
    SlotPairType,
    by_slot,
)

_ENVIRONMENT = "Environment"
_ROUTE = "Routes"
LISTENING = "Listening and readiness"
_STOP = "Stopping and restarting"
_LIMITS = "Identity and limits"
_LOG = "Logs"
_ROLLOUT = "Rollouts"
_HOSTS = "Hosts"


class SpecOption(SectionOption):
    """`field` is the path of the spec's field, "identity.user"; `collect` makes its value of what was given."""

    def __init__(self, *args: Any, field: str, collect: Callable[[Any], Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.field = tuple(field.split("."))
        self.collect = collect


def _option(*names: str, section: str, field: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=SpecOption, section=section, field=field, **attributes)


_METHODS = ("auto", *(method.value for method in ReadyMethod))

_OPTIONS = (
    click.option(
        "--http",
        cls=SpecOption,
        field="route.http",
        metavar="ADDR",
        help="Where clients reach it: :8080 on every balancer, 127.0.0.1:8080 on the one with that address.",
    ),
    click.option(
        "--cwd",
        cls=SpecOption,
        field="cwd",
        collect=str,
        type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
        help="Its working directory; default: this one.",
    ),
    # Routes
    _option(
        "--https", section=_ROUTE, field="route.https", metavar="ADDR",
        help="Where clients reach it by HTTPS: :8443, :443.",
    ),
    _option(
        "--tcp", section=_ROUTE, field="route.tcp", metavar="ADDR",
        help="Where clients reach it by plain TCP: :5432. Not with --http.",
    ),
    _option(
        "--redirect-https", section=_ROUTE, field="route.redirect_https", is_flag=True, default=None,
        help="Send requests that come by --http to --https.",
    ),
    _option(
        "--forwarded", section=_ROUTE, field="route.forwarded", type=click.Choice([way.value for way in Forwarded]),
        help="X-Forwarded-For, -Proto, -Host: believe nobody, add to what a proxy before said, or let pass. Default: replace.",
    ),
    _option(
        "--hostname", section=_ROUTE, field="route.hosts", multiple=True, metavar="NAME",
        help="Only requests for this name (*.example.com: one label more) are its; may be repeated.",
    ),
    _option(
        "--path", "route_paths", section=_ROUTE, field="route.paths", multiple=True, metavar="PREFIX",
        help="Only requests for this path and those below it are its; may be repeated.",
    ),
    _option(
        "--strip-path", section=_ROUTE, field="route.strip_path", is_flag=True, default=None,
        help="It sees paths without their prefix.",
    ),
    _option(
        "--sticky", section=_ROUTE, field="route.sticky", is_flag=True, default=None,
        help="Send a client to the same worker again, by a cookie.",
    ),
    _option(
        "--sticky-drain", section=_ROUTE, field="route.sticky_drain_seconds", type=DURATION, metavar="TIME",
        help="A worker that drains keeps the clients that stick to it for so long; default: 10s.",
    ),
    _option(
        "--max-connections", section=_ROUTE, field="route.max_connections", type=WholeNumber(1, 100_000), metavar="N",
        help="Requests a worker gets at a time from each balancer; others wait.",
    ),
    _option(
        "--max-queue", section=_ROUTE, field="route.max_queue", type=WholeNumber(1, 100_000), metavar="N",
        help="More than so many waiting requests are answered 503 at once.",
    ),
    _option(
        "--compression", section=_ROUTE, field="route.compression", is_flag=True, default=None,
        help="Send text, JSON and scripts compressed by gzip to clients that accept it.",
    ),
    _option(
        "--rate-limit", section=_ROUTE, field="route.rate_limit", type=RateType(), metavar="N/TIME",
        help="More requests of one address are answered 429: 100/10s.",
    ),
    _option(
        "--error-page", section=_ROUTE, field="route.error_pages", collect=dict, multiple=True, type=PageType(),
        metavar="STATUS=FILE", help="HTML for what balancers themselves answer: 503=./busy.html. Repeatable.",
    ),
    _option(
        "--cache", section=_ROUTE, field="route.cache.max_age_seconds", type=DURATION, metavar="TIME",
        help="Balancers keep answers that may be kept, for so long at most.",
    ),
    _option(
        "--cache-max-object", section=_ROUTE, field="route.cache.max_object_bytes", type=BYTES, metavar="SIZE",
        help="Larger answers are not kept; default: 64K, at most 1M.",
    ),
    _option(
        "--slow-start", section=_ROUTE, field="route.slow_start_seconds", type=DURATION, metavar="TIME",
        help="A worker that is new gets its share little by little.",
    ),
    _option(
        "--access-log", section=_ROUTE, field="route.access_log.format",
        type=click.Choice([way.value for way in AccessLogFormat]),
        help="A line for each request, in a file on each balancer's host; default: off.",
    ),
    _option(
        "--access-log-query", section=_ROUTE, field="route.access_log.query", is_flag=True, default=None,
        help="In these lines, paths with what stands behind their question mark.",
    ),
    # Environment
    _option(
        "-e", "--env", section=_ENVIRONMENT, field="env", collect=dict, multiple=True, type=PairType(),
        metavar="K=V", help="Add to its environment; may be repeated.",
    ),
    _option(
        "--env-file", section=_ENVIRONMENT, field="env_files", multiple=True, metavar="FILE",
        help="Read K=V lines from a file on the host, at each start; -e wins. May be repeated.",
    ),
    _option(
        "--worker-env", section=_ENVIRONMENT, field="worker_env", collect=by_slot, multiple=True,
        type=SlotPairType(), metavar="SLOT:K=V", help="For the worker in this slot alone: 1:ROLE=primary.",
    ),
    # Listening and readiness
    _option(
        "--listen", "listen_mode", section=LISTENING, field="listen_mode", type=click.Choice([mode.value for mode in ListenMode]),
        help="Its own port each; one socket a host, inherited by all; or none. Default: port.",
    ),
    _option(
        "--port", section=LISTENING, field="declared_port", type=WholeNumber(1, 65_535), metavar="N",
        help="The port in its source; default: its first listen.",
    ),
    _option(
        "--ready", section=LISTENING, field="ready.method", type=ReadyType(_METHODS),
        metavar="|".join(_METHODS), help="How it is found out that a worker is ready.",
    ),
    _option(
        "--ready-path", section=LISTENING, field="ready.http_path", metavar="PATH",
        help="Ready when a GET of it answers 200 to 399.",
    ),
    _option(
        "--ready-command", section=LISTENING, field="ready.command", type=CommandType(), metavar="'CMD …'",
        help="Ready when it exits with 0; run on the host, without a shell.",
    ),
    _option(
        "--start-timeout", section=LISTENING, field="ready.start_timeout_seconds", type=POSITIVE_DURATION,
        metavar="TIME", help="Not ready after this long is a failure; default: 30s.",
    ),
    _option(
        "--min-uptime", section=LISTENING, field="ready.min_uptime_seconds", type=DURATION, metavar="TIME",
        help="Alive this long is ready, where nothing else says so; default: 1s.",
    ),
    _option(
        "--check-interval", section=LISTENING, field="ready.interval_seconds", type=POSITIVE_DURATION, metavar="TIME",
        help="Between two checks of a ready worker; default: 5s.",
    ),
    _option(
        "--check-timeout", section=LISTENING, field="ready.timeout_seconds", type=POSITIVE_DURATION, metavar="TIME",
        help="Longest that one check may take; default: 5s.",
    ),
    _option(
        "--check-failures", section=LISTENING, field="ready.unready_threshold", type=WholeNumber(min=1), metavar="N",
        help="Failed checks in a row that make it unready; default: 3.",
    ),
    _option(
        "--watchdog", section=LISTENING, field="ready.watchdog_seconds", type=POSITIVE_DURATION, metavar="TIME",
        help="Restart it when it sends no WATCHDOG=1 for this long.",
    ),
    # Stopping and restarting
    _option(
        "--stop-signal", section=_STOP, field="stop.signal", type=SignalType(), metavar="SIGNAL",
        help="Default: SIGTERM.",
    ),
    _option(
        "--grace", section=_STOP, field="stop.grace_seconds", type=DURATION, metavar="TIME",
        help="Between the stop signal and SIGKILL; default: 10s.",
    ),
    _option(
        "--shutdown-message", section=_STOP, field="stop.shutdown_message", is_flag=True, default=None,
        help="Send Node's message 'shutdown' first; the signal follows after half of --grace.",
    ),
    _option(
        "--restart", section=_STOP, field="restart.mode", type=ModeType(["always", "on-failure", "never"]),
        help="When a worker that ended by itself is started again; default: always.",
    ),
    _option(
        "--stop-exit-code", section=_STOP, field="restart.stop_exit_codes", multiple=True,
        type=WholeNumber(0, 255), metavar="N", help="Ended with this, it stays down; may be repeated.",
    ),
    _option(
        "--max-restarts", section=_STOP, field="restart.max_restarts", type=WholeNumber(min=0), metavar="N",
        help="More within --restart-window, and it is failed; default: 10.",
    ),
    _option(
        "--restart-window", section=_STOP, field="restart.window_seconds", type=POSITIVE_DURATION, metavar="TIME",
        help="What --max-restarts counts in; default: 5m.",
    ),
    _option(
        "--cron-restart", section=_STOP, field="cron_restart", metavar="'0 3 * * *'",
        help="Replace each worker, gracefully, at these times (crontab(5), the host's clock).",
    ),
    # Identity and limits
    _option("--user", section=_LIMITS, field="identity.user", metavar="USER", help="Run as this user of the host."),
    _option(
        "--group", section=_LIMITS, field="identity.group", metavar="GROUP", help="Default: the user's primary group."
    ),
    _option("--umask", section=_LIMITS, field="identity.umask", metavar="OCTAL", help="Default: 022."),
    _option(
        "--nice", section=_LIMITS, field="identity.nice", type=WholeNumber(-20, 19), metavar="N",
        help="From -20, which is served first, to 19.",
    ),
    _option(
        "--limit", section=_LIMITS, field="identity.resource_limits", collect=dict, multiple=True,
        type=LimitType(), metavar="NAME=SOFT[:HARD]", help="setrlimit(2): NOFILE=65536, CORE=0:unlimited. Repeatable.",
    ),
    _option(
        "--max-memory", section=_LIMITS, field="limits.memory_restart_bytes", type=BYTES, metavar="SIZE",
        help="Above this (300M, 1G) a worker is replaced, gracefully.",
    ),
    _option(
        "--memory-limit", section=_LIMITS, field="limits.memory_max_bytes", type=BYTES, metavar="SIZE",
        help="cgroup: above this the kernel ends it.",
    ),
    _option(
        "--cpu-limit", section=_LIMITS, field="limits.cpu_max_cores", type=Number(0, min_open=True),
        metavar="CORES", help="cgroup: 0.5 is half of one core.",
    ),
    _option(
        "--pids-limit", section=_LIMITS, field="limits.pids_max", type=WholeNumber(min=1), metavar="N",
        help="cgroup: processes and threads in all.",
    ),
    # Logs
    _option(
        "--log-timestamps", section=_LOG, field="log.timestamps", is_flag=True, default=None,
        help="Begin each line with the time it was read.",
    ),
    _option(
        "--log-json", section=_LOG, field="log.json_lines", is_flag=True, default=None,
        help="Keep each line as a JSON object.",
    ),
    _option(
        "--log-max-size", section=_LOG, field="log.max_bytes", type=BYTES, metavar="SIZE",
        help="Rotate at this size; default: 10M.",
    ),
    _option(
        "--log-files", section=_LOG, field="log.max_files", type=WholeNumber(min=0), metavar="N",
        help="Rotated files kept; default: 5.",
    ),
    _option(
        "--log-max-age", section=_LOG, field="log.max_age_seconds", type=POSITIVE_DURATION, metavar="TIME",
        help="Rotate after, and delete what is older (7d).",
    ),
    _option(
        "--log-compress", section=_LOG, field="log.compress", is_flag=True, default=None, help="gzip rotated files."
    ),
    # Rollouts
    _option(
        "--min-ready", section=_ROLLOUT, field="rollout.min_ready_seconds", type=DURATION, metavar="TIME",
        help="A new worker must stay ready this long; default: 0.5s.",
    ),
    _option(
        "--drain-timeout", section=_ROLLOUT, field="rollout.drain_timeout_seconds", type=DURATION, metavar="TIME",
        help="Longest wait for requests in flight; default: 30s.",
    ),
    _option(
        "--max-surge", section=_ROLLOUT, field="rollout.max_surge", type=WholeNumber(0, 1000), metavar="N",
        help="Extra workers per host while replacing; 0: stop first. Default: 1.",
    ),
    _option(
        "--max-unavailable", section=_ROLLOUT, field="rollout.max_unavailable", type=WholeNumber(0, 10_000), metavar="N",
        help="Workers that may be missing meanwhile; default: 0, or 1 with --max-surge 0.",
    ),
    _option(
        "--parallel-hosts", section=_ROLLOUT, field="rollout.parallel_hosts", type=WholeNumber(1, 10_000), metavar="N",
        help="Replace on so many hosts at the same time; default: 1.",
    ),
    _option(
        "--bake-time", section=_ROLLOUT, field="rollout.bake_seconds", type=DURATION, metavar="TIME",
        help="The first worker of a new revision must stay ready this long; default: 10s.",
    ),
    _option(
        "--canary", section=_ROLLOUT, field="rollout.canary", type=WholeNumber(0, 10_000), metavar="N",
        help="Replace N workers first, then wait for `rollout promote` or --canary-time.",
    ),
    _option(
        "--canary-time", section=_ROLLOUT, field="rollout.canary_seconds", type=DURATION, metavar="TIME",
        help="Canaries ready for this long are good enough to go on.",
    ),
    _option(
        "--on-failure", section=_ROLLOUT, field="rollout.on_failure", type=click.Choice([way.value for way in OnFailure]),
        help="Of a rollout that fails: go back, or wait for you; default: rollback.",
    ),
    _option(
        "--progress-deadline", section=_ROLLOUT, field="rollout.progress_deadline_seconds", type=DURATION,
        metavar="TIME", help="Nothing done for this long is a failure; 0: never. Default: 10m.",
    ),
    # Hosts
    _option(
        "--host-label", section=_HOSTS, field="placement.labels", collect=dict, multiple=True, type=PairType(),
        metavar="K=V", help="Only on hosts with this label; may be repeated.",
    ),
    _option(
        "--lost-after", section=_HOSTS, field="placement.lost_after_seconds", type=DURATION, metavar="TIME",
        help="Replace its workers of a host not heard of for this long; 0: never. Default: 150s.",
    ),
)  # fmt: skip


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: every option that describes an app, in the order of the help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
