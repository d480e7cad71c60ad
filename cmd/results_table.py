#!/usr/bin/env python3
"""Markdown table over the runs of a folder: mean and deviation over seeds, names NAME_sSEED.

    python3 cmd/results_table.py result/movielens_1m [metric ...]

A metric is a key of metrics/compare.json; `tail:ndcg@10` is the same over the tail's targets (head, middle, tail), and
`choice:by_scores.ranking.hr@1` a key of metrics/choice.json (questions with candidates of run-teacher), levels apart by points.
"""

import json
import re
import statistics
import sys
from pathlib import Path

METRICS = ["hr@10", "ndcg@10", "history_removed:hr@10", "history_removed:ndcg@10", "coverage@10"]


def show(values):
    if None in values:
        return "–"
    text = f"{statistics.mean(values):.4f}"
    return text + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def lookup(metrics, compare, name, metric):
    """The value of one metric for the row `name`; None where the run has none."""
    part, _, key = metric.partition(":")
    if part == "choice":
        file = metrics / ("choice.json" if name == next(iter(compare)) else "none")
        value = json.loads(file.read_text()) if file.exists() else {}
        for level in key.split("."):
            value = value.get(level) if isinstance(value, dict) else None
        return value
    if part in ("head", "middle", "tail"):
        file = metrics / "compare_buckets.json"
        if file.exists():
            buckets = json.loads(file.read_text()).get(name)
        else:
            buckets = json.loads((metrics / "buckets.json").read_text())["test"] if name == next(iter(compare)) else None
        return buckets and next((b[key] for b in buckets["popularity"] if b["name"] == part), None)
    return compare[name].get(metric)


def main():
    folder = Path(sys.argv[1])
    metrics = sys.argv[2:] or METRICS
    groups, others = {}, {}
    for path in sorted(folder.glob("*/metrics/compare.json")):
        run = path.parent.parent
        name = re.sub(r"_?s\d+$", "", run.name) or folder.name
        compare = json.loads(path.read_text())
        found = {row: {m: lookup(path.parent, compare, row, m) for m in metrics + ["ndcg@10"]} for row in compare}
        student, *rest = compare
        time = json.loads((path.parent / "time.json").read_text())
        groups.setdefault(name, []).append((found[student], time))
        others.update({other: found[other] for other in rest})
    print("| model | seeds | " + " | ".join(metrics) + " | valid-best epoch or step | minutes |")
    print("|---|---|" + "---|" * (len(metrics) + 2))
    for name, runs in sorted(groups.items(), key=lambda g: -statistics.mean(r["ndcg@10"] for r, _ in g[1])):
        cells = [show([r[m] for r, _ in runs]) for m in metrics]
        epochs = "/".join(str(t.get("best_epoch", t.get("best_step", "–"))) for _, t in runs)
        minutes = statistics.mean(t["total_seconds"] for _, t in runs) / 60
        print(f"| {name} | {len(runs)} | " + " | ".join(cells) + f" | {epochs} | {minutes:.1f} |")
    for name, row in others.items():
        print(f"| {name} | – | " + " | ".join(show([row[m]]) for m in metrics) + " | – | – |")


if __name__ == "__main__":
    main()
