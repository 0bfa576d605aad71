"""The version is found without the library that is too big for it."""

from importlib.metadata import version

from fleet_core.version import program_version


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert program_version() == version("fleetctl")
