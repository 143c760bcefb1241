"""CPython's own tests of pickle, with put and get of a cache as `dumps` and `loads`.

    dumps(value, protocol)   put the value            -> its pickle, with the key on it
    loads(pickle)            get what the key is of, or, if the suite wrote the pickle, put its bytes and get them

Run as a program that is given the name of one class below. It prints what failed, and why what was skipped was.
"""

import contextlib
import itertools
import pickle
import sys
import unittest
from collections.abc import Iterator
from typing import Any, ClassVar

from test import pickletester

from distributed_consistent_cache import Cache, SerializationError
from raw_pickles import Bytes

# These put buffers beside a pickle by arguments of `pickle.dumps` and `pickle.loads`, or read pickles of Python 2 by
# them: put and get have no such arguments.
ARGUMENTS = "the test is about arguments of pickle.dumps or pickle.loads that put and get do not have"

# In which values are put.
PROTOCOL = 5

cache = Cache(3, 2, "256MiB", gossip_interval=None)
keys = map("key {}".format, itertools.count())


class Pickled(bytes):
    """What pickle makes of a value, and the key under which the value itself is in the cache."""

    key: str


@contextlib.contextmanager
def original_errors() -> Iterator[None]:
    """The suite waits for what pickle raises."""
    try:
        yield
    except SerializationError as error:
        cause = error.__cause__
        raise cause or error from None


class Reads:
    """What all suites below share."""

    bad_stack_errors: ClassVar = (pickle.UnpicklingError, IndexError)
    truncated_errors: ClassVar = (pickle.UnpicklingError, EOFError, AttributeError, ValueError, ImportError, IndexError)
    # It is about a class of pickle that is written in Python.
    test_framed_write_sizes_with_delayed_writer = None

    def put(self, key: str, value: object) -> None:
        with original_errors():
            assert cache.put(key, value)

    def get(self, key: str) -> Any:
        with original_errors():
            value, timestamp = cache.get(key)
        assert timestamp >= 0
        return value

    def loads(self, pickled: bytes, **arguments: Any) -> Any:
        if arguments:
            raise unittest.SkipTest(ARGUMENTS)
        if isinstance(pickled, Pickled):
            return self.get(pickled.key)
        key = next(keys)
        self.put(key, Bytes(pickled))
        try:
            return self.get(key)
        finally:
            cache.remove(key)


class PutAndGet(Reads, pickletester.AbstractPickleTests, unittest.TestCase):
    """Values are put as they are."""

    def dumps(self, value: object, protocol: int | None = None, **arguments: Any) -> bytes:
        if arguments:
            raise unittest.SkipTest(ARGUMENTS)
        pickled = Pickled(pickle.dumps(value, protocol))
        pickled.key = next(keys)
        self.put(pickled.key, value)
        return pickled


class PutManyAndGetMany(PutAndGet):
    """The same in bulk."""

    def put(self, key: str, value: object) -> None:
        with original_errors():
            assert cache.put_many([(key, value), (key + " again", value)]) == []

    def get(self, key: str) -> Any:
        with original_errors():
            return cache.get_many([key + " again", key])[key][0]


class AnyPickle(Reads, pickletester.AbstractPickleTests, pickletester.AbstractUnpickleTests, unittest.TestCase):
    """What is read are the suite's own pickles, of every protocol, and broken ones."""

    def dumps(self, value: object, protocol: int | None = None, **arguments: Any) -> bytes:
        if arguments:
            raise unittest.SkipTest(ARGUMENTS)
        return pickle.dumps(value, protocol)


if hasattr(pickletester, "AbstractPicklingErrorTests"):

    class Errors(PutAndGet, pickletester.AbstractPicklingErrorTests):
        """What cannot be pickled."""


def main() -> None:
    if issubclass(globals()[sys.argv[1]], PutAndGet):
        # Put writes no other, so there is nothing to see of what the suite knows of the others.
        pickletester.protocols = range(PROTOCOL, PROTOCOL + 1)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(globals()[sys.argv[1]])
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(suite)
    for test, reason in result.skipped:
        print("skipped", test.id().rpartition(".")[2], "|", reason)
    print("ran", result.testsRun, "ok" if result.wasSuccessful() else "FAILED")


if __name__ == "__main__":
    main()
