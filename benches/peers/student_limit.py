"""How much arithmetic the work items need, and how fast this machine multiplies matrices.

Useful FLOPs (a multiplication and an addition count 2), real positions only, causal half only; row u has T_u places, M = sum T_u:

    linear layers   per block 12 D^2 M        (q, k, v, out: 4 D^2; FFN: 2 D^2 multiply-adds a position)
    attention       per block 2 D sum_u T_u (T_u + 1)   (q.k and weights.v, each T(T+1)/2 . D multiply-adds)
    scores          2 D C M                   C candidates a position: 2 for BCE with one negative, N for the full softmax
    training        3 x the sum               (a backward pass costs two forward passes)
    ranking         1 x linear layers and attention, scores 2 D N U for U users

Embedding look-ups, softmax, LayerNorm, dropout and Adam are not counted, so the fraction reached is a lower bound of the work done.
"""
import time


def forward_gflop(lengths, d, blocks):
    t = lengths.astype("float64")
    return blocks * (12 * d * d * t.sum() + 2 * d * (t * (t + 1)).sum()) / 1e9


def gflop_epoch(lengths, d, blocks, candidates):
    return round(3 * (forward_gflop(lengths, d, blocks) + 2 * d * candidates * float(lengths.sum()) / 1e9), 1)


def gflop_rank(lengths, d, blocks, n_items):
    return round(forward_gflop(lengths, d, blocks) + 2 * d * n_items * len(lengths) / 1e9, 1)


def rate(make, flop, seconds=1.0):
    """GFLOP/s of `make()`: the best of the repetitions of about `seconds`."""
    make()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        make()
        best = min(best, time.perf_counter() - start)
    return round(flop / best / 1e9, 1)


def measure():
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    def product(m, k, n):
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        return rate(lambda: torch.mm(a, b, out=out), 2 * m * k * n)

    q = torch.randn(128, 1, 200, 50)
    return {"gflops": {
        "mm 2048x2048x2048": product(2048, 2048, 2048),
        "mm 25600x50x50 (a linear layer, max_len 200)": product(25600, 50, 50),
        "mm 12800x64x64 (a linear layer, max_len 50)": product(12800, 64, 64),
        "mm 2048x50x3706 (full softmax)": product(2048, 50, 3706),
        "fused causal attention 128x200x50": rate(lambda: scaled_dot_product_attention(q, q, q, is_causal=True), 128 * 2 * 50 * 200 * 201),
    }}
