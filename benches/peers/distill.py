"""A distilled epoch of DLLM2Rec's released loop beside ours, on MovieLens-1M at the same settings.

    python benches/peers/distill.py [--threads 1] [--repeats 1] [--batches 40] [--vectors 64] [--peer-only]

The peer is straightforward PyTorch after specs/dllm2rec.md (own code): one-block SASRec over windows of ten, untied head, batch 256, binary
cross-entropy with one negative, DROS over the catalogue in double precision, K = 10 candidates one after the other, the student's top ten by
topk, the projected vectors gathered for every place. Its parts that cost nothing (samples drawn before, rows in tensors) are left out of the
clock. --batches of its epoch are timed after a warm-up and scaled to the whole epoch. Ours is `bench-distill dros` (the fixed form) and
`bench-distill released` (compat): whole epochs, in turns with the peer. Prints one line a run and the ratios. $BENCH_DISTILL names a built bench-distill;
otherwise it is built.
"""
import argparse
import json
import os
import subprocess
import time

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--repeats", type=int, default=1)
parser.add_argument("--batches", type=int, default=40)
parser.add_argument("--vectors", type=int, default=64)
parser.add_argument("--peer-only", action="store_true")
parser.add_argument("--data", default=os.environ.get("ANYO_ML1M", "../shared/data/movielens-1m/sequences.tsv"))
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(args.threads)
L, D, K, BATCH = 10, 64, 10, 256
ALPHA, ED, LAMBDA = 0.5, 0.3, 0.7


def windows(path):
    """Windows of ten before every training target (the last two items of a user are held out), pads behind."""
    sequences = [[int(i) for i in line.rstrip("\n").split("\t")[-1].split()] for line in open(path) if line.strip()]
    names = {item: n for n, item in enumerate(sorted({i for s in sequences for i in s}))}
    pad = len(names)
    rows, lens, targets = [], [], []
    for s in sequences:
        s = [names[i] for i in s][:-2]
        for t in range(1, len(s)):
            window = s[max(0, t - L) : t]
            rows.append(window + [pad] * (L - len(window)))
            lens.append(len(window))
            targets.append(s[t])
    return np.array(rows), np.array(lens), np.array(targets), pad


