"""Turns the JSON lines of lm.py and of our `bench-lm` into the comparison: `python lm_table.py RESULTS.jsonl`."""
import json
import sys
from collections import defaultdict
from statistics import median

GOALS = {"forward": 1.0, "train": 1.0, "decode_1": 2.0, "decode_8": 2.0, "load": 3.0}  # how many times the peer's speed
MEMORY = 0.8  # largest share of the peer's peak
FORMS = ["generate", "loop", "ours"]


def fraction(work, dtype, x, seconds, limit):
    """Arithmetic or reading of memory as a share of what the machine can do in f32 (bf16 is computed in f32 here)."""
    parameters = x.get("parameters") or x.get("weight_mb", 0) * 1e6 / (2 if dtype == "bf16" else 4)
    if work in ("forward", "train"):
        # a tied embedding counts once: as the output layer; training adds the gradients by the inputs
        speed = 2e-9 * parameters * x["tokens"] * (2 if work == "train" else 1) / seconds
        return f"{speed:.0f} GFLOP/s, {speed / limit['gflops']:.0%}"
    if work == "decode_1":
        speed = parameters * (2 if dtype == "bf16" else 4) * 1e-9 / seconds
        return f"{speed:.1f} GB/s, {speed / limit['read']:.0%}"
    return ""


def main(path):
    groups, limits = defaultdict(list), []
    for line in open(path):
        if line.startswith("{"):
            x = json.loads(line)
            (limits if x["work"] == "limit" else groups[x["shape"], x["dtype"], x["work"], "ours" if x["who"] == "ours" else x["form"]]).append(x)
    limit = {"gflops": max(v for x in limits for k, v in x["gflops"].items() if k.startswith("f32")), "read": max(x["read_gb_s"] for x in limits)}
    print("| shape | type | work | who | ms: median (range), runs | ratio | goal | of the limit | peak MB | without imports | ratio | goal | load |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for shape, dtype, work in sorted({k[:3] for k in groups}, key=lambda k: (k[0], k[1] == "bf16", list(GOALS).index(k[2]))):
        have = {f: groups[shape, dtype, work, f] for f in FORMS if (shape, dtype, work, f) in groups}
        seconds = {f: median(x["seconds"] for x in xs) for f, xs in have.items()}
        peak = {f: median(x["peak_rss_mb"] for x in xs) for f, xs in have.items()}
        imports = {f: median(x["import_rss_mb"] for x in xs) for f, xs in have.items()}
        for form, xs in have.items():
            spread = [1e3 * x["seconds"] for x in xs]
            cells = [shape, dtype, work, "ours" if form == "ours" else "peer" if len(have) == 2 else f"peer, {form}",
                     f"{1e3 * seconds[form]:.1f} ({min(spread):.1f}-{max(spread):.1f}), {len(xs)}"]
            rivals = [f for f in have if f != "ours"]
            if form != "ours" and "ours" in have:
                ratio = seconds[form] / seconds["ours"]
                cells += [f"{ratio:.2f}x", f"{GOALS[work]:g}x: {'yes' if ratio >= GOALS[work] else 'NO'}"]
            else:
                cells += ["", ""]
            cells += [fraction(work, dtype, xs[0], seconds[form], limit), f"{peak[form]:.0f}", f"{peak[form] - imports[form]:.0f}"]
            if form == "ours" and rivals:
                share = peak["ours"] / min(peak[f] for f in rivals)
                cells += [f"{share:.2f}", f"{MEMORY:g}: {'yes' if share <= MEMORY else 'NO'}"]
            else:
                cells += ["", ""]
            cells.append("-".join(f"{v:.1f}" for v in sorted({min(x["load"] for x in xs), max(x["load"] for x in xs)})))
            print("| " + " | ".join(cells) + " |")
    print(f"\nlimit (best seen, same threads): {limit['gflops']:.0f} GFLOP/s in f32, {limit['read']:.1f} GB/s of reading; " + "; ".join(
        f"{k} {max(x['gflops'][k] for x in limits):.0f} GFLOP/s" for k in limits[0]["gflops"]))
    for shape, dtype in sorted({k[:2] for k in groups}):
        for work in ("decode_1", "decode_8"):
            ids = {f: x[0].get("first_ids") for (s, d, w, f), x in groups.items() if (s, d, w) == (shape, dtype, work)}
            if ids:
                print(f"{shape} {dtype} {work}: first greedy ids {'equal' if len({str(v) for v in ids.values()}) == 1 else f'differ: {ids}'}")
        losses = {f: (x[0]["first_loss"], x[0]["last_loss"]) for (s, d, w, f), x in groups.items() if (s, d, w) == (shape, dtype, "train")}
        if losses:
            print(f"{shape} {dtype} train: losses of the first and last step " + ", ".join(f"{f} {a:.5f} {b:.5f}" for f, (a, b) in losses.items()))


if __name__ == "__main__":
    main(sys.argv[1])
