"""Reading plain data takes time in proportion to its length, whatever it says: bombs, and made-up pickles that repeat.

Each is read at one size and at four times that; the time may grow eightfold, or be too short to tell. What takes longer
than its length justifies is refused, which takes no time either.
"""

import contextlib
import os
import pickle
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache, SerializationError

PROGRAM = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport {Path(__file__).stem} as tests\n"

PRIME = 2**61 - 1  # an int's hash is its remainder


def seconds(pickled: bytes, buffers: tuple[bytes, ...] = ()) -> float:
    from raw_pickles import get_of  # it changes what `pickle` is, for the whole process

    cache = Cache(1, 1, "64MiB", gossip_interval=None, decode="plain")
    began = time.process_time()
    with contextlib.suppress(SerializationError):
        get_of(cache, pickled, buffers)
    return time.process_time() - began


def text(length: int) -> bytes:
    return b"X" + struct.pack("<I", length) + b"x" * length + b"\x94"


def raw(length: int) -> bytes:
    return b"B" + struct.pack("<I", length) + b"x" * length + b"\x94"


def doubled(depth: int) -> bytes:
    return b")\x94" + b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86\x94" for n in range(depth))


def ints_of_one_hash(size: int) -> bytes:
    return b"\x8f(" + b"".join(pickle.dumps(PRIME * (2**40 + n), 5)[2:-1] for n in range(size * 2000)) + b"\x90."


def complex_of_one_hash(size: int) -> bytes:
    """hash(complex(re, im)) == hash(re) + 1000003 * hash(im)."""
    one = b"cbuiltins\ncomplex\n\x94"
    pairs = (
        b"h\0G" + struct.pack(">d", 2.0**51 - 1000003 * n) + b"G" + struct.pack(">d", float(n))
        for n in range(size * 2000)
    )
    return one + b"0\x8f(" + b"".join(pair + b"\x86R" for pair in pairs) + b"\x90."


def decimals_of_one_hash(size: int) -> bytes:
    """m * 10**n leaves the same remainder for each n, with the right m."""
    inverse = pow(10, -1, PRIME)
    texts = (f"{pow(inverse, n, PRIME)}E{n}".encode() for n in range(size * 1000))
    one = b"cdecimal\nDecimal\n\x94"
    return one + b"0\x8f(" + b"".join(b"h\0\x8c" + bytes([len(t)]) + t + b"\x85R" for t in texts) + b"\x90."


def int_with_hash_5(length: int) -> bytes:
    number = 1 << (length * 8 - 2)
    number += (5 - number) % PRIME
    return b"\x8b" + struct.pack("<I", length) + number.to_bytes(length, "little")


def decimal_and_long_int(around: bytes, size: int) -> bytes:
    """`Decimal(5)` and an int of its hash, written in tens to compare them; `around` makes a key of each."""
    keys = b"cdecimal\nDecimal\n\x8c\x015\x85R", int_with_hash_5(size * 12_500)
    mark = b"(" if around == b"\x91" else b""
    return b"\x8f(" + mark + keys[0] + around + mark + keys[1] + around + b"\x94" + b"h\0" * 20 + b"\x90."


def long_int_and_decimals(size: int) -> bytes:
    """The int comes first: each `Decimal` is compared with it."""
    five = b"cdecimal\nDecimal\n\x8c\x015\x85R\x94"
    return b"\x8f(" + int_with_hash_5(size * 12_500) + five + b"h\0" * 20 + b"\x90."


def frozensets_of_one_hash(size: int) -> bytes:
    ints = [pickle.dumps(PRIME * (2**40 + n), 5)[2:-1] for n in range(size * 400)]
    one, other = b"(" + b"".join(ints) + b"\x91\x94", b"(" + b"".join(reversed(ints)) + b"\x91\x94"
    return b"\x8f(" + raw(size * 35_000) + b"0" + one + other + b"h\x02" * 100 + b"\x90."


def way(number: int, slots: int, taken: set[int], in_a_row: int) -> int:
    """How often CPython looks for the slot of an int, up to a free one."""
    at, looks = number % slots, 1
    while all((at + n) % slots in taken for n in range(in_a_row)):
        number >>= 5
        at = (5 * at + number + 1) % slots
        looks += 1
    return looks


def int_led_through_the_slots_of_others(is_set: bool, size: int) -> bytes:
    """Ints that have the slots on the way of one that comes again and again. A set looks at ten in a row."""
    count, slots, in_a_row = size * 1225, 2048 * size, 10 if is_set else 1
    at, others = 0, dict[int, None]()
    while len(others) < count - in_a_row:
        others.update(dict.fromkeys(range(at, min(at + in_a_row, slots))))
        at = (5 * at + 1) % slots
    rng, set_of_others = random.Random(size), set(others)
    numbers = iter(lambda: rng.randrange(slots, 64 * slots), 0)
    led = next(n for n in numbers if way(n, slots, set_of_others, in_a_row) * in_a_row > count / 2)
    value, end = (b"", b"\x90.") if is_set else (b"N", b"u.")
    ints = value.join(pickle.dumps(number, 5)[2:-1] for number in [*others, led])
    again = b"\x94" + value + (b"h\0" + value) * (size * 10_000)
    return (b"\x8f(" if is_set else b"}(") + ints + again + end


