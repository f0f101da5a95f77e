"""What a parameter is for. Declared once, where the parameter is created; read by everything that treats kinds differently.

The optimiser chooses its update by role, the quantiser its precision, the report its rows. Nothing matches substrings of
parameter names: a rename cannot change the science.
"""

from enum import StrEnum


class Role(StrEnum):
    """The kinds of parameter."""

    MATRIX = "matrix"
    """A hidden 2-D weight, (out_features, in_features): orthogonalised updates, low-bit quantisation."""
    EMBEDDING = "embedding"
    """A lookup table, (vocab_size, dim). When tied it is the output head as well."""
    HEAD = "head"
    """An untied output projection, (vocab_size, model_dim)."""
    GAIN = "gain"
    """Scales, mixes, gains and skip weights: few, fp32, kept unquantised."""
    GATE = "gate"
    """Weights of small gates whose output passes through a sigmoid."""
