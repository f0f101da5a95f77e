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

CHANCE_BITS, COUNT_BITS = 22, 10
"""An adaptive chance is 32 bits: the chance of a 1, and how many outcomes it has seen."""
CHANCE_MIN = 24
"""Least chance that is coded with, of 65,536; it also bounds what few bytes can unfold to."""
STRETCH_RANGE, STRETCH_ONE = 2047, 256
"""The logistic domain: STRETCH_ONE * ln(p / (1 - p)), within +-STRETCH_RANGE."""
MIXED_LIMIT, PLAIN_LIMIT = 400, 1000
"""Outcomes after which a chance stops slowing down: mixed ones follow changes, the others hardly change."""
LOG_STEPS = 64
"""Steps an octave of the table of logarithms."""
SQUASH = 0
STRETCH = SQUASH + 2 * STRETCH_RANGE + 2
ADAPTATION = STRETCH + 4096
LOGARITHM = ADAPTATION + (1 << COUNT_BITS)
TRELLIS = LOGARITHM + (1 << 16)
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
    entry = np.int64(table[at])
    count, chance = entry & ((1 << COUNT_BITS) - 1), entry >> COUNT_BITS
    if bit:
        chance += (((1 << CHANCE_BITS) - chance) >> 3) * fixed[ADAPTATION + count] >> 13
    else:
        chance -= (chance >> 3) * fixed[ADAPTATION + count] >> 13
    table[at] = chance << COUNT_BITS | min(count + 1, limit)


@_inline
def _code_adaptive(registers, data, table, at, bit, fixed):
    """One decision by one adaptive chance."""
    chance = np.int64(table[at]) >> (COUNT_BITS + CHANCE_BITS - 16)
    bit = _code_bit(registers, data, min(65536 - CHANCE_MIN, max(CHANCE_MIN, chance)), bit)
    _learn(table, at, bit, PLAIN_LIMIT, fixed)
    return bit


@_inline
def _code_mixed(registers, data, table, weights, fixed, weight, first, second, third, bit):
    """One decision by three adaptive chances (their places in `table`), mixed in the logistic domain.

    The three weights from place `weight` on have 16 fractional bits and learn from the error of the mixed chance.
    """
    one = np.int64(fixed[STRETCH + (table[first] >> 20)])
    two = np.int64(fixed[STRETCH + (table[second] >> 20)])
    three = np.int64(fixed[STRETCH + (table[third] >> 20)])
    total = one * weights[weight] + two * weights[weight + 1] + three * weights[weight + 2]
    chance = np.int64(fixed[SQUASH + 2048 + min(2047, max(-2047, total >> 16))])
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

NODES = 32
"""Decisions about a distance: 'zero?' in three forms by the fraction of the prediction, then 'one?', 'two?', ..."""
UNARY, ESCAPE_BITS = NODES - 3, 9
"""Distances from UNARY on continue in plain bits."""
CLASSES, CLASS_STEPS = 80, 4
"""Classes of variance, and how many an octave. A variance is in units of 1/64."""
COARSE = 2
"""Classes merged where two are looked up together."""
WIDE = CLASSES // COARSE
MAX_VARIANCE = 1 << 24
SHIFT_BITS, CLASS_BITS = 3, 7
COLUMN_PRIOR, ROW_PRIOR = 3, 6
"""What is expected of a column or a row before it is seen, in codes: the matrix's variance, and in part the last row's."""
RECENT_SHIFT = 4
"""The recent variance moves by 1/16 of the way to the last square."""
MEAN_PRIOR, MEAN_MEMORY = 16, 128
"""A column's mean starts from zero, as if seen so often, and forgets after so many rows."""
REFERENCES, COEFFICIENT_BITS = 4, 6
"""Earlier rows that a row can be predicted from, and their multiples: two's complement, in sixteenths."""

ABOVE, RECENT_ABOVE, LOG_ABOVE, VARIANCE, OFFSET, REFERRED, STATE, WORK = range(8)
"""What is kept of each column: sums of the squares above, scaled by rows; the same lately; its logarithm; the variance
expected, and then the square found; the mean; the prediction from other rows; the state of the trellis."""

APART = CLASSES * NODES
RECENT = APART + WIDE * WIDE * NODES
LOW_BITS = RECENT + WIDE * WIDE * NODES
SIGNS = LOW_BITS + 8 * 128
MORE = SIGNS + CLASSES // 8 * 3 * 16
COEFFICIENTS = MORE + REFERENCES
MATRIX_TABLE = COEFFICIENTS + (1 << COEFFICIENT_BITS)
"""Where the adaptive chances of each kind begin; those of the product of row and column come first."""


@_inline
def _log(fixed, variance):
    """LOG_STEPS * log2 of a variance up to MAX_VARIANCE."""
    value = min(MAX_VARIANCE, max(1, variance))
    if value < 1 << 16:
        return np.int64(fixed[LOGARITHM + value])
    return np.int64(fixed[LOGARITHM + (value >> 9)]) + 9 * LOG_STEPS


