"""SASRec in PyTorch, the peer of our students: one set of parameters, two ways to compute it.

`common()`  what most public code does: rows padded on the left to max_len, torch.nn.MultiheadAttention, pads attended.
`trimmed()` the same network tuned: rows padded on the right to the batch's longest row, one call for q and one for k, v.

Form (pmixer): x = sqrt(D) item + pos (newest item at max_len, 0 = pad); per block q = LN(x); x = FFN(LN(q + MHA(q, x, x))) with an
FFN residual; last LN; scores = h . item. Dropout on the embedding, the attention weights and after both FFN convolutions.

Axis letters: B rows, T places, D width, N items (ids 1..N, 0 = pad), M real positions of a batch.
"""
import numpy as np
import torch
from torch import nn
from torch.nn.functional import dropout, linear, relu, scaled_dot_product_attention


class Ffn(nn.Module):
    def __init__(self, d, p):
        super().__init__()
        self.conv1, self.conv2, self.p = nn.Conv1d(d, d, 1), nn.Conv1d(d, d, 1), p

    def forward(self, x):
        """The common way: through two transposed copies."""
        y = relu(dropout(self.conv1(x.transpose(1, 2)), self.p, self.training))
        return x + dropout(self.conv2(y), self.p, self.training).transpose(1, 2)

    def fast(self, x):
        """The same as matrix products on [.., D]."""
        y = relu(dropout(linear(x, self.conv1.weight[:, :, 0], self.conv1.bias), self.p, self.training))
        return x + dropout(linear(y, self.conv2.weight[:, :, 0], self.conv2.bias), self.p, self.training)


