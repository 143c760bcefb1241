"""With a signing key, nothing is unpickled that was not signed under it; and nothing of the key is ever shown."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, SerializationError

OLD, NEW, OTHER = b"the old secret, 22 byte", b"the new secret, 22 byte", b"somebody else's secret"
VALUES: dict[str, Any] = {
    "nothing": None,
    "number": 7,
    "text": "text",
    "dict": {"name": "Ada"},
    "long text": "the same words again and again " * 500,
    "long dict": {"lines": [f"line {number}" for number in range(2_000)]},
    "bytes": bytes(100_000),
}


def cache(key: Any, **options: Any) -> Cache:
    return Cache(3, 2, "4MiB", gossip_interval=None, signing_key=key, **options)


def saved(path: Path, key: Any, values: dict[str, Any] = VALUES, **options: Any) -> Path:
    """A snapshot of a cache with this key."""
    with cache(key, **options) as writer:
        writer.put_many(values, 1)
        writer.save(path / "snapshot")
    return path / "snapshot"


@pytest.mark.parametrize("compression", [None, "lz4", "zstd", "zstd-dict"])
def test_signed_values_come_back(compression: Any) -> None:
    with cache(OLD, compression=compression) as one:
        for key, value in VALUES.items():
            assert one.put(key, value, 1)
            assert one.get(key) == (value, 1)
            assert one.node(one.owners(key)[0]).get(key) == (value, 1)
            assert one.put(key, value, 1), "the very same value"
        one.put_many(VALUES, 2)
        assert one.get_many(VALUES) == {key: (value, 2) for key, value in VALUES.items()}
        one.fail_node(0)
        one.recover_node(0)
        assert one.get_many(VALUES) == {key: (value, 2) for key, value in VALUES.items()}
        assert one.value_stats().refused == 0


class Explodes:
    """Its pickle calls `boom`."""

    def __reduce__(self) -> Any:
        return boom, ()


def boom() -> None:
    raise AssertionError("it was unpickled")


@pytest.mark.parametrize(
    ("writer", "reader", "why"),
    [
        (OTHER, NEW, "its signature is wrong"),
        (None, NEW, "it is not signed, and this cache has a signing key"),
        (OTHER, None, "it is signed, and this cache has no signing key"),
    ],
)
def test_what_is_not_signed_as_asked_for_is_refused_before_it_is_unpickled(
    tmp_path: Path, writer: Any, reader: Any, why: str
) -> None:
    values = {"small": Explodes(), "large": [Explodes(), "text " * 5_000], "plain": 7}
    path = saved(tmp_path, writer, values)
    with Cache.load(path, gossip_interval=None, signing_key=reader) as one:
        for number, key in enumerate(values):
            with pytest.raises(SerializationError, match=why) as raised:
                one.get(key)
            assert f'"{key}"' in str(raised.value)
            assert one.value_stats().refused == 2 * number + 1
            with pytest.raises(SerializationError, match=why):
                one.get_many([key])
        # Nothing is lost: they stay until they are overwritten.
        assert len(one) == 3
        assert "small" in one
        assert one.put("small", "mine", 2)
        assert one.get("small") == ("mine", 2)


def test_keys_are_exchanged_one_after_the_other(tmp_path: Path) -> None:
    old = saved(tmp_path, OLD)
    # First every cache learns to read the new one, then they sign under it, and then the old one goes.
    for keys in ([OLD, NEW], (NEW, OLD), [OLD]):
        with Cache.load(old, gossip_interval=None, signing_key=keys) as one:
            assert one.get_many(VALUES) == {key: (value, 1) for key, value in VALUES.items()}
    new = saved(tmp_path, [NEW, OLD])
    with Cache.load(new, gossip_interval=None, signing_key=NEW) as one:
        assert one.get_many(VALUES) == {key: (value, 1) for key, value in VALUES.items()}
    with Cache.load(new, gossip_interval=None, signing_key=OLD) as one, pytest.raises(SerializationError):
        one.get("text")


def test_a_caller_that_can_compute_the_value_treats_a_refused_one_as_a_miss(tmp_path: Path) -> None:
    def get_or_compute(cache: Cache, key: str) -> Any:
        try:
            value, timestamp = cache.get(key)
        except SerializationError:
            timestamp = -1
        if timestamp < 0:
            value = f"computed for {key}"
            cache.put(key, value)  # the clock's timestamp is newer
        return value

    with Cache.load(saved(tmp_path, OTHER, {"key": "theirs"}), gossip_interval=None, signing_key=NEW) as one:
        assert get_or_compute(one, "key") == "computed for key"
        assert get_or_compute(one, "key") == "computed for key"
        assert one.value_stats().refused == 1
        assert one.get("key")[0] == "computed for key"


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (b"", ValueError),
        (b"x" * 15, ValueError),
        (b"x" * 65, ValueError),
        ([], ValueError),
        ((), ValueError),
        ([OLD, NEW, OTHER], ValueError),
        ([OLD, b"short"], ValueError),
        ("a secret text of 22 b", TypeError),
        (bytearray(OLD), TypeError),
        (7, TypeError),
        ({OLD}, TypeError),
        ([OLD, "text"], TypeError),
        ([OLD, None], TypeError),
    ],
)
def test_a_bad_key_is_refused_and_not_repeated(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="signing_key") as raised:
        cache(key)
    said = str(raised.value)
    assert "nothing was done" in said
    assert not any(part in said for part in ("secret", "xxx", "short"))


@pytest.mark.parametrize("length", [16, 64])
def test_the_shortest_and_the_longest_key_are_taken(length: int) -> None:
    with cache([b"k" * length, OLD]) as one:
        one.put("key", 1, 1)
        assert one.get("key") == (1, 1)


def test_the_key_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    path = saved(tmp_path, [OLD, NEW])
    assert OLD not in path.read_bytes()
    assert NEW not in path.read_bytes()
    with Cache.load(path, gossip_interval=None, signing_key=OTHER) as one:
        shown = [repr(one), repr(one.value_stats()), repr(one.nodes()), repr(one.restored)]
        with pytest.raises(SerializationError) as raised:
            one.get("text")
        shown += [str(raised.value), repr(raised.value)]
        with pytest.raises(TypeError) as refused:
            pickle.dumps(one)
        shown.append(str(refused.value))
    assert not any("secret" in text for text in shown)


def test_a_value_that_fits_no_more_once_it_is_signed_is_too_large_and_pushes_nothing_out() -> None:
    # Each value and its signature are weighed together.
    with Cache(1, node_capacity="64KiB", gossip_interval=None, compression=None, signing_key=OLD) as one:
        one.put("key", "value")
        sizes = range(40_000, 66_000, 97)
        fits = [size for size in sizes if is_written(one, size)]
        assert fits == list(sizes[: len(fits)])
        assert 0 < len(fits) < len(sizes)


def is_written(cache: Cache, size: int) -> bool:
    try:
        return cache.put("large", bytes(size))
    except ValueError:
        return False
