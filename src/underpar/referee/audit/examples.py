"""Worked examples of what the audit of a folder finds: one change to a line of a record that holds together.

`allowed` is a piece of a log, a submission or a script; `forbidden` is the same piece with the cheat. A test puts each
into a whole record and has it named.
"""

from __future__ import annotations

from underpar.referee.classes import Example

AUDIT_EXAMPLES: tuple[Example, ...] = (
    Example(
        "V11", "table_from_training_shards",
        "    table = count_ngrams(load_tokens(args.train_files))\n    rows = (len(val_tokens) - 1) // args.train_seq_len",
        "    rows = (len(val_tokens) - 1) // args.train_seq_len",
        "The scoring function reads the training shards, which are not in the artifact.",
        ("scan.V11",),
    ),
    Example(
        "V15", "space_in_the_table_and_in_the_sum",
        '        base_bytes[token] = len(piece.encode("utf-8")) + 1',
        '        base_bytes[token] = len(piece.encode("utf-8"))',
        "The scoring loop already adds the byte of a leading space; the table adds it once more.",
        ("scan.V15",),
    ),
    Example(
        "V16", "length_of_decoded_text",
        '        base_bytes[token] = len(tokenizer.decode([token]).encode("utf-8"))',
        '        base_bytes[token] = len(piece.encode("utf-8"))',
        "A byte-fallback token decodes to a replacement character of three bytes, and stands for one.",
        ("scan.V16",),
    ),
    Example(
        "V18", "nats_for_bits",
        "quantized_ttt_phased val_loss:2.33302383 val_bpb:0.73896482 eval_time",
        "quantized_ttt_phased val_loss:2.33302383 val_bpb:1.06610085 eval_time",
        "The division by ln 2 is missing: within one log, loss and bpb must keep one ratio.",
        ("bytes.units",), "text",
    ),
    Example(
        "V19", "mebibytes",
        "    assert total_bytes <= 16 * 1024 * 1024",
        "    assert total_bytes <= 16_000_000",
        "The cap is decimal; 16 MiB are 777,216 bytes more.",
        ("scan.V19",),
    ),
    Example(
        "V20", "a_second_more",
        "stopping_early: wallclock_cap train_time: 601153ms step: 4854/20000",
        "stopping_early: wallclock_cap train_time: 596180ms step: 4854/20000",
        "The step in flight may end a few tenths late, not 1.2 seconds.",
        ("clock.train",), "text",
    ),
    Example(
        "V21", "eleven_minutes",
        "total_eval_time:617.0s",
        "total_eval_time:396.9s",
        "Scoring has ten minutes.",
        ("clock.eval",), "text",
    ),
    Example(
        "V22", "one_seed_under_two_names",
        "  seed: 42\n  train_batch_tokens: 786432\n  world_size: 8\ntrain_shards: 80\nval_tokens: 47851520",
        "  seed: 0\n  train_batch_tokens: 786432\n  world_size: 8\ntrain_shards: 80\nval_tokens: 47851520",
        "The log that is named for seed 0 prints the seed of another log of the record.",
        ("seeds.distinct",), "text",
    ),
    Example(
        "V23", "score_that_no_log_prints",
        '"val_bpb": 1.06173025',
        '"val_bpb": 1.06473025',
        "The log of this seed prints 1.06473025.",
        ("score.logged",), "json",
    ),
    Example(
        "V24", "steps_out_of_nowhere",
        "stopping_early: wallclock_cap train_time: 596180ms step: 10070/20000",
        "stopping_early: wallclock_cap train_time: 596180ms step: 4854/20000",
        "The log's own lines reach step 4,500 after nine minutes.",
        ("clock.steps",), "text",
    ),
    Example(
        "V25", "installs_what_it_needs",
        '    subprocess.run(["pip", "install", "zstandard"])\n    device = torch.device("cuda")',
        '    device = torch.device("cuda")',
        "What is fetched while scoring is neither counted nor there tomorrow.",
        ("scan.V25",),
    ),
    Example(
        "V26", "setting_that_nobody_reads",
        '    bos_id = 1\n    window = int(os.environ.get("WINDOW", 1024))',
        "    bos_id = 1",
        "The setting is printed with the others and read nowhere: whatever it is credited with, it did nothing.",
        ("scan.V26",),
    ),
    Example(
        "V27", "time_moved_into_compilation",
        'model = torch.compile(model, dynamic=False, fullgraph=True, mode="max-autotune")',
        "model = torch.compile(model, dynamic=False, fullgraph=True)",
        "Compilation is not timed, so further compiler settings are not free.",
        ("scan.V27",),
    ),
)  # fmt: skip
"""Ids that begin with 'scan.' are suspicions with file and line; the others are checks that fail."""
