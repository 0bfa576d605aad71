from pathlib import Path

import pytest

from fleet_balancer.driver import DriverError
from fleet_balancer.haproxy import binary


def program(folder: Path, answer: str, status: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "haproxy"
    path.write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_the_newer_of_path_and_bundle_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "HAProxy version 99.1.7-1abcdef 2026/01/01 - https://haproxy.org/")
    assert binary.find(None) == binary.Binary(tmp_path / "haproxy", (99, 1, 7))
    program(tmp_path, "HAProxy version 2.6.1-1 2022/01/01 - https://haproxy.org/")
    assert binary.find(None).path != tmp_path / "haproxy"


def test_a_configured_one_is_taken_even_if_older(tmp_path: Path) -> None:
    path = program(tmp_path, "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/")
    assert str(binary.find(path)) == "2.6.12"


def test_development_versions_are_read(tmp_path: Path) -> None:
    assert binary.find(program(tmp_path, "HAProxy version 3.4-dev2-1234 2026/01/01")).version[:2] == (3, 4)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ("HA-Proxy version 1.8.19-1 2019/02/12", 0, "at least 2.6 is needed"),
        ("error while loading shared libraries: libcrypt.so.2", 127, "is not a HAProxy that runs here: error while"),
        ("hello", 0, "is not a HAProxy that runs here: hello"),
    ],
)
def test_what_does_not_serve_is_refused_in_one_line(tmp_path: Path, answer: str, status: int, words: str) -> None:
    with pytest.raises(DriverError, match=words):
        binary.find(program(tmp_path, answer, status))
