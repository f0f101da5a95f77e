"""The other end of `workers`: reads batches of documents from stdin, writes their encodings to stdout, ends with stdin."""

import os
import signal
import sys

from underpar.core.errors import DataError
from underpar.data.encoding import encode_batch, receive_records, send, send_encoded
from underpar.data.tokenizers import load_tokenizer


def main(folder: str) -> None:
    """Serve with the tokenizer saved in `folder` until stdin closes."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # when nobody is left to answer, end without a word
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not end up among the answers
    tokenizer = load_tokenizer(folder)
    while True:
        try:
            records, with_text = receive_records(sys.stdin.buffer)
        except EOFError:
            return
        try:
            encoded = encode_batch(tokenizer, records, with_text=with_text)
        except DataError as problem:
            send(answers, {"error": str(problem)})
        else:
            send_encoded(answers, encoded)
