"""docs/install.md as the script that tests/hosts carries out."""

from pathlib import Path

from tests.hosts.handbook import Block, blocks

_PAGE = Path(__file__).parents[2] / "docs" / "install.md"


def test_blocks_say_where_they_belong() -> None:
    page = "text\n```sh\n# on web1\na\nb\n```\nmore\n```ini\n# on ctl1: /etc/x.service\n[Unit]\n```\n```sh\nnot ours\n```\n"
    assert blocks(page) == [Block("web1", "a\nb\n"), Block("ctl1", "[Unit]\n", "/etc/x.service")]


def test_the_page_installs_every_kind_of_machine() -> None:
    text = {block.where: block.text for block in blocks(_PAGE.read_text())}
    assert {"every machine", "ctl1", "lb1", "web1", "web2", "upgrade web1", "remove web2"} == set(text)
