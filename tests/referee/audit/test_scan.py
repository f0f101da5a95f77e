"""The script reader: each construct is named with its class and line, its honest twin is passed over in silence."""

import ast
import base64
import bz2
import lzma
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from underpar.referee.audit.files import Item
from underpar.referee.audit.scan import scan_other, scan_script, scan_speedrun_source
from underpar.referee.audit.source import Source, source_from_bytes
from underpar.referee.audit.unpack import MAX_PLAIN_BYTES

from . import forge


def source(text: str | bytes, name: str = "train_gpt.py") -> Source:
    data = text.encode() if isinstance(text, str) else text
    return source_from_bytes(Item(Path(name), name, len(data)), data)


def classes(text: str) -> list[tuple[str, int]]:
    return [(note.vclass, note.line) for note in scan_script(source(text))]


def test_the_honest_script_is_passed_over() -> None:
    assert classes(forge.SCRIPT) == []


HONEST = {
    "sliding, chunk by chunk": """
    def eval_val_sliding_ttt(args, model, val_tokens, tables, stride):
        loss_sum = token_count = byte_count = 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=args.ttt_lr)
        for ci in range(num_chunks):
            with torch.inference_mode():
                for bi in range(0, len(windows), 32):
                    x_batch, y_batch = fill(val_tokens, windows[bi])
                    logits = model.forward_logits(x_batch)
                    nll = F.cross_entropy(logits.float(), y_batch.reshape(-1), reduction="none")
                    loss_sum += nll[-stride:].double().sum()
                    token_count += float(stride)
            if ci < num_chunks - 1:
                for _ep in range(args.ttt_epochs):
                    for bs in range(0, chunk_seqs, 8):
                        local = val_tokens[start + bs : start + bs + 8].to(device)
                        x, y = local[:-1], local[1:]
                        loss = model(x, y)
                        loss.backward()
                        optimizer.step()
        return loss_sum / token_count
    """,
    "charges added by a helper": """
    def eval_ttt_lora(args, model, val_tokens, tables):
        loss_sum = torch.zeros(())
        for doc in find_docs(val_tokens):
            lora.reset()
            for ci in range(chunks):
                x, y = window(val_tokens, doc, ci)
                ptl = model(x, y, lora)
                accumulate_bpb(ptl, x, y, ci, tables, loss_sum, byte_sum, token_count)
                ptl[:, offset:].mean().backward()
                optimizer.step()
    """,
    "phases: a function that is given charged tokens": """
    def train_on_scored(model, val_tokens):
        for epoch in range(2):
            for x, y in rows(val_tokens):
                loss = model(x, y)
                loss.backward()
                optimizer.step()

    def eval_val_phased(model, val_data):
        while True:
            batch = claim(val_data.val_tokens)
            for ci in range(chunks):
                per_tok_loss = forward(batch, ci)
                accumulate_bpb(per_tok_loss, loss_sum, byte_sum, token_count)
            if pause():
                train_on_scored(model, torch.cat(scored))
    """,
    "measuring the code": """
    def code_size(code):
        return len(subprocess.run(["pyminify", "-"], input=code, capture_output=True).stdout)
    """,
    "cache over all candidates": """
    def mix(ctx_hash, vocab_size, y, logits):
        key = (ctx_hash[:, None] ^ (torch.arange(vocab_size) * PRIME)) & MASK
        counts = table[key].float()
        probs = lam * counts / counts.sum(-1, keepdim=True) + (1 - lam) * logits.softmax(-1)
        return -probs.gather(-1, y[:, None]).log()
    """,
    "smear that stops at documents": """
    def forward(self, x, ids):
        keep = (ids != self.bos_id).unsqueeze(-1)
        return torch.cat([x[:, :1], x[:, 1:] + self.gate * x[:, :-1] * keep[:, 1:]], dim=1)
    """,
    "shift of token ids": """
    def bigram_ids(self, ids):
        return torch.cat([ids.new_zeros(1), ids[:-1]]) * PRIME % self.buckets
    """,
    "calibration on training tokens": """
    def pack(model, train_loader, val_tokens):
        hessians = collect_hessians(model, train_loader, batches=16)
        return gptq(model, hessians)
    """,
    "tail dropped to whole rows": """
    def load_validation_tokens(pattern, seq_len):
        tokens = torch.cat([load_shard(p) for p in sorted(glob.glob(pattern))])
        usable = (tokens.numel() - 1) // seq_len * seq_len
        return tokens[: usable + 1]
    """,
    "nvidia-smi in the log": """
    def main():
        log0(subprocess.run(["nvidia-smi"], stdout=subprocess.PIPE, text=True).stdout)
    """,
    "mean charge of a chunk that was charged": """
    def eval_ttt(model, val_tokens):
        for x, y in chunks(val_tokens):
            token_losses = model(x, y)
            loss_sum += token_losses.sum()
            token_losses.mean().backward()
            opt.step()
    """,
    "smaller of training losses": """
    def main():
        best_val_loss = min(best_val_loss, val_loss)
    """,
    "kernel source in a constant": "KERNEL = '''" + "__global__ void f(float* x) { x[0] = 1; }\n" * 200 + "'''\n",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_constructs_are_passed_over(name: str) -> None:
    assert classes(textwrap.dedent(HONEST[name])) == []


# (class, text that the line holds, script)
SUSPECT: list[tuple[str, str, str]] = [
    ("V01", "backward", """
    def prequant_adapt(model, val_tokens, args):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for epoch in range(args.epochs):
            for start in range(0, len(val_tokens) - 1, 2048):
                chunk = val_tokens[start : start + 2049]
                loss = model(chunk[:-1], chunk[1:])
                loss.backward()
                optimizer.step()
    """),
    ("V01", "backward", """
    def finetune(net, tokens):  # 'legal'
        for chunk in tokens.split(2048):
            loss = net(chunk[:-1], chunk[1:])
            running = 0.9 * running + 0.1 * loss.item()
            loss.backward()
            opt.step()
            epoch_loss += loss.item()

    def main():
        finetune(model, val_data.val_tokens)
    """),
    ("V02", "backward", """
    def eval_slot(model, val_tokens):
        for ws in windows:
            x, y = cut(val_tokens, ws)
            delta = torch.zeros(1, 1, dim, requires_grad=True)
            opt = torch.optim.AdamW([delta], lr=0.01)
            for _ in range(8):
                inner = F.cross_entropy(head(hidden(x) + delta).flatten(0, 1), y.flatten())
                inner.backward()
                opt.step()
            nll = F.cross_entropy(head(hidden(x) + delta).flatten(0, 1), y.flatten(), reduction="none")
            loss_sum += nll.sum()
    """),
    ("V03", "for ws in windows:  # again", """
    def eval_cache(model, val_tokens):
        loss_sum = 0.0
        for ws in windows:
            nll = score(model, val_tokens, ws)
            loss_sum += nll.sum()
            cache.update(val_tokens, ws)
        loss_sum = 0.0
        for ws in windows:  # again
            nll = score(model, val_tokens, ws, cache)
            loss_sum += nll.sum()
        return loss_sum
    """),
    ("V03", "loss_sum +=", """
    def eval_ttt(model, val_tokens):
        for epoch in range(3):
            loss_sum = 0.0
            for ws in windows:
                x, y = cut(val_tokens, ws)
                loss = model(x, y)
                loss_sum += loss.detach()
                loss.backward()
                opt.step()
    """),
    ("V04", "^ (tgt * PRIME)", """
    def ngram(ctx_hash, tgt, nll):
        key = (ctx_hash ^ (tgt * PRIME)) & MASK
        p = full_table[key] / ctx_table[ctx_hash & MASK]
        return -torch.log(lam * p + (1 - lam) * torch.exp(-nll))
    """),
    ("V05", "gate = starts_word[y]", """
    def boost(logits, y, hint):
        gate = starts_word[y]
        logits = logits + gate[..., None] * hint
        return logits
    """),
    ("V06", "np.exp(logp_tok / n_bytes)", """
    def mix(logp_tok, n_bytes, p_byte):
        q = np.exp(logp_tok / n_bytes)
        return lam * q + (1 - lam) * p_byte
    """),
    ("V07", "torch.minimum", """
    def combine(nll_model, nll_cache):
        return torch.minimum(nll_model, nll_cache).sum()
    """),
    ("V08", "[:5_000_000]", """
    def main():
        val_tokens = load_tokens(args.val_files)
        val_loss, val_bpb = eval_val(model, val_tokens[:5_000_000])
    """),
    ("V08", "VAL_DOC_FRACTION", """
    class Hyperparameters:
        val_doc_fraction = float(os.environ.get("VAL_DOC_FRACTION", "0.25"))
    share = Hyperparameters.val_doc_fraction
    """),
    ("V09", "--val-docs", """
    parser.add_argument("--val-docs", type=int, default=10_000)
    """),
    ("V10", "fineweb_val_*", """
    train_files = os.path.join(data_path, "fineweb_val_*.bin")
    """),
    ("V10", "PREFIX =", f"""
    PREFIX = b"{'aB3x' * 2000}"
    """),
    ("V11", "args.train_files", """
    def eval_ngram(model, val_tokens, args):
        for shard in sorted(glob.glob(args.train_files)):
            table.update(load_shard(shard))
    """),
    ("V12", "calibrate(", """
    def main():
        val_tokens = load_tokens(args.val_files)
        scales = calibrate(model, val_tokens)
    """),
    ("V13", "backward", """
    def main():
        val_tokens = load_tokens(args.val_files)
        for warmup_step in range(3):
            x = val_tokens[: 2048]
            loss = model(x[:-1], x[1:])
            loss.backward()
            optimizer.step()
    """),
    ("V14", "x[:, :-1]", """
    def forward(self, x):
        return torch.cat([x[:, :1], x[:, 1:] + self.gate * x[:, :-1]], dim=1)
    """),
    ("V15", "+ 1", """
    def tables(sp):
        for i in range(n):
            base_bytes[i] = len(piece.lstrip("▁").encode()) + 1
    def count(prev, tgt):
        return base_bytes[tgt] + (has_leading_space[tgt] & ~is_boundary[prev])
    """),
    ("V16", "sp.decode", """
    base_bytes[i] = len(sp.decode([i]).encode("utf-8"))
    """),
    ("V16", "np.load", """
    byte_lut = np.load("byte_lut.npz")["bytes"]
    """),
    ("V17", "casefold", """
    def clean(text):
        return text.casefold()
    """),
    ("V18", "all_reduce", """
    def eval_val(model):
        dist.all_reduce(val_bpb, op=dist.ReduceOp.AVG)
    """),
    ("V18", "mean()", """
    def eval_val(model):
        return torch.stack(batch_losses).mean()
    """),
    ("V19", "16 * 1024 * 1024", """
    assert total_bytes < 16 * 1024 * 1024
    """),
    ("V20", "FORCE_STOP_STEP", """
    force = int(os.environ.get("FORCE_STOP_STEP", "0"))
    """),
    ("V20", "MAX_WALLCLOCK", """
    cap = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 900.0))
    """),
    ("V21", "precompute_outside", """
    if args.precompute_outside_timer:
        hints = precompute()
    """),
    ("V22", "best_seed", """
    best_seed = min(range(100), key=run)
    """),
    ("V25", "subprocess.run", """
    subprocess.run(["pip", "install", "zstandard"])
    """),
    ("V25", "import requests", """
    import requests
    """),
    ("V26", "window =", """
    class Hyperparameters:
        window = int(os.environ.get("WINDOW", 1024))
        lr = 0.1
    step(Hyperparameters.lr)
    """),
    ("V28", "clamp", """
    def eval_val(nll):
        total += nll.clamp(max=10.0).sum()
    """),
    ("V28", "ignore_index", """
    loss = F.cross_entropy(logits, y, ignore_index=7)
    """),
]  # fmt: skip


@pytest.mark.parametrize(
    ("vclass", "where", "script"), SUSPECT, ids=[f"{c}-{i}" for i, (c, _, _) in enumerate(SUSPECT)]
)
def test_suspect_constructs_are_named_with_their_line(vclass: str, where: str, script: str) -> None:
    text = textwrap.dedent(script)
    hits = classes(text)
    assert vclass in [c for c, _ in hits]
    line = next(n for c, n in hits if c == vclass)
    assert where in text.splitlines()[line - 1]


def test_scripts_of_preparation_are_read_for_splits_only() -> None:
    text = "import requests\nparser.add_argument('--val-docs', default=10000)\n"
    assert [note.vclass for note in scan_other(source(text, "prepare.py"))] == ["V09"]


def test_speedrun_sources() -> None:
    text = (
        "import torch\nimport heavyball\ntorch._inductor.config.coordinate_descent_tuning = True\n"
        "model = torch.compile(model, mode='max-autotune')\n"
    )
    found = [(n.vclass, n.line) for n in scan_speedrun_source(source(text))]
    assert found == [("V27", 3), ("V27", 4)]
    assert [n.line for n in scan_speedrun_source(source(text), medium=True)] == [4]
    assert [n.line for n in scan_speedrun_source(source(text), steps=True)] == [2, 3, 4]


# ------------------------------------------------------------------------------------------- packed scripts

INNER = "import torch\nFORCED = int(os.environ.get('FORCE_STOP_STEP', '0'))\nprint('never')\n"

PACKERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "lzma": (lzma.compress, "import lzma as L,base64 as B\nexec(L.decompress(B.b85decode({literal})))"),
    "raw lzma": (
        lambda d: lzma.compress(d, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}]),
        "import lzma,base64\nexec(lzma.decompress(base64.b85decode({literal}),format=lzma.FORMAT_RAW,filters=F))",
    ),
    "zlib": (zlib.compress, "import zlib,base64;exec(zlib.decompress(base64.b64decode({literal})).decode())"),
    "brotli": (
        brotli.compress,
        "import brotli\nfrom base64 import b85decode as d\ncode=brotli.decompress(d({literal}))\nexec(code)",
    ),
    "bz2": (bz2.compress, "import bz2,base64\nexec(compile(bz2.decompress(base64.b85decode({literal})),'<s>','exec'))"),
    "zstd": (
        zstandard.ZstdCompressor().compress,
        "import zstandard as z,base64\nexec(z.ZstdDecompressor().decompress(base64.b85decode({literal})))",
    ),
}


