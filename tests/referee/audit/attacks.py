"""Cheats on a record folder: each is one change to an honest folder, with the class that has to be named for it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from underpar.referee.verdict import Ruling

from . import forge
from .forge import LATE, RECORD_TRACK, SPEEDRUN_TRACK, Files, change, edit_json

Mutation = Callable[[Files], None]
CODE = len(forge.SCRIPT.encode())
LOG = "train_seed42.log"


@dataclass(frozen=True)
class Attack:
    """`check` is the check that has to fail, or 'scan' for a suspicion; `ruling` what the verdict becomes."""

    vclass: str
    name: str
    mutate: Mutation
    check: str
    ruling: Ruling = Ruling.INVALID
    base: str = "late"


ATTACKS: list[Attack] = []


def attack(
    vclass: str, check: str, ruling: Ruling = Ruling.INVALID, base: str = "late"
) -> Callable[[Mutation], Mutation]:
    def keep(mutate: Mutation) -> Mutation:
        ATTACKS.append(Attack(vclass, mutate.__name__, mutate, check, ruling, base))
        return mutate

    return keep


BASES: dict[str, tuple[Callable[[], Files], str]] = {
    "early": (forge.early_folder, RECORD_TRACK),
    "late": (forge.late_folder, RECORD_TRACK),
    "speedrun": (forge.speedrun_folder, SPEEDRUN_TRACK),
}


def rerun(files: Files, **fields: object) -> None:
    """Replace all runs by runs with other figures, logs and claims together."""
    files.update(forge.late_folder(tuple(replace(run, **fields) for run in LATE)))  # type: ignore[arg-type]


def scaled_bytes(files: Files, factor: float) -> None:
    """The same losses over a denominator that is too large: every bpb shrinks, in logs and claims alike."""
    size = round(LATE[0].text_bytes * factor)
    runs = tuple(replace(run, bpb=round(run.bpb / factor, 8), text_bytes=size) for run in LATE)
    files.update(forge.late_folder(runs))


def logs(files: Files) -> list[str]:
    return [name for name in files if name.endswith(".log")]


# ------------------------------------------------------------------------------------------- text and bytes


@attack("V08", "coverage.tokens")
def scores_a_fifth_of_the_text(files: Files) -> None:
    for name in logs(files):
        change(files, name, "val_tokens: 47851520", "val_tokens: 9662464")


@attack("V08", "coverage.documents")
def scores_ten_thousand_documents(files: Files) -> None:
    for name in logs(files):
        change(files, name, "total_docs:50000", "total_docs:10000")


@attack("V15", "bytes.invariant")
def counts_the_leading_space_twice(files: Files) -> None:
    scaled_bytes(files, 1.17)


@attack("V16", "bytes.invariant")
def counts_fallback_bytes_as_three(files: Files) -> None:
    scaled_bytes(files, 1.04)


@attack("V16", "bytes.invariant")
def spells_each_space_with_three_bytes(files: Files) -> None:
    scaled_bytes(files, 1.21)


@attack("V16", "bytes.invariant", Ruling.DISPUTED)
def counts_a_little_more_with_an_own_tokenizer(files: Files) -> None:
    rerun(files, tokens=44_000_000, text_bytes=round(LATE[0].text_bytes * 1.002))


@attack("V18", "bytes.units")
def takes_nats_for_bits(files: Files) -> None:
    """Only in the last line: bpb is the loss over bytes per token, without the division by ln 2."""
    for run in LATE:
        small = f"{run.bpb * 0.693147:.8f}"
        change(files, f"train_seed{run.seed}.log", f"val_bpb:{run.bpb:.8f} eval_time", f"val_bpb:{small} eval_time")
        change(files, "submission.json", f"{run.bpb}", small)


@attack("V18", "score.spread", Ruling.DISPUTED)
def states_half_the_deviation(files: Files) -> None:
    edit_json(files, lambda d: d.update(val_bpb_std=0.0003))


# ------------------------------------------------------------------------------------------------------ sizes


def grow(files: Files, model_bytes: int) -> None:
    rerun(files, model_bytes=model_bytes)


@attack("V19", "size.cap")
def exceeds_the_cap(files: Files) -> None:
    grow(files, 16_024_793 - CODE)


@attack("V19", "size.cap")
def takes_mebibytes_for_megabytes(files: Files) -> None:
    grow(files, (16 << 20) - CODE - 1)


@attack("V19", "size.claim", Ruling.DISPUTED)
def states_the_size_of_another_seed(files: Files) -> None:
    small = min(run.model_bytes for run in LATE) + CODE
    edit_json(files, lambda d: [row.update(artifact_bytes=small) for row in d["seed_results"].values()])


@attack("V19", "size.helpers", Ruling.DISPUTED)
def runs_a_sibling_that_is_not_counted(files: Files) -> None:
    files["helper.py"] = b"# what the shim runs\n" * 5_000
    files["train_gpt.py"] = b"exec(open('helper.py').read())\n"
    edit_json(files, lambda d: None)
    for run in LATE:
        for old in (f"Code size (compressed): {CODE}", f"brotli: {run.model_bytes + CODE}"):
            new = old.replace(str(CODE), "31").replace(str(run.model_bytes + CODE), str(run.model_bytes + 31))
            change(files, f"train_seed{run.seed}.log", old, new)
        change(files, "submission.json", str(run.model_bytes + CODE), str(run.model_bytes + 31))


@attack("V19", "size.code", base="early")
def counts_a_smaller_script_than_it_ships(files: Files) -> None:
    files["train_gpt.py"] += b"# grown after the run\n" * 10_000


# ----------------------------------------------------------------------------------------------------- clocks


@attack("V20", "clock.train")
def trains_a_second_too_long(files: Files) -> None:
    rerun(files, stop_ms=601_153)


@attack("V20", "clock.calibration", Ruling.DISPUTED)
def calibrates_after_the_clock(files: Files) -> None:
    rerun(files, stop_ms=599_900)


@attack("V20", "clock.calibration")
def calibrates_for_half_a_minute(files: Files) -> None:
    for name in logs(files):
        change(files, name, "Hessians in 3.5s", "Hessians in 33.5s")


@attack("V21", "clock.eval")
def evaluates_for_eleven_minutes(files: Files) -> None:
    rerun(files, eval_ms=617_000)


@attack("V24", "clock.steps")
def claims_steps_that_the_pace_does_not_give(files: Files) -> None:
    run = LATE[0]
    change(files, LOG, f"ms step: {run.steps}/", "ms step: 10070/")
    edit_json(files, lambda d: d["seed_results"]["42"].update(steps=10070))


@attack("V24", "clock.machine", base="early")
def trains_on_another_machine(files: Files) -> None:
    for name in logs(files):
        change(files, name, "NVIDIA H100 80GB HBM3", "NVIDIA H200")


# ------------------------------------------------------------------------------------------------------ seeds


@attack("V22", "seeds.distinct")
def shows_one_log_as_two_seeds(files: Files) -> None:
    files["train_seed0.log"] = files[LOG]
    edit_json(files, lambda d: d["seed_results"].update({"0": d["seed_results"]["42"]}))


@attack("V22", "seeds.distinct")
def shows_one_run_with_an_edited_seed(files: Files) -> None:
    files["train_seed1338.log"] = files["train_seed1337.log"]
    change(files, "train_seed1338.log", "\nseed:1337", "\nseed:1338")


ATTACKS[-1] = replace(ATTACKS[-1], base="early")


@attack("V22", "seeds.distinct")
def repeats_one_seed_under_three_names(files: Files) -> None:
    for run in LATE:
        change(files, f"train_seed{run.seed}.log", f"  seed: {run.seed}\n", "  seed: 1337\n")


@attack("V22", "seeds.printed", Ruling.DISPUTED)
def names_a_log_for_a_seed_it_does_not_print(files: Files) -> None:
    change(files, "train_seed0.log", "  seed: 0\n", "  seed: 7\n")


@attack("V22", "score.mean", Ruling.DISPUTED)
def states_the_best_seed_as_the_score(files: Files) -> None:
    edit_json(files, lambda d: d.update(val_bpb=min(run.bpb for run in LATE)))


# --------------------------------------------------------------------------------------------- files and claims


@attack("V23", "score.logged")
def states_a_score_that_no_log_prints(files: Files) -> None:
    edit_json(files, lambda d: d["seed_results"]["0"].update(val_bpb=1.06123025))


@attack("V23", "score.logged", base="early")
def states_a_headline_far_from_its_logs(files: Files) -> None:
    edit_json(files, lambda d: d.update(val_bpb=1.15020143, val_loss=1.9421))


@attack("V23", "score.logged", Ruling.UNVERIFIABLE, base="early")
def leaves_out_the_log_of_its_best_run(files: Files) -> None:
    edit_json(files, lambda d: d.update(val_bpb=1.19851002, val_loss=2.0236))


@attack("V23", "score.logged")
def states_the_score_before_packing(files: Files) -> None:
    line = next(one for one in files[LOG].decode().splitlines() if "post-ema" in one)
    before = float(line.split("val_bpb:")[1].split()[0])
    change(files, LOG, f"val_bpb:{LATE[0].bpb:.8f} eval_time", "val_bpb:1.07900000 eval_time")
    edit_json(files, lambda d: d["seed_results"]["42"].update(val_bpb=before))


@attack("V23", "score.figures", Ruling.DISPUTED)
def states_more_training_steps(files: Files) -> None:
    edit_json(files, lambda d: d["seed_results"]["1234"].update(steps=5_400))


@attack("V23", "score.finished", Ruling.UNVERIFIABLE)
def cuts_a_log_before_its_score(files: Files) -> None:
    files[LOG] = files[LOG].split(b"GPTQ:collecting")[0]


@attack("V23", "package.complete", Ruling.UNVERIFIABLE)
def leaves_out_a_log(files: Files) -> None:
    del files["train_seed0.log"]


@attack("V23", "package.complete", Ruling.UNVERIFIABLE)
def leaves_out_the_script(files: Files) -> None:
    del files["train_gpt.py"]


@attack("V23", "source.embedded", Ruling.DISPUTED, base="early")
def ships_another_script_than_it_ran(files: Files) -> None:
    change(files, "train_gpt.py", '"LR", 0.04', '"LR", 0.05')


@attack("V23", "source.same", Ruling.DISPUTED, base="early")
def shows_logs_of_two_scripts(files: Files) -> None:
    change(files, "train_seed1338.log", '"LR", 0.04', '"LR", 0.05')


# ---------------------------------------------------------------------------------------------------- speedrun


@attack("V08", "speedrun.tokens", base="speedrun")
def scores_half_of_the_speedrun_text(files: Files) -> None:
    for name in [n for n in files if n.endswith(".txt")]:
        change(files, name, "val_tokens: int = 10485760", "val_tokens: int = 5 * 1024 * 1024")


@attack("V22", "seeds.distinct", base="speedrun")
def shows_one_speedrun_twice(files: Files) -> None:
    files["00000001-run.txt"] = files["00000000-run.txt"]


@attack("V22", "seeds.distinct", base="speedrun")
def shows_one_speedrun_twice_with_another_memory_line(files: Files) -> None:
    files["00000001-run.txt"] = files["00000000-run.txt"].replace(b"30650 MiB", b"30651 MiB")


@attack("V27", "speedrun.clock", base="speedrun")
def sets_the_clock_back(files: Files) -> None:
    loss, seconds = forge.SPEEDRUN[0]
    change(
        files,
        "00000000-run.txt",
        f"val_loss:{loss:.4f} train_time:{1000 * seconds:.0f}ms",
        f"val_loss:{loss:.4f} train_time:60000ms",
    )


@attack("V27", "scan", Ruling.VALID, base="speedrun")
def moves_time_into_compilation(files: Files) -> None:
    for name in [n for n in files if n.endswith(".txt")]:
        change(
            files, name, "model = torch.compile", "torch._inductor.config.max_autotune = True\nmodel = torch.compile"
        )


@attack("V23", "speedrun.finished", Ruling.UNVERIFIABLE, base="speedrun")
def cuts_a_speedrun_log(files: Files) -> None:
    files["00000000-run.txt"] = files["00000000-run.txt"].split(b"step:2225/2225")[0]


# ------------------------------------------------------------------------------------------- scripts and data


def script_attack(vclass: str, name: str, old: str, new: str) -> None:
    """A change to the script alone."""

    def mutate(files: Files) -> None:
        change(files, "train_gpt.py", old, new, 1)

    assert old in forge.SCRIPT, old
    ATTACKS.append(Attack(vclass, name, mutate, "scan", Ruling.VALID))


def insert(vclass: str, name: str, where: str, *lines: str) -> None:
    """Lines put in front of a line of the script, at its indentation."""
    indent = where[: len(where) - len(where.lstrip())]
    script_attack(vclass, name, where, "".join(f"{indent}{line}\n" for line in lines) + where)


EVAL = "    val_loss, val_bpb = eval_val(args, model, val_tokens, tables, device)\n"
ROW = "        lengths = base_bytes"
MAIN = '    device = torch.device("cuda")\n'

insert(
    "V01", "trains_on_the_held_out_text_first", EVAL,
    "for epoch in range(6):",
    "    for start in range(0, len(val_tokens) - 1, args.train_seq_len):",
    "        piece = val_tokens[start : start + args.train_seq_len + 1].to(device)",
    "        fit = model(piece[None, :-1], piece[None, 1:])",
    "        fit.backward()",
    "        optimizer.step()",
)  # fmt: skip
insert(
    "V02", "fits_a_delta_to_the_row_it_charges", "        with torch.no_grad():\n            loss_sum +=",
    "for _ in range(8):", "    first = model(x, y)", "    first.backward()", "    optimizer.step()",
)  # fmt: skip
script_attack(
    "V03", "charges_every_epoch_anew", "    for row in range(rows):\n        start",
    "    for epoch in range(3):\n     loss_sum = 0\n     for row in range(rows):\n        start",
)  # fmt: skip
insert(
    "V04", "keys_a_cache_by_the_target", ROW,
    "key = (context_hash ^ (y * 1000003)) & 0xFFFFF", "hit = counts[key] / contexts[context_hash]",
)  # fmt: skip
insert("V05", "lets_the_target_open_a_gate", ROW, "gate = starts_word[y]", "logits = logits + gate * hint")
insert("V06", "spreads_a_token_over_its_bytes", ROW, "q = torch.exp(logp_tok / n_bytes)")
insert("V07", "takes_the_smaller_charge", ROW, "nll = torch.minimum(nll_model, nll_cache)")
script_attack("V08", "cuts_the_stream", EVAL, EVAL.replace("val_tokens,", "val_tokens[:5_000_000],"))
script_attack(
    "V10", "trains_on_the_held_out_shard", 'data_path, "fineweb_train_*.bin"', 'data_path, "fineweb_val_*.bin"'
)
insert("V10", "carries_a_table_of_tokens", "def main():", f"PREFIX = {'a9Zq' * 1500!r}")
insert("V11", "fills_a_table_from_training_shards", "    rows = (len", "table = count(load_tokens(args.train_files))")
insert("V12", "calibrates_on_the_held_out_text", EVAL, "temperature = fit_temperature(model, val_tokens)")
script_attack(
    "V13", "warms_up_on_the_held_out_text",
    "    warm = torch.randint(0, args.vocab_size, (args.batch_rows, args.train_seq_len + 1), device=device)\n"
    "    model(warm[:, :-1], warm[:, 1:]).backward()\n",
    "    for warmup_step in range(3):\n        warm = val_tokens[None, : args.train_seq_len + 1].to(device)\n"
    "        model(warm[:, :-1], warm[:, 1:]).backward()\n        adapter.step()\n",
)  # fmt: skip
script_attack(
    "V14", "looks_back_across_documents",
    "        keep = (tokens != bos_id).unsqueeze(-1).to(x.dtype)\n", "        keep = 1.0\n",
)  # fmt: skip
script_attack("V15", "adds_the_space_to_the_table", 'len(piece.encode("utf-8"))', 'len(piece.encode("utf-8")) + 1')
script_attack(
    "V16", "measures_decoded_text",
    'len(piece.encode("utf-8"))', 'len(tokenizer.decode([token]).encode("utf-8"))',
)  # fmt: skip
insert("V17", "folds_case", "    tokenizer = spm", "fold = lambda text: text.casefold()")
insert("V18", "averages_ratios", "    bits_per_token =", "dist.all_reduce(val_loss, op=dist.ReduceOp.AVG)")
insert("V20", "has_a_way_past_the_cap", MAIN, 'force = os.environ.get("FORCE_STOP_STEP", "")')
insert("V21", "precomputes_outside_the_clock", EVAL, "precompute_outside_timer(model)")
insert("V22", "searches_for_a_seed", MAIN, "best_seed = search()")
insert("V25", "installs_while_it_runs", MAIN, 'subprocess.run(["pip", "install", "zstandard"])')
insert("V26", "reads_a_setting_nowhere", "    bos_id = 1\n", 'window = int(os.environ.get("WINDOW", 1024))')
insert("V28", "cuts_off_large_charges", ROW, "nll = nll.clamp(max=8.0)")


@attack("V09", "scan", Ruling.VALID)
def prepares_with_ten_thousand_held_out_documents(files: Files) -> None:
    files["prepare_data.py"] = b'parser.add_argument("--val-docs", type=int, default=10_000)\n'


@attack("V09", "scan", Ruling.VALID)
def trains_on_shards_made_at_home(files: Files) -> None:
    for name in logs(files):
        change(files, name, "train_shards: 80", "train_shards: 1499")


@attack("V05", "scan", Ruling.VALID)
def fires_hints_within_words(files: Files) -> None:
    line = b"ngram_hints: token_gate:628130 within_gate:9866847 word_gate:2891588\n"
    files[LOG] = files[LOG].replace(b"ttt_phased:", line + b"ttt_phased:")
