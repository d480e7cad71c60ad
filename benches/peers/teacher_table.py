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
    middle = lambda lines, value: median(map(value, lines))
    rate, busy = (lambda line: line["rows_per_s"]), (lambda line: line["rows"] / line["cpu_seconds"])
    # processor seconds are what a busy machine changes least; with one thread and nobody else both ratios are the same
    print(f"{'model':<10} {'work':<7} {'who':<9} {'rows/s':>8} {'rows/cpu-s':>10} {'MB':>6}  {'ratio (goal)':<20} {'by cpu-s':>8}  runs, load")
    for (shape, work, form), lines in found.items():
        own, ratio, by_cpu = found.get((shape, work, "ours")), "", ""
        if own and form != "ours":
            times = middle(own, rate) / middle(lines, rate)
            ratio = f"{times:.2f} ({GOALS[work]}: {'reached' if times >= GOALS[work] else 'missed'})"
            by_cpu = f"{middle(own, busy) / middle(lines, busy):.2f}"
        loads = ", ".join(f"{line['load']:.1f}" for line in lines)
        memory = middle(lines, lambda line: line["peak_rss_mb"])
        print(f"{shape:<10} {work:<7} {form:<9} {middle(lines, rate):>8.2f} {middle(lines, busy):>10.2f} {memory:>6.0f}  {ratio:<20} {by_cpu:>8}  "
              f"{len(lines)}, {loads}")


if __name__ == "__main__":
    main()
