#!/usr/bin/env bash
# Speed of our teacher beside transformers + a plain gated LoRA in PyTorch on the same machine: the same model, rows, batches and threads.
#
#   benches/peers/teacher.sh [--repeats 3] [--threads 1] [--steps 32] [--shapes "builtin llama_36m"] [--works "train export"]
#                            [--forms "released lean"] [--keep DIR] [--out FILE]
#
# Peer and ours take turns, so that a slow minute of the machine meets both. Training is timed over --steps micro-batches, export over 16 rows
# for each. Models and prompts are made into --keep (default: a new temporary folder, removed at the end). Every run's JSON line goes to --out
# (default: a new temporary file).
#
# Python: $PYTHON, else python3; it must import torch and transformers. $BENCH_TEACHER names a built bench-teacher; otherwise it is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
. benches/peers/arguments.sh

repeats=3 threads=1 steps=32 keep="" out=""
shapes="builtin" works="train export" forms="released lean"
arguments "repeats threads steps shapes works forms keep out" "" "$@"

python=${PYTHON:-python3}
"$python" -c "import torch, transformers" 2>/dev/null || {
  echo "error: $python cannot import torch and transformers; set PYTHON" >&2; exit 3; }
out=${out:-$(mktemp -t teacher-bench.XXXXXX)}
: > "$out"
if [ -z "$keep" ]; then
  keep=$(mktemp -d -t teacher-models.XXXXXX)
  trap 'rm -rf "$keep"' EXIT
fi
if [ -z "${BENCH_TEACHER:-}" ]; then
  cargo build --release -p anyo-exp --bin bench-teacher
fi

bench() { # WORK SHAPE N
  local args=("$1" "$keep" "$2" "$3" "$threads")
  export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads
  if [ -n "${BENCH_TEACHER:-}" ]; then "$BENCH_TEACHER" "${args[@]}"; else cargo run --quiet --release -p anyo-exp --bin bench-teacher -- "${args[@]}"; fi |
    grep '^{'
}

for shape in $shapes; do
  if ! [ -f "$keep/$shape.json" ]; then
    echo "making the model and the prompts of $shape ..." >&2
    bench prepare "$shape" "$steps" >&2
  fi
done
for repeat in $(seq "$repeats"); do
  for shape in $shapes; do
    for work in $works; do
      echo "round $repeat of $repeats, load $(cut -d' ' -f1 /proc/loadavg)" >&2
      for form in $forms; do
        echo "  $shape $work peer $form" >&2
        "$python" benches/peers/teacher.py "$work" --shape "$shape" --form "$form" --folder "$keep" --threads "$threads" | tee -a "$out" >&2
      done
      echo "  $shape $work ours" >&2
      n=$steps
      [ "$work" = export ] && n=$((16 * steps))
      bench "$work" "$shape" "$n" | tee -a "$out" >&2
    done
  done
done

echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $threads threads; every line: $out"
"$python" benches/peers/teacher_table.py "$out"
