"""The compiled half of the mixing coder: an arithmetic coder, adaptive chances, and the models of matrices and of words.

One function codes in both directions, so that encoder and decoder cannot drift apart. All arithmetic is on integers, and every
index is clamped: nothing that a hostile stream decodes to can reach outside an array. All of it is in one file because
the cache of compiled functions notices changes of that file only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

# ------------------------------------------------------------------------------------------------- the coder

LOW, HIGH, VALUE, POSITION, DECODING = range(5)
"""The coder's registers."""
REGISTER_BITS = 48
REGISTER = (1 << REGISTER_BITS) - 1
TOP = REGISTER_BITS - 8
EVEN = 1 << 15

COUNT_BITS = 16
"""An adaptive chance: the chance of a 1 in 32 bits, and below it how many outcomes it has seen."""
CHANCE_MIN = 24
"""Least chance that is coded with, of 65,536; it also bounds what few bytes can unfold to."""
STRETCH_RANGE, STRETCH_ONE = 2047, 256
"""The logistic domain: STRETCH_ONE * ln(p / (1 - p)), within +-STRETCH_RANGE."""
MIXED_LIMIT, PLAIN_LIMIT = 400, 4000
"""Outcomes after which a chance stops slowing down: mixed ones follow changes, the others hardly change."""
OCTAVES, LEAST_OCTAVE = 24, -10
"""Variances are told apart from 2^-10 on; OCTAVES of them."""
CELL_BITS = 3
"""A prediction is told apart to 1/8 where the chances are looked up; everywhere else it has 8 fractional bits."""
LEVEL_BITS, CLASS_BITS, FINE_BITS = 16, 3, 5
"""A level is the logarithm of a variance with so many bits after the octave; classes and entries of tables have fewer."""
CLASSES, FINE = OCTAVES << CLASS_BITS, OCTAVES << FINE_BITS
SQUASH = 0
STRETCH = SQUASH + 2 * STRETCH_RANGE + 2
ADAPTATION = STRETCH + 4096
DEVIATION = ADAPTATION + PLAIN_LIMIT + 1
INVERSE = DEVIATION + FINE
SQUARE = INVERSE + FINE
TRELLIS = SQUARE + (CLASSES << CELL_BITS)
"""Where the parts of the table `fixed` begin."""

Compiled = Callable[..., Any]


