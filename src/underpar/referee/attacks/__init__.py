"""Small predictors that cheat, each beside an honest twin: what is forbidden, in code. The handbook is written from
them.

A file shows one class. `forbidden` and `allowed` differ as little as they can; the file's docstring says in what.
They are complete: `underpar verify --python src/underpar/referee/attacks/v04_target_keyed_cache.py:forbidden --val
SHARD` refuses the one, `...:allowed` passes. Tokens are those of the byte tokenizer: pad 0, BOS 1, eos 2, unk 3,
byte b at b + 4.
"""
