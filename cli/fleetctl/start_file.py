"""`start FILE`, as `pm2 start ecosystem.config.js` is written: the apps of a file, with options of their own."""

from pathlib import Path
from typing import Any

import click

from fleetctl.command import FleetCommand, fleet_command
from fleetctl.settings import Settings

_ENDINGS = (".config.js", ".config.cjs", ".config.mjs", ".json", ".yml", ".yaml", ".toml")
"""What `pm2 start` takes for a list of apps (PM2's Common.isConfigFile), and fleet files."""


class StartCommand(FleetCommand):
    """Where the target is a file of apps, the command line is that of `start_file`: its --env is PM2's."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        target = self._target(args)
        if target.endswith(_ENDINGS) and not extra.get("resilient_parsing"):
            return start_file.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def _target(self, args: list[str]) -> str:
        """The first word that is neither an option nor an option's value; "": there is none before --."""
        valued = {
            spelling
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag
            for spelling in param.opts
        }
        words = iter(args)
        for word in words:
            if word == "--":
                break
            if not word.startswith("-"):
                return word
            if word in valued:
                next(words, None)
        return ""


@fleet_command("start")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--env", "env_name", default="", metavar="NAME", help="PM2's files: take env_NAME too.")
@click.option("--only", default="", metavar="APP[,APP]", help="Only these apps of the file.")
def start_file(settings: Settings, path: Path, env_name: str, only: str) -> None:
    """Start the apps of a file: PM2's ecosystem file, or a fleet file.

    This is `fleetctl apply -f FILE`: what runs already is left alone, or changed to what the file says.
    """
    from fleetctl.apply import apply_file  # only where a file is named: starting a script needs none of it

    apply_file(settings, path, env_name, only)
