#!/usr/bin/env python3
"""Markdown table over the runs of a folder: mean and deviation over seeds, names NAME_sSEED.

    python3 cmd/results_table.py result/movielens_1m [metric ...]
"""

import json
import re
import statistics
import sys
from pathlib import Path

METRICS = ["hr@10", "ndcg@10", "history_removed:hr@10", "history_removed:ndcg@10", "coverage@10"]


def show(values):
    text = f"{statistics.mean(values):.4f}"
    return text + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def main():
    folder = Path(sys.argv[1])
    metrics = sys.argv[2:] or METRICS
    groups, others = {}, {}
    for path in sorted(folder.glob("*/metrics/compare.json")):
        run = path.parent.parent
        name = re.sub(r"_?s\d+$", "", run.name) or folder.name
        compare = json.loads(path.read_text())
        student, *rest = compare
        time = json.loads((path.parent / "time.json").read_text())
        groups.setdefault(name, []).append((compare[student], time))
        others.update({other: compare[other] for other in rest})
    print("| model | seeds | " + " | ".join(metrics) + " | valid-best epoch | minutes |")
    print("|---|---|" + "---|" * (len(metrics) + 2))
    for name, runs in sorted(groups.items(), key=lambda g: -statistics.mean(r["ndcg@10"] for r, _ in g[1])):
        cells = [show([r[m] for r, _ in runs]) for m in metrics]
        epochs = "/".join(str(t.get("best_epoch", "–")) for _, t in runs)
        minutes = statistics.mean(t["total_seconds"] for _, t in runs) / 60
        print(f"| {name} | {len(runs)} | " + " | ".join(cells) + f" | {epochs} | {minutes:.1f} |")
    for name, row in others.items():
        print(f"| {name} | – | " + " | ".join(show([row[m]]) for m in metrics) + " | – | – |")


if __name__ == "__main__":
    main()
