"""With serializer= a cache keeps exactly what its `dumps` makes, and hands it back to its `loads`."""

import json
import marshal
import pickle
import random
import types
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, SerializationError

VALUES: list[Any] = [
    None,
    True,
    1,
    -(2**70),
    1.5,
    "text",
    "\u00e9\U0001f980",
    [1, [2]],
    {"key": {"deep": "x" * 50_000}},
]


class Recording:
    """Keeps what it returned and what it was given."""

    def __init__(self, kind: Any) -> None:
        self.kind, self.dumped, self.loaded = kind, list[Any](), list[Any]()

    def dumps(self, value: Any) -> Any:
        self.dumped.append(self.kind(value))
        return self.dumped[-1]

    def loads(self, stored: Any) -> Any:
        self.loaded.append(stored)
        return stored


@pytest.mark.parametrize("serializer", [json, marshal, pickle], ids=lambda module: module.__name__)
def test_modules_of_the_standard_library(serializer: Any) -> None:
    cache = Cache(3, 2, "64MiB", serializer=serializer)
    for number, value in enumerate(VALUES):
        cache.put("key", value, number)
        assert cache.get("key") == (value, number)
        assert cache.node(cache.owners("key")[0]).get("key") == (value, number)
    cache.put_many({f"key {number}": value for number, value in enumerate(VALUES * 40)}, 5)
    assert cache.get_many(f"key {number}" for number in range(len(VALUES * 40))) == {
        f"key {number}": (value, 5) for number, value in enumerate(VALUES * 40)
    }


def test_msgpack() -> None:
    msgpack = pytest.importorskip("msgpack")
    cache = Cache(3, 2, serializer=msgpack)
    cache.put("key", {"a": [1, b"bytes", "text"]}, 1)
    assert cache.get("key") == ({"a": [1, b"bytes", "text"]}, 1)


# Also bytes that look like a pickle, like an atom, and like what is kept beside a pickle.
BODIES = [
    b"",
    b"\0",
    b"\0\0\1",
    b"N.",
    b"K\x01.",
    b"\x80\x05\x95\x04\0\0\0\0\0\0\0K\x01K.",
    b"x" * 20_000,
    b"y" * 2**20,
]


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, lambda body: body.decode("latin-1")], ids=["bytes", "bytearray", "str"]
)
def test_loads_is_given_what_dumps_returned(kind: Any) -> None:
    recording = Recording(kind)
    cache = Cache(3, 2, "16MiB", serializer=recording)
    for number, body in enumerate(BODIES):
        cache.put("key", body, number)
        back, _ = cache.get("key")
        assert type(back) is type(recording.dumped[-1])
        assert back == recording.dumped[-1]
    cache.put_many((f"key {number}", body) for number, body in enumerate(BODIES * 20))
    for number, body in enumerate(BODIES * 20):
        assert cache.get_many([f"key {number}"])[f"key {number}"][0] == kind(body)


def test_what_is_stored_is_what_the_serializer_made() -> None:
    plain, own = (
        Cache(1, gossip_interval=None, serializer=one)
        for one in ("pickle", types.SimpleNamespace(dumps=bytes, loads=len))
    )
    plain.put("key", 7)
    assert plain.get("key")[0] == 7
    own.put("key", b"seven b")
    assert own.get("key")[0] == 7
    assert own.nodes()[0].bytes_used >= plain.nodes()[0].bytes_used


def test_errors_of_a_serializer_are_serialization_errors() -> None:
    cache = Cache(serializer=json)
    cache.put("key", 1, 1)
    with pytest.raises(SerializationError, match="a value of type set cannot be written by the serializer") as raised:
        cache.put("key", {1}, 2)
    assert type(raised.value.__cause__) is TypeError
    assert cache.get("key") == (1, 1)
    with pytest.raises(SerializationError) as raised:
        cache.put_many([("a", 1), ("b", {1}), ("c", 2)])
    assert "'b'" in raised.value.__notes__[0]
    assert (cache.get("a")[0], "b" in cache, "c" in cache) == (1, False, False)

    def fail(_: Any) -> None:
        raise LookupError("not today")

    broken = Cache(serializer=types.SimpleNamespace(dumps=lambda value: b"x", loads=fail))
    broken.put("the key", 1)
    with pytest.raises(SerializationError, match=r'"the key" cannot be read: .*not today') as raised:
        broken.get("the key")
    assert type(raised.value.__cause__) is LookupError
    assert "the key" in broken


@pytest.mark.parametrize("returned", [None, 1, ["x"], memoryview(b"x")])
def test_dumps_must_return_bytes_or_text(returned: Any) -> None:
    cache = Cache(serializer=types.SimpleNamespace(dumps=lambda value: returned, loads=len))
    with pytest.raises(SerializationError, match="dumps must return bytes, bytearray or str, not"):
        cache.put("key", 1)
    assert "key" not in cache


