"""`underpar verify RUN` and `underpar verify ARTIFACT --tokenizer PATH --text FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from underpar.referee.sandbox import Event
    from underpar.referee.submission import Submission

HELP = "re-measure a result in a clean process and judge it: valid, invalid, disputed or unverifiable"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", type=Path, help="a run folder, or an artifact file with --tokenizer and --text")
    parser.add_argument("--data", type=Path, help="prepared folder with the held-out text; a run folder knows its own")
    parser.add_argument("--tokenizer", type=Path, help="prepared folder or SentencePiece .model file")
    parser.add_argument("--text", type=Path, help="raw held-out documents: .jsonl, .jsonl.gz, .jsonl.xz or .jsonl.zst")
    parser.add_argument(
        "--claim", type=Path, nargs="+", default=[], help="what is claimed: score.json, artifact.json or both"
    )
    parser.add_argument("--code", type=Path, help="the counted source, .tar.xz")
    parser.add_argument(
        "--limit-bytes", type=int, help="cap of artifact plus code (default: the run's own, else 16,000,000)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to score again (default: cpu)")
    parser.add_argument(
        "--tolerance", type=float, help="relative difference of the score that is forgiven (default: 1e-4)"
    )
    parser.add_argument("--seed", type=int, help="of the probes' random texts (default: derived from the files)")
    parser.add_argument(
        "--time-limit", type=float, default=1800.0, metavar="SECONDS", help="of the clean process (default: 1800)"
    )
    parser.add_argument("--json", action="store_true", help="print the verdict with all evidence as JSON")


def run(args: argparse.Namespace) -> int:
    """0 valid, 1 invalid, 3 disputed, 4 unverifiable; 2 is a mistake on the command line."""
    import json

    from underpar.referee.render import render
    from underpar.referee.sandbox import Limits
    from underpar.referee.verify import DEFAULT_TOLERANCE, VERDICT_FILE, verify, write_verdict

    verdict = verify(
        _submission(args),
        device=args.device,
        seed=args.seed,
        limits=Limits(seconds=args.time_limit),
        tolerance=DEFAULT_TOLERANCE if args.tolerance is None else args.tolerance,
        on_event=_progress(),
    )
    if args.target.is_dir():
        write_verdict(args.target / VERDICT_FILE, verdict)
    print(json.dumps(verdict.to_json(), indent=1) if args.json else render(verdict))
    return verdict.exit_code


def _submission(args: argparse.Namespace) -> Submission:
    from underpar.core.errors import ConfigError
    from underpar.referee.submission import submission_from_files, submission_from_run

    if args.target.is_dir():
        named = [name for name in ("tokenizer", "text", "claim", "code") if getattr(args, name)]
        if named:
            raise ConfigError(f"{args.target} is a run folder and brings its own {named[0]}; leave out --{named[0]}")
        return submission_from_run(args.target, data=args.data, limit_bytes=args.limit_bytes)
    tokenizer, text = args.tokenizer or args.data, args.text
    if text is None and args.data is not None:
        from underpar.data.manifest import VAL_TEXT_FILE

        text = args.data / VAL_TEXT_FILE
    if tokenizer is None or text is None:
        raise ConfigError(
            f"{args.target} is a single file: name --tokenizer and --text, or a prepared folder with --data"
        )
    return submission_from_files(
        args.target, tokenizer, text, claims=args.claim, code=args.code, limit_bytes=args.limit_bytes
    )


def _progress() -> Event:
    last = [""]

    def show(doing: str, done: float) -> None:
        line = f"verify: {doing}" + (f" {done:.0%}" if done else "")
        if line != last[0]:
            last[0] = line
            print(line, file=sys.stderr, flush=True)

    return show
