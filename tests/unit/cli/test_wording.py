"""How values are worded."""

import pytest

from fleetctl.wording import (
    coloured_line,
    count,
    duration,
    parse_bytes,
    parse_duration,
    printable,
    printed_line,
    size,
    state_word,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.84, "0.8s"),
        (3.0, "3s"),
        (9.99, "10.0s"),
        (42.9, "42s"),
        (192.3, "3m12s"),
        (3600, "1h00m"),
        (18_425, "5h07m"),
        (1_051_200, "12d4h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86_400), ("250ms", 0.25)]
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1 s", "1w", "nan", "1e3", "inf", "9" * 400])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (54 << 20, "54.0 MiB"),
        (999 << 20, "999 MiB"),
        (1000 << 20, "0.98 GiB"),
        (5 << 40, "5.00 TiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_a_size_has_three_figures(number: int, text: str) -> None:
    assert size(number) == text


def test_states_are_lower_case_words_and_unspecified_is_unknown() -> None:
    assert state_word("WORKER_STATE_READY", "WORKER_STATE_") == "ready"
    assert state_word("ROLLOUT_KIND_SET_SIZE", "ROLLOUT_KIND_") == "set-size"
    assert state_word("APP_STATE_UNSPECIFIED", "APP_STATE_") == "unknown"


def test_one_worker_is_not_workers() -> None:
    assert (count(1, "worker"), count(0, "worker"), count(2, "worker")) == ("1 worker", "0 workers", "2 workers")


def test_control_characters_are_left_out() -> None:
    assert printable("a\x1b[2Jb\r\n\x9b31mc\t ") == "ab 31mc"


def test_a_printed_line_keeps_its_indentation_and_nothing_else_of_its_form() -> None:
    assert printed_line("\tat \x1b[31mmain\x1b[0m (\x1b]0;title\x07a.js)\a \r") == "        at main (a.js)"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("plain é", "plain é"),
        ("\x1b[1;31mred\x1b[0m\ttab", "\x1b[1;31mred\x1b[0m\ttab"),
        ("a\x1b[2J\x1b[Hb\x1b[?1049hc\rd\x1bce", "abcde"),
        ("a\x1b]0;title\x1b\\b\x1b]52;c;x\x07c", "abc"),
        ("a\x1b]0;no end", "a"),
        ("a\x1b", "a"),
        ("a\x1b[31", "a31"),
        ("\x9b2J\x00", "2J"),
    ],
)
def test_of_a_programs_line_only_text_and_colours_reach_a_terminal(text: str, kept: str) -> None:
    assert coloured_line(text) == kept


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1B", 1),
        ("64k", 65_536),
        ("300M", 314_572_800),
        ("1.5GiB", 3 * 2**29),
        ("2TB", 2**41),
    ],
)
def test_bytes_are_read_in_binary_units(text: str, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "M", "-1", "1e3", "1 M", "1P", "1Mi", "٣", "9" * 40])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of bytes"):
        parse_bytes(text)
