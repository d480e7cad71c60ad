# Sourced by the experiment scripts: a queue of runs with one thread each, as many at a time as there are cores. Small
# models use two cores better with two runs than with two threads. A finished run is not run again.
# shellcheck shell=bash

. env_shell/env.sh
cargo build --release --bin run-eval-all </dev/null >&2

# run NAME OVERRIDE…: a line for the queue
run() { printf '%s\n' "$*"; }

# queue FOLDER OVERRIDE…: runs the lines of stdin, each with these overrides first, into result/FOLDER/NAME; then the table.
# APP names the program, run-student-baseline where it is not set; COLUMNS_OF_TABLE the metrics.
queue() {
  # one executable holds them all
  export ANYO_QUEUE_DIR="result/$1" ANYO_QUEUE_BIN="$CARGO_TARGET_DIR/release/run-eval-all" ANYO_QUEUE_APP="${APP:-run-student-baseline}"
  shift
  export ANYO_QUEUE_COMMON="$*"
  mkdir -p "$ANYO_QUEUE_DIR"
  # shellcheck disable=SC2016 # the inner shell expands these
  xargs -P "${JOBS:-$(nproc)}" -L 1 bash -c '
    name=$0 dir=$ANYO_QUEUE_DIR/$0
    if [ -f "$dir/metrics/test.json" ]; then echo "$name: done already" >&2; exit 0; fi
    rm -rf "$dir"
    echo "$name: started" >&2
    # shellcheck disable=SC2086 # one word an override
    "$ANYO_QUEUE_BIN" --app "$ANYO_QUEUE_APP" $ANYO_QUEUE_COMMON threads=1 run.dir="$dir" "$@" >"$dir.log" 2>&1 || echo "$name: failed, see $dir.log" >&2'
  # shellcheck disable=SC2086 # one word a metric
  python3 cmd/results_table.py "$ANYO_QUEUE_DIR" ${COLUMNS_OF_TABLE:-}
}
