"""Turns the JSON lines of student.py and of our `bench-student` into the comparison: `python student_table.py RESULTS.jsonl`."""
import json
import sys
from collections import defaultdict
from statistics import median

# work -> how many times faster than a form ours should be; "memory": largest share of the common form's peak; "mb", "seconds": absolute
GOALS = {
    "train_bce_200": {"common": 4.0, "tuned": 1.1, "memory": 0.4}, "train_bce_50": {"common": 2.5},
    "train_ce_200": {"tuned": 1.3, "mb": 1200}, "rank_200": {"common": 10.0}, "second_start": {"seconds": 1.5},
}
LARGE = "mm 2048x2048x2048"
FITTING = {"train_bce_200": "mm 25600x50x50 (a linear layer, max_len 200)", "rank_200": "mm 25600x50x50 (a linear layer, max_len 200)",
           "train_bce_50": "mm 12800x64x64 (a linear layer, max_len 50)", "train_ce_200": "mm 2048x50x3706 (full softmax)"}
FORMS = ["common", "tuned", "tuned_attention_dropout", "ours"]


def rate(work, lines):
    if work == "second_start":
        return ""
    key = "users_per_s" if work == "rank_200" else "sequences_per_s"
    values = [x.get(key, x.get("sequences_per_s", 6040 / x["seconds"])) for x in lines]
    return f"{median(values):,.0f} {key.split('_')[0]}/s" if values else ""


def verdicts(work, seconds, peak):
    """One line per goal of this work that can be judged."""
    for what, want in GOALS[work].items():
        if what in ("common", "tuned"):
            rivals = [seconds[f] for f in seconds if f.startswith(what)]  # the faster of the two tuned forms counts
            if not rivals:
                continue
            got, ok, text = min(rivals) / seconds["ours"], None, f"x the speed of {what}"
            ok = got >= want
        elif what == "memory":
            if "common" not in peak or "ours" not in peak:
                continue
            got, text = peak["ours"] / peak["common"], "of the memory of common"
            ok = got <= want
        elif what == "mb":
            if "ours" not in peak:
                continue
            got, text = peak["ours"], "MB peak"
            ok = got <= want
        else:
            got, text = seconds["ours"], "seconds"
            ok = got <= want
        yield f"  goal {what} {want:g}: {got:.2f} {text} - {'reached' if ok else 'MISSED'}"


def main(path):
    groups, limit = defaultdict(list), {}
    for line in open(path):
        if not line.startswith("{"):
            continue
        x = json.loads(line)
        if x["work"] == "limit":
            for k, v in x["gflops"].items():
                limit[k] = max(limit.get(k, 0.0), v)
        else:
            groups[x["work"], x.get("form", "ours")].append(x)
    print(f"{'work':14} {'who':24} {'seconds (min-max), runs':28} {'rate':18} {'peak MB':>8} {'-import':>8} {'ours is':>8} {'GFLOP/s':>8} {'of large':>8} {'of fitting':>10}")
    for work in GOALS:
        have = {f: groups[work, f] for f in FORMS if (work, f) in groups}
        if not have:
            continue
        seconds = {f: median(x["seconds"] for x in xs) for f, xs in have.items()}
        peak = {f: median(x["peak_rss_mb"] for x in xs if "peak_rss_mb" in x) for f, xs in have.items() if any("peak_rss_mb" in x for x in xs)}
        gflop = next((x["gflop"] for xs in have.values() for x in xs if "gflop" in x), None)
        for form, xs in have.items():
            spread = [x["seconds"] for x in xs]
            note = "~" if any(x.get("extrapolated") for x in xs) else ""
            imported = [x["import_rss_mb"] for x in xs if "import_rss_mb" in x]
            speed = gflop / seconds[form] if gflop else None
            memory = f"{peak[form]:.0f}" if form in peak else ""
            own = f"{peak[form] - median(imported):.0f}" if imported and form in peak else ""
            print(f"{work:14} {form:24} {f'{note}{seconds[form]:.2f} ({min(spread):.2f}-{max(spread):.2f}), {len(xs)}':28} {rate(work, xs):18} "
                  f"{memory:>8} {own:>8} "
                  f"{'' if form == 'ours' or 'ours' not in seconds else format(seconds[form] / seconds['ours'], '.2f') + 'x':>8} "
                  f"{format(speed, '.1f') if speed else '':>8} {format(speed / limit[LARGE], '.1%') if speed and LARGE in limit else '':>8} "
                  f"{format(speed / limit[FITTING[work]], '.1%') if speed and FITTING.get(work) in limit else '':>10}")
        if "ours" in seconds:
            print(*verdicts(work, seconds, peak), sep="\n")
        if gflop:
            print(f"  useful arithmetic {gflop:,.0f} GFLOP (student_limit.py says how it is counted)")
    if limit:
        print("\nArithmetic limit of this machine, GFLOP/s (best seen, same threads):")
        for k, v in limit.items():
            print(f"  {v:8.1f}  {k}")
    print("\ncommon: workers' memory is not in `peak MB`: " + (", ".join(
        f"{w} {median(x['workers_rss_mb'] for x in xs):,.0f} MB" for (w, f), xs in groups.items() if f == "common" and "workers_rss_mb" in xs[0]) or "none")
        + ". `-import`: without what importing torch takes. ~: scaled up from part of the work.")


if __name__ == "__main__":
    main(sys.argv[1])
