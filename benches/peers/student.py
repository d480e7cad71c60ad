"""The PyTorch side of the speed comparison on MovieLens-1M, leave-one-out.

    python student.py WORK [--form common|tuned|tuned_attention_dropout] [--batches N] [--threads 2] [--data FILE]

| WORK         | what is timed |
|--------------|---------------|
| train_bce_200 | one epoch, max_len 200, D 50, 2 blocks, batch 128, BCE with one negative |
| train_bce_50  | one epoch, max_len 50, D 64, 2 blocks, batch 256, BCE with one negative |
| train_ce_200  | one epoch, max_len 200, D 50, 2 blocks, batch 128, full softmax (common: one [M,N] table of logits; tuned: chunked) |
| rank_200      | rank of every user's test item among all items, max_len 200, D 50 (common: one user at a time; tuned: batched, trimmed) |
| second_start  | from the start of the process (imports, reading the text file) to the end of the first training step of train_bce_200 |
| limit         | GFLOP/s of matrix products: a large one and those the training consists of |

common: as most public code does it: left padding to max_len, nn.MultiheadAttention (dropout on its weights), processes that draw one user at a time
with a rejection loop per position, BCEWithLogits on the real positions, Adam at defaults.
tuned: users sorted into length buckets, right padding to the longest row, one vectorised draw of negatives, fused attention, fused Adam. torch's fused CPU
attention has no dropout, so `tuned` leaves dropout on the attention weights out; `tuned_attention_dropout` has it (softmax written out).
All forms: dropout 0.2 on the embedding and in the FFN.

Each work item runs in a process of its own; one JSON line comes out. `seconds` is a full epoch of 6,040 rows after warm-up (scaled up when --batches cuts it
short, then `extrapolated` is true); `warmup_seconds` is the first batches until the samplers' queue is full. `peak_rss_mb` is getrusage of the process
itself; `workers_rss_mb` adds up the sampler processes'; `import_rss_mb` is what importing torch alone takes.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "movielens-1m" / "sequences.tsv"
FORMS = ["common", "tuned", "tuned_attention_dropout"]
WORKS = {  # max_len, D, batch, loss
    "train_bce_200": (200, 50, 128, "bce"), "train_bce_50": (50, 64, 256, "bce"), "train_ce_200": (200, 50, 128, "ce"),
    "rank_200": (200, 50, 256, None), "second_start": (200, 50, 128, "bce"), "limit": None,
}
BLOCKS, WARMUP, WORKERS, CHUNK = 2, 3, 3, 2048


def peak_rss_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def age_of_process():
    """Seconds since the kernel started this process (10 ms steps)."""
    ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


# ---- the common sampler ------------------------------------------------------------------------------------------

def draw_user(train, n_items, max_len, rng):
    """One user's row the usual way: filled from its end, and per position a loop until the negative is new."""
    import numpy as np
    seq, pos, neg = (np.zeros(max_len, dtype=np.int64) for _ in range(3))
    seen, following = set(train.tolist()), train[-1]
    for place, item in zip(range(max_len - 1, -1, -1), train[-2::-1]):
        seq[place], pos[place] = item, following
        candidate = rng.randint(1, n_items + 1)
        while candidate in seen:
            candidate = rng.randint(1, n_items + 1)
        neg[place], following = candidate, item
    return seq, pos, neg


def sampler(sequences, n_items, max_len, batch, out, report, stop, seed):
    """Body of a sampler process: batches of users in random order, until stopped."""
    import queue

    import numpy as np
    rng, order, at = np.random.RandomState(seed), np.arange(len(sequences)), len(sequences)
    while not stop.is_set():
        rows = []
        while len(rows) < batch:
            if at == len(order):
                rng.shuffle(order)
                at = 0
            train, at = sequences[order[at]][:-2], at + 1
            if len(train) > 1:
                rows.append(draw_user(train, n_items, max_len, rng))
        ready = [np.stack(x) for x in zip(*rows)]
        while not stop.is_set():
            try:
                out.put(ready, timeout=0.2)
                break
            except queue.Full:
                pass
    out.cancel_join_thread()
    report.put(peak_rss_mb())


