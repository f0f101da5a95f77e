"""Quantise, code and pack: weights in, an artifact out."""
