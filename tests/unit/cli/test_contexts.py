"""Contexts on disk."""

from pathlib import Path

import pytest

from fleet_core.contexts import Context, ContextError, config_path, load_contexts, remove_context, save_context


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "deeper" / "config.toml"
    monkeypatch.setenv("FLEET_CONFIG", str(path))
    return path


def context(tmp_path: Path, port: int = 7400) -> Context:
    return Context((f"127.0.0.1:{port}", "[::1]:7401"), tmp_path / "ca.pem", tmp_path / "me.pem", tmp_path / "me.key")


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    saved = Context(("127.0.0.1:7400",), tmp_path / 'a "b" \\ c\x7f.pem', tmp_path / "é\n.pem", tmp_path / "k.key")
    save_context("local", saved, make_current=True)
    assert load_contexts().choose(None) == ("local", saved)


def test_the_first_context_becomes_current_and_a_second_only_when_asked(tmp_path: Path) -> None:
    save_context("one", context(tmp_path), make_current=False)
    save_context("two", context(tmp_path, 2), make_current=False)
    assert load_contexts().choose(None)[0] == "one"
    save_context("two", context(tmp_path, 3), make_current=True)
    assert load_contexts().choose(None) == ("two", context(tmp_path, 3))
    assert load_contexts().choose("one") == ("one", context(tmp_path))


def test_removing_the_current_context_leaves_none_current(tmp_path: Path) -> None:
    save_context("one", context(tmp_path), make_current=True)
    save_context("two", context(tmp_path), make_current=False)
    remove_context("one")
    remove_context("never-there")
    with pytest.raises(ContextError, match=r"no context is current.*known: two"):
        load_contexts().choose(None)


def test_the_file_is_for_its_owner_only(tmp_path: Path, config: Path) -> None:
    save_context("one", context(tmp_path), make_current=True)
    assert config.stat().st_mode & 0o777 == 0o600


def test_without_a_file_the_error_says_how_to_begin() -> None:
    with pytest.raises(ContextError, match="fleetctl up"):
        load_contexts().choose(None)


def test_an_unknown_context_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    save_context("one", context(tmp_path), make_current=True)
    with pytest.raises(ContextError, match=r"'prod' is not in .*known: one"):
        load_contexts().choose("prod")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("current = ", "not TOML"),
        ("current = 3", "`current` must be a name"),
        ("[contexts]\none = 1", "must be a table"),
        ("[contexts.one]\ncontrollers = []", "controllers must be a list"),
        ('[contexts.one]\ncontrollers = ["a:1"]\nauthority = "x"', "certificate must be the path"),
    ],
)
def test_a_damaged_file_is_one_clear_line(config: Path, text: str, complaint: str) -> None:
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(ContextError, match=complaint) as raised:
        load_contexts()
    assert "\n" not in str(raised.value)


def test_relative_paths_are_relative_to_the_file(config: Path) -> None:
    config.parent.mkdir()
    config.write_text(
        '[contexts.one]\ncontrollers = ["a:1"]\nauthority = "ca.pem"\ncertificate = "/x/c.pem"\nkey = "k"'
    )
    _, chosen = load_contexts().choose("one")
    assert chosen == Context(("a:1",), config.parent / "ca.pem", Path("/x/c.pem"), config.parent / "k")


def test_a_relative_xdg_config_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_CONFIG")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_CONFIG_HOME", "here")
    assert config_path() == Path("/home/ada/.config/fleetctl/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/ada")
    assert config_path() == Path("/etc/ada/fleetctl/config.toml")
