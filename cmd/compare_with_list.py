#!/usr/bin/env python3
"""A run beside a public list of ranked items, on the users of that list. Needs pandas and pyarrow.

    python3 cmd/compare_with_list.py RUN LIST SEQUENCES
    python3 cmd/compare_with_list.py result/amazon_games/s1 \\
        ../shared/data/amazon-games-llmrank/sasrec_top100_6k.tsv ../shared/data/amazon-games-llmrank/sequences.tsv

LIST: user TAB item ids, best first. SEQUENCES: user TAB item ids, oldest first; the last one is the target.
"""

import math
import sys

import pandas


def lines(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            user, items = line.rstrip("\n").split("\t")
            yield user, items.split(" ")


def figures(ranks, k=10):
    hits = [rank for rank in ranks if rank <= k]
    n = len(ranks)
    return len(hits) / n, sum(1 / math.log2(rank + 1) for rank in hits) / n


def main():
    run, list_path, sequences_path = sys.argv[1:]
    targets = {user: items[-1] for user, items in lines(sequences_path)}
    table = pandas.read_parquet(f"{run}/metrics/per_user.parquet")
    ours = dict(zip(table["user"].astype(str), table["rank"]))
    theirs, mine, removed = [], [], []
    other = next((c for c in table.columns if c.startswith("rank_history_removed")), None)
    ours_removed = dict(zip(table["user"].astype(str), table[other])) if other else {}
    for user, items in lines(list_path):
        target = targets[user]
        theirs.append(items.index(target) + 1 if target in items else 10**9)
        mine.append(ours[user])
        if other:
            removed.append(ours_removed[user])
    for name, ranks in [("the list", theirs), ("the run", mine), ("the run, history removed", removed)]:
        if ranks:
            hr, ndcg = figures(ranks)
            print(f"{name:>25}: {len(ranks)} users, HR@10 {hr:.4f}, NDCG@10 {ndcg:.4f}")


if __name__ == "__main__":
    main()
