#!/usr/bin/env bash
# From a fresh clone to a trained recommender and its table of results, on generated data, without a download of data.
#
#   cmd/quickstart.sh                       the default student on dataset=toy
#   cmd/quickstart.sh student=gru4rec       any override of run-student-baseline
#
# Needs Rust, Python with pip, and a C++ compiler. Works from any folder; paths in overrides count from the project's.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../env_shell/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env_shell/common.sh"

case ${1:-} in
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
cd "$anyo_root"
say "This is what happens now:"
say "  1. libtorch 2.11.0 is set up in .libtorch (once; up to 540 MB of download)"
say "  2. run-student-baseline is compiled (once; 10 minutes or more on two cores)"
say "  3. a small sequential recommender is trained on generated data and compared with popularity (under 3 minutes)"
say ""
say "--- 1. libtorch"
prepare_build
say ""
say "--- 2. build (in $CARGO_TARGET_DIR)"
cargo build --release --bin run-student-baseline </dev/null
built=$SECONDS
say ""
say "--- 3. train and evaluate: run-student-baseline dataset=toy $*"
marker=$(mktemp)
trap 'rm -f "$marker"' EXIT
# cargo run, not the file itself: another clone may just have put its own program into the shared target folder
code=0
cargo run --quiet --release --bin run-student-baseline -- dataset=toy "$@" || code=$?
if [ "$code" -ne 0 ]; then
    say ""
    say "error: run-student-baseline ended with exit code $code; its message is above"
    say "hint: 'cargo run --release --bin anyo-doctor' checks this machine"
    exit "$code"
fi

say ""
say "Done; step 3 took $(minutes $((SECONDS - built)))."
run=""
[ ! -d result ] || run=$(find result -mindepth 1 -maxdepth 1 -name 'result_*' -newer "$marker" | sort | tail -n 1)
if [ -n "$run" ]; then
    say "The run is in $run : config.yaml (every value), metrics/test.json, models/, tb/ for TensorBoard."
fi
cat >&2 <<'TEXT'

Next:
  source env_shell/env.sh              so that cargo reuses what was compiled just now
  cmd/download_data.sh movielens-100k
  cargo run --release --bin run-student-baseline -- dataset=movielens-100k
  cargo run --release --bin run-student-baseline -- --help      every option group
  cargo run --release --bin anyo-doctor                         what this machine has and lacks
TEXT
