"""The layers: linear, norm, rope, attention, mlp, embeddings."""
