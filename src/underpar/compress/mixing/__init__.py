"""A context-mixing coder for quantised weights: `stream.encode` and `stream.decode`.

Quantised weights are noise whose scale varies by row and by column. General coders (Brotli, zstd) look for repeats, which
noise has none of, and approach the order-0 entropy of the codes from above; a model of the scale goes below it. The
technique is that of PAQ and of lossless image coders: adaptive binary chances in several contexts, mixed in the logistic
domain. Integers throughout, so that every platform decodes the same bytes; numba compiles it.
"""
