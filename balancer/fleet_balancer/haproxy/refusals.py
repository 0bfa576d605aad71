"""What becomes of a list with a route that HAProxy does not start with: it is applied without that."""

from collections.abc import Mapping

from fleet_balancer.driver import Pool, Route
from fleet_balancer.haproxy.complaints import ConfigurationRefusedError, complaint
from fleet_balancer.haproxy.instance import Files
from fleet_balancer.haproxy.layout import frontend
from fleet_balancer.haproxy.routes import clashes


class Refusals:
    """Remembers what this HAProxy refused: it is not asked again."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._unwanted: dict[str, tuple[Route | None, str, str]] = {}
        """By pool: route, health path, and why not."""

    def known(self, pool: Pool) -> str:
        """Why HAProxy would not start with `pool`, as far as it is known; else ""."""
        route, health_path, why = self._unwanted.get(pool.name, (None, "", ""))
        return why if (route, health_path) == _shape(pool) else ""

    def told(self, words: str, pool: str) -> str:
        """For the operator; `pool` "": whose fault it is HAProxy did not say."""
        whose = f"the route of {pool}" if pool else "its configuration"
        return f"HAProxy {self._version} refuses {whose}: {words}"

    def of(self, said: str, files: Files, wanted: Mapping[str, Pool]) -> ConfigurationRefusedError | None:
        """What HAProxy `said` against the configuration in `files`; None: nothing."""
        if "[ALERT]" not in said:
            return None
        frontends = {
            name: map(frontend, pool.route.entrances) for name, pool in wanted.items() if pool.route is not None
        }
        found = complaint(said, files.configuration.read_text(), {name: set(them) for name, them in frontends.items()})
        return ConfigurationRefusedError(self.told(found.words, found.pool), found.pool)

    def given_up(
        self,
        wanted: Mapping[str, Pool],
        standing: Mapping[str, Pool],
        error: ConfigurationRefusedError,
        *,
        serving: bool,
    ) -> set[str]:
        """Without which pools' change HAProxy may start: the one it complains about, or all that changed where it does not say.

        `serving`: one runs with those that stand. Where none does, not even what stands is sacred: the others shall be served.
        """
        changed = {
            name for name, pool in wanted.items() if name not in standing or _shape(pool) != _shape(standing[name])
        }
        if error.pool in changed:
            self._unwanted[error.pool] = (*_shape(wanted[error.pool]), str(error))
            return {error.pool}
        if not changed and error.pool in wanted and not serving:
            return {error.pool}
        return changed


def possible(pools: Mapping[str, Pool], refused: dict[str, str], standing: Mapping[str, Pool]) -> dict[str, Pool]:
    """`pools`, with those that are `refused` as they stand, or not at all; adds to `refused` whom that hits."""
    wanted = {name: pool for name, pool in pools.items() if name not in refused}
    wanted.update((name, standing[name]) for name in refused if name in standing)
    # The standing version of a refused pool may hold a route that another one was about to get.
    for name, reason in clashes(wanted, standing).items():
        refused.setdefault(name, reason)
        del wanted[name]
    return wanted


def _shape(pool: Pool) -> tuple[Route | None, str]:
    """What takes another HAProxy to change."""
    return pool.route, pool.health_path
