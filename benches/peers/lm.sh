#!/usr/bin/env bash
# Speed of our language models beside transformers + peft on the same machine: the same folder, batch, types and threads.
#
#   benches/peers/lm.sh [--repeats 3] [--threads 2] [--shapes "llama_100m qwen2_33m"] [--dtypes "f32 bf16"] [--works "forward train"]
#                       [--rows 4] [--length 128] [--peer-repeats 3] [--peer-only] [--keep DIR] [--out FILE]
#
# --rows and --length: the batch of forward and training. The peer's bf16 training takes minutes a step on a processor without bf16
# arithmetic: `--rows 1 --length 32 --peer-repeats 0` (0: its first call, no warm-up) keeps a step of it below two minutes.
#
# Peer and ours take turns, so that a slow minute of the machine meets both. The models are random (seed 1), made into --keep (default: a
# new temporary folder, removed at the end). Every run's JSON line goes to --out (default: a new temporary file).
#
# Python: $PYTHON, else python3; it must import torch, transformers, peft and tokenizers. $BENCH_LM names a built bench-lm; otherwise it is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
. benches/peers/arguments.sh

repeats=3 threads=2 rows=4 length=128 peer_repeats=3 peer_only=0 keep="" out=""
shapes="llama_100m qwen2_33m" dtypes="f32 bf16" works="forward train decode_1 decode_8 load"
arguments "repeats threads rows length peer-repeats shapes dtypes works keep out" "peer-only" "$@"

python=${PYTHON:-python3}
"$python" -c "import torch, transformers, peft, tokenizers" 2>/dev/null || {
  echo "error: $python cannot import torch, transformers, peft and tokenizers; set PYTHON" >&2; exit 3; }
out=${out:-$(mktemp -t lm-bench.XXXXXX)}
: > "$out"
if [ -z "$keep" ]; then
  keep=$(mktemp -d -t lm-models.XXXXXX)
  trap 'rm -rf "$keep"' EXIT
fi
for shape in $shapes; do
  for dtype in $dtypes; do
    folder=$keep/$shape-$dtype
    [ -f "$folder/tokenizer.json" ] && continue
    echo "making $folder ..." >&2
    "$python" benches/peers/lm.py make --shape "$shape" --dtype "$dtype" --folder "$folder" >&2
  done
done
if [ "$peer_only" = 0 ] && [ -z "${BENCH_LM:-}" ]; then
  cargo build --release -p anyo-exp --bin bench-lm
fi

peer() { # WORK SHAPE DTYPE FORM
  echo "  $2 $3 $1 peer $4" >&2
  "$python" benches/peers/lm.py "$1" --shape "$2" --dtype "$3" --form "$4" --folder "$keep/$2-$3" --threads "$threads" \
    --rows "$rows" --length "$length" --repeats "$peer_repeats" 2> /dev/null | tee -a "$out" >&2
}
ours() { # WORK SHAPE DTYPE
  echo "  $2 $3 $1 ours" >&2
  local args=("$1" "$2" "$3" "$keep/$2-$3" 3 "$threads" "$rows" "$length")
  export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads
  if [ -n "${BENCH_LM:-}" ]; then "$BENCH_LM" "${args[@]}"; else cargo run --quiet --release -p anyo-exp --bin bench-lm -- "${args[@]}"; fi |
    grep '^{' | tee -a "$out" >&2
}

"$python" benches/peers/lm.py limit --threads "$threads" >> "$out"
for repeat in $(seq "$repeats"); do
  for shape in $shapes; do
    for dtype in $dtypes; do
      for work in $works; do
        echo "round $repeat of $repeats, load $(cut -d' ' -f1 /proc/loadavg)" >&2
        peer "$work" "$shape" "$dtype" generate
        case $work in decode_*) peer "$work" "$shape" "$dtype" loop ;; esac
        if [ "$peer_only" = 0 ]; then ours "$work" "$shape" "$dtype"; fi
      done
    done
  done
done
"$python" benches/peers/lm.py limit --threads "$threads" >> "$out"

echo "machine: $(nproc --all) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $threads threads; every line: $out"
"$python" benches/peers/lm_table.py "$out"
