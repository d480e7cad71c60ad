#!/usr/bin/env bash
# Tests env_shell/setup_libtorch.sh in copies of the clone, with tiny libraries in place of libtorch and a Python whose
# pip hands out tiny wheels: no network, a few seconds. Exit code 0 all passed, 1 a case failed, 77 a program is missing.
# shellcheck disable=SC2016 # texts in single quotes are for other shells
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for program in cc c++ readelf python3 ldd; do
    command -v "$program" >/dev/null 2>&1 || { echo "skipped: $program is not installed"; exit 77; }
done
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "skipped: made for Linux on x86_64"; exit 77; }
unset LIBTORCH LD_LIBRARY_PATH VIRTUAL_ENV CONDA_PREFIX ANYO_PYTHON ANYO_CUDA ANYO_CACHE

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
log=$work/log

# --- tiny libraries and wheels ---
mkdir -p "$work/lib" "$work/wheels" "$work/bin" "$work/include/torch/headeronly" "$work/include/torch/csrc/api/include/torch"
so() { # so NAME LINK...: an empty library
    local name=$1
    shift
    printf 'void f_%s(void){}\n' "${name//[^a-z0-9]/_}" |
        cc -x c -shared -fPIC -o "$work/lib/$name" - -Wl,-soname,"$name" -Wl,--no-as-needed -L"$work/lib" "$@" \
            -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags \
            -Wl,-rpath,"\$ORIGIN/../../nvidia/cu13/lib:\$ORIGIN"
}
so libcudart.so.13
so libc10.so
so libtorch_cpu.so -lc10 -l:libcudart.so.13
so libtorch_cuda.so -lc10
so libtorch.so -ltorch_cpu -ltorch_cuda
printf '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION \\\n  "2.11.0"\n' >"$work/include/torch/headeronly/version.h"
echo >"$work/include/torch/csrc/api/include/torch/torch.h"
python3 - "$work" <<'PY'
import os, sys, zipfile
work = sys.argv[1]
def wheel(name, files):
    with zipfile.ZipFile(os.path.join(work, "wheels", name), "w") as out:
        for inside, source in files.items():
            out.write(os.path.join(work, source), inside)
        if name.startswith("torch"):
            out.writestr("torch-2.11.0.dist-info/METADATA",
                         "Requires-Dist: sympy\nRequires-Dist: nvidia-cuda-runtime==13.0.1; platform_system == 'Linux'\n")
libs = {"torch/lib/" + l: "lib/" + l for l in ["libc10.so", "libtorch_cpu.so", "libtorch_cuda.so", "libtorch.so"]}
heads = {"torch/" + h: h for h in
         ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/torch.h"]}
wheel("torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl", {**libs, **heads})
wheel("nvidia_cuda_runtime-13.0.96-py3-none-any.whl", {"nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13"})
wheel("nvidia_cuda_cupti-13.0.85-py3-none-any.whl", {})
PY
# a Python without torch, whose pip does what MODE says and writes down its arguments
cat >"$work/bin/python" <<'SH'
#!/usr/bin/env bash
case "$*" in
    -) exit 1 ;;
    "-m pip --version") exit 0 ;;
    "-m pip download"*)
        echo "$*" >>"$WORK/pip.calls"
        case ${MODE:-give} in
            offline) echo "WARNING: Retrying after NewConnectionError" >&2; echo "ERROR: No matching distribution found" >&2; exit 1 ;;
            none) echo "ERROR: No matching distribution found for torch==2.11.0" >&2; exit 1 ;;
            full) echo "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device" >&2; exit 1 ;;
            hang) touch "$WORK/hanging"; exec sleep 60 ;;
        esac
        previous=""
        for argument in "$@"; do
            [ "$previous" != --dest ] || dest=$argument
            previous=$argument
        done
        case "$*" in
            *torch==*) cp "$WORK"/wheels/torch* "$dest/" ;;
            *) cp "$WORK"/wheels/nvidia* "$dest/" ;;
        esac
        exit 0 ;;