def _compile(function: Compiled) -> Compiled:
    """Compiled on first use; the result is kept on disk where Python can keep its own bytecode, or in the user's cache."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither place can be written
        return njit(nogil=True, error_model="numpy")(function)


_inline = njit(inline="always")  # a call costs as much as what these do


@_inline
def _code_bit(registers, data, chance, bit):
    """One decision whose chance of being 1 is `chance` of 65,536. Returns it; in decoding `bit` is ignored.

    Beyond the end of `data` a decoder reads zeros and an encoder writes nothing; POSITION goes on counting.
    """
    low, high = registers[LOW], registers[HIGH]
    middle = low + ((high - low) >> 16) * chance
    if registers[DECODING]:
        bit = 1 if registers[VALUE] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> TOP == 0:
        at = registers[POSITION]
        registers[POSITION] = at + 1
        if registers[DECODING]:
            registers[VALUE] = registers[VALUE] << 8 & REGISTER
            if at < data.size:
                registers[VALUE] |= np.int64(data[at])
        elif at < data.size:
            data[at] = high >> TOP
        low = low << 8 & REGISTER
        high = (high << 8 & REGISTER) | 255
    registers[LOW], registers[HIGH] = low, high
    return bit


@_inline
def _learn(table, at, bit, limit, fixed):
    """Move a chance towards an outcome, the less the more it has seen."""
    entry = table[at]
    count, chance = entry & ((1 << COUNT_BITS) - 1), entry >> COUNT_BITS
    if bit:
        chance += ((1 << 32) - chance >> 16) * fixed[ADAPTATION + count]
    else:
        chance -= (chance >> 16) * fixed[ADAPTATION + count]
    table[at] = chance << COUNT_BITS | min(count + 1, limit)


@_inline
def _code_adaptive(registers, data, table, at, bit, fixed):
    """One decision by one adaptive chance."""
    chance = table[at] >> (COUNT_BITS + 16)
    bit = _code_bit(registers, data, min(65536 - CHANCE_MIN, max(CHANCE_MIN, chance)), bit)
    _learn(table, at, bit, PLAIN_LIMIT, fixed)
    return bit


@_inline
def _code_mixed(registers, data, table, weights, fixed, weight, first, second, third, bit):
    """One decision by three adaptive chances (their places in `table`), mixed in the logistic domain.

    The three weights from place `weight` on have 16 fractional bits and learn from the error of the mixed chance.
    """
    one = fixed[STRETCH + (table[first] >> 36)]
    two = fixed[STRETCH + (table[second] >> 36)]
    three = fixed[STRETCH + (table[third] >> 36)]
    total = one * weights[weight] + two * weights[weight + 1] + three * weights[weight + 2]
    chance = fixed[SQUASH + 2048 + min(2047, max(-2047, total >> 16))]
    bit = _code_bit(registers, data, chance, bit)
    error = (bit << 16) - chance
    weights[weight] += (one * error + (1 << 16)) >> 17
    weights[weight + 1] += (two * error + (1 << 16)) >> 17
    weights[weight + 2] += (three * error + (1 << 16)) >> 17
    _learn(table, first, bit, MIXED_LIMIT, fixed)
    _learn(table, second, bit, MIXED_LIMIT, fixed)
    _learn(table, third, bit, MIXED_LIMIT, fixed)
    return bit


@_compile
def code_plain(registers, data, count, value):
    """`count` bits without a model, the highest first."""
    found = 0
    for at in range(count - 1, -1, -1):
        found = 2 * found + _code_bit(registers, data, EVEN, (value >> at) & 1)
    return found


@_compile
def _code_tree(registers, data, table, root, count, value, fixed):
    """`count` bits, the highest first, each by the adaptive chance of what precedes it: 2^count places from `root`."""
    node = 1
    for at in range(count - 1, -1, -1):
        node = 2 * node + _code_adaptive(registers, data, table, root + node, (value >> at) & 1, fixed)
    return node - (1 << count)


# ------------------------------------------------------------------------------------------------- matrices of codes

NODES, ESCAPE_BITS = 44, 9
"""Decisions 'here?' about a distance; what is farther goes on in plain bits."""
SHIFT_FROM = (6 - LEAST_OCTAVE << CLASS_BITS) - 1
"""Classes above it, standard deviations from 8 on, have low bits of a distance coded apart, one more an octave."""
PHASED, LINEAR, LEVEL, COLUMN_PRIOR, COLUMN_MEMORY, ROW_PRIOR, MEAN_PRIOR, REFERS = range(8)
SETTING_BITS = (1, 4, 8, 4, 4, 4, 4, 1)
"""What is said of a matrix before its codes: are they a trellis's; how many rows that show nothing the predictions from the row
so far begin with; the class of the variance; how many codes as expected a column's variance begins with and how many it keeps;
what a row's variance and a column's mean begin with; are there references. Numbers are logarithms, and NEVER does without."""
NEVER = 15
RATE_BITS = 24
RATE = round(1.4426950408889634 * (1 << RATE_BITS))
REFERENCES, COEFFICIENT_BITS = 4, 6
"""Earlier rows that a row can be predicted from, and their multiples: two's complement, in sixteenths."""
MAX_LINEAR, WARM_UP = 1024, 384
"""Widest matrix with predictions from the row so far, and rows of a stream without: those of bytes, first in an embedding, are
unlike all others and teach what upsets the next thousand."""

VARIANCE, MEAN, REFERRED, STATE, RATES, WORK = range(6)
"""What is kept of each column: its level, its mean, the prediction from other rows, the state of the trellis; how fast a row's
level moves at it."""
SUM, BEFORE, ERROR, LINES = range(4)
"""And for the prediction from the row so far: its sum, the code and the error in standard deviations, in 2^-5."""

OFFSETS = (1 << CELL_BITS) + 1
SIDES = CLASSES * OFFSETS * NODES
LOW_BITS = SIDES + (CLASSES << CELL_BITS)
MORE = LOW_BITS + 8 * 128
COEFFICIENTS = MORE + REFERENCES
MATRIX_TABLE = COEFFICIENTS + (1 << COEFFICIENT_BITS)
"""Where the adaptive chances of each kind begin; those of distances come first."""


