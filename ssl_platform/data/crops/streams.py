"""Random numbers of crops, by name: each op of each crop of an image has a sequence of its own.

A generator of one image gives a single number, and names turn it into as many sequences as there
are ops. So the numbers of an op depend on nothing but that image and the op's name: not on what
other ops, crops or groups there are.
"""

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

# SplitMix64 (Steele, Lea, Flood 2014), whose n-th number is a function of its seed and n
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_UNUSED_BITS = np.uint64(11)  # of a float64, whose fraction has 53
_ULP = 2.0**-53


class Streams:
    """Independent sequences of uniform numbers.

    Args:
        names: of the sequences, each a few words.
        lengths: how many numbers each has.
    """

    def __init__(self, names: Sequence[tuple[str, ...]], lengths: Sequence[int]):
        self._ids = np.array([_id_of(name) for name in names], dtype=np.uint64)
        ends = [*accumulate(lengths, initial=0)]
        self._parts = [slice(*ends_of_one) for ends_of_one in pairwise(ends)]
        counts = [np.arange(1, length + 1, dtype=np.uint64) for length in lengths]
        self._offsets = np.concatenate(counts) * _GAMMA
        self._owners = np.repeat(np.arange(len(names)), lengths)

    def uniforms(self, rng: np.random.Generator) -> list[list[float]]:
        """The numbers in [0, 1) of each sequence; ``rng`` moves on by 64 bits."""
        key = np.frombuffer(rng.bytes(8), np.uint64)
        values = _mixed(_mixed(self._ids + key)[self._owners] + self._offsets)
        values >>= _UNUSED_BITS
        numbers = (values * _ULP).tolist()
        return [numbers[part] for part in self._parts]


def generator(seed: Sequence[float]) -> np.random.Generator:
    """A generator that two uniform numbers decide."""
    key = np.array([int(uniform / _ULP) for uniform in seed], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _id_of(name: tuple[str, ...]) -> int:
    digest = hashlib.blake2b("\0".join(name).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's function of 64 bits to 64 bits; changes ``values``."""
    values ^= values >> _SHIFTS[0]
    values *= _FIRST
    values ^= values >> _SHIFTS[1]
    values *= _SECOND
    values ^= values >> _SHIFTS[2]
    return values
