"""What tokenizers that normalise lose of a text, and what it costs to say it.

python benchmarks/referee_rewriting.py val.jsonl.xz MODEL [MODEL ...] --out benchmarks/results/referee_rewriting.json
"""

import argparse
import json
from pathlib import Path

from underpar.data.tokenizers import load_tokenizer
from underpar.referee.retokenise import retokenise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="raw documents, JSON lines")
    parser.add_argument("models", type=Path, nargs="+", help="SentencePiece models")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for model in args.models:
        tokenizer = load_tokenizer(model)
        text = retokenise(args.text, tokenizer, lambda done: None).to_json()
        lost = text["recovery"] or {"restore_bits": 0.0, "places": 0, "whitespace_places": 0}
        rows.append(
            {"tokenizer": tokenizer.identity, "bits_per_byte": lost["restore_bits"] / text["text_bytes"], **text}
        )
        print(
            f"{tokenizer.name:<14} {text['altered_documents']:,} of {text['documents']:,} documents, {lost['places']:,} places "
            f"({lost['whitespace_places']:,} of them spaces and line ends): {rows[-1]['bits_per_byte']:.6f} bits per byte"
        )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