def test_dumps_may_return_another_type_for_each_value() -> None:
    cache = Cache(serializer=types.SimpleNamespace(dumps=lambda value: value, loads=lambda stored: stored))
    for value in ("text", b"bytes", bytearray(b"array"), "", b"", bytearray()):
        cache.put("key", value)
        back, _ = cache.get("key")
        assert (type(back), back) == (type(value), value)


def test_subclasses_come_back_as_what_they_are_made_of() -> None:
    class Text(str):
        __slots__ = ()

    cache = Cache(serializer=types.SimpleNamespace(dumps=Text, loads=lambda stored: stored))
    cache.put("key", "text")
    assert type(cache.get("key")[0]) is str


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
def test_what_a_serializer_wrote_can_be_compressed_and_saved(compression: str | None, tmp_path: Path) -> None:
    recording = Recording(lambda value: value)
    values = [
        "text " * 5_000,
        b"bytes" * 5_000,
        bytearray(b"array" * 5_000),
        "short",
        b"pickle",
        pickle.dumps([1] * 9_000),
    ]
    with Cache(3, 2, "1MiB", serializer=recording, compression=compression) as cache:
        cache.put_many({f"key {number}": value for number, value in enumerate(values)}, 1)
        cache.save(tmp_path / "saved")
    assert recording.loaded == []
    # The kinds are in the file, not in the memory of who wrote it.
    again = Recording(lambda value: value)
    with Cache.load(tmp_path / "saved", serializer=again) as cache:
        assert again.loaded == [], "a restore reads no value"
        for number, value in enumerate(values):
            back, timestamp = cache.get(f"key {number}")
            assert (type(back), back, timestamp) == (type(value), value, 1)
            assert type(again.loaded[-1]) is type(value)
        assert set(cache.get_many(f"key {number}" for number in range(len(values)))) == set(cache)


def test_values_of_another_format_are_refused_and_not_misread(tmp_path: Path) -> None:
    with Cache(serializer=json) as cache:
        cache.put_many({"short": 1, "long": "x" * 50_000, "random": random.Random(1).randbytes(20_000).hex()}, 1)
        cache.save(tmp_path / "json")
    for decode in ("pickle", "plain"):
        with Cache.load(tmp_path / "json", decode=decode) as cache:
            for key in cache:
                with pytest.raises(SerializationError, match=f'"{key}" cannot be read: it was written by a serializer'):
                    cache.get(key)
                with pytest.raises(SerializationError, match="it was written by a serializer"):
                    cache.get_many([key])
    with Cache() as cache:
        cache.put_many({"short": 1, "long": ["x" * 50_000], "buffers": memoryview(bytes(50_000))}, 1)
        cache.save(tmp_path / "pickles")
    with Cache.load(tmp_path / "pickles", serializer=json) as cache:
        for key in cache:
            with pytest.raises(SerializationError, match=f'"{key}" cannot be read: it was not written by a serializer'):
                cache.get(key)


def test_a_serializer_may_use_the_cache_that_calls_it() -> None:
    def dumps(value: Any) -> str:
        if value != "inner":
            cache.put("other", "inner")
            cache.fail_node(0, lose_memory=False)
            cache.recover_node(0)
        return json.dumps(value)

    def loads(text: str) -> Any:
        value = json.loads(text)
        return value if value == "inner" else (value, cache.get("other")[0], len(cache.get_many(["other"])))

    cache = Cache(1, serializer=types.SimpleNamespace(dumps=dumps, loads=loads))
    cache.put("key", 1)
    assert cache.get("key")[0] == (1, "inner", 1)
    cache.put_many({"a": 1, "b": 2})
    assert cache.get_many(["a", "b"])["b"][0] == (2, "inner", 1)


@pytest.mark.parametrize("serializer", [1, types.SimpleNamespace(dumps=len), types.SimpleNamespace(dumps=len, loads=1)])
def test_an_object_without_both_is_refused(serializer: Any) -> None:
    with pytest.raises(TypeError, match=r"serializer must be .*dumps and loads"):
        Cache(serializer=serializer)


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="serializer is 'json', but must be"):
        Cache(serializer="json")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decode is 'plain', but must be left out beside a serializer"):
        Cache(serializer=json, decode="plain")
    assert Cache(serializer="pickle", decode="pickle").get("nobody") == (None, -1)
    # It decodes by itself: that it is named does no harm.
    assert Cache(serializer=json, decode="pickle").get("nobody") == (None, -1)
