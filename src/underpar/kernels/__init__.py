"""One folder per operation: ref.py is the definition of correct, triton.py the fast path."""
