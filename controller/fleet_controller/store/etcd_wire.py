"""etcd's messages, as etcd3aio generated them, from and to the store's own words.

They are private to etcd3aio: this module alone knows that, and pyproject.toml pins etcd3aio below 0.4.
"""

from typing import Any

from etcd3aio import _protobuf as etcd
from etcd3aio.kv import KVService, prefix_range_end

from fleet_controller.store.interface import Created, Delete, Item, Put, Unchanged

WatchStub = etcd.WatchStub


def compare(expectation: Unchanged | Created) -> Any:
    key = expectation.key.encode()
    if isinstance(expectation, Created):
        return etcd.Compare(
            target=etcd.Compare.CREATE,
            result=etcd.Compare.EQUAL,
            key=key,
            create_revision=expectation.create_revision,
        )
    return etcd.Compare(
        target=etcd.Compare.MOD, result=etcd.Compare.EQUAL, key=key, mod_revision=expectation.mod_revision
    )


def operation(wanted: Put | Delete) -> Any:
    if isinstance(wanted, Put):
        return KVService.txn_op_put(wanted.key, wanted.value, lease=wanted.lease)
    return KVService.txn_op_delete(wanted.key)


def item(kv: Any) -> Item:
    return Item(kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision)


def change(event: Any) -> tuple[str, Item | None]:
    if event.type == event.DELETE:
        return event.kv.key.decode(), None
    found = item(event.kv)
    return found.key, found


def watch_request(prefix: str, start_revision: int) -> Any:
    key = prefix.encode()
    return etcd.WatchRequest(
        create_request=etcd.WatchCreateRequest(
            key=key, range_end=prefix_range_end(key), start_revision=start_revision, fragment=True
        )
    )


def progress_request() -> Any:
    request = etcd.WatchRequest()
    request.progress_request.SetInParent()
    return request
