"""What the PyTorch reference SASRec reaches with BCE and one negative: the yardstick for our `sasrec` with `bce`.

    python student_quality.py --seeds 1 2 3 4 5 [--max-len 50] [--threads 1] [--data FOLDER]

MovieLens-100K, every rating kept, sorted by time with file order for ties, users with at least 3 interactions, leave-one-out. Full ranking over all items,
history left in, ties against the target. Adam 1e-3 (.9, .98), batch 128, dropout 0.2 (embedding, attention weights, FFN), D 50, 2 blocks, 1 head,
Xavier-normal init. An epoch is every user's row once in random order; validation NDCG@10 every 5 epochs, best weights kept, 10 evaluations of patience,
at most 300 epochs; test is ranked once with the best weights. Negatives are uniform outside the user's training items.

Pads are not attended (rows are computed trimmed). `--pads attended` computes the released form instead: left padding to max_len, pads attended.
Prints one JSON line per seed and a last one with mean and sample standard deviation.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from sasrec_torch import Rows, SasRec, bce_on_pairs, rank_all, read_ratings

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "movielens-100k"


def metrics(ranks):
    hit = ranks <= 10
    return {"hr@10": float(hit.mean()), "ndcg@10": float((hit / np.log2(ranks + 1)).mean())}


def to_left(rows, lengths, max_len):
    """Right-padded [B,T] -> left-padded [B,max_len]."""
    out = torch.zeros(len(rows), max_len, dtype=rows.dtype)
    for i, n in enumerate(lengths.tolist()):
        out[i, max_len - n:] = rows[i, :n]
    return out


@torch.no_grad()
def rank_common(model, inputs, lengths, targets, batch=256):
    ranks = []
    for start in range(0, len(inputs), batch):
        cut = slice(start, start + batch)
        h = model.common(to_left(torch.from_numpy(inputs[cut]), torch.from_numpy(lengths[cut]), model.max_len))[:, -1]
        s = h @ model.item_emb.weight[1:].T
        best = s.gather(1, torch.from_numpy(targets[cut])[:, None] - 1)
        ranks.append((s >= best).sum(1).numpy())
    return np.concatenate(ranks)


def train(rows, seed, args):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = SasRec(rows.n_items, args.max_len, 50)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    rank = rank_common if args.pads == "attended" else rank_all
    valid, users = rows.histories(2), np.flatnonzero(rows.train_len > 0)
    best, best_epoch, best_state, stale, start = -1.0, 0, None, 0, time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        model.train()
        order, total = rng.permutation(users), 0.0
        for at in range(0, len(order), args.batch):
            u = order[at:at + args.batch]
            n = torch.from_numpy(rows.train_len[u])
            t = int(n.max())
            x = torch.from_numpy(rows.train_in[u, :t])
            neg = torch.from_numpy(rows.negatives(u, t, rng))
            real = torch.arange(t) < n[:, None]
            if args.pads == "attended":
                left = model.common(to_left(x, n, args.max_len))
                h = left[to_left(real.long(), n, args.max_len).bool()]  # row by row, oldest first: the order of x[real]
            else:
                h = model.trimmed(x, n, True)[real]
            loss = bce_on_pairs(model, h, torch.from_numpy(rows.train_out[u, :t])[real], neg[real])
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            total += loss.item() * len(u)
        if epoch % args.every == 0:
            model.eval()
            now = metrics(rank(model, *valid))
            if args.verbose:
                print(json.dumps({"seed": seed, "epoch": epoch, "loss": total / len(order), **now}), flush=True)
            if now["ndcg@10"] > best:
                best, best_epoch, stale = now["ndcg@10"], epoch, 0
                best_state = {k: v.clone() for k, v in model.state_dict().items()}
            else:
                stale += 1
                if stale >= args.patience:
                    break
    model.load_state_dict(best_state)
    model.eval()
    v, t = metrics(rank(model, *valid)), metrics(rank(model, *rows.histories(1)))
    return {"seed": seed, "best_epoch": best_epoch, "epochs": epoch, "seconds": round(time.perf_counter() - start, 1),
            **{f"valid_{k}": x for k, x in v.items()}, **{f"test_{k}": x for k, x in t.items()}}


def main():
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cli.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    cli.add_argument("--max-len", type=int, default=50)
    cli.add_argument("--batch", type=int, default=128)
    cli.add_argument("--epochs", type=int, default=300)
    cli.add_argument("--every", type=int, default=5)
    cli.add_argument("--patience", type=int, default=10)
    cli.add_argument("--threads", type=int, default=1)
    cli.add_argument("--pads", choices=["masked", "attended"], default="masked")
    cli.add_argument("--data", type=Path, default=SHARED)
    cli.add_argument("--verbose", action="store_true")
    args = cli.parse_args()
    torch.set_num_threads(args.threads)
    if not (args.data / "u.data").is_file():
        raise SystemExit(f"{args.data / 'u.data'} is missing: give the folder of MovieLens-100K with --data")
    rows = Rows(*read_ratings(args.data / "u.data"), args.max_len)
    print(json.dumps({"users": len(rows.sequences), "items": rows.n_items, "max_len": args.max_len, "pads": args.pads,
                      "torch": torch.__version__, "threads": args.threads}), flush=True)
    runs = []
    for seed in args.seeds:
        runs.append(train(rows, seed, args))
        print(json.dumps(runs[-1]), flush=True)
    keys = [k for k in runs[0] if "@" in k]
    print(json.dumps({"seeds": len(runs), **{k: {"mean": float(np.mean([r[k] for r in runs])),
          "sd": float(np.std([r[k] for r in runs], ddof=1)) if len(runs) > 1 else None} for k in keys}}))


if __name__ == "__main__":
    main()
