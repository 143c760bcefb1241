"""What is stored is a plain protocol 5 pickle, byte for byte what `pickle.dumps(value, 5)` gives.

The bytes are not shown by any call, but two values of one key and time are the same write exactly when their bytes are
the same: putting the other one is then True in both orders, and else False in one of them.
"""

from pathlib import Path

import pytest

from conftest import RunProgram

# `Pickled(value)` has the bytes of `pickle.dumps(value, 5)` however the cache writes `value` itself.
PROGRAM = f"""
import math, pickle, random, struct, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from raw_pickles import Bytes, Cache

def Pickled(value):
    return Bytes(pickle.dumps(value, 5))

cache = Cache(1, node_capacity="64MiB", gossip_interval=None)
"""

PROGRAM += """
def is_same_write(one, other):
    cache.remove("key", is_same_write.time)
    is_same_write.time += 1
    assert cache.put("key", one, is_same_write.time) is True
    forth = cache.put("key", other, is_same_write.time)
    cache.remove("key", is_same_write.time)
    is_same_write.time += 1
    assert cache.put("key", other, is_same_write.time) is True
    back = cache.put("key", one, is_same_write.time)
    assert forth or back
    return forth and back

is_same_write.time = 0

def check(value):
    assert is_same_write(value, Pickled(value)), repr(value)[:100]
"""

VALUES = {
    "the method can tell": """
        for one, other in [(1, 2), (1, 1.0), (1, True), ("a", b"a"), (0.0, -0.0), ("a" * 65536, "a" * 65535 + "b")]:
            assert not is_same_write(one, Pickled(other)), (one, other)
        check([1, "a"])
    """,
    "None and bool": """
        for value in (None, True, False):
            check(value)
    """,
    "int": """
        for bits in [*range(70), 127, 128, 2040, 2041]:
            for near in range(-2, 3):
                check(2 ** bits + near)
                check(-(2 ** bits) + near)
        rng = random.Random(1)
        for _ in range(2000):
            check(rng.getrandbits(rng.randrange(1, 80)) * rng.choice((1, -1)))
    """,
    "float": """
        for value in (0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324, 1e308):
            check(value)
        rng = random.Random(2)
        for _ in range(2000):
            check(struct.unpack("<d", rng.randbytes(8))[0])
    """,
    "str": """
        for length in [*range(300), *range(65500, 65560), 16 * 1024 - 5, 16 * 1024, 131072, 2 ** 20]:
            for letter in "a", "\\u00e9", "\\u20ac", "\\U0001f980":
                check(letter * length)
                check(letter * (length // len(letter.encode())))
        for text in ("\\ud800", "a\\udfff", "\\ud800" * 70000):
            check(text)
    """,
    "bytes": """
        for length in [*range(300), *range(65500, 65560), 16 * 1024 - 5, 16 * 1024, 131072, 2 ** 20]:
            check(random.Random(length).randbytes(length))
    """,
    "bytearray": """
        for length in [*range(300), *range(65500, 65560), 16 * 1024, 131072, 2 ** 20]:
            check(bytearray(random.Random(length).randbytes(length)))
    """,
    "small records": """
        class Text(str):
            pass

        class Dict(dict):
            pass

        shared, row, box, book = "shared", ("row", 1), [], {}
        box.append(box)
        book["self"] = book
        inner = []
        ring = (inner,)
        inner.append(ring)
        deep = []
        for _ in range(9):
            deep = [deep]
            check(deep)
        for value in (
            [], {}, (), [[]], [()], ((),), [None], (None,), {1: 2}, {"a": shared, "b": shared, shared: b""},
            [row, row, (row, row)],
            box, book, ring, inner, [inner, ring], [box, book, box],
            {None: True, 1.5: -1, (): ((),), b"b": chr(0xd800)},
            [Text("text")], {"a": Dict()}, Dict(a=1), [{1}], [True, 2 ** 70], ["x" * 1024] * 2, ["x" * 1025],
            [b"y" * 300, "é" * 300],
            [str(n) + "z" * 1000 for n in range(60)], {"n": (1, 2, 3), "m": (1, 2, 3, 4), "k": (1,), "j": (1, 2)},
        ):
            check(value)
        for length in range(70):
            check([1] * length)
            check((1,) * length)
            check([str(n) for n in range(length)])
            check({n: n for n in range(length)})
            check([[] for n in range(length)])
        rng = random.Random(4)

        def made(depth, met):
            kind = rng.randrange(12)
            if kind < 3 and met:
                return rng.choice(met)
            if kind < 8 or depth == 0:
                length = rng.randrange(300)
                atom = rng.choice((None, True, 7, -70000, 2.5, "text", "t" * length, b"b" * length, 2 ** 40))
            elif kind < 9:
                atom = tuple(made(depth - 1, met) for _ in range(rng.randrange(6)))
            elif kind < 10:
                atom = []
                met.append(atom)
                atom.extend(made(depth - 1, met) for _ in range(rng.randrange(6)))
            else:
                atom = {}
                met.append(atom)
                for n in range(rng.randrange(6)):
                    atom[rng.choice(("name", "key", n))] = made(depth - 1, met)
            met.append(atom)
            return atom

        for _ in range(3000):
            check([made(4, [])])
    """,
    "what pickle writes": """
        rng = random.Random(3)
        for value in (
            [], {}, (1,), {"key": [1, 2.5, None, {"a"}]}, 2 ** 9000, {"text": "x" * 70000, "bytes": b"y" * 70000},
            [rng.random() for _ in range(30000)], [bytes(70000), bytearray(70000)] * 3,
            {str(n): n for n in range(20000)},
        ):
            for _ in range(3):
                check(value)
        # Whose buffers are too small to be kept beside.
        import array
        check([pickle.PickleBuffer(bytes(100)), array.array("d", [1.5]), pickle.PickleBuffer(bytearray(16 * 1024 - 1))])
    """,
    "many": """
        for value in (bytes(188), b"z" * 300, bytes(70000), "t" * 188, "t" * 70000, bytearray(300),
                      "text", b"bytes", 7, 1.5, None, True, "\\u00e9" * 70000, bytes(66000)):
            is_same_write.time += 1
            cache.put_many([("key", value)] * 3, is_same_write.time)
            assert cache.put("key", Pickled(value), is_same_write.time) is True
            is_same_write.time += 1
            cache.put("key", Pickled(value), is_same_write.time)
            assert cache.put_many([("key", value)] * 3, is_same_write.time) == []
    """,
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_is_stored_as_pickle_writes_it(kind: str, run_program: RunProgram) -> None:
    lines = [line[8:] for line in VALUES[kind].splitlines()]
    assert run_program(PROGRAM + "\n".join(lines)) == ""
