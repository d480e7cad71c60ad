#!/usr/bin/env bash
# From a fresh clone to a comparison of an LLM teacher, a small student, and the student distilled from the teacher, on
# generated data, without a download of data or models.
#
#   cmd/quickstart.sh                       everything on dataset=toy, three students of each kind
#   cmd/quickstart.sh 'seeds=[1]'           any override of run-eval-all
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
say "  2. run-eval-all is compiled (once; 10 minutes or more on two cores)"
say "  3. on generated data (2,000 readers, 500 books in series; the titles of new books say what nobody's history can):"
say "     a small language model is trained on the titles, then an iLoRA teacher on top of it, which labels the training rows;"
say "     a small sequential student is trained alone and distilled from the teacher in two ways (DLLM2Rec, and list-wise),"
say "     three times each;"
say "     all are compared, with significance tests (minutes on two cores that do nothing else)"
say ""
say "--- 1. libtorch"
prepare_build
say ""
say "--- 2. build (in $CARGO_TARGET_DIR)"
cargo build --release --bin run-eval-all </dev/null
built=$SECONDS
say ""
stages=(dataset=toy 'seeds=[1, 2, 3]' jobs=2 '+stages.distill.listwise=["distill=listwise"]')
say "--- 3. train and compare: run-eval-all ${stages[*]} $*"
marker=$(mktemp)
trap 'rm -f "$marker"' EXIT
# cargo run, not the file itself: another clone may just have put its own program into the shared target folder
code=0
cargo run --quiet --release --bin run-eval-all -- "${stages[@]}" "$@" || code=$?
if [ "$code" -ne 0 ]; then
    say ""
    say "error: run-eval-all ended with exit code $code; its message is above"
    say "hint: 'cargo run --release --bin anyo-doctor' checks this machine"
    exit "$code"
fi

say ""
say "Done; step 3 took $(minutes $((SECONDS - built)))."
run=""
[ ! -d result ] || run=$(find result -mindepth 1 -maxdepth 1 -name 'result_*' -newer "$marker" | sort | tail -n 1)
if [ -n "$run" ]; then
    say "Open $run/report.html ; the runs behind it are in $run/stages (config.yaml, metrics/, models/, tb/ for TensorBoard)."
fi
cat >&2 <<'TEXT'

Next:
  source env_shell/env.sh              so that cargo reuses what was compiled just now
  cmd/download_data.sh movielens-100k
  cargo run --release --bin run-eval-all -- dataset=movielens-100k 'stages.teacher=["teacher/prompt=movies"]'
  cargo run --release --bin run-teacher -- --help               every option group
  cargo run --release --bin anyo-doctor                         what this machine has and lacks
TEXT
