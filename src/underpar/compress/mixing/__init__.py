"""A context-mixing coder for quantised weights: `stream.encode` and `stream.decode`.

Quantised weights are noise whose scale varies by row and by column. General coders (Brotli, zstd) look for repeats, which
noise has none of, and approach the order-0 entropy of the codes from above; a model of the scale goes below it. Codes are
taken for Gaussians whose mean and variance are learnt on the way; the other parts are coded by adaptive chances mixed in the
logistic domain, as PAQ does. Integers throughout, so that every platform decodes the same bytes; numba compiles it.
"""
