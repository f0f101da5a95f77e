"""The mixing coder: exact, the same on every platform, below order-0 entropy where codes have structure, safe on any bytes."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.compress.codecs import Piece
from underpar.compress.mixing import stream, tables
from underpar.compress.mixing.references import find_references

RNG = np.random.default_rng(0)

EXPECTED = (4094, "5c281bca402faac1")
"""Length and digest of KNOWN's stream."""


def order0_bytes(codes: np.ndarray) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def coded(arrays: list[np.ndarray]) -> bytes:
    """The stream of these arrays, once it has decoded to them."""
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    pieces = [Piece(int(np.prod(a.shape[:-1])), a.shape[-1], a.itemsize) for a in arrays]
    blob = stream.encode(data, pieces)
    assert stream.decode(blob, len(data), pieces) == data
    return blob


def noise(rows: int, cols: int, *, row_spread: float, col_spread: float, std: float = 2.4) -> np.ndarray:
    scale = np.exp(RNG.normal(size=(rows, 1)) * row_spread) * np.exp(RNG.normal(size=(1, cols)) * col_spread)
    return np.rint(RNG.normal(size=(rows, cols)) * scale * std).clip(-127, 127).astype(np.int8)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(0, 70), st.integers(0, 40)),
    kind=st.sampled_from(["any", "extreme", "zero", "narrow", "wide"]),
    seed=st.integers(0, 10**6),
)
def test_any_matrix_comes_back(shape, kind, seed) -> None:
    rng = np.random.default_rng(seed)
    low, high = {"any": (-128, 128), "zero": (0, 1), "narrow": (-2, 3), "wide": (-31, 32), "extreme": (0, 2)}[kind]
    codes = rng.integers(low, high, shape)
    coded(
        [
            (codes * 255 - 128 if kind == "extreme" else codes).astype(np.int8),
            rng.integers(-3, 4, shape).astype(np.int8),
        ]
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, np.int64])
def test_words_come_back(dtype) -> None:
    values = np.exp(RNG.normal(size=(37, 11)) * 0.2).astype(dtype)
    blob = coded([values, values[:3]])
    assert len(blob) < 1.02 * values.nbytes + 300


def test_kinds_of_parts_share_a_stream() -> None:
    coded([noise(20, 30, row_spread=0, col_spread=0), np.ones(7, np.float16), noise(5, 9, row_spread=0, col_spread=0)])


def test_very_wide_matrices_are_folded() -> None:
    coded([RNG.integers(-3, 4, (1, 70_000)).astype(np.int8), RNG.integers(-3, 4, (3, 66_001)).astype(np.int8)])


@pytest.mark.parametrize(
    ("row_spread", "col_spread", "gain"), [(0.0, 0.0, -0.004), (0.4, 0.0, 0.02), (0.0, 0.5, 0.04), (0.4, 0.5, 0.07)]
)
def test_scales_of_rows_and_columns_are_found(row_spread, col_spread, gain) -> None:
    """Plain noise costs its entropy and 0.4 % for learning; uneven noise less than the entropy of all its codes together."""
    codes = noise(256, 512, row_spread=row_spread, col_spread=col_spread)
    assert len(coded([codes])) < (1 - gain) * order0_bytes(codes)


def test_large_codes_cost_their_entropy() -> None:
    codes = noise(256, 512, row_spread=0.0, col_spread=0.0, std=28.0)
    assert len(coded([codes])) < 1.006 * order0_bytes(codes)


def test_rows_like_earlier_rows_cost_less() -> None:
    topics = RNG.normal(size=(40, 128))
    codes = np.rint(3 * (0.8 * topics[RNG.integers(0, 40, 400)] + 0.6 * RNG.normal(size=(400, 128)))).astype(np.int8)
    rows, multiples = find_references(codes)
    assert (rows < np.arange(400)[:, None]).all()
    assert (rows[:, 0] >= 0).mean() > 0.8
    assert 4 < multiples[rows >= 0].mean() < 16
    assert len(coded([codes])) < 0.92 * order0_bytes(codes)
    assert find_references(noise(400, 128, row_spread=0, col_spread=0))[0].shape[0] == 1  # none that would pay


def test_columns_that_go_together_cost_less() -> None:
    """Rows from eight directions in 48 and as much noise: the codes to the left tell of the one that comes."""
    together = RNG.normal(size=(1500, 8)) @ RNG.normal(size=(8, 48)) / 8**0.5
    codes = np.rint(3 * (together + RNG.normal(size=(1500, 48)))).astype(np.int8)
    assert len(coded([codes[:700], codes[700:]])) < 0.965 * order0_bytes(codes)


