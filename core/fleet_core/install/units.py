"""systemd units as text (systemd.unit(5), systemd.service(5), systemd.exec(5)). Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

UNIT_FOLDER = Path("/etc/systemd/system")

Setting = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Unit:
    """One service. A setting may stand there several times, in the order given."""

    name: str
    """Without ".service"."""
    unit: Sequence[Setting]
    service: Sequence[Setting]
    wanted_by: str = "multi-user.target"

    @property
    def path(self) -> Path:
        return UNIT_FOLDER / f"{self.name}.service"

    def render(self) -> str:
        sections = (("Unit", self.unit), ("Service", self.service), ("Install", (("WantedBy", self.wanted_by),)))
        return "\n".join(f"[{title}]\n" + "".join(_lines(settings)) for title, settings in sections)


def _lines(settings: Iterable[Setting]) -> Iterable[str]:
    return (f"{name}={value}\n" for name, value in settings)


def command(*argv: str | Path) -> str:
    """A command line of a unit: every word stands for itself, whatever is in it (systemd.service(5), "Command lines")."""
    return " ".join(_word(str(word)) for word in argv)


def _word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    if escaped == word and word and not any(character.isspace() or character in "';" for character in word):
        return word
    return f'"{escaped}"'


def daemon(*, restart_seconds: str, watchdog_seconds: int, kept_descriptors: int = 0) -> list[Setting]:
    """What all our daemons have in common: they say when they are ready and that they live, are started again for ever, and what
    they started outlives them."""
    settings = [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", f"{watchdog_seconds}s"),
        ("Restart", "always"),
        ("RestartSec", restart_seconds),
        ("KillMode", "process"),
        # What it started may be killed for want of memory without taking it along.
        ("OOMPolicy", "continue"),
        ("TasksMax", "infinity"),
    ]
    if kept_descriptors:
        settings.append(("FileDescriptorStoreMax", str(kept_descriptors)))
    return settings


FOR_EVER: Setting = ("StartLimitIntervalSec", "0")
"""In [Unit]. A start limit would also drop the descriptors that systemd keeps."""

ALONE: tuple[Setting, ...] = (
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectProc", "invisible"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RemoveIPC", "yes"),
    ("LockPersonality", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("UMask", "0077"),
)
"""For a daemon that needs nothing of its host but the network, its own folders and its own user."""
