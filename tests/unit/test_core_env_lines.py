"""KEY=VALUE lines: what one means, and how a mistake is named."""

import pytest

from fleet_core.env_lines import EnvLinesError, parse_env_lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
        ("# note\n\n  # indented\nexport A=1 # one", {"A": "1"}),
        ("URL=http://x/#top", {"URL": "http://x/#top"}),
        ("EMPTY=\nALSO= # nothing", {"EMPTY": "", "ALSO": ""}),
        (r"""A='as $it \n stands' # note""", {"A": r"as $it \n stands"}),
        (r'''A="tab\t \"quoted\" \$x \x"''', {"A": 'tab\t "quoted" $x \\x'}),
        ('KEY="one\ntwo"\nB=2', {"KEY": "one\ntwo", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ('KEY="one\r\ntwo"\r\nB=2\r\n', {"KEY": "one\ntwo", "B": "2"}),
        ("\ufeffA=1\nB=2", {"A": "1", "B": "2"}),
        ("export\tA=1\nexport  B=2", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("", {}),
    ],
)
def test_what_lines_say(text: str, expected: dict[str, str]) -> None:
    assert parse_env_lines(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("A=1\nnonsense", "line 2 is not KEY=VALUE"),
        ("1A=2", "line 1 is not KEY=VALUE"),
        ("A=1\n\nB='x\ny", "the quote that begins in line 3 has no end"),
        ('A="x" y', "line 1: something follows the closing quote"),
        ('A="x\ny"\nnonsense', "line 3 is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_understood_is_named_by_its_line(text: str, complaint: str) -> None:
    with pytest.raises(EnvLinesError, match=complaint):
        parse_env_lines(text)