def test_columns_that_change_are_followed() -> None:
    """Heads of 64 rows, each with scales of its own."""
    heads = [noise(64, 512, row_spread=0, col_spread=0.4) for _ in range(8)]
    codes = np.concatenate(heads)
    assert len(coded([codes])) < 0.985 * order0_bytes(codes)


def test_fractions_of_a_bit() -> None:
    codes = noise(256, 512, row_spread=0.4, col_spread=0.4, std=0.25)
    assert len(coded([codes])) < 0.97 * order0_bytes(codes)


def test_scales_cost_less_than_their_bytes() -> None:
    """A row's float16 scale: the exponent and a bit or two are known from the scales before it."""
    scales = (0.02 * np.exp(RNG.normal(size=4096) * 0.15)).astype(np.float16)
    assert len(coded([scales])) < 0.72 * scales.nbytes


KNOWN = """
import numpy as np
from hashlib import sha256
from underpar.compress.codecs import Piece
from underpar.compress.mixing import stream
codes = np.array([(i * i * 7 + i // 64 * 13) % 23 - 11 for i in range(4096)], np.int8).reshape(64, 64)
words = (np.arange(300) * 2654435761 % 65536).astype(np.uint16)
few = (np.arange(600 * 4) * 2654435761 % 65521 % 7 - 3).reshape(600, 4)
mixed = few[:, [0, 1, 2, 3, 0, 1, 2, 3, 2, 1, 0, 2]].astype(np.int8)
pieces = [Piece(64, 64), Piece(1, 300, 2), Piece(600, 12)]
blob = stream.encode(codes.tobytes() + words.tobytes() + mixed.tobytes(), pieces)
assert stream.decode(blob, sum(piece.nbytes for piece in pieces), pieces)[-7200:] == mixed.tobytes()
found = len(blob), sha256(blob).hexdigest()[:16]
"""


def test_the_stream_is_the_same_everywhere() -> None:
    """Bytes once written, on x86-64 with numba 0.68; another platform or version that differs could not read them."""
    names: dict = {}
    exec(KNOWN, names)
    assert names["found"] == EXPECTED


def test_tables_do_not_depend_on_the_last_digit() -> None:
    """A float library that errs by a few units in the last place rounds every entry to the same integer."""
    for exact in (np.array(tables.exact_values()), tables.exact_gaussian().ravel()):
        from_tie = np.abs(exact - np.floor(exact) - 0.5)
        assert (from_tie > 1e4 * np.spacing(np.abs(exact))).all()


INTERPRETED = """
import random
import numpy as np
from underpar.compress.codecs import Piece
from underpar.compress.mixing import stream
print(found)
rng = random.Random(0)
pieces = [Piece(64, 32), Piece(9, 1, 2), Piece(3, 50)]
size = sum(piece.nbytes for piece in pieces)
g = np.random.default_rng(0)
base = 2 * g.integers(-5, 6, (4, 32))[g.integers(0, 4, 64)] + g.integers(-1, 2, (64, 32))
data = base.astype(np.int8).tobytes() + bytes(18) + bytes(150)
good = stream.encode(data, pieces)
assert good[0] != stream.STORED and stream.decode(good, size, pieces) == data
for number in range(16):
    blob = bytearray(good if number % 2 else bytes([rng.randrange(255)]) + rng.randbytes(rng.randrange(1, 4000)))
    for _ in range(rng.randrange(1, 9)):
        blob[rng.randrange(len(blob))] = rng.randrange(256)
    try:
        assert len(stream.decode(bytes(blob), size, pieces)) == size
    except ValueError:
        pass
"""


def test_the_interpreter_agrees_and_finds_no_index_out_of_bounds() -> None:
    """Without the compiler: the same bytes, and random and damaged streams run under Python's own checks."""
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KNOWN + INTERPRETED], capture_output=True, text=True, timeout=200, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(EXPECTED)
    assert not done.stderr


def test_what_cannot_be_is_refused_at_once() -> None:
    blob = coded([noise(20, 30, row_spread=0, col_spread=0)])
    for damaged in (b"", bytes(10), blob[:1], blob[:-1], blob + b"\0"):
        with pytest.raises(ValueError, match=r"empty|cannot hold|where|another size"):
            stream.decode(
                damaged, 1 << 30 if damaged == bytes(10) else 600, [Piece(20, 30)] if damaged != bytes(10) else []
            )
