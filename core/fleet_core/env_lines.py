"""KEY=VALUE lines, as env files have them. Pure."""

import re

_BYTE_ORDER_MARK = "\ufeff"
_EXPORT = re.compile(r"^export\s+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "`": "`"}


class EnvLinesError(ValueError):
    """What is wrong, and in which line."""


def parse_env_lines(text: str) -> dict[str, str]:
    """The variables of one text. Raises EnvLinesError.

    A line is `KEY=VALUE`, with `export ` before it or not; empty lines and those that begin with # are left out. Within single
    quotes a value is taken as it stands, within double quotes the escapes of a shell and \\n, \\r, \\t count, and both may go on
    over several lines. Without quotes, spaces around the value and what follows ` #` are no part of it. Nothing is expanded.
    A file may come from Windows: lines that end with \\r\\n end with \\n, and a byte order mark is no part of the first one.
    """
    text = text.removeprefix(_BYTE_ORDER_MARK).replace("\r\n", "\n")
    variables: dict[str, str] = {}
    at, number = 0, 1
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].strip()
        if not line or line.startswith("#"):
            at, number = end + 1, number + 1
            continue
        name, equals, value = _EXPORT.sub("", line, count=1).partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            raise EnvLinesError(f"line {number} is not KEY=VALUE")
        if value[:1] in ("'", '"'):
            begin = text.index(value[0], text.index("=", at)) + 1
            value, end = _quoted(text, begin, value[0], number)
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()
        if "\0" in value:
            raise EnvLinesError(f"line {number} holds a NUL byte")
        variables[name] = value
        number += text.count("\n", at, end) + 1
        at = end + 1
    return variables


def _quoted(text: str, begin: int, quote: str, number: int) -> tuple[str, int]:
    """The value that begins at `begin`, and where its last line ends."""
    value: list[str] = []
    at = begin
    while at < len(text) and text[at] != quote:
        if quote == '"' and text[at] == "\\" and text[at + 1 : at + 2] in _ESCAPES:
            value.append(_ESCAPES[text[at + 1]])
            at += 2
            continue
        value.append(text[at])
        at += 1
    if at >= len(text):
        raise EnvLinesError(f"the quote that begins in line {number} has no end")
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    rest = text[at + 1 : end].strip()
    if rest and not rest.startswith("#"):
        raise EnvLinesError(f"line {number}: something follows the closing quote")
    return "".join(value), end
