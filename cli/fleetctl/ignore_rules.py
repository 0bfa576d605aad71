"""Which files of a folder are left out of what is deployed: .gitignore and .npmignore, as git and npm read them.

Rules of a file bear on its own folder and those below; the deepest one that says anything decides (gitignore(5)). A .npmignore
takes the place of the .gitignore beside it, as in `npm pack`.
"""

from pathlib import Path

from pathspec import GitIgnoreSpec

NEVER = frozenset({".git", "node_modules"})
"""Never sent, whatever the rules say: a history, and what the build step makes anew for each host."""
_RULE_FILES = (".npmignore", ".gitignore")


class IgnoreRules:
    """Of the folder `root`; the rules of folders below are added as a walk meets them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rules: dict[str, GitIgnoreSpec] = {}

    def enter(self, folder: str) -> None:
        """A folder, by its path below the root ("" the root), is about to be walked. Raises OSError, UnicodeDecodeError."""
        for name in _RULE_FILES:
            path = self._root / folder / name
            if path.is_file():
                self._rules[folder] = GitIgnoreSpec.from_lines(path.read_text().splitlines())
                return

    def leaves_out(self, name: str, *, is_folder: bool) -> bool:
        """`name`: the path below the root."""
        if name.rpartition("/")[2] in NEVER:
            return True
        folder = name
        while folder:
            folder = folder.rpartition("/")[0]
            rules = self._rules.get(folder)
            if rules is None:
                continue
            below = name.removeprefix(f"{folder}/") if folder else name
            said = rules.check_file(f"{below}/" if is_folder else below).include
            if said is not None:
                return said
        return False
