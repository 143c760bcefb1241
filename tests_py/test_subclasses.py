"""A cache of the user's own class is a cache: with attributes and doubles of its own, and collected as any object."""

import gc
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

from distributed_consistent_cache import Cache


class Counting(Cache):
    """Counts its gets."""

    gets = 0

    def get(self, key: str, default: Any = None, **others: Any) -> tuple[Any, int]:
        self.gets += 1
        return super().get(key, default, **others)


def test_a_cache_of_the_users_own_class_is_a_cache(tmp_path: Path) -> None:
    with Counting(2, gossip_interval=None) as cache:
        cache.put("key", [1], 1)
        assert (cache.get("key"), cache.get("nobody", 5)) == (([1], 1), (5, -1))
        assert cache.gets == 2
        cache.save(tmp_path / "cache")
    assert cache.closed
    with Counting.load(tmp_path / "cache", gossip_interval=None) as again:
        assert type(again) is Counting
        assert again.get("key") == ([1], 1)


def test_a_method_of_one_cache_can_be_replaced_in_a_test() -> None:
    with Counting(gossip_interval=None) as cache:
        with mock.patch.object(cache, "get", return_value=("double", 7)):
            assert cache.get("key") == ("double", 7)
        assert cache.get("key") == (None, -1)


def test_what_a_cache_of_the_users_own_class_holds_is_collected_with_it() -> None:
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    cache = Counting(gossip_interval=None)
    cache.itself = cache  # type: ignore[attr-defined]
    cache.held = held  # type: ignore[attr-defined]
    del cache, held
    gc.collect()
    assert gone() is None