class Samplers:
    def __init__(self, rows, batch):
        import multiprocessing as mp
        ctx = mp.get_context("fork")
        self.size = WORKERS * 10
        self.queue, self.report, self.stop = ctx.Queue(self.size), ctx.Queue(), ctx.Event()
        args = (rows.sequences, rows.n_items, rows.max_len, batch, self.queue, self.report, self.stop)
        self.workers = [ctx.Process(target=sampler, args=(*args, s), daemon=True) for s in range(WORKERS)]
        for w in self.workers:
            w.start()

    def wait_until_full(self):
        """The steady state: from here on every batch taken is a batch to be drawn."""
        while self.queue.qsize() < self.size:
            time.sleep(0.05)

    def close(self):
        """Ends the processes and gives their memory in MB."""
        self.stop.set()
        total = sum(self.report.get(timeout=30) for _ in self.workers)
        for w in self.workers:
            w.join(timeout=5)
        return total


# ---- training ----------------------------------------------------------------------------------------------------

def common_step(model, adam, batch, loss_name):
    import torch
    from torch.nn.functional import cross_entropy
    rows, pos, neg = (torch.from_numpy(x) for x in batch)
    h, real = model.common(rows), pos != 0
    if loss_name == "ce":
        loss = cross_entropy(h[real] @ model.item_emb.weight[1:].T, pos[real] - 1)
    else:
        good, bad = (h * model.item_emb(pos)).sum(-1), (h * model.item_emb(neg)).sum(-1)
        criterion = torch.nn.BCEWithLogitsLoss()
        loss = criterion(good[real], torch.ones_like(good)[real]) + criterion(bad[real], torch.zeros_like(bad)[real])
    adam.zero_grad()
    loss.backward()
    adam.step()
    return loss.item()


def buckets(lengths, batch, rng):
    """Batches of users of like length, in random order; users of one length are shuffled among themselves."""
    import numpy as np
    users = rng.permutation(np.flatnonzero(lengths))
    users = users[np.argsort(lengths[users], kind="stable")]
    parts = [users[i:i + batch] for i in range(0, len(users), batch)]
    return [parts[i] for i in rng.permutation(len(parts))]


def tuned_step(model, adam, rows, users, loss_name, attention_dropout, rng):
    import torch
    from sasrec_torch import ChunkedCe, bce_on_pairs
    n = torch.from_numpy(rows.train_len[users])
    t = int(n.max())
    h = model.trimmed(torch.from_numpy(rows.train_in[users, :t]), n, attention_dropout)
    keep = (torch.arange(t) < n[:, None]).flatten().nonzero()[:, 0]
    h = h.flatten(0, 1).index_select(0, keep)
    pos = torch.from_numpy(rows.train_out[users, :t]).flatten()[keep]
    if loss_name == "ce":
        loss = ChunkedCe.apply(h, model.item_emb.weight[1:], pos - 1, CHUNK)
    else:
        loss = bce_on_pairs(model, h, pos, torch.from_numpy(rows.negatives(users, t, rng)).flatten()[keep])
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()
    return loss.item()


def train(work, form, batches, rows, result):
    import numpy as np
    import torch
    from sasrec_torch import SasRec
    max_len, d, batch, loss_name = WORKS[work]
    total = -(-len(rows.sequences) // batch)
    rng = np.random.default_rng(1)
    samplers = Samplers(rows, batch) if form == "common" else None
    model = SasRec(rows.n_items, max_len, d, BLOCKS).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), fused=form != "common")
    start = time.perf_counter()
    if samplers:
        for _ in range(1 if work == "second_start" else WARMUP):
            loss = common_step(model, adam, samplers.queue.get(), loss_name)
        if work == "second_start":
            result["seconds"] = round(age_of_process(), 2)
            samplers.close()
            return
        samplers.wait_until_full()
    else:
        order = buckets(rows.train_len, batch, rng)
        for users in order[:1 if work == "second_start" else WARMUP]:
            loss = tuned_step(model, adam, rows, users, loss_name, form != "tuned", rng)
        if work == "second_start":
            result["seconds"] = round(age_of_process(), 2)
            return
    result["warmup_seconds"] = round(time.perf_counter() - start, 2)
    count, seen = min(batches or total, total), 0
    start = time.perf_counter()
    if samplers:
        for i in range(count):
            data = samplers.queue.get()
            if i == total - 1:  # the last batch of an epoch is smaller
                data = [x[:len(rows.sequences) - seen] for x in data]
            loss, seen = common_step(model, adam, data, loss_name), seen + len(data[0])
    else:
        order = buckets(rows.train_len, batch, rng)
        for users in order[:count]:
            loss, seen = tuned_step(model, adam, rows, users, loss_name, form != "tuned", rng), seen + len(users)
    seconds = time.perf_counter() - start
    workers = samplers.close() if samplers else 0.0
    result.update(seconds=round(seconds * len(rows.sequences) / seen, 3), sequences_per_s=round(seen / seconds, 1), extrapolated=seen < len(rows.sequences),
                  batches=count, last_loss=round(loss, 4), workers_rss_mb=round(workers, 1))


