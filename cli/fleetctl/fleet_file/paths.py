"""Paths of a file, which count from the folder it lies in, or from the folder of the code it names. Pure."""

import os
from pathlib import Path, PurePosixPath


def absolute(path: str, folder: Path) -> str:
    """Without a look at the disk: it is the hosts' that counts. ~ is the home of who says it."""
    return os.path.normpath(folder / Path(path).expanduser())


def within_code(path: str) -> str | None:
    """Relative to the code's folder; None: it is not in it."""
    normal = PurePosixPath(os.path.normpath(path))
    return None if path.startswith("~") or normal.is_absolute() or ".." in normal.parts else str(normal)
