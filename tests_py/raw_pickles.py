"""Pickles that no pickler wrote, in a cache: any bytes can be put as if pickle had written them.

Import this first in a program of its own: it replaces `pickle.Pickler` before the first put, which looks it up.
"""

import pickle
from typing import Any

from distributed_consistent_cache import Cache

CPYTHONS_PICKLER = pickle.Pickler


class Bytes:
    """A value whose pickle is known: these bytes, whatever they are, and these buffers beside them."""

    def __init__(self, pickled: bytes, buffers: tuple[bytes, ...] = ()) -> None:
        self.pickled = pickled
        self.buffers = buffers


class Pickler:
    """`pickle.Pickler`, which for `Bytes` writes what it is given."""

    def __init__(self, file: Any, *arguments: Any) -> None:
        self._file = file
        self._take_buffer = arguments[-1] if arguments else None
        pickler = CPYTHONS_PICKLER(file, *arguments)
        self._dump = pickler.dump
        self.clear_memo = pickler.clear_memo

    def dump(self, value: object) -> None:
        if type(value) is Bytes:
            self._file.write(bytes(value.pickled))
            for buffer in value.buffers:
                self._take_buffer(pickle.PickleBuffer(buffer))
        else:
            self._dump(value)


pickle.Pickler = Pickler  # type: ignore[assignment, misc]


def get_of(cache: Cache, pickled: bytes, buffers: tuple[bytes, ...] = ()) -> Any:
    """What a get gives for these bytes."""
    assert cache.put("raw", Bytes(pickled, buffers))
    value, timestamp = cache.get("raw")
    assert timestamp >= 0
    return value
