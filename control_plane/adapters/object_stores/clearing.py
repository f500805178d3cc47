"""Deleting everything below a prefix, and making sure of it. Blocks: run it in a thread."""

from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.domain.errors import StoreUnavailable


def clear(store: ObjectStore, prefix: str) -> int:
    """Delete every object, and every upload that nobody finished, below ``prefix``; how many.

    Raises:
        StoreUnavailable: something is still there.
    """
    unfinished = list(store.pending(prefix))
    for upload in unfinished:
        store.abort_pending(upload)
    found = [one.key for one in store.list(prefix)]
    store.delete(found)
    require_clear(store, prefix)
    return len(found) + len(unfinished)


def require_clear(store: ObjectStore, prefix: str) -> None:
    """Look that nothing is below ``prefix``.

    Raises:
        StoreUnavailable: something is.
    """
    left = [one.key for one in store.list(prefix)] + [one.key for one in store.pending(prefix)]
    if left:
        raise StoreUnavailable(f"{len(left)} objects below {prefix} are still in the store")
