"""`underpar data prepare | sample | fineweb | show`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from underpar.cli.options import add_json, print_json

if TYPE_CHECKING:
    from underpar.data.manifest import Manifest
    from underpar.data.prepare import SplitRule
    from underpar.data.progress import PrepareProgress
    from underpar.data.tokenizer_base import Tokenizer

HELP = "make, fetch and inspect prepared tokens"

_TOKENIZER_HELP = (
    "byte260, gpt2, spN or caseopsN (N pieces, trained on the training text), or a SentencePiece .model file"
)


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _configure_prepare(actions.add_parser("prepare", help="tokenise your own text"))
    _configure_sample(actions.add_parser("sample", help="tokenise the bundled sample"))
    _configure_fineweb(actions.add_parser("fineweb", help="fetch a published FineWeb export"))
    _configure_show(actions.add_parser("show", help="say what a prepared folder holds, and check it"))


def run(args: argparse.Namespace) -> int:
    return args.run_action(args)


# ------------------------------------------------------------------------------------------------- prepare, sample


def _configure_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="*", type=Path, help="training text: .jsonl[.gz|.xz|.zst] files, or folders of .txt and .md"
    )
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument("--val", type=Path, nargs="+", default=[], metavar="PATH", help="validation text")
    split.add_argument(
        "--val-docs", type=int, metavar="N", help="take the first N input documents for validation (published: 50000)"
    )
    parser.add_argument(
        "--drop-overlap", action="store_true", help="leave out training documents that are in the validation split too"
    )
    parser.add_argument("--shard-tokens", type=int, default=100_000_000, help="tokens per shard (default: 100000000)")
    _add_tokenizer(parser)
    _add_output(parser)
    parser.set_defaults(run_action=_prepare)


def _configure_sample(parser: argparse.ArgumentParser) -> None:
    _add_tokenizer(parser)
    _add_output(parser)
    parser.set_defaults(run_action=_sample)


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", default="sp1024", help=f"{_TOKENIZER_HELP} (default: sp1024)")
    parser.add_argument(
        "--train-bytes", type=int, metavar="BYTES", help="text that a trained tokenizer sees (default: 32 MB)"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder once the new one is complete")
    parser.add_argument("--workers", type=int, help="encoding processes (default: all cores)")
    add_json(parser)


def _prepare(args: argparse.Namespace) -> int:
    from underpar.core.errors import DataError
    from underpar.data.prepare import FirstDocuments, SeparateFiles

    if not args.inputs and (args.val_docs is not None or _is_trained(args.tokenizer)):
        raise DataError(
            "no training text; give at least one file or folder, or a tokenizer .model for a validation set alone"
        )
    if args.val_docs is not None:
        return _make(args, args.inputs, FirstDocuments(args.val_docs), args.val_docs)
    return _make(args, args.inputs, SeparateFiles(tuple(args.val)), 0)


def _sample(args: argparse.Namespace) -> int:
    from underpar.data.prepare import SeparateFiles
    from underpar.data.sample import sample_file

    args.drop_overlap, args.shard_tokens = False, 100_000_000
    return _make(args, [sample_file("train")], SeparateFiles((sample_file("val"),)), 0)


def _make(args: argparse.Namespace, inputs: list[Path], rule: "SplitRule", skipped: int) -> int:
    """Build the tokenizer from the training documents, prepare, and print the manifest."""
    from underpar.data.corpora import input_files
    from underpar.data.prepare import prepare
    from underpar.data.progress import PrepareProgress
    from underpar.data.staging import check_target

    check_target(args.out, overwrite=args.overwrite)  # a mistake should show before minutes of training, not after
    for path in (*inputs, *rule.paths):
        input_files(path)
    with PrepareProgress() as progress:
        tokenizer = _tokenizer(args, inputs, skipped, progress)
        manifest = prepare(
            inputs, tokenizer, args.out, val=rule, shard_tokens=args.shard_tokens, workers=args.workers,
            drop_overlap=args.drop_overlap, overwrite=args.overwrite, progress=progress,
        )  # fmt: skip
    return _print(args, manifest)


def _is_trained(name: str) -> bool:
    return not name.endswith(".model") and name not in ("byte260", "gpt2")


def _tokenizer(args: argparse.Namespace, inputs: list[Path], skipped: int, progress: "PrepareProgress") -> "Tokenizer":
    """Read from a file, or trained on the training documents alone: the first `skipped` are validation."""
    from itertools import islice

    from underpar.core.errors import ConfigError
    from underpar.data.corpora import stream_documents
    from underpar.data.tokenizers import CaseOps, SentencePiece, load_tokenizer, parse_tokenizer

    if args.tokenizer.endswith(".model") or Path(args.tokenizer).is_dir():
        return load_tokenizer(args.tokenizer)
    config = parse_tokenizer(args.tokenizer)
    if args.train_bytes is not None:
        if not isinstance(config, SentencePiece | CaseOps):
            raise ConfigError(f"--train-bytes: tokenizer '{args.tokenizer}' is not trained")
        config = type(config)(vocab_size=config.vocab_size, train_bytes=args.train_bytes).frozen()
    if _is_trained(args.tokenizer):
        progress.say(f"training {config.name} on the training text")
    return config.build(document.text for document in islice(stream_documents(inputs), skipped, None))


# ------------------------------------------------------------------------------------------------- fineweb


def _configure_fineweb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", default="sp1024", help="sp1024, sp8192, byte260, caseops8192, gpt2 or the export's name"
    )
    parser.add_argument(
        "--train-shards",
        type=int,
        default=1,
        metavar="N",
        help="training shards, 200 MB each (default: 1; records use 80)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to make, or to add shards to")
    parser.add_argument(
        "--source",
        metavar="REPO_OR_DIR",
        help="dataset repository (owner/name[@revision]) or a folder of the same layout",
    )
    add_json(parser)
    parser.set_defaults(run_action=_fineweb)


def _fineweb(args: argparse.Namespace) -> int:
    from underpar.data.fineweb import fetch_fineweb
    from underpar.data.fineweb_sources import find_source

    source = find_source(args.tokenizer, args.source)
    return _print(args, fetch_fineweb(args.tokenizer, args.out, train_shards=args.train_shards, source=source))


# ------------------------------------------------------------------------------------------------- show


def _configure_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="DIR", help="a prepared folder")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every byte: hashes, byte sums, and the validation text tokenised again",
    )
    add_json(parser)
    parser.set_defaults(run_action=_show)


def _show(args: argparse.Namespace) -> int:
    from underpar.data.manifest import VAL_TEXT_FILE, Manifest

    manifest = Manifest.load(args.out, check_hashes=args.verify)
    if args.verify:
        from underpar.data.retokenise import retokenise
        from underpar.data.validation import load_validation

        load_validation(args.out)
        if VAL_TEXT_FILE in manifest.files:
            retokenise(args.out)
    return _print(args, manifest)


def _print(args: argparse.Namespace, manifest: "Manifest") -> int:
    if args.json:
        import json

        print_json({"folder": str(args.out), "fingerprint": manifest.fingerprint, **json.loads(manifest.to_json())})
    else:
        print(f"{args.out}\n{manifest.describe()}")
    return 0