@_inline
def _class(log):
    step = LOG_STEPS // CLASS_STEPS
    return min(CLASSES - 1, max(0, (log + step // 2) // step))


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


@_compile
def code_matrix(registers, data, codes, table, weights, fixed, work, shift, variance_class, phased, rows, coefficients):
    """Code one matrix (rows, cols) of int8, which is read in encoding and written in decoding.

    A code is predicted to within 1/16 by its column's mean and multiples of earlier rows; its distance from the
    prediction is coded as decisions (0? 1? 2? ..., low bits, sign). What distances are like depends on their
    scale, to which row and column contribute: what is above tells of the column, what is to the left of the row. Three
    views of it give three chances for each decision: the product of both, the two apart, and the two over the last few
    codes only.

    Args:
        work: (WORK, cols) int64, zero.
        shift: low bits of a distance that are coded apart. variance_class: of the matrix, to begin with.
        phased: 1 for codes chosen by the trellis, whose values are half a step above them in its odd states.
        rows, coefficients: (rows, REFERENCES) int64, the references; -1 ends a row's; (1, REFERENCES) without any.
        In decoding these five are found in the stream; `rows` and `coefficients` are as without any.
    """
    height, width = codes.shape
    shift = code_plain(registers, data, SHIFT_BITS, shift)
    variance_class = min(CLASSES - 1, code_plain(registers, data, CLASS_BITS, variance_class))
    phased = code_plain(registers, data, 1, phased)
    refers = code_plain(registers, data, 1, 1 if rows.shape[0] > 1 else 0)
    mean = np.int64(1) << (variance_class // CLASS_STEPS)
    last, total = mean, np.int64(0)
    for j in range(width):
        work[RECENT_ABOVE, j] = mean
    for i in range(height):
        if refers:
            at = i if rows.shape[0] > 1 else 0
            count = _code_references(registers, data, table, fixed, i, rows[at], coefficients[at])
            for j in range(width):
                work[REFERRED, j] = 0
                for k in range(count):
                    work[REFERRED, j] += coefficients[at, k] * codes[rows[at, k], j]
        for j in range(width):
            work[VARIANCE, j] = min(MAX_VARIANCE, max(1, (COLUMN_PRIOR * mean + work[ABOVE, j]) // (COLUMN_PRIOR + i)))
            work[LOG_ABOVE, j] = _log(fixed, work[VARIANCE, j])
        log_mean = _log(fixed, mean)
        recent = (6 * last + 10 * mean) >> 4
        left, count, row_total = ROW_PRIOR * recent, ROW_PRIOR, np.int64(0)
        memory = min(MEAN_PRIOR + i, MEAN_MEMORY)
        for j in range(width):
            log_left = _log(fixed, left // count)
            both = _class(work[LOG_ABOVE, j] + log_left - log_mean)
            apart = _class(work[LOG_ABOVE, j]) // COARSE * WIDE + _class(log_left) // COARSE
            lately = _class(_log(fixed, work[RECENT_ABOVE, j])) // COARSE * WIDE + _class(_log(fixed, recent)) // COARSE
            half = 8 * (work[STATE, j] & 1)
            guess = min(127 << 4, max(-128 << 4, work[REFERRED, j] + (work[OFFSET, j] >> 8) - half))
            centre = (guess + 8) >> 4
            fraction = guess - (centre << 4)
            difference = np.int64(codes[i, j]) - centre
            distance = abs(difference)

            high = UNARY
            node = 0 if abs(fraction) < 3 else (1 if abs(fraction) < 6 else 2)
            first, second, third = both * NODES, APART + apart * NODES, RECENT + lately * NODES
            for step in range(UNARY):
                bit = 1 if distance >> shift == step else 0
                bit = _code_mixed(
                    registers, data, table, weights, fixed, 3 * node, first + node, second + node, third + node, bit
                )
                if bit:
                    high = step
                    break
                node = step + 3
            if high == UNARY:
                high += code_plain(registers, data, ESCAPE_BITS, (distance >> shift) - UNARY)
            low = distance & ((1 << shift) - 1)
            if shift:
                low = _code_tree(registers, data, table, LOW_BITS + min(high, 7) * 128, shift, low, fixed)
            distance = high << shift | low
            if distance:
                sign = SIGNS + ((both >> 3) * 3 + min(distance, 3) - 1) * 16 + fraction + 8
                negative = _code_adaptive(registers, data, table, sign, 1 if difference < 0 else 0, fixed)
                difference = -distance if negative else distance
            else:
                difference = 0
            codes[i, j] = code = ((centre + difference + 128) & 255) - 128

            if phased:
                work[STATE, j] = fixed[TRELLIS + 2 * work[STATE, j] + (code & 1)]
            square = min(MAX_VARIANCE, (distance * distance << 6) >> (2 * shift))
            left += min(MAX_VARIANCE, square * mean // work[VARIANCE, j])
            count += 1
            work[RECENT_ABOVE, j] += (square - work[RECENT_ABOVE, j]) >> RECENT_SHIFT
            recent += (square - recent) >> RECENT_SHIFT
            work[OFFSET, j] += (((code << 4) + half - work[REFERRED, j] << 8) - work[OFFSET, j]) // memory
            work[VARIANCE, j] = square
            row_total += square
        last = min(MAX_VARIANCE, max(1, left // count))
        scale = (mean << 12) // last
        for j in range(width):
            work[ABOVE, j] += min(MAX_VARIANCE, work[VARIANCE, j] * scale >> 12)
        total += row_total // width
        mean = min(MAX_VARIANCE, max(1, total // (i + 1)))


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