@_compile
def _code_references(registers, data, table, fixed, row, rows, coefficients):
    """Which earlier rows predict `row`, and by what multiples. Returns how many; in decoding they are in the two arrays."""
    width = 0
    while row >> width:
        width += 1
    for k in range(REFERENCES):
        if not _code_adaptive(registers, data, table, MORE + k, 1 if rows[k] >= 0 else 0, fixed):
            return k
        rows[k] = max(0, row - 1 - code_plain(registers, data, width, row - 1 - rows[k]))
        code = coefficients[k] & ((1 << COEFFICIENT_BITS) - 1)
        code = _code_tree(registers, data, table, COEFFICIENTS, COEFFICIENT_BITS, code, fixed)
        coefficients[k] = code - (code >> (COEFFICIENT_BITS - 1) << COEFFICIENT_BITS)
    return REFERENCES


@_inline
def _code_distance(registers, data, table, fixed, context, cell, is_above, distance):
    """How far a code is beyond the first one on its side of the prediction. Returns what to add to the code below it."""
    shift = max(0, context - SHIFT_FROM + (1 << CLASS_BITS + 1) - 1 >> CLASS_BITS + 1)
    first = (context * OFFSETS + ((1 << CELL_BITS) - cell if is_above else cell)) * NODES
    high = NODES
    for step in range(NODES):
        if _code_adaptive(registers, data, table, first + step, 1 if distance >> shift == step else 0, fixed):
            high = step
            break
    if high == NODES:
        high += code_plain(registers, data, ESCAPE_BITS, (distance >> shift) - NODES)
    if shift:
        low = distance & ((1 << shift) - 1)
        low = _code_tree(registers, data, table, LOW_BITS + min(high, 7) * 128, shift, low, fixed)
        high = high << shift | low
    return high + 1 if is_above else -high


@_compile
def _predict(sums, factors, before):
    """What a code says of those to its right. Of views that begin with them: only so is it compiled to vectors."""
    for k in range(sums.size):
        sums[k] += (factors[k] >> 8) * before


@_compile
def _adapt(factors, errors, step):
    """Move the factors towards what would have predicted better."""
    for k in range(factors.size):
        factors[k] = min(1 << 21, max(-1 << 21, factors[k] + (step * errors[k] + 64 >> 7)))


