"""A training script as records ship it, shortened: the honest side of every attack. It is read by tests and never run."""

import glob
import math
import os
import time
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from torch import nn


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    train_files = os.path.join(data_path, "fineweb_train_*.bin")
    val_files = os.path.join(data_path, "fineweb_val_*.bin")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    seed = int(os.environ.get("SEED", 1337))
    iterations = int(os.environ.get("ITERATIONS", 20000))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 1024))
    batch_rows = int(os.environ.get("BATCH_ROWS", 64))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    lr = float(os.environ.get("LR", 0.04))
    adapt_lr = float(os.environ.get("ADAPT_LR", 1e-4))
    bos_id = 1


def load_tokens(pattern):
    """Tokens of all shards of a pattern, headers left out."""
    parts = [np.fromfile(name, dtype=np.uint16)[512:] for name in sorted(glob.glob(pattern))]
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def build_byte_tables(tokenizer, vocab_size, device):
    """Bytes of each piece without its leading space, whether it has one, whether it is a boundary."""
    base_bytes = np.zeros(vocab_size, dtype=np.int16)
    has_leading_space = np.zeros(vocab_size, dtype=bool)
    is_boundary = np.ones(vocab_size, dtype=bool)
    assert tokenizer.piece_to_id("▁") != tokenizer.unk_id()
    for token in range(tokenizer.vocab_size()):
        if tokenizer.is_control(token) or tokenizer.is_unused(token):
            continue
        is_boundary[token] = False
        if tokenizer.is_byte(token):
            base_bytes[token] = 1
            continue
        piece = tokenizer.id_to_piece(token)
        if piece.startswith("▁"):
            has_leading_space[token] = True
            piece = piece[1:]
        base_bytes[token] = len(piece.encode("utf-8"))
    return [torch.from_numpy(table).to(device) for table in (base_bytes, has_leading_space, is_boundary)]


class SmearGate(nn.Module):
    """Mixes a little of the token before, never across the start of a document."""

    def __init__(self, dim):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x, tokens, bos_id):
        keep = (tokens != bos_id).unsqueeze(-1).to(x.dtype)
        shifted = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return x + torch.sigmoid(self.gate) * shifted * keep


class GPT(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.args = args
        self.embed = nn.Embedding(args.vocab_size, args.model_dim)
        self.smear = SmearGate(args.model_dim)
        self.head = nn.Linear(args.model_dim, args.vocab_size, bias=False)

    def forward(self, tokens, targets, reduction="mean"):
        x = self.smear(self.embed(tokens), tokens, self.args.bos_id)
        logits = 30.0 * torch.tanh(self.head(x).float() / 30.0)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


def eval_val(args, model, val_tokens, tables, device):
    """Loss in nats per token, bits per byte. Every row is scored before the adapter sees it."""
    base_bytes, has_leading_space, is_boundary = tables
    optimizer = torch.optim.AdamW(model.smear.parameters(), lr=args.adapt_lr)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    byte_count = torch.zeros((), dtype=torch.float64, device=device)
    token_count = 0
    rows = (len(val_tokens) - 1) // args.train_seq_len
    for row in range(rows):
        start = row * args.train_seq_len
        chunk = val_tokens[start : start + args.train_seq_len + 1].to(device)
        x, y = chunk[None, :-1], chunk[None, 1:]
        with torch.no_grad():
            loss_sum += model(x, y, reduction="sum").double()
        lengths = base_bytes[y].long() + (has_leading_space[y] & ~is_boundary[x]).long()
        byte_count += lengths.sum().double()
        token_count += y.numel()
        adapt_loss = model(x, y)
        optimizer.zero_grad()
        adapt_loss.backward()
        optimizer.step()
    val_loss = loss_sum / token_count
    bits_per_token = val_loss / math.log(2.0)
    return val_loss.item(), (bits_per_token * token_count / byte_count).item()


def main():
    args = Hyperparameters()
    device = torch.device("cuda")
    code = Path(__file__).read_text(encoding="utf-8")
    print(code)
    print("=" * 100)
    total_bytes = os.path.getsize("final_model.ptz") + len(code.encode("utf-8"))
    assert total_bytes <= 16_000_000
    torch.manual_seed(args.seed)
    print(f"seed:{args.seed}")
    tokenizer = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    tables = build_byte_tables(tokenizer, args.vocab_size, device)
    train_tokens = load_tokens(args.train_files)
    val_tokens = load_tokens(args.val_files)
    print(f"val_loader:shards pattern={args.val_files} tokens:{len(val_tokens) - 1}")
    model = GPT(args).to(device)
    warm = torch.randint(0, args.vocab_size, (args.batch_rows, args.train_seq_len + 1), device=device)
    model(warm[:, :-1], warm[:, 1:]).backward()
    model.zero_grad()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    torch.cuda.synchronize()
    t0 = time.perf_counter()
    for step in range(args.iterations):
        span = args.batch_rows * args.train_seq_len
        batch = train_tokens[step * span : (step + 1) * span + 1].to(device)
        loss = model(batch[:-1].view(args.batch_rows, -1), batch[1:].view(args.batch_rows, -1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        elapsed = time.perf_counter() - t0
        if elapsed >= args.max_wallclock_seconds:
            break
    val_loss, val_bpb = eval_val(args, model, val_tokens, tables, device)
    print(f"final_int8_zlib_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")


if __name__ == "__main__":
    main()
