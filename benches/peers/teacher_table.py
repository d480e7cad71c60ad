"""Table of the JSON lines of teacher.sh: medians of each side, ratio to ours, goals."""
import json
import sys
from collections import defaultdict
from statistics import median

GOALS = {"train": 1.5, "export": 5.0}


def main():
    found = defaultdict(list)
    with open(sys.argv[1]) as file:
        for text in file:
            line = json.loads(text)
            if "rows_per_s" in line:
                found[line["shape"], line["work"], line["form"]].append(line)
    middle = lambda lines, key: median(line[key] for line in lines)
    print(f"{'model':<10} {'work':<7} {'who':<9} {'rows/s':>9} {'tokens/s':>9} {'MB':>7}  ratio (goal)   runs, load")
    for (shape, work, form), lines in found.items():
        rate = middle(lines, "rows_per_s")
        tokens = f"{middle(lines, 'tokens_per_s'):.0f}" if "tokens_per_s" in lines[0] else ""
        own = found.get((shape, work, "ours"))
        ratio = ""
        if own and form != "ours":
            times = middle(own, "rows_per_s") / rate
            ratio = f"{times:.2f} ({GOALS[work]}: {'reached' if times >= GOALS[work] else 'missed'})"
        loads = ", ".join(f"{line['load']:.1f}" for line in lines)
        print(f"{shape:<10} {work:<7} {form:<9} {rate:>9.2f} {tokens:>9} {middle(lines, 'peak_rss_mb'):>7.0f}  {ratio:<22} {len(lines)}, {loads}")


if __name__ == "__main__":
    main()
