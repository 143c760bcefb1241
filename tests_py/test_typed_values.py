"""What a type checker knows of values. It runs, and mypy reads it: what must be an error, is one."""

from typing import Any, assert_type

from distributed_consistent_cache import Cache, Node, SerializationError

Report = dict[str, int]


def test_a_cache_of_anything_gives_anything() -> None:
    cache = Cache(nodes=1)
    cache.put("key", {"rows": 1}, 1)
    value, timestamp = cache.get("key")
    assert_type(cache, Cache[Any])
    assert_type(value, Any)
    assert (value["rows"], timestamp) == (1, 1)
    assert_type(cache.get("none", 0), tuple[Any, int])


def test_a_cache_of_reports_takes_and_gives_reports() -> None:
    cache = Cache[Report](nodes=1)
    cache.put("key", {"rows": 1}, 1)
    cache.put_many({"other": {"rows": 2}}, 1)
    cache.put("key", "no report", 0)  # type: ignore[arg-type]
    value, _ = cache.get("key")
    # After a hit it is a report, without a look whether it is None; what no report has is an error.
    assert value["rows"] == 1
    assert not hasattr(value, "rows")
    assert_type(value, Report | Any)
    assert_type(cache.get("none", {}), tuple[Report, int])
    assert_type(cache.get("none", 0), tuple[Report | int, int])


def test_bulk_calls_and_nodes_know_the_values_of_their_cache() -> None:
    cache: Cache[Report] = Cache(nodes=1)
    cache.put("key", {"rows": 1}, 1)
    assert_type(cache.get_many(["key"]), dict[str, tuple[Report, int]])
    assert_type(cache.get_many(["key"], on_error="return"), dict[str, tuple[Report | SerializationError, int]])
    assert_type(cache.node(0), Node[Report])
    assert_type(cache.node(0).get("none", 0), tuple[Report | int, int])


def test_a_class_of_ones_own_may_say_what_its_values_are() -> None:
    class Reports(Cache[Report]):
        pass

    with Reports(nodes=1) as cache:
        cache.put("key", {"rows": 1}, 1)
        assert cache.get("key")[0]["rows"] == 1
    assert issubclass(Reports, Cache)
