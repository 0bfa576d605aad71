"""What controllers are, and the backups they give, as frozen values: the objects that `-o json` prints."""

from fleetctl.client.values import Value


class Controller(Value, frozen=True):
    """One controller, as it was found when it was asked."""

    name: str
    """Empty: it is not known, because it did not answer."""
    address: str
    leads: bool
    leading_seconds: float
    version: str
    reachable: bool
    etcd_ok: bool
    error: str
    """Why it did not answer, or etcd did not answer it."""


class Backup(Value, frozen=True):
    """A backup that was written."""

    file: str
    fleet_id: str
    era: int
    etcd_revision: int
    records: int
    taken_at: str
    """RFC 3339, by this machine's clock."""
    apps: int = 0
    revisions: int = 0
    rollouts: int = 0
    hosts: int = 0
    balancers: int = 0
    controllers: int = 0


class Restored(Value, frozen=True):
    """A backup that was put back."""

    era: int
    records: int
    paused_apps: tuple[str, ...]
    """Whose rollouts were under way when it was taken: `rollout(app)` resumes or aborts them."""