class SasRec(nn.Module):
    def __init__(self, n_items, max_len, d, blocks=2, heads=1, p=0.2):
        super().__init__()
        self.n_items, self.max_len, self.d, self.heads, self.p = n_items, max_len, d, heads, p
        self.item_emb = nn.Embedding(n_items + 1, d, padding_idx=0)
        self.pos_emb = nn.Embedding(max_len + 1, d, padding_idx=0)
        self.ln1 = nn.ModuleList(nn.LayerNorm(d, eps=1e-8) for _ in range(blocks))
        self.attn = nn.ModuleList(nn.MultiheadAttention(d, heads, p, batch_first=True) for _ in range(blocks))
        self.ln2 = nn.ModuleList(nn.LayerNorm(d, eps=1e-8) for _ in range(blocks))
        self.ffn = nn.ModuleList(Ffn(d, p) for _ in range(blocks))
        self.ln_last = nn.LayerNorm(d, eps=1e-8)
        for w in self.parameters():  # Xavier-normal matrices; biases and norms stay at torch's defaults
            if w.dim() > 1:
                nn.init.xavier_normal_(w)
        with torch.no_grad():
            self.item_emb.weight[0] = 0
            self.pos_emb.weight[0] = 0

    def common(self, rows):
        """rows [B,max_len] left-padded ids -> [B,max_len,D]."""
        t = rows.shape[1]
        x = self.item_emb(rows) * self.d ** 0.5
        x = x + self.pos_emb(torch.arange(1, t + 1) * (rows != 0))
        x = dropout(x, self.p, self.training)
        future = ~torch.ones(t, t, dtype=torch.bool).tril()
        for ln1, attn, ln2, ffn in zip(self.ln1, self.attn, self.ln2, self.ffn):
            q = ln1(x)
            y, _ = attn(q, x, x, attn_mask=future)
            x = ffn(ln2(q + y))
        return self.ln_last(x)

    def trimmed(self, rows, lengths, attention_dropout, explicit=True):
        """rows [B,T] right-padded ids, lengths [B] -> [B,T,D]. Places behind a row hold rubbish that nothing reads.

        attention_dropout off lets torch use its fused attention. On, `explicit` writes the softmax out
        (torch's CPU attention has no fused form with dropout; explicit=False leaves the choice to it).
        """
        b, t = rows.shape
        place = torch.arange(t) + (self.max_len + 1 - lengths)[:, None]  # the newest item takes row max_len
        x = self.item_emb(rows) * self.d ** 0.5 + self.pos_emb(place.clamp_(max=self.max_len))
        x = dropout(x, self.p, self.training)
        p = self.p if attention_dropout and self.training else 0.0
        future = torch.full((t, t), float("-inf")).triu(1) if p and explicit else None
        d, h = self.d, self.heads
        for ln1, attn, ln2, ffn in zip(self.ln1, self.attn, self.ln2, self.ffn):
            q_in, w, bias = ln1(x), attn.in_proj_weight, attn.in_proj_bias
            q = linear(q_in, w[:d], bias[:d]).view(b, t, h, d // h).transpose(1, 2)
            k, v = linear(x, w[d:], bias[d:]).view(b, t, 2, h, d // h).permute(2, 0, 3, 1, 4)
            if future is None:
                y = scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
            else:
                a = (q * (d // h) ** -0.5 @ k.transpose(2, 3) + future).softmax(-1)
                y = dropout(a, p, True) @ v
            y = linear(y.transpose(1, 2).reshape(b, t, d), attn.out_proj.weight, attn.out_proj.bias)
            x = ffn.fast(ln2(q_in + y))
        return self.ln_last(x)


class ChunkedCe(torch.autograd.Function):
    """Mean full-softmax cross entropy over M positions without ever holding [M,N]: the gradient of each chunk of
    rows is made in the forward pass, in the chunk's own buffer."""

    @staticmethod
    def forward(ctx, h, table, target, chunk):
        m = h.shape[0]
        dh, dtable, total = torch.empty_like(h), torch.zeros_like(table), h.new_zeros(())
        buffer = h.new_empty(min(chunk, m), table.shape[0])
        for start in range(0, m, chunk):
            hc, tc = h[start:start + chunk], target[start:start + chunk, None]
            z = torch.mm(hc, table.T, out=buffer[:len(hc)])
            top = z.amax(1, keepdim=True)
            picked = z.gather(1, tc)
            z.sub_(top).exp_()
            norm = z.sum(1, keepdim=True)
            total += (norm.log() + top - picked).sum()
            z.div_(norm)
            z.scatter_add_(1, tc, z.new_full(tc.shape, -1.0))
            torch.mm(z, table, out=dh[start:start + chunk])
            dtable.addmm_(z.T, hc)
        ctx.save_for_backward(dh.div_(m), dtable.div_(m))
        return total / m

    @staticmethod
    def backward(ctx, grad):
        dh, dtable = ctx.saved_tensors
        return dh * grad, dtable * grad, None, None


def read_sequences(path):
    """`user TAB items oldest to newest` -> (list of int arrays with ids 1..N, N). Ids are the ranks of the originals."""
    rows = [line.split("\t", 1)[1].split() for line in open(path) if line.strip()]
    return renumber([np.array(r, dtype=np.int64) for r in rows])


def read_ratings(path):
    """MovieLens `user TAB item TAB rating TAB time`, sorted by time, file order for ties -> like read_sequences, users by id."""
    raw = np.loadtxt(path, dtype=np.int64, delimiter="\t")
    raw = raw[np.argsort(raw[:, 3], kind="stable")]
    raw = raw[np.argsort(raw[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(raw[:, 0])) + 1
    return renumber(np.split(raw[:, 1], starts))


def renumber(rows):
    known = np.unique(np.concatenate(rows))
    return [np.searchsorted(known, r) + 1 for r in rows if len(r) >= 3], len(known)


class Rows:
    """Leave-one-out: the last item is the test target, the one before it the validation target, the rest trains.

    held = items taken off the end to get the input history: 2 for validation (and training), 1 for test."""

    def __init__(self, sequences, n_items, max_len):
        self.sequences, self.n_items, self.max_len = sequences, n_items, max_len
        self.seen = np.zeros((len(sequences), n_items + 1), dtype=bool)  # what a negative of that user may not be
        for u, s in enumerate(sequences):
            self.seen[u, s[:-2]] = True
        self.seen[:, 0] = True
        self.train_in, self.train_out, self.train_len = self.block([s[:-3] for s in sequences], [s[1:-2] for s in sequences])

    def block(self, inputs, outputs):
        """Right-padded [U,max_len] matrices of the newest max_len items, and their lengths."""
        a, b = (np.zeros((len(inputs), self.max_len), dtype=np.int64) for _ in range(2))
        n = np.zeros(len(inputs), dtype=np.int64)
        for u, (x, y) in enumerate(zip(inputs, outputs)):
            x, y = x[-self.max_len:], y[-self.max_len:]
            n[u] = len(x)
            a[u, :len(x)], b[u, :len(y)] = x, y
        return a, b, n

    def histories(self, held):
        """Inputs [U,max_len] right-padded, lengths [U] and targets [U] of validation (2) or test (1)."""
        a, _, n = self.block([s[:-held] for s in self.sequences], [s[:0] for s in self.sequences])
        return a, n, np.array([s[-held] for s in self.sequences])

    def negatives(self, users, t, rng):
        """[B,t] items outside each user's training history, all drawn at once; hits are drawn again."""
        neg = rng.integers(1, self.n_items + 1, size=(len(users), t))
        bad = self.seen[users[:, None], neg]
        while bad.any():
            neg[bad] = rng.integers(1, self.n_items + 1, size=int(bad.sum()))
            bad = self.seen[users[:, None], neg]
        return neg


def bce_on_pairs(model, h, pos, neg):
    """h [M,D], pos, neg [M] ids: mean softplus(-s+) + mean softplus(s-)."""
    sp = (h * model.item_emb(pos)).sum(1)
    sn = (h * model.item_emb(neg)).sum(1)
    return nn.functional.softplus(-sp).mean() + nn.functional.softplus(sn).mean()


@torch.no_grad()
def rank_all(model, inputs, lengths, targets, batch=256):
    """1-based rank of every user's target among all items, ties counted against it; users in length order, trimmed."""
    order = np.argsort(lengths, kind="stable")
    table, ranks = model.item_emb.weight[1:], np.zeros(len(order), dtype=np.int64)
    for start in range(0, len(order), batch):
        users = order[start:start + batch]
        n = torch.from_numpy(lengths[users])
        rows = torch.from_numpy(inputs[users, :int(n.max())])
        h = model.trimmed(rows, n, False)
        s = h[torch.arange(len(users)), n - 1] @ table.T
        best = s.gather(1, torch.from_numpy(targets[users])[:, None] - 1)
        ranks[users] = (s >= best).sum(1).numpy()
    return ranks