@_compile
def code_matrix(registers, data, codes, table, fixed, settings, work, lines, factors, seen, rows, coefficients):
    """Code one matrix (rows, cols) of int8, which is read in encoding and written in decoding.

    A code is predicted by its column's mean, by multiples of earlier rows, and by what the codes to its left were in other
    rows. It is coded as the side of the prediction that it is on, then how far: 'here?' code by code, low bits
    where they are large. Each decision has an adaptive chance for the variance that is expected, the product of one for the
    column and one for the row. Both move by what every code turns out to be, the less the more they have seen.

    Args:
        settings: (REFERS + 1,) int64; found in the stream in decoding.
        work, lines: (WORK, cols) int64 and (LINES, cols) int32, zero. factors, seen: (cols, cols) int32, by which a
            code predicts those to its right, in 2^-22, and (1,) int64, how many rows they have learnt from: kept
            between matrices of one width. Wider ones than MAX_LINEAR give any.
        rows, coefficients: (rows, REFERENCES) int64, the references, -1 ends a row's; (1, REFERENCES) for none and in decoding.
    """
    height, width = codes.shape
    for k in range(REFERS + 1):
        settings[k] = code_plain(registers, data, SETTING_BITS[k], settings[k])
    phased, may_learn = settings[PHASED], settings[LINEAR] < NEVER and width <= MAX_LINEAR
    memory = 1 << settings[COLUMN_MEMORY] if settings[COLUMN_MEMORY] < NEVER else height
    for j in range(width):
        work[VARIANCE, j] = settings[LEVEL] << LEVEL_BITS - CLASS_BITS
        work[RATES, j] = RATE // (j + (1 << settings[ROW_PRIOR])) if settings[ROW_PRIOR] < NEVER else 0
    usual = np.int64(0)
    for i in range(height):
        if settings[REFERS]:
            at = i if rows.shape[0] > 1 else 0
            count = _code_references(registers, data, table, fixed, i, rows[at], coefficients[at])
            for j in range(width):
                work[REFERRED, j] = 0
                for k in range(count):
                    work[REFERRED, j] += coefficients[at, k] * codes[rows[at, k], j] << 4
        column_rate = RATE // (min(i, memory) + (1 << settings[COLUMN_PRIOR]))
        mean_rate = (1 << 16) // (i + (1 << settings[MEAN_PRIOR])) if settings[MEAN_PRIOR] < NEVER else 0
        row, power = usual, np.int64(0)
        linear = may_learn and seen[0] >= WARM_UP
        for j in range(width):
            level = min((OCTAVES << LEVEL_BITS) - 1, max(0, work[VARIANCE, j] + row))
            context, fine = level >> LEVEL_BITS - CLASS_BITS, level >> LEVEL_BITS - FINE_BITS
            half = work[STATE, j] & 1
            guess = work[REFERRED, j] + (work[MEAN, j] >> 8) - (half << 7)
            shift = 0
            if linear:
                shift = min(1000, max(-1000, np.int64(lines[SUM, j]) >> 11)) * fixed[DEVIATION + fine] >> 8
            guess = min(127 << 8, max(-128 << 8, guess + shift))

            cell = guess + (1 << 7 - CELL_BITS) >> 8 - CELL_BITS
            below, cell = cell >> CELL_BITS, cell & (1 << CELL_BITS) - 1
            code = np.int64(codes[i, j])
            is_above = _code_adaptive(
                registers, data, table, SIDES + (context << CELL_BITS) + cell, 1 if code > below else 0, fixed
            )
            code = below + _code_distance(
                registers, data, table, fixed, context, cell, is_above, code - below - 1 if is_above else below - code
            )
            codes[i, j] = code = (code + 128 & 255) - 128

            if phased:
                work[STATE, j] = fixed[TRELLIS + 2 * work[STATE, j] + (code & 1)]
            error = (code << 8) - guess
            deviations = error * fixed[INVERSE + fine] >> 20
            if linear:
                before = min(63, max(-63, (error + shift) * fixed[INVERSE + fine] >> 23))
                power += before * before
                lines[BEFORE, j], lines[ERROR, j] = before, min(63, max(-63, deviations >> 3))
                _predict(lines[SUM, j + 1 :], factors[j, j + 1 :], np.int32(before))
            excess = min(1 << 24, (deviations * deviations >> 4) - fixed[SQUARE + (context << CELL_BITS) + cell])
            row += min(1 << LEVEL_BITS, excess * work[RATES, j] >> 20)
            work[VARIANCE, j] += min(1 << LEVEL_BITS, excess * column_rate >> 20)
            work[MEAN, j] += error * mean_rate >> 8
        usual += row - usual >> 3
        if linear:
            rate = (1 << 24) // max(1 << 7, seen[0] + (1 << settings[LINEAR]) + (power >> 10))
            for j in range(width):
                _adapt(factors[j, j + 1 :], lines[ERROR, j + 1 :], np.int32(lines[BEFORE, j] * rate >> 5))
                lines[SUM, j] = 0
        seen[0] += may_learn


@_compile
def trellis_halves(codes, machine, states, found):
    """Which codes (rows, cols) stand for half a step more: `found`, bool, by `machine` (states, 2) from `states` (cols,) on."""
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            found[i, j] = states[j] & 1 == 1
            states[j] = machine[states[j], codes[i, j] & 1]


# ------------------------------------------------------------------------------------------------- words

PREVIOUS = 8 * 256 * 256
ALONE = 2 * PREVIOUS
WORD_TABLE = ALONE + 8 * 256


@_compile
def code_words(registers, data, words, table, weights, fixed):
    """Code items of several bytes, (count, bytes) uint8 with the most significant byte first: floats, in the main.

    The bits of a byte are expected by the byte before it, by the same byte of the item before, and by neither.
    """
    count, size = words.shape
    for i in range(count):
        before = np.int64(0)
        for place in range(size):
            value, node = np.int64(words[i, place]), np.int64(1)
            same = np.int64(words[i - 1, place]) if i else np.int64(0)
            first, second = (place * 256 + before) * 256, PREVIOUS + (place * 256 + same) * 256
            third = ALONE + place * 256
            for at in range(7, -1, -1):
                bit = (value >> at) & 1
                bit = _code_mixed(
                    registers,
                    data,
                    table,
                    weights,
                    fixed,
                    3 * (place * 256 + node),
                    first + node,
                    second + node,
                    third + node,
                    bit,
                )
                node = 2 * node + bit
            before = node - 256
            words[i, place] = before
