"""Rebuild the bundled sample of real text from a corpus folder.

    python scripts/make_sample.py CORPUS [--out src/underpar/data/sample]

CORPUS holds `train-*.jsonl.xz` and `val.jsonl.xz` (one object per line: id, source, license, text) in one fixed
shuffled order, and a README.md whose table of sources names the origin of each. Training documents come from the first
training file and validation documents from the validation file, so the corpus' own split by whole source document
carries over.

The selection is a rule, not a draw: only sources under the licences below; every source gets a share proportional to
the square root of its size, so that a few large sources do not drown the others; documents are taken in file order and
cut at a paragraph end, so that a small validation split still holds many of them.
"""

import argparse
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LICENCES = {
    "US-public-domain",
    "US-public-domain/CC0",
    "public-domain/CC0",
    "CC0-1.0",
    "MIT",
    "Apache-2.0",
    "MIT/Apache-2.0",
}
CUT_BYTES = 12_000
SHORTEST_CUT_BYTES = 2_000  # a first paragraph longer than the cut would leave nothing; such documents are passed over
TRAIN_BYTES = 8_000_000
VAL_BYTES = 290_000


@dataclass(frozen=True)
class Document:
    id: str
    source: str
    license: str
    text: str

    @property
    def bytes(self) -> int:
        return len(self.text.encode())

    def line(self) -> str:
        fields = {"id": self.id, "source": self.source, "license": self.license, "text": self.text}
        return json.dumps(fields, ensure_ascii=False) + "\n"


def read(path: Path) -> Iterator[Document]:
    """The documents of one corpus file that may be redistributed without share-alike or attribution in each copy."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            if fields["license"] in LICENCES:
                yield Document(fields["id"], fields["source"], fields["license"], fields["text"])


def cut(document: Document) -> Document | None:
    """The document up to the last paragraph end within CUT_BYTES; None where there is none worth keeping."""
    if document.bytes <= CUT_BYTES:
        return document
    head = document.text.encode()[:CUT_BYTES].decode("utf-8", errors="ignore")
    end = head.rfind("\n\n")
    if end < SHORTEST_CUT_BYTES:
        return None
    return Document(document.id, document.source, document.license, head[:end])


def shares(sizes: Counter[str]) -> dict[str, float]:
    """Source -> fraction of the sample, proportional to the square root of the source's bytes."""
    total = sum(size**0.5 for size in sizes.values())
    return {source: size**0.5 / total for source, size in sizes.items()}


def select(path: Path, share: dict[str, float], total_bytes: int) -> list[Document]:
    """Documents in file order; each source stops where the next document would pass its share."""
    taken: Counter[str] = Counter()
    chosen: list[Document] = []
    for document in read(path):
        piece = cut(document)
        if piece is None or document.source not in share:
            continue
        if taken[piece.source] + piece.bytes <= share[piece.source] * total_bytes:
            taken[piece.source] += piece.bytes
            chosen.append(piece)
    return chosen


def origins(readme: Path) -> dict[str, str]:
    """Source -> 'repository @ revision' from the table of sources (| source | what | licence | origin | ...)."""
    rows = re.findall(r"^\| ([\w.-]+) \| [^|]+ \| [^|]+ \| ([^|]+ @ [^|]+) \|", readme.read_text("utf-8"), re.MULTILINE)
    return {source: origin.strip() for source, origin in rows}


def sources_table(train: list[Document], val: list[Document], origin: dict[str, str]) -> str:
    counts = {name: (Counter[str](), Counter[str]()) for name in ("train", "val")}
    licence: dict[str, str] = {}
    for name, documents in (("train", train), ("val", val)):
        for document in documents:
            counts[name][0][document.source] += 1
            counts[name][1][document.source] += document.bytes
            licence[document.source] = document.license
    rows = []
    for source, _ in counts["train"][1].most_common():
        cells = [source, licence[source], origin[source]]
        cells += [f"{counts[split][kind][source]:,}" for split in ("train", "val") for kind in (0, 1)]
        rows.append("| " + " | ".join(cells) + " |")
    totals = [f"{sum(counts[split][kind].values()):,}" for split in ("train", "val") for kind in (0, 1)]
    rows.append("| **total** | | | " + " | ".join(totals) + " |")
    return "\n".join(rows)


HEADER = """# The bundled sample: sources

Real English text: books, speeches, abstracts, government sites, newsletters and technical documentation. Written by
`scripts/make_sample.py` from a larger corpus; only documents in the public domain or under CC0, MIT or Apache-2.0.
Each line of `train.jsonl.xz` and `val.jsonl.xz` carries its source, its licence and the id of the document that it was
cut from. Public domain is meant as in the United States. Markup, code blocks, tables and reference lists were removed
and long documents cut at a paragraph end. Notices of the MIT and Apache-2.0 works are in `NOTICES.md`. No source
document has pieces in both splits.

| source | licence | origin (GitHub repository @ revision) | train docs | train bytes | val docs | val bytes |
|---|---|---|---:|---:|---:|---:|
"""


def write(path: Path, documents: list[Document]) -> None:
    data = "".join(document.line() for document in documents).encode()
    path.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    parser = argparse.ArgumentParser(description="Rebuild the bundled sample of real text.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/underpar/data/sample")
    args = parser.parse_args()
    train_file = sorted(args.corpus.glob("train-*.jsonl.xz"))[0]  # the order is shuffled: one file is a fair sample
    sizes: Counter[str] = Counter()
    for document in read(train_file):
        sizes[document.source] += document.bytes
    share = shares(sizes)
    train = select(train_file, share, TRAIN_BYTES)
    val = select(args.corpus / "val.jsonl.xz", share, VAL_BYTES)
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "train.jsonl.xz", train)
    write(args.out / "val.jsonl.xz", val)
    (args.out / "SOURCES.md").write_text(HEADER + sources_table(train, val, origins(args.corpus / "README.md")) + "\n")


if __name__ == "__main__":
    main()
