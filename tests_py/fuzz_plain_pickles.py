"""Mutated and made-up pickles against `pickle.loads` as oracle. Run as a program: SEED=1 COUNT=10000.

    bytes -> get of a cache with decode="plain" -> a value: then pickle.loads gives the same, sharing included
                                                -> SerializationError

The oracle may look up nothing but the plain classes. It is asked only for what the cache accepts: some of these bytes
would have it take any amount of memory.
"""

import datetime
import decimal
import os
import pickle
import random
import struct
import sys
from collections.abc import Callable
from typing import Any

from distributed_consistent_cache import Cache, SerializationError
from raw_pickles import get_of

PLAIN = {
    *(("datetime", name) for name in ("date", "time", "datetime", "timedelta", "timezone")),
    ("decimal", "Decimal"),
    ("builtins", "complex"),
}


TYPES = (
    type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset,
    datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone, decimal.Decimal,
)  # fmt: skip


def look_up(event: str, arguments: tuple[Any, ...]) -> None:
    """Called before pickle looks up a class."""
    assert event != "pickle.find_class" or arguments in PLAIN, arguments


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types, and shared in the same places. Not recursive: what is made up may be deep."""
    pairs, met = [(one, other)], {}
    while pairs:
        a, b = pairs.pop()
        if type(a) is not type(b) or type(a) not in TYPES:
            return False
        if isinstance(a, list | dict | set | tuple | bytearray):
            if a != () and met.setdefault(("a", id(a)), id(b)) != id(b):
                return False
            if b != () and met.setdefault(("b", id(b)), id(a)) != id(a):
                return False
            if ("pair", id(a), id(b)) in met:
                continue
            met["pair", id(a), id(b)] = 0
        if isinstance(a, list | tuple):
            if len(a) != len(b):
                return False
            pairs.extend(zip(a, b, strict=True))
        elif isinstance(a, dict):
            if len(a) != len(b):
                return False
            pairs.extend(zip(a.keys(), b.keys(), strict=True))
            pairs.extend(zip(a.values(), b.values(), strict=True))
        elif isinstance(a, set | frozenset):
            if sorted(map(text, a)) != sorted(map(text, b)):
                return False
        elif text(a) != text(b):
            return False
    return True


def text(atom: Any) -> str:
    return hex(atom) if type(atom) is int else repr(atom)


def plain_value(rng: random.Random, depth: int, made: list[Any]) -> Any:
    """A plain object that may hold, or be held by, others more than once."""
    if made and rng.random() < 0.15:
        return rng.choice(made)
    if depth == 0 or rng.random() < 0.5:
        return rng.choice(ATOMS)(rng)
    length = rng.choice((0, 1, 2, 3, 4, 7))
    kind = rng.randrange(6)
    if kind == 0:
        box: list[Any] = []
        made.append(box)
        box.extend(plain_value(rng, depth - 1, made) for _ in range(length))
        return box
    if kind == 1:
        book: dict[Any, Any] = {}
        made.append(book)
        for _ in range(length):
            book[rng.choice(ATOMS)(rng)] = plain_value(rng, depth - 1, made)
        return book
    if kind == 2:
        row = tuple(plain_value(rng, depth - 1, made) for _ in range(length))
        made.append(row)
        return row
    atoms = [rng.choice(ATOMS)(rng) for _ in range(length)]
    return (set(atoms), frozenset(atoms), bytearray(rng.randbytes(length)))[kind - 3]


def zone(rng: random.Random) -> datetime.timezone | None:
    choices = None, datetime.UTC, datetime.timezone(datetime.timedelta(minutes=rng.randrange(-1439, 1440)), "name")
    return rng.choice(choices)


def moment(rng: random.Random) -> datetime.datetime:
    year, second = rng.randrange(1, 10000), rng.randrange(60)
    return datetime.datetime(year, 2, 28, 23, 59, second, rng.randrange(10**6), zone(rng), fold=rng.randrange(2))


ATOMS: list[Callable[[random.Random], Any]] = [
    lambda rng: None,
    lambda rng: rng.random() < 0.5,
    lambda rng: rng.randrange(300),
    lambda rng: rng.randrange(-(2**31), 2**31),
    lambda rng: rng.getrandbits(rng.choice((63, 64, 100, 2030, 3000))) * rng.choice((1, -1)),
    lambda rng: rng.choice((0.0, -0.0, 1.5, float("inf"), float("nan"), rng.random())),
    lambda rng: rng.choice(("", "a", "key", "é", "\ud800", "name " * 60)),
    lambda rng: rng.randbytes(rng.choice((0, 1, 5, 300))),
    moment,
    lambda rng: moment(rng).date(),
    lambda rng: moment(rng).timetz(),
    lambda rng: datetime.timedelta(rng.randrange(-999, 999), rng.randrange(86400), rng.randrange(10**6)),
    lambda rng: datetime.timezone(datetime.timedelta(minutes=rng.randrange(-1439, 1440))),
    lambda rng: complex(rng.random(), -0.0),
    lambda rng: decimal.Decimal(rng.choice(("0", "-1.50", "1E+400", "NaN", "Infinity", "123456789.123456789"))),
]

# Opcodes with plausible arguments, for pickles that are made up.
WORDS = [
    *(bytes([opcode]) for opcode in b"(.012NQRabdelostu)]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"),
    b"K\x07", b"M\x07\x08", b"J\x01\x02\x03\xff", b"I7\n", b"L7L\n", b"F1.5\n", b"G" + struct.pack(">d", 1.5),
    b"\x8a\x00", b"\x8a\x01\xff", b"\x8a\x09" + b"\xff" * 9, b"\x8b\x02\0\0\0\x01\x02", b"\x8b\xff\xff\xff\x7f",
    b"\x8c\x01a", b"\x8c\x08datetime", b"\x8c\x04date", b"\x8c\x09timedelta", b"\x8c\x08timezone",
    b"\x8c\x03\xed\xa0\x80", b"X\x02\0\0\0ab", b"\x8d\x02\0\0\0\0\0\0\0ab", b"\x8d" + b"\xff" * 8,
    b"C\x04\x07\xd0\x01\x01", b"C\x0a\x07\xd0\x81\x01" + bytes(6), b"B\x01\0\0\0z", b"\x8e\x01\0\0\0\0\0\0\0z",
    b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96\x02\0\0\0\0\0\0\0zz", b"\x96" + b"\xff" * 8,
    b"h\x00", b"h\x01", b"j\x00\0\0\0", b"j\xff\xff\xff\xff", b"q\x00", b"q\x01", b"q\xff", b"r\xff\xff\xff\xff",
    b"p0\n", b"g0\n", b"cdatetime\ndate\n", b"cdatetime\ntimedelta\n", b"cbuiltins\ncomplex\n", b"cos\nsystem\n",
    b"cdecimal\nDecimal\n", b"\x80\x04", b"\x80\x06", b"\x95\x01\0\0\0\0\0\0\0", b"\x95" + b"\xff" * 8,
    b"U\x01a", b"T\x01\0\0\0a", b"S'a'\n", b"Va\n", b"Pa\n",
]  # fmt: skip


def mutated(rng: random.Random, pickled: bytes) -> bytes:
    data = bytearray(pickled)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, length = rng.randrange(len(data) + 1), rng.randrange(1, 12)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = rng.choice(WORDS)
            case _:
                data[at : at + 1] = rng.choice(WORDS)
    return bytes(data)


def main() -> None:
    seed, count = int(os.environ["SEED"]), int(os.environ["COUNT"])
    cache = Cache(1, node_capacity="64MiB", gossip_interval=None, decode="plain")
    sys.addaudithook(look_up)
    accepted = dict.fromkeys(("as written", "mutated", "made up"), 0)
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        how = rng.choice(list(accepted))
        if how == "made up":
            pickled = b"".join(rng.choices(WORDS, k=rng.randrange(1, 11))) + b"."
        else:
            value = plain_value(rng, 4, [])
            pickled = pickle.dumps(value, 4 if how == "mutated" and rng.random() < 0.2 else 5)
            if how == "mutated":
                pickled = mutated(rng, pickled)
        try:
            found = get_of(cache, pickled)
        except SerializationError:
            assert how != "as written", f"replay: seed {seed}, number {number}: {pickled!r}"
            continue
        accepted[how] += 1
        try:
            assert same(found, pickle.loads(pickled))
        except Exception as error:
            raise AssertionError(f"replay: seed {seed}, number {number}: {pickled!r} gave {found!r}") from error
    assert all(part > count // 100 for part in accepted.values()), accepted
    print("accepted", accepted)


if __name__ == "__main__":
    main()
