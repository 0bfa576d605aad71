import json
from pathlib import Path

import pytest

from fleet_balancer.access_log.files import LogFile
from fleet_balancer.access_log.lines import as_combined, as_json
from fleet_balancer.haproxy.access import fields_of, read, server_of

FIRST = ("shop", "fd00::1", "8080", "1795751303368", "2", "30", "192.0.2.7", "50204")
TIMES = ("1", "2", "3", "4", "11")


def raw(*, method: str = "GET", status: str = "200", times: tuple[str, ...] = TIMES, texts: tuple[str, ...]) -> bytes:
    fields = (*FIRST, method, status, "1074", "91", *times, "----", "+2", "TLSv1.3", "s3", *texts)
    return "\t".join(fields).encode()


TEXTS = ("2.0", "shop.test", "\\/a\\/b?c=\\/", "-", "-", 'x\\"\\u00e9', "-")


def test_a_raw_line_becomes_json() -> None:
    fields = fields_of(raw(texts=TEXTS))
    assert server_of(fields) == ("fd00::1", "8080")
    line = json.loads(as_json(read(fields, "shop/prod1/3", 2)))
    assert line["time"] == "2026-11-27T03:48:23.400Z", "accepted, then a handshake, then silence"
    assert (line["server"], line["worker"], line["generation"]) == ("[fd00::1]:8080", "shop/prod1/3", 2)
    assert (line["first_byte_seconds"], line["seconds"], line["retries"]) == (0.01, 0.011, 2)
    assert (line["path"], line["protocol"], line["user_agent"]) == ("/a/b?c=/", "HTTP/2.0", 'x"é')
    assert (line["request_id"], line["referer"], "forwarded_for" in line) == (None, None, False)


def test_what_did_not_happen_took_no_time() -> None:
    times = ("1", "-1", "-1", "-1", "5")
    line = json.loads(as_json(read(fields_of(raw(status="-1", times=times, texts=TEXTS)), None, None)))
    assert [line[name] for name in ("status", "queue_seconds", "connect_seconds", "first_byte_seconds")] == [None] * 4
    assert line["seconds"] == 0.005


def test_combined_lines_have_a_request_or_say_that_there_was_none() -> None:
    shown = '192.0.2.7 - - [27/Nov/2026:03:48:23 +0000] "GET /a/b?c=/ HTTP/2.0" 200 1074 "-" "x\\"\\u00e9"\n'
    assert as_combined(read(fields_of(raw(texts=TEXTS)), None, None)).decode() == shown
    none = fields_of(raw(method="<BADREQ>", status="-1", texts=("-",) * 7))
    assert b'"-" 499 1074 "-" "-"' in as_combined(read(none, None, None))


def test_a_line_that_was_cut_lacks_its_end_and_nothing_else() -> None:
    whole = raw(texts=(*TEXTS[:4], "r" * 9, "\\u00e9" * 1000, "-"))
    cut = whole[:3999]
    line = json.loads(as_json(read(fields_of(cut), None, None)))
    assert (line["path"], line["referer"], line["user_agent"]) == ("/a/b?c=/", "r" * 9, None)
    with pytest.raises(ValueError, match="too early"):
        read(fields_of(whole[:40]), None, None)
    with pytest.raises(ValueError, match="invalid literal"):
        read(fields_of(whole.replace(b"1795751303368", b"x")), None, None)


def test_old_logs_are_numbered_and_only_so_many_kept(tmp_path: Path) -> None:
    folder = tmp_path
    path = folder / "shop.log"
    file = LogFile(path, 10, 2)
    for number in range(5):
        assert file.append(f"line {number}\n".encode())
    found = {one.name: one.read_text() for one in folder.iterdir()}
    assert found == {"shop.log": "line 4\n", "shop.log.1": "line 3\n", "shop.log.2": "line 2\n"}
    file.max_files = 0
    assert file.append(b"line 5\n")
    assert [(one.name, one.read_text()) for one in folder.iterdir()] == [("shop.log", "line 5\n")]
    file.close()


def test_a_line_that_a_dead_machine_left_half_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "shop.log"
    path.write_text("whole\nhal")
    file = LogFile(path, 1000, 1)
    assert file.append(b"next\n")
    assert path.read_text() == "whole\nhal\nnext\n"
    path.rename(path.with_name("elsewhere"))
    path.with_name("elsewhere").unlink()
    assert file.append(b"after\n")
    assert path.read_text() == "after\n"
    file.close()


def test_a_log_that_cannot_be_written_says_why_and_goes_on_when_it_can(tmp_path: Path) -> None:
    folder = tmp_path
    file = LogFile(folder / "sub" / "shop.log", 1000, 1)
    (folder / "sub").write_text("no folder")
    assert not file.append(b"lost\n")
    assert file.trouble == "File exists"
    (folder / "sub").unlink()
    assert file.append(b"kept\n")
    assert (file.trouble, file.path.read_text()) == ("", "kept\n")
    file.close()
