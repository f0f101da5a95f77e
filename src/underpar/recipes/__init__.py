"""Published and bundled recipes: each function is the difference from its parent."""
