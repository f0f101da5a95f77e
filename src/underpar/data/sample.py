"""The bundled sample: 2.3 MB of compressed real text, so that the first run needs no network and no download.

About 8.0 MB of training text and 0.26 MB of validation text from 22 sources in the public domain or under CC0, MIT or
Apache-2.0. `sample/SOURCES.md` lists them; `scripts/make_sample.py` rebuilds them.
"""

from collections.abc import Iterator
from pathlib import Path

from underpar.core.errors import DataError, suggest
from underpar.data.corpora import Document, stream_documents
from underpar.data.prepare import Progress, SeparateFiles, prepare
from underpar.data.tokenizers import TokenizerConfig

SAMPLE_DIR = Path(__file__).parent / "sample"


def sample_file(split: str) -> Path:
    """The bundled `.jsonl.xz` of 'train' or 'val'. Raises DataError when the installation lacks it."""
    if split not in ("train", "val"):
        raise DataError(f"the sample has no split '{split}'; {suggest(split, ('train', 'val'))}")
    path = SAMPLE_DIR / f"{split}.jsonl.xz"
    if not path.is_file():
        raise DataError(f"{path} is missing from this installation; reinstall underpar or run scripts/make_sample.py")
    return path


def sample_documents(split: str) -> Iterator[Document]:
    """The documents of 'train' (1,784) or 'val' (76) in their fixed order, with id, source and licence."""
    return stream_documents([sample_file(split)])


def prepare_sample(
    tokenizer: TokenizerConfig,
    out_dir: str | Path,
    *,
    models: Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Prepare the sample with a tokenizer trained on its training split; returns `out_dir`.

    Args:
        models: folder of published models, for a `PublishedModel`. The others are as in `prepare`.
    Raises:
        DataError: a folder in use, or a vocabulary too large for 8 MB of text.
    Cost: about 5 s on two cores for 1,024 or 2,048 pieces.
    """
    trained = tokenizer.frozen().build((document.text for document in sample_documents("train")), models=models)
    prepare(
        [sample_file("train")],
        trained,
        out_dir,
        val=SeparateFiles((sample_file("val"),)),
        workers=workers,
        overwrite=overwrite,
        progress=progress,
    )
    return Path(out_dir)
