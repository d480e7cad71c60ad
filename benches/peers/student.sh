#!/usr/bin/env bash
# Speed of our students beside PyTorch on the same machine: MovieLens-1M, the same sizes, dropout and threads.
#
#   benches/peers/student.sh [--repeats 3] [--threads 2] [--works "train_bce_200 rank_200"] [--batches N] [--peer-only] [--out FILE]
#
# Peer and ours take turns, so that a slow minute of the machine meets both. --batches shortens each peer run and scales it up (a quick look;
# leave it out for figures that are reported). --peer-only leaves ours out. Every run's JSON line goes to --out (default: a new temporary file).
#
# Python: $PYTHON, else python3, if it can import torch and numpy; otherwise a virtual environment with torch is made once under the target
# folder (pip; PIP_INDEX_URL is honoured, ANYO_TORCH_INDEX names an index with CPU-only wheels, which are far smaller and take less memory).
set -euo pipefail
cd "$(dirname "$0")/../.."
. benches/peers/arguments.sh

torch_version=2.11.0
repeats=3 threads=2 batches=0 peer_only=0 out=""
works="train_bce_200 train_bce_50 train_ce_200 rank_200 second_start"
arguments "repeats threads works batches out" "peer-only" "$@"

data=${ANYO_ML1M:-../shared/data/movielens-1m/sequences.tsv}
[ -f "$data" ] || { echo "error: $data is missing; set ANYO_ML1M to MovieLens-1M's sequences.tsv" >&2; exit 3; }
target=${CARGO_TARGET_DIR:-$PWD/target}
out=${out:-$(mktemp -t student-bench.XXXXXX)}
: > "$out"

python=${PYTHON:-python3}
if ! "$python" -c "import torch, numpy" 2>/dev/null; then
  venv=$target/peer-venv
  if ! "$venv/bin/python" -c "import torch, numpy" 2>/dev/null; then
    echo "making $venv with torch $torch_version ..." >&2
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet numpy
    if [ -n "${ANYO_TORCH_INDEX:-}" ]; then
      "$venv/bin/pip" install --quiet --index-url "$ANYO_TORCH_INDEX" "torch==$torch_version"
    else
      "$venv/bin/pip" install --quiet "torch==$torch_version"
    fi
  fi
  python=$venv/bin/python
fi

if [ "$peer_only" = 0 ]; then
  cargo build --release --bin bench-student
fi

peer() { # WORK FORM
  echo "  $1 $2" >&2
  "$python" benches/peers/student.py "$1" --form "$2" --threads "$threads" --batches "$batches" --data "$data" | tee -a "$out" >&2
}
ours() { # WORK; whatever it prints besides the JSON line stays out of the results
  echo "  $1 ours" >&2
  OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads cargo run --quiet --release --bin bench-student -- "$1" | grep '^{' | tee -a "$out" >&2
}

"$python" benches/peers/student.py limit --threads "$threads" --data "$data" >> "$out"
for repeat in $(seq "$repeats"); do
  echo "round $repeat of $repeats, load $(cut -d' ' -f1 /proc/loadavg)" >&2
  for work in $works; do
    peer "$work" common
    peer "$work" tuned
    case $work in train_*) peer "$work" tuned_attention_dropout ;; esac
    if [ "$peer_only" = 0 ]; then ours "$work"; fi
  done
done
"$python" benches/peers/student.py limit --threads "$threads" --data "$data" >> "$out"

echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $threads threads; every line: $out"
"$python" benches/peers/student_table.py "$out"
