"""`underpar verify`: a run folder, an artifact, or a program of somebody else's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from underpar.cli.options import count, finite, positive

if TYPE_CHECKING:
    from underpar.referee.candidate import Candidate
    from underpar.referee.measurement import Event
    from underpar.referee.submission import Submission
    from underpar.referee.verdict import Verdict
    from underpar.referee.verify import Effort

HELP = "judge a result or a predictor: valid, invalid, disputed or unverifiable, with evidence"
EPILOG = """\
a run folder     underpar verify runs/quickstart/seed1337
an artifact      underpar verify model.upar --tokenizer data/sp1024 --text val.jsonl.zst --claim score.json
a program        underpar verify --command 'python eval.py {val} {charges}' --dir submission --val val.bin --tokenizer sp.model
a Python object  underpar verify --python predictor.py:charges --val val.bin
from evidence    underpar verify --replay verdict.json

What a program is given and what it must answer: docs/predictor.md. Exit code: 0 valid, 1 invalid, 2 a mistake on the
command line, 3 disputed, 4 unverifiable.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("target", nargs="?", type=Path, help="a run folder, or an artifact with --tokenizer and --text")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="derive the verdict of a file again from its evidence"
    )
    _add_program(parser)
    _add_data(parser)
    _add_effort(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write verdict.json and verdict.html there")
    parser.add_argument("--json", action="store_true", help="print the verdict with all evidence as JSON")


def _add_program(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a program of somebody else's")
    group.add_argument(
        "--command", help="what starts it; {val} or {val_dir} becomes the shard, {charges} the file for its charges, {world} "
        "the number of processes. Without {charges} only its printed val_loss is examined"
    )  # fmt: skip
    group.add_argument(
        "--python", metavar="FILE.py:NAME", help="a function of tokens, or a class with charges() or step()"
    )
    group.add_argument("--dir", type=Path, help="folder with the submission's files: copied, and the working folder")
    group.add_argument("--val", type=Path, help="validation shard in the field's format, or a folder of them")
    group.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the command; repeatable")
    group.add_argument("--unit", choices=("nats", "bits"), default="nats", help="of the charges (default: nats)")
    group.add_argument(
        "--vocab-size", type=count, help="default: the tokenizer's, else the shard's largest id plus one"
    )
    group.add_argument(
        "--bos", type=int, help="id that starts a document (default: the tokenizer's, else the first one)"
    )
    group.add_argument("--unseen", type=Path, help="a shard of other text of the same kind, to compare the cost with")
    group.add_argument("--read", type=Path, action="append", default=[], help="more that it may read; repeatable")
    group.add_argument("--memory-gb", type=positive, default=8.0, help="of all its processes together (default: 8)")
    group.add_argument("--processes", type=count, default=128, help="that it may run at once (default: 128)")
    group.add_argument("--limit-seconds", type=positive, help="that scoring the whole shard may take")


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("text and claim")
    group.add_argument("--data", type=Path, help="prepared folder with the held-out text; a run folder knows its own")
    group.add_argument("--tokenizer", type=Path, help="prepared folder or SentencePiece .model file")
    group.add_argument("--text", type=Path, help="raw held-out documents: .jsonl, .jsonl.gz, .jsonl.xz or .jsonl.zst")
    group.add_argument(
        "--claim", type=Path, nargs="+", default=[], help="what is claimed: score.json, artifact.json or both"
    )
    group.add_argument(
        "--train", type=Path, help="training shards, to look for the held-out documents in; nothing judged sees them"
    )
    group.add_argument("--code", type=Path, help="the counted source, .tar.xz")
    group.add_argument(
        "--limit-bytes", type=count, help="cap of artifact plus code (default: the run's own, else 16,000,000)"
    )


def _add_effort(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("effort")
    group.add_argument("--budget", metavar="60s", help="time for the probes: the strongest set that fits is chosen")
    group.add_argument("--plan", type=Path, metavar="FILE", help="the probes of an earlier verdict.json, to repeat it")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to score (default: cpu)")
    group.add_argument(
        "--tolerance", type=_share, help="relative difference of the score that is forgiven (default: 1e-4)"
    )
    group.add_argument("--seed", type=int, help="of the probes' random texts (default: derived from the files)")
    group.add_argument(
        "--time-limit",
        type=positive,
        metavar="SECONDS",
        help="of the clean process (default: 1800) or of one run of a program (600)",
    )


def _share(text: str) -> float:
    if not 0 <= (value := finite(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no relative difference: at least 0 and below 1")
    return value


def run(args: argparse.Namespace) -> int:
    """0 valid, 1 invalid, 3 disputed, 4 unverifiable; 2 is a mistake on the command line."""
    import json

    from underpar.referee.render import render
    from underpar.referee.verify import VERDICT_FILE, write_verdict

    verdict = _verdict(args)
    folder = args.out or (args.target if args.target is not None and args.target.is_dir() else None)
    if folder is not None and args.replay is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_verdict(folder / VERDICT_FILE, verdict)
        if args.out is not None:
            from underpar.records.verdict_page import PAGE_FILE, write_verdict_page

            write_verdict_page(verdict.to_json(), folder / PAGE_FILE)
    print(json.dumps(verdict.to_json(), indent=1) if args.json else render(verdict))
    return verdict.exit_code


def _verdict(args: argparse.Namespace) -> Verdict:
    """The one thing that the arguments ask for."""
    from underpar.core.errors import ConfigError
    from underpar.referee.sandbox import Limits
    from underpar.referee.verify import replay, verify, verify_program

    given = {"a target": args.target, "--command": args.command, "--python": args.python, "--replay": args.replay}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ConfigError(
            f"name one thing to verify, got {' and '.join(named) or 'nothing'}; see underpar verify --help"
        )
    if args.replay:
        return replay(args.replay)
    if args.target:
        limits = Limits() if args.time_limit is None else Limits(seconds=args.time_limit)
        return verify(_submission(args), device=args.device, effort=_effort(args), limits=limits, on_event=_progress())
    return verify_program(_candidate(args), effort=_effort(args), on_event=_progress())


def _effort(args: argparse.Namespace) -> Effort:
    from underpar.core.errors import DataError
    from underpar.referee.plan import Plan
    from underpar.referee.verify import DEFAULT_TOLERANCE, Effort, read_verdict

    plan = None
    if args.plan is not None:
        facts = read_verdict(args.plan).measured.get("facts", {})
        if "plan" not in facts:
            raise DataError(f"{args.plan} holds no plan of probes; leave out --plan")
        plan = Plan.from_json(facts["plan"])
    return Effort(
        seed=args.seed,
        budget_seconds=None if args.budget is None else seconds_of(args.budget),
        plan=plan,
        tolerance=DEFAULT_TOLERANCE if args.tolerance is None else args.tolerance,
    )


def seconds_of(text: str) -> float:
    """'60', '60s', '5m' or '1h' in seconds. Raises ConfigError for anything else."""
    from underpar.core.errors import ConfigError

    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, factor = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, 1.0)
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"budget '{text}' is no time; write 60s, 5m or 1h")
    return seconds


def _submission(args: argparse.Namespace) -> Submission:
    from dataclasses import replace

    from underpar.core.errors import DataError
    from underpar.referee.candidate import train_shards

    if not args.target.exists():
        raise DataError(
            f"there is no run folder or artifact at {args.target}; 'underpar run' and 'underpar pack' make them"
        )
    found = _run_folder(args) if args.target.is_dir() else _single_files(args)
    if args.train is None:
        return found
    return replace(found, train=train_shards(args.train), command=f"{found.command} --train {args.train}")


def _run_folder(args: argparse.Namespace) -> Submission:
    from underpar.core.errors import ConfigError
    from underpar.referee.submission import submission_from_run

    named = [name for name in ("tokenizer", "text", "claim", "code") if getattr(args, name)]
    if named:
        raise ConfigError(f"{args.target} is a run folder and brings its own {named[0]}; leave out --{named[0]}")
    return submission_from_run(args.target, data=args.data, limit_bytes=args.limit_bytes)


def _single_files(args: argparse.Namespace) -> Submission:
    from underpar.core.errors import ConfigError
    from underpar.referee.submission import submission_from_files

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


def _candidate(args: argparse.Namespace) -> Candidate:
    from underpar.core.errors import ConfigError
    from underpar.referee.adapters.command import CommandLine
    from underpar.referee.adapters.python import Target
    from underpar.referee.candidate import Candidate, train_shards, val_shards
    from underpar.referee.case import ByteLimit
    from underpar.referee.claim import Claim, read_claim_file
    from underpar.referee.jail.devices import device_files
    from underpar.referee.jail.run import JailLimits

    if args.val is None:
        raise ConfigError(
            "name the validation shard with --val: a .bin file in the field's format, or a folder of them"
        )
    wrong = [pair for pair in args.env if "=" not in pair]
    if wrong:
        raise ConfigError(f"--env {wrong[0]} is no NAME=VALUE")
    env = dict(pair.split("=", 1) for pair in args.env)
    start = CommandLine.parse(args.command, env) if args.command else Target.parse(args.python, args.dir)
    return Candidate(
        start=start,
        val=val_shards(args.val),
        folder=args.dir,
        vocab_size=args.vocab_size,
        bos_id=args.bos,
        tokenizer=args.tokenizer,
        text=args.text,
        train=() if args.train is None else train_shards(args.train),
        unseen=args.unseen,
        claim=Claim.of(*(read_claim_file(path) for path in args.claim)),
        limit=ByteLimit() if args.limit_bytes is None else ByteLimit(args.limit_bytes, "the command line"),
        unit=args.unit,
        limits=JailLimits(
            seconds=args.time_limit or JailLimits.seconds,
            memory_bytes=round(args.memory_gb * (1 << 30)),
            processes=args.processes,
        ),
        limit_seconds=args.limit_seconds,
        devices=tuple(device_files(args.device)),
        read_only=tuple(args.read),
        command=_repeating(args),
    )


REPEATED = (
    "command", "python", "dir", "val", "env", "unit", "vocab_size", "bos", "train", "unseen", "read", "memory_gb", "processes",
    "limit_seconds", "tokenizer", "text", "claim", "limit_bytes", "device", "time_limit",
)  # fmt: skip
"""What the command that repeats a verdict carries, where it is not the default; how much is probed comes after it."""


def _repeating(args: argparse.Namespace) -> str:
    """The command that examines the same program again."""
    import shlex

    parser = argparse.ArgumentParser()
    configure(parser)
    words = ["underpar", "verify"]
    for name in REPEATED:
        value = getattr(args, name)
        if value == parser.get_default(name):
            continue
        option, values = f"--{name.replace('_', '-')}", value if isinstance(value, list) else [value]
        if name == "claim":
            words += [option, *map(str, values)]
        else:
            words += [word for one in values for word in (option, str(one))]
    return shlex.join(words)


def _progress() -> Event:
    last = [""]

    def show(doing: str, done: float) -> None:
        line = f"verify: {doing}" + (f" {done:.0%}" if done else "")
        if line != last[0]:
            last[0] = line
            print(line, file=sys.stderr, flush=True)

    return show