# ---- ranking -----------------------------------------------------------------------------------------------------

def rank(form, users, rows, result):
    import numpy as np
    import torch
    from sasrec_torch import SasRec, rank_all
    model = SasRec(rows.n_items, rows.max_len, 50, BLOCKS).eval()
    inputs, lengths, targets = rows.histories(1)
    if users:  # a random part of the users, so that the lengths stay typical
        part = np.random.default_rng(1).permutation(len(inputs))[:users]
        inputs, lengths, targets = inputs[part], lengths[part], targets[part]
    start = time.perf_counter()
    if form == "common":
        ranks, every = np.zeros(len(inputs), dtype=np.int64), torch.arange(1, rows.n_items + 1)
        with torch.no_grad():
            for u, (row, n, target) in enumerate(zip(inputs, lengths, targets)):
                seq = np.zeros((1, rows.max_len), dtype=np.int64)
                seq[0, rows.max_len - n:] = row[:n]
                h = model.common(torch.from_numpy(seq))[:, -1]
                s = -(model.item_emb(every) @ h.unsqueeze(-1)).squeeze(-1)[0]
                ranks[u] = s.argsort().argsort()[target - 1].item() + 1
    else:
        ranks = rank_all(model, inputs, lengths, targets)
    seconds = time.perf_counter() - start
    result.update(seconds=round(seconds * len(rows.sequences) / len(inputs), 3), users_per_s=round(len(inputs) / seconds, 1),
                  extrapolated=len(inputs) < len(rows.sequences), mean_rank=round(float(ranks.mean()), 1))


# ---- one work item in a process of its own -----------------------------------------------------------------------

def inner(args):
    result = {"work": args.work, "form": args.form, "threads": args.threads}
    import torch
    from sasrec_torch import Rows, read_sequences
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    result.update(torch=torch.__version__, import_rss_mb=round(peak_rss_mb(), 1))
    if args.work == "limit":
        import student_limit
        result.update(student_limit.measure())
    else:
        rows = Rows(*read_sequences(args.data), WORKS[args.work][0])
        import student_limit
        result.update(n_users=len(rows.sequences), n_items=rows.n_items, positions=int(rows.train_len.sum()),
                      attention_dropout=args.form != "tuned" and args.work != "rank_200")
        if args.work == "rank_200":
            rank(args.form, args.batches * 256 if args.batches else 0, rows, result)
            result["gflop"] = student_limit.gflop_rank(rows.histories(1)[1], 50, BLOCKS, rows.n_items)
        else:
            train(args.work, args.form, args.batches, rows, result)
            if args.work != "second_start":
                _, d, _, loss = WORKS[args.work]
                result["gflop"] = student_limit.gflop_epoch(rows.train_len, d, BLOCKS, rows.n_items if loss == "ce" else 2)
    result["peak_rss_mb"] = round(peak_rss_mb(), 1)
    print(json.dumps(result), flush=True)


def main():
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cli.add_argument("work", choices=list(WORKS))
    cli.add_argument("--form", choices=FORMS, default="common")
    cli.add_argument("--batches", type=int, default=0, help="stop after so many batches and scale up (0: a whole epoch)")
    cli.add_argument("--threads", type=int, default=2)
    cli.add_argument("--data", type=Path, default=DATA)
    cli.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.inner:
        return inner(args)
    if not args.data.is_file():
        raise SystemExit(f"{args.data} is missing: give MovieLens-1M's sequences.tsv with --data")
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    return sys.exit(subprocess.run([sys.executable, __file__, "--inner", *sys.argv[1:]], env=env).returncode)


if __name__ == "__main__":
    main()