BOMBS: dict[str, Callable[[int], bytes]] = {
    "equal long texts in a set": lambda n: b"\x8f(" + 2 * text(n << 15) + b"h\x01" * (n * 10_000) + b"\x90.",
    "equal long bytes in a set": lambda n: b"\x8f(" + 2 * raw(n << 15) + b"h\x01" * (n * 10_000) + b"\x90.",
    "equal long texts in a dict": lambda n: (
        b"}(" + text(n << 15) + b"N" + text(n << 15)
        + b"N" + b"h\x01N" * (n * 10_000) + b"u."
    ),
    "equal long texts, one by one": lambda n: (
        b"}" + text(n << 15) + b"Ns" + text(n << 15)
        + b"Ns" + b"h\x01Ns" * (n * 10_000) + b"."
    ),
    "equal long texts in tuples": lambda n: (
        b"\x8f(" + text(n << 15) + b"\x85\x94" + text(n << 15)
        + b"\x85\x94" + b"h\x03" * (n * 10_000) + b"\x90."
    ),
    "equal long texts in frozensets": lambda n: (
        b"\x8f((" + text(n << 15) + b"\x91\x94(" + text(n << 15)
        + b"\x91\x94" + b"h\x03" * (n * 10_000) + b"\x90."
    ),
    "one text again and again": lambda n: b"\x8f(" + text(n << 15) + b"2" * (n * 10_000) + b"\x90.",
    "tuples doubled": lambda n: b"}" + doubled(min(20 + n, 250)) + b"Ns.",
    "tuples doubled, often": lambda n: b"\x8f(" + doubled(12) + b"h\x0b" * (n * 5_000) + b"\x90.",
    "integers of one hash": ints_of_one_hash,
    "complex numbers of one hash": complex_of_one_hash,
    "decimals of one hash": decimals_of_one_hash,
    "a long integer again and again": lambda n: (
        b"\x8f(\x8b" + struct.pack("<I", n << 15) + b"\x7f" * (n << 15)
        + b"\x94" + b"h\0" * (n * 10_000) + b"\x90."
    ),
    "a decimal and a long integer": lambda n: decimal_and_long_int(b"", n),
    "a decimal and a long integer in tuples": lambda n: decimal_and_long_int(b"\x85", n),
    "a decimal and a long integer in frozensets": lambda n: decimal_and_long_int(b"\x91", n),
    "a long integer and decimals": long_int_and_decimals,
    "frozensets of integers of one hash": frozensets_of_one_hash,
    "an integer led through the slots of a dict": lambda n: int_led_through_the_slots_of_others(False, n),
    "an integer led through the slots of a set": lambda n: int_led_through_the_slots_of_others(True, n),
    "classes that are no values": lambda n: b"(" + b"cdecimal\nDecimal\n" * (n * 5_000) + b"l.",
    "empty containers": lambda n: b"](" + b"}]\x8f)" * (n * 10_000) + b"e.",
}  # fmt: skip


def grows(make: Callable[[int], bytes]) -> str | None:
    """Two sizes, compared; the best of three, because another process may take the machine. In a program of its own."""
    seen = []
    for _ in range(3):
        one, four = seconds(make(4)), seconds(make(16))
        seen.append(f"{one:.3f} s, and four times as long {four:.3f} s")
        if four < 0.2 or four < 8 * one:
            return None
    return "; ".join(seen)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_time_in_proportion_to_its_length(bomb: str, run_program: RunProgram) -> None:
    assert run_program(PROGRAM + f"print(tests.grows(tests.BOMBS[{bomb!r}]))") == "None\n"


def test_equal_buffers_are_compared_once(run_program: RunProgram) -> None:
    # Each comparison takes a ten thousandth of a second: a hundred seconds, if each is made.
    assert float(run_program(PROGRAM + "print(tests.seconds_of_equal_buffers())")) < 10


def seconds_of_equal_buffers() -> float:
    one, other = b"x" * (1 << 21), bytes(bytearray(b"x" * (1 << 21)))
    return seconds(b"\x8f(\x97\x98\x97\x98\x94" + b"h\0" * 1_000_000 + b"\x90.", (one, other))


WORDS = [
    *(bytes([opcode]) for opcode in b"()]}2N0\x85\x86\x87\x8f\x90\x91esuta"),
    *(b"h" + bytes([place]) for place in range(4)),
    *(b"\x94", text(300), raw(300), b"K\x07\x94", b"\x8a\x09" + b"\x7f" * 9 + b"\x94"),
    b"\x8b\x00\x01\0\0" + b"\x7f" * 256,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(int(os.environ.get("PLAIN_SEEDS", "40"))))
def test_made_up_pickles_that_repeat_take_time_in_proportion_to_their_length(
    seed: int, run_program: RunProgram
) -> None:
    assert run_program(PROGRAM + f"print(tests.grows(tests.made_up({seed})))") == "None\n"


def made_up(seed: int) -> Callable[[int], bytes]:
    rng = random.Random(seed)
    before = [text(20_000), text(20_000), raw(20_000), rng.choice((b")\x94", b"(\x91\x94", doubled(8)))]
    again, kept = b"".join(rng.choices(WORDS, k=rng.randrange(1, 7))), rng.choice((b"\x8f(", b"}(", b"](", b"("))
    end = {b"\x8f(": b"\x90.", b"}(": b"u.", b"](": b"e.", b"(": b"\x91."}[kept]
    return lambda n: b"".join(before) + kept + again * (n * 2_000) + end


def test_what_was_a_set_or_a_dict_before_is_read() -> None:
    cache = Cache(1, 1, "64MiB", gossip_interval=None, decode="plain")
    row = ("a key of a thousand letters " * 40, 2**70, 1.5)
    values: list[object] = [
        [{row: number, row[0]: number} for number in range(3_000)],
        {2**number for number in range(3_000)},
        {complex(number, -number) for number in range(3_000)},
        [{row[0] * 20: number, bytes(9_000): number} for number in range(300)],
        {frozenset([number, "name"]): number for number in range(3_000)},
    ]
    for value in values:
        cache.put("key", value)
        assert cache.get("key")[0] == value
