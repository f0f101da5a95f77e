"""Seconds of test-time training: an artifact on its text, or a freshly initialised recipe on random tokens.

    python benchmarks/ttt.py golf/pr1855 --out benchmarks/results/h200_ttt.json
    python benchmarks/ttt.py golf/pr1855 --artifact runs/golf-pr1855/seed42/artifact.upar --data DIR
    torchrun --nproc_per_node=2 benchmarks/ttt.py golf/pr1855

Random tokens come in documents of the lengths of the `golf-mini` track (421 documents, 929,528 tokens of CaseOps 8192), or of
`--lengths FILE`, a JSON list of tokens a document. `--set` changes the adaptation (`--set step_tokens=32_768`), `--uncompiled`
leaves torch.compile out, `--profile` adds where the time of a step goes. The time is of scoring alone; compilation and
warm-up stand beside it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from underpar.core.errors import UnderparError
from underpar.core.world import World
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import ValStream, load_validation
from underpar.evaluate.adapted import Running
from underpar.evaluate.load import load_model
from underpar.evaluate.phased import DocumentScorer
from underpar.evaluate.scorers import adaptive_scorer
from underpar.kernels.attention import backend_for
from underpar.lab.adaptive import MODES, chosen_adaptation
from underpar.lab.build import build_model
from underpar.lab.environment import describe_environment
from underpar.lab.files import write_json
from underpar.lab.profile import profile_steps
from underpar.lab.say import say
from underpar.model.compiled import compile_model, graphs_compiled
from underpar.recipes import registry

GOLF_MINI = Path(__file__).with_name("golf_mini_documents.json")
BOS_ID = 1


def random_documents(lengths: list[int], vocab_size: int) -> ValStream:
    """Uniform ids in documents of these lengths in tokens, BOS included; every other token stands for one byte."""
    tokens = np.random.default_rng(0).integers(BOS_ID + 1, vocab_size, sum(lengths)).astype(np.uint16)
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int64)
    tokens[starts] = BOS_ID
    return ValStream(tokens, (tokens != BOS_ID).astype(np.int32), starts)


def bench(args: argparse.Namespace, world: World) -> dict[str, Any]:
    config = registry.resolve(args.recipe, track=args.track).config
    if args.artifact:
        loaded = load_model(args.artifact, world.device)
        model, recorded = loaded.model, loaded.adaptation or config.evaluate.adaptation
        stream, bos_id = load_validation(args.data), load_tokenizer(args.data).bos_id
    else:
        model, recorded = build_model(config, world).eval().requires_grad_(False), config.evaluate.adaptation
        model.compute_dtype = config.train.dtype(world)
        stream, bos_id = random_documents(json.loads(args.lengths.read_text()), config.model.vocab_size), BOS_ID
    adaptation = chosen_adaptation(recorded, args.mode, args.overrides)
    if adaptation is None:
        raise UnderparError(f"{args.recipe} records no test-time training; choose one with --mode")
    compiler = None if args.uncompiled or world.device == "cpu" else compile_model
    plain = compiler(model) if compiler else model
    scorer = adaptive_scorer(adaptation, model, bos_id=bos_id, world=world, compiler=compiler, plain=plain)
    graphs: list[int] = []

    def watch(running: Running) -> None:
        graphs.append(graphs_compiled())
        say(f"{running.done:.0%}  {running.bpb:.4f} bpb  {running.seconds_left:.0f} s left")

    found = scorer.charge(stream, budget_seconds=args.budget, watcher=watch if world.is_main else None)
    score, lengths = found.score(stream), np.diff(np.append(stream.document_starts, len(stream.tokens)))
    attention = backend_for(
        torch.device(world.device), model.compute_dtype, packed=False, row_tokens=adaptation.context
    )  # fmt: skip
    result = {
        "recipe": args.recipe,
        "artifact": loaded.sha256 if args.artifact else None,
        "adaptation": str(adaptation),
        "compiled": compiler is not None,
        "world_size": world.size,
        "documents": len(lengths),
        "longest_document_tokens": int(lengths.max()),
        "tokens": score.tokens,
        "bpb": score.bpb,
        "eval_seconds": found.eval_seconds,
        "tokens_per_second": score.tokens / found.eval_seconds,
        "graphs_while_scoring": graphs[-1] - graphs[0] if graphs else 0,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if world.device != "cpu" else None,
        "environment": describe_environment(attention),
        **found.to_json(),
    }
    if args.charges and world.is_main:
        np.save(args.charges, found.nats.astype(np.float32))
    if args.profile and isinstance(scorer, DocumentScorer):
        trainer = scorer.trainer
        result["profiles"] = {w: profile_steps(lambda w=w: trainer.rehearse(w)) for w in trainer.shapes.widths}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--track", default="golf-mini")
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--data", type=Path, help="prepared tokens of the artifact's tokenizer")
    parser.add_argument("--lengths", type=Path, default=GOLF_MINI)
    parser.add_argument("--mode", choices=list(MODES))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE")
    parser.add_argument("--budget", type=float, metavar="SECONDS")
    parser.add_argument("--uncompiled", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--charges", type=Path, metavar="NPY", help="also write the nats of every target, float32")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.artifact and not args.data:
        parser.error("--artifact needs --data")
    world = World.join(args.device)
    result = bench(args, world)
    if world.is_main:
        print(json.dumps(result, indent=1))
        if args.out:
            write_json(args.out, result)
    world.leave()


if __name__ == "__main__":
    main()
