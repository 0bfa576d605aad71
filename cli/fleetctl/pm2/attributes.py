"""Every attribute of a PM2 app, and what becomes of it here: PM2 7's schema (lib/API/schema.json) and its documentation.

docs/moving/pm2.md shows this table; a test holds the two together, and another walks it. Pure.
"""
# ruff: noqa: E501 (a table)

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Attribute:
    does: str
    """What fleetctl does with it, for the documentation. Of what is not kept: why, and what to do instead."""
    aliases: tuple[str, ...] = ()
    kept: bool = True
    """Not kept: whoever writes it is warned in one line."""
    quiet: tuple[Any, ...] = ()
    """Values that ask for nothing, so that there is nothing to warn of."""


def _lost(does: str, *aliases: str, quiet: tuple[Any, ...] = ()) -> Attribute:
    return Attribute(does, aliases, kept=False, quiet=quiet)


_MONITORING = "PM2's own monitoring: `fleetctl top`, `ps` and the Prometheus metrics show processes"

ATTRIBUTES: Mapping[str, Attribute] = {
    "script": Attribute("`command`: run by the interpreter PM2 would choose; with a space in it, by `bash -c`", ("exec", "cmd", "command")),
    "name": Attribute("the app's name, in lower case with hyphens"),
    "name_prefix": _lost("PM2's modules use it: write it into `name`"),
    "filter_env": Attribute("always so: a worker gets nothing of your shell's environment, only what `env` says"),
    "namespace": _lost("there are none: begin `name` with it", quiet=("default",)),
    "install_url": _lost("PM2's modules use it"),
    "cwd": Attribute("`cwd`, from the file's folder"),
    "args": Attribute("arguments after the script; a text is split as PM2 splits it"),
    "exec_interpreter": Attribute("the program before the script; `none`: the script by itself; `node@N` is warned about", ("interpreter",)),
    "node_args": Attribute("arguments before the script", ("interpreter_args", "interpreterArgs")),
    "out_file": _lost("each worker has log files of its own below the agent's log_dir: `fleetctl logs APP`", "out", "output", "out_log"),
    "error_file": _lost("each worker has log files of its own below the agent's log_dir: `fleetctl logs APP`", "error", "err", "err_file", "err_log"),
    "log_file": _lost("`fleetctl logs APP` merges what all workers print", "log", quiet=(False,)),
    "disable_logs": _lost("logs are always kept, and bounded by `log.max_size` and `log.max_files`", quiet=(False,)),
    "log_type": Attribute("`json`: `log.json`", ),
    "log_date_format": _lost("lines get `log.timestamps`, in RFC 3339 whatever the format"),
    "time": Attribute("`log.timestamps`"),
    "env": Attribute("`env`; a PORT in it is where the balancers listen (`route.http`), and each worker gets a PORT of its own"),
    "env_*": Attribute("over `env`, where `--env NAME` names it; `null` takes a variable away"),
    "max_memory_restart": Attribute("`limits.memory_restart`: replaced gracefully, start-first"),
    "pid_file": _lost("`fleetctl ps -o json` has the pids", "pid"),
    "restart_delay": Attribute("`restart.backoff` and `restart.backoff_max`, but the first restart is at once"),
    "exp_backoff_restart_delay": Attribute("`restart.backoff`, up to 15 s, anew after 30 s; it doubles, where PM2 takes half as much again"),
    "source_map_support": Attribute("Node's own `--enable-source-maps`"),
    "disable_source_map_support": Attribute("nothing is added to Node's command line unless `source_map_support` asks for it"),
    "wait_ready": Attribute("`ready.method: message`; not ready in time is a failure, where PM2 goes on"),
    "instances": Attribute("`size`; `max` and 0: one per core (`cpu`), -1: one less on each host (`cpu-1`)"),
    "kill_timeout": Attribute("`stop.grace`; without it, or with 0, 10 s, where PM2 has 1.6 s. The signal is SIGINT, as PM2's"),
    "shutdown_with_message": Attribute("`stop.shutdown_message`"),
    "listen_timeout": Attribute("`ready.start_timeout`; not listening in time is a failure, where PM2 goes on"),
    "cron_restart": Attribute("`cron_restart`, replaced gracefully; `0`: none. `@daily` and the like, too. A field for seconds that is not 0 is warned about", ("cron",)),
    "merge_logs": _lost("each worker has log files of its own; `fleetctl logs APP` shows them merged", "combine_logs", quiet=(False,)),
    "vizion": _lost("fleetctl looks at no version control: `fleetctl history APP` shows revisions", quiet=(False,)),
    "autostart": _lost("there is no app that never ran: the app is left out", quiet=(True,)),
    "autorestart": Attribute("`false`: `restart.mode: never`"),
    "stop_exit_codes": Attribute("`restart.stop_exit_codes`"),
    "watch_delay": _lost("there is no watch mode"),
    "watch": _lost("there is no watch mode: `fleetctl soft-restart APP` from your build tool", quiet=(False,)),
    "ignore_watch": _lost("there is no watch mode"),
    "watch_options": _lost("there is no watch mode"),
    "min_uptime": Attribute("`restart.stable`"),
    "max_restarts": Attribute("`restart.max_restarts`, one less, for PM2 counts the ends: within `restart.window`, 5 m or what PM2 takes"),
    "execute_command": Attribute("as `exec_mode: fork`"),
    "exec_mode": Attribute("`cluster`, which is also what `instances` of a Node program without it mean: each worker a process with a port of its own, behind the balancers; where no `port` is known that is warned about. `fork` without a port: `listen: none`, and replaced stop-first"),
    "force": _lost("an app has a name, and runs once under it", quiet=(False,)),
    "append_env_to_name": Attribute("`name-ENV` with `--env ENV`"),
    "post_update": _lost("nothing pulls code behind your back"),
    "trace": _lost(_MONITORING, quiet=(False,)),
    "disable_trace": Attribute("always so: nothing is traced"),
    "v8": _lost(_MONITORING, quiet=(False,)),
    "event_loop_inspector": _lost(_MONITORING, quiet=(False,)),
    "deep_monitoring": _lost(_MONITORING, quiet=(False,)),
    "increment_var": Attribute("`counters`: from the number it has in `env`, or 0, in slot 1 of every host"),
    "instance_var": Attribute("`counters`: 0 in slot 1 of every host, under this name or NODE_APP_INSTANCE"),
    "pmx": _lost(_MONITORING, quiet=(False,)),
    "automation": _lost(_MONITORING, quiet=(False,)),
    "treekill": _lost("a worker's whole tree is stopped, always", quiet=(True,)),
    "port": Attribute("`route.http`: the balancers listen there, and each worker gets a PORT of its own"),
    "username": _lost("PM2 writes it itself: `uid` says as whom to run"),
    "uid": Attribute("`identity.user`", ("user",)),
    "gid": Attribute("`identity.group`"),
    "windowsHide": _lost("there are no windows here", "windows_hide"),
    "kill_retry_time": _lost("whether a worker has ended is known, not asked for again and again"),
    "write": _lost("`fleetctl export` writes what runs", quiet=(False,)),
    "io": _lost(_MONITORING),
}  # fmt: skip


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def spellings() -> dict[str, str]:
    """Each way an attribute may be written → its name; PM2 takes camelCase of all."""
    known: dict[str, str] = {}
    for name, attribute in ATTRIBUTES.items():
        for spelling in (name, *attribute.aliases):
            known[spelling] = name
            known.setdefault(_camel(spelling), name)
    known.pop("env_*")
    return known


def table() -> str:
    """Markdown, for docs/moving/pm2.md."""
    rows = []
    for name, attribute in ATTRIBUTES.items():
        names = ", ".join(f"`{spelling}`" for spelling in (name, *attribute.aliases))
        rows.append(f"| {names} | {'' if attribute.kept else 'warned: '}{attribute.does} |")
    return "\n".join(("| attribute | here |", "|---|---|", *rows))