def pack(text: str, name: str) -> str:
    compress, wrapper = PACKERS[name]
    encode = base64.b64encode if "b64" in wrapper else base64.b85encode
    return wrapper.format(literal=repr(encode(compress(text.encode())).decode()))


@pytest.mark.parametrize("name", PACKERS)
def test_packed_scripts_are_opened_without_running_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = source(pack(INNER, name))
    assert found.problem == ""
    assert (found.layers, found.text) == (1, INNER)
    notes = scan_script(found)
    assert [(n.vclass, n.place) for n in notes] == [("V20", "train_gpt.py (unpacked):2")]
    assert capsys.readouterr().out == ""


def test_packed_twice_is_opened_twice() -> None:
    found = source(pack(pack(INNER, "zlib"), "lzma"))
    assert (found.layers, found.text) == (2, INNER)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pack("x = 1\n" * (MAX_PLAIN_BYTES // 6 + 1), "lzma"), "decodes to over"),
        (pack("x = 1\n" * (MAX_PLAIN_BYTES // 6 + 1), "zlib"), "decodes to over"),
        (pack("x = 1\n" * (MAX_PLAIN_BYTES // 6 + 1), "brotli"), "decodes to over"),
        (pack("x = 1\n" * (MAX_PLAIN_BYTES // 6 + 1), "bz2"), "decodes to over"),
        (pack("x = 1\n" * (MAX_PLAIN_BYTES // 6 + 1), "zstd"), "decodes to over"),
        (pack("not python (", "zlib"), "is not Python"),
        (pack(INNER, "lzma").replace("b85decode('", "b85decode('00000"), "is damaged"),
        (pack(INNER, "brotli")[:-90] + "'))\nexec(code)", "it is cut off"),
        (pack(INNER * 9, "zlib")[:-40] + "')))", "damaged"),
        ("import base64\nexec(decrypt(base64.b85decode(" + repr("a" * 3000) + ")))", "not a plain packed literal"),
        (pack(pack(pack(pack(pack(INNER, "zlib"), "zlib"), "zlib"), "zlib"), "zlib"), "more than 4 times"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said(text: str, said: str) -> None:
    found = source(text)
    assert "packed, and not opened" in found.problem
    assert said in found.problem
    assert scan_script(found) == []


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5_000,
        "x = " + "-" * 50_000 + "1",
        "x = " + "+".join("a" for _ in range(60_000)),
        "a" + ".b()" * 30_000,
        "x = 1\n" * 400_000,
        "def f(:\n",
        "\0",
        "print(f'{x!r:{'a'}}')",
    ],
    ids=["parentheses", "signs", "sum", "chain", "long", "syntax", "nul", "newer"],
)
def test_odd_sources_cost_neither_time_nor_an_exception(text: str) -> None:
    found = source(text)
    assert found.problem or found.tree is not None
    scan_script(found)


def test_scanning_is_bounded() -> None:
    body = "".join(f"        key{i} = (h ^ (y * P)) & M\n" for i in range(3_000))
    loops = "".join(f"        loss{i}.backward()\n" for i in range(2_000))
    text = f"def eval_val(val_tokens):\n    for x in val_tokens:\n{body}{loops}        opt.step()\n"
    notes = scan_script(source(text))
    assert any("not scanned to the end" in note.statement for note in notes)


def test_other_languages_are_not_parsed() -> None:
    found = source("int main() { return 0; }", "helper.cpp")
    assert (found.tree, found.problem) == (None, "")
    assert isinstance(source("x = 1").tree, ast.Module)
