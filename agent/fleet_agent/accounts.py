"""The user and group a worker runs as, looked up in this host's account database (man 5 passwd)."""

import grp
import os
import pwd
from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """A user of this host; a number without an entry has no name."""

    uid: int
    gid: int
    name: str = ""
    home: str = ""
    shell: str = ""

    def variables(self) -> dict[str, str]:
        """What login(1) sets."""
        if not self.name:
            return {"HOME": "/"}
        return {"HOME": self.home or "/", "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell or "/bin/sh"}

    def groups(self) -> list[int]:
        """Supplementary ones."""
        return os.getgrouplist(self.name, self.gid) if self.name else []


def find_account(user: str) -> Account | None:
    """By name or number; None where the name is not known here. A number is taken without an entry, too."""
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return Account(int(user), int(user)) if user.isdecimal() else None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir, entry.pw_shell)


def find_group(group: str) -> int | None:
    """By name or number; None where the name is not known here."""
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