class SasRec(nn.Module):
    def __init__(self, n_items, vectors):
        super().__init__()
        self.items = nn.Embedding(n_items + 1, D)
        self.places = nn.Embedding(L, D)
        nn.init.normal_(self.items.weight, 0, 0.01)
        self.q, self.k, self.v = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.ln1, self.ln2, self.ln3, self.ln_ffn = (nn.LayerNorm(D) for _ in range(4))
        self.w1, self.w2 = nn.Conv1d(D, D, 1), nn.Conv1d(D, D, 1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(D, n_items)
        self.project = nn.Linear(vectors.shape[1], D)
        self.register_buffer("vectors", torch.cat([vectors, torch.zeros(1, vectors.shape[1])]))
        self.pad = n_items

    def forward(self, ids, lens):
        x = self.items(ids) + ED * self.project(self.vectors[ids])
        x = self.drop(x + self.places.weight)
        mask = (ids != self.pad).float().unsqueeze(-1)
        x = x * mask
        queries = self.ln1(x)
        scores = self.q(queries) @ self.k(x).transpose(1, 2) / D**0.5
        hidden = torch.ones(L, L).triu(1).bool() | (ids == self.pad).unsqueeze(1)
        attention = self.drop(torch.softmax(scores.masked_fill(hidden, -(2.0**32) + 1), dim=-1))
        z = self.ln2(attention @ self.v(x) + queries)
        inner = self.w2(torch.relu(self.w1(z.transpose(1, 2)))).transpose(1, 2)
        out = self.ln3(self.ln_ffn(z + self.drop(inner)) * mask)
        last = out[torch.arange(len(ids)), lens - 1]
        return self.head(last)


def dro(scores, item, weights):
    """log(sum exp(p s^2) - exp(p s_c^2) + exp(p (s_c - 1)^2)), the subtraction as released."""
    own = scores.gather(1, item.unsqueeze(1)).squeeze(1)
    total = torch.exp(weights * scores**2).sum(1)
    p = weights[item]
    return torch.log(total - torch.exp(p * own**2) + torch.exp(p * (own - 1) ** 2) + 1e-24)


def peer(rows, lens, targets, n_items):
    rng = np.random.default_rng(0)
    n = len(targets)
    counts = np.bincount(targets, minlength=n_items) + 1.0
    propensity = torch.from_numpy((counts / counts.sum()) ** 0.05)  # double, so the whole term is
    need = (args.batches + 3) * BATCH
    take = rng.permutation(n)[:need]
    ids, lens_t, target = (torch.from_numpy(a[take]) for a in (rows, lens, targets))
    negative = torch.from_numpy(rng.integers(0, n_items, need))
    lists = torch.from_numpy(rng.integers(0, n_items, (need, K)))
    distances = torch.from_numpy(np.sort(rng.random((need, K)), 1).astype(np.float32))
    model = SasRec(n_items, torch.randn(n_items, args.vectors))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8)
    place = torch.exp(-torch.arange(1, K + 1).float())
    place = place / place.sum()
    seconds = 0.0
    for batch in range(args.batches + 3):
        part = slice(batch * BATCH, (batch + 1) * BATCH)
        started = time.perf_counter()
        scores = model(ids[part], lens_t[part])
        of = lambda item: scores.gather(1, item.unsqueeze(1))
        s_pos, s_neg = of(target[part]), of(negative[part])
        values, labels = torch.cat([s_pos, s_neg]), torch.cat([torch.ones_like(s_pos), torch.zeros_like(s_neg)])
        loss = F.binary_cross_entropy_with_logits(values, labels)
        loss = loss + ALPHA * dro(scores, target[part], propensity).mean()
        near = torch.exp(-distances[part]) + 1e-8
        near = near / near.sum(1, keepdim=True)
        mine = torch.topk(scores, K).indices
        both = (lists[part].unsqueeze(2) == mine.unsqueeze(1)).any(2).float() + 1e-8
        weight = 0.3 * place + 0.5 * near + 0.1 * both
        weight = weight / weight.sum(1, keepdim=True)
        for k in range(K):
            item = lists[part][:, k]
            each = -(F.logsigmoid(of(item)) + F.logsigmoid(1 - s_neg))
            kd = (weight[:, k : k + 1] * each).mean() + ALPHA * (weight[:, k : k + 1] * dro(scores, item, propensity)).mean()
            loss = loss + LAMBDA * kd
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if batch >= 3:
            seconds += time.perf_counter() - started
    return seconds / args.batches * (n // BATCH)


def ours(work):
    built = os.environ.get("BENCH_DISTILL")
    command = [built] if built else ["cargo", "run", "--quiet", "--release", "--bin", "bench-distill", "--"]
    command += [work]
    command += [f"threads={args.threads}", f"vectors={args.vectors}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads([line for line in out.splitlines() if line.startswith("{")][-1])


rows, lens, targets, n_items = windows(args.data)
found = {"peer": [], "dros": [], "released": []}
for repeat in range(args.repeats):
    load = os.getloadavg()[0]
    found["peer"].append(peer(rows, lens, targets, n_items))
    print(json.dumps({"work": "peer", "seconds": round(found["peer"][-1], 1), "targets": len(targets), "load": load}), flush=True)
    if not args.peer_only:
        for work in ("dros", "released"):
            line = ours(work)
            found[work].append(line["seconds"])
            print(json.dumps({**line, "load": os.getloadavg()[0]}), flush=True)
middle = {work: float(np.median(values)) for work, values in found.items() if values}
for work in ("dros", "released"):
    if work in middle:
        ratio = middle[work] / middle["peer"]
        print(f"{work}: ours {middle[work]:.1f} s, PyTorch {middle['peer']:.1f} s an epoch, ratio {ratio:.3f} (goal 0.3)")
