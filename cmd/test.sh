#!/usr/bin/env bash
# Runs every test of the workspace; sets up libtorch first where it is missing.
#
#   cmd/test.sh                 all tests
#   cmd/test.sh ranks           only tests whose name contains "ranks"
#   cmd/test.sh -p anyo-core    any argument of `cargo nextest run` or `cargo test`
#
# The build lies in CARGO_TARGET_DIR, else in ~/.cache/anyo/target, which all clones share. The first run compiles the
# dependencies (10 minutes or more on two cores); later ones only what changed. Needs no network after the first run,
# no GPU, and no data: tests on real data say so and skip where ../shared/data is absent.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../env_shell/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env_shell/common.sh"

case ${1:-} in
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
started=$SECONDS
exec </dev/null # no test may wait for a person
prepare_build
cd "$anyo_root"
# each test process has libtorch's own threads; waiting ones must not keep a core busy
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
# The same generated cases every time, so that a run says something about the code; another seed looks elsewhere.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-20261121}"
locked=()
[ -z "${CI:-}" ] || locked=(--locked)

# link arguments of build scripts do not reach documentation tests, so the loader is told where libtorch is
doc_tests() {
    LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" cargo test "${locked[@]}" --doc
}

failed=()
# no --workspace: all crates are meant anyway, and it would silence a -p among the arguments
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run "${locked[@]}" --no-fail-fast "$@" || failed+=("tests")
    # nextest does not know documentation tests
    if [ $# -eq 0 ]; then doc_tests || failed+=("documentation tests"); fi
else
    say "cargo-nextest is not installed, so cargo test runs the tests (slower, same tests)"
    export LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    cargo test "${locked[@]}" --no-fail-fast "$@" || failed+=("tests")
fi

took=$(minutes $((SECONDS - started)))
if [ ${#failed[@]} -gt 0 ]; then
    say ""
    say "cmd/test.sh: FAILED after $took: ${failed[*]}"
    say "hint: cmd/test.sh NAME runs one test alone; 'cargo run --bin anyo-doctor' checks the machine"
    exit 1
fi
say ""
say "cmd/test.sh: all passed in $took (build in $CARGO_TARGET_DIR)"
