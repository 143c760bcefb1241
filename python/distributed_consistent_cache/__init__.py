"""A replicated in-process cache: N nodes, R copies of every entry, the newest timestamp wins.

>>> from distributed_consistent_cache import Cache
>>> cache = Cache(nodes=5, replicas=3, node_capacity="1MiB")
>>> cache.put("user:1", {"name": "Ada"}, timestamp=2)
True
>>> cache.put("user:1", {"name": "late news"}, timestamp=1)  # older than what is known, so refused
False
>>> cache.fail_node(cache.owners("user:1")[0])  # two copies are left
>>> cache.get("user:1")
({'name': 'Ada'}, 2)
>>> cache.get("user:2")  # a miss
(None, -1)
>>> cache.close()
"""

from typing import TYPE_CHECKING

from ._core import (
    Cache,
    CacheError,
    ClosedError,
    KeyTooLargeError,
    Node,
    NodeDownError,
    NodeStatus,
    NoLiveNodeError,
    QuorumError,
    SerializationError,
    SyncReport,
    ValueTooLargeError,
)

__all__ = [
    "Cache",
    "CacheError",
    "ClosedError",
    "KeyTooLargeError",
    "NoLiveNodeError",
    "Node",
    "NodeDownError",
    "NodeStatus",
    "QuorumError",
    "SerializationError",
    "SyncReport",
    "ValueTooLargeError",
    "__version__",
]

__version__: str

if not TYPE_CHECKING:

    def __getattr__(name: str) -> str:
        # Read when it is asked for: `importlib.metadata` takes longer to import than all of this package.
        if name == "__version__":
            from importlib.metadata import version

            return version("distributed-consistent-cache")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