esac
exec python3 "$@"
SH
chmod +x "$work/bin/python"

# clone NAME: a fresh clone of what the script needs
clone() { mkdir -p "$work/$1"; rm -rf "${work:?}/$1/env_shell"; cp -r "$here/../../env_shell" "$work/$1/"; }
# setup CLONE [VARIABLE=VALUE...] [-- ARGUMENT...]: prints the exit code
setup() {
    local name=$1 variables=() code=0
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do variables+=("$1"); shift; done
    [ $# -eq 0 ] || shift
    # no GPU unless the case says so
    env WORK="$work" ANYO_CACHE="$work/cache" ANYO_PYTHON="$work/bin/python" ANYO_CUDA=0 "${variables[@]}" \
        "$work/$name/env_shell/setup_libtorch.sh" "$@" >"$log" 2>&1 || code=$?
    echo "$code"
}
expect() { # expect NAME WANTED GOT [TEXT in the output]
    if [ "$2" = "$3" ] && { [ -z "${4:-}" ] || grep -qF -- "$4" "$log"; }; then
        echo "ok    $1"
    else
        echo "WRONG $1: wanted $2, got $3; text wanted: ${4:-any}"
        sed 's/^/      | /' "$log"
        failures=$((failures + 1))
    fi
}
exists() { if [ -e "$1" ]; then echo yes; else echo no; fi; }

# --- what is missing is named ---
clone a
expect "check before the set-up" 1 "$(setup a -- --check)" "it is missing"
expect "unknown argument" 2 "$(setup a -- --fore)" "--check, --force or --help"
expect "no python" 1 "$(setup a ANYO_PYTHON=/no/such/python)" "no Python with pip was found"
expect "offline" 1 "$(setup a MODE=offline)" "could not reach its package index"
expect "no wheel" 1 "$(setup a MODE=none)" "pip has no wheel for"
expect "disk full while fetching" 1 "$(setup a MODE=full)" "the disk filled up"
expect "ANYO_CUDA must be 0 or 1" 1 "$(setup a ANYO_CUDA=yes)" "ANYO_CUDA=yes is neither 0 nor 1"
fake() { mkdir -p "$work/fake"; rm -f "$work"/fake/*; printf '#!/bin/sh\n%s\n' "$2" >"$work/fake/$1"; chmod +x "$work/fake/$1"; }
fake df 'echo header; echo "/dev/x 1 1 102400 1% /"'
expect "no space" 1 "$(setup a PATH="$work/fake:$PATH")" "has 100 MB free, and libtorch needs 1300 MB"
fake uname 'case $1 in -s) echo Linux;; *) echo riscv64;; esac'
expect "wrong architecture" 1 "$(setup a PATH="$work/fake:$PATH")" "no libtorch 2.11.0 wheel for riscv64"
fake uname 'echo Darwin'
expect "wrong system" 1 "$(setup a PATH="$work/fake:$PATH")" "knows Linux only"
fake cc 'exit 1'
expect "half a compiler" 1 "$(setup a PATH="$work/fake:$PATH")" "cannot link a program with libgomp"
mkdir -p "$work/few"
for tool in bash env dirname sed uname grep cat readlink realpath ldd head tr; do
    ln -sf "$(command -v "$tool")" "$work/few/$tool"
done
expect "no compiler" 1 "$(setup a PATH="$work/few")" "cc was not found"
expect "nothing half-made" no "$(exists "$work/a/.libtorch")"
expect "nothing left in the cache" 0 "$(find "$work/cache" -name '.tmp-*' | wc -l)"

# --- interrupted, then from the wheel ---
env WORK="$work" MODE=hang ANYO_CACHE="$work/cache" ANYO_PYTHON="$work/bin/python" ANYO_CUDA=0 \
    setsid "$work/a/env_shell/setup_libtorch.sh" >"$log" 2>&1 &
running=$!
for _ in $(seq 100); do [ ! -e "$work/hanging" ] || break; sleep 0.05; done
kill -KILL -- -"$running" 2>/dev/null || kill -KILL "$running"
wait "$running" 2>/dev/null || true
expect "killed: nothing half-made" no "$(exists "$work/a/.libtorch")"
: >"$work/pip.calls"
expect "from the wheel" 0 "$(setup a)" "made from the torch 2.11.0 wheel"
expect "from the wheel: the left-overs are gone" 0 "$(find "$work/cache" -name '.tmp-*' -o -name downloads | wc -l)"
libraries() { (cd "$work/$1/.libtorch/lib" && echo *); }
expect "from the wheel: only what the CPU needs" "libc10.so libcudart.so.13 libtorch.so libtorch_cpu.so" "$(libraries a)"
expect "from the wheel: pip fetched no dependencies" 2 "$(grep -c -- --no-deps "$work/pip.calls")"
expect "check" 0 "$(setup a -- --check)" "ok, 2.11.0, cpu form"
expect "a second run does nothing" 0 "$(setup a MODE=none)" "ready"
clone b
expect "a second clone needs no pip" 0 "$(setup b ANYO_PYTHON=/no/such/python)" "found $work/cache/libtorch-2.11.0-cpu"
expect "--force makes it again" 0 "$(setup a -- --force)" "made from the torch 2.11.0 wheel"
expect "a GPU later: a note" 0 "$(setup a ANYO_CUDA= PATH="$(fake nvidia-smi 'echo "GPU 0: X"'; echo "$work/fake"):$PATH")" "--force makes the CUDA form"
rm -rf "$work/cache/libtorch-2.11.0-cpu/lib/libc10.so"
expect "damaged: check says so" 1 "$(setup b -- --check)" "lib/libc10.so is missing"
expect "damaged: made again" 0 "$(setup b)" "made from"

# --- the CUDA form ---
: >"$work/pip.calls"
clone c
expect "CUDA" 0 "$(setup c ANYO_CUDA=1)" "2.11.0, cuda form"
expect "CUDA: the wheel's requirements were fetched" 1 "$(grep -c -- '-r ' "$work/pip.calls")"
expect "CUDA: the wheel's own libraries" yes "$(exists "$work/c/.libtorch/lib/libtorch_cuda.so")"

# --- LIBTORCH ---
mkdir -p "$work/own"
cp -r "$work/lib" "$work/include" "$work/own/"
clone d
expect "LIBTORCH" 0 "$(setup d LIBTORCH="$work/own" MODE=none)" "LIBTORCH names $work/own"
expect "LIBTORCH: again" 0 "$(setup d LIBTORCH="$work/own" MODE=none)" "ready"
sed -i 's/2\.11\.0/2.10.0/' "$work/own/include/torch/headeronly/version.h"
expect "LIBTORCH of another version: warned of" 0 "$(setup d LIBTORCH="$work/own" MODE=none)" "it is version 2.10.0, and tch 0.24 needs 2.11.0"
rm "$work/own/lib/libcudart.so.13"
sed -i 's/2\.10\.0/2.11.0/' "$work/own/include/torch/headeronly/version.h"
clone f
expect "LIBTORCH that does not load: another is used" 0 "$(setup f LIBTORCH="$work/own" MODE=none)" "does not load: libcudart.so.13 => not found"
expect "LIBTORCH that does not load: the clone is set up" 0 "$(setup f -- --check)"
clone e
mkdir "$work/e/.libtorch"
expect "a folder of the user's stays" 1 "$(setup e)" "is a folder that this script did not make"
expect "a folder of the user's stays: it does" yes "$(exists "$work/e/.libtorch")"
cp -r "$work/lib" "$work/include" "$work/e/.libtorch/"
expect "a usable folder of the user's is completed" 0 "$(setup e)" "your own folder, completed by cargo.toml"
expect "a usable folder of the user's: check" 0 "$(setup e -- --check)"

[ "$failures" -eq 0 ] || { echo "$failures cases failed"; exit 1; }
