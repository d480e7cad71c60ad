#!/usr/bin/env bash
# Tests env_shell/start_experiment_container.sh with a stand-in for docker: no engine is needed.
# shellcheck disable=SC2016 # texts in single quotes are for other shells
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
start=$here/../../env_shell/start_experiment_container.sh
root=$(cd "$here/../.." && pwd)
unset ANYO_DOCKER ANYO_IMAGE ANYO_DATA
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
log=$work/log
expect() { # expect NAME WANTED GOT [TEXT in the output]
    if [ "$2" = "$3" ] && { [ -z "${4:-}" ] || grep -qF -- "$4" "$log"; }; then
        echo "ok    $1"
    else
        echo "WRONG $1: wanted $2, got $3; text wanted: ${4:-any}"
        sed 's/^/      | /' "$log"
        failures=$((failures + 1))
    fi
}
# a docker that has an engine and, with IMAGE=yes, the image; it writes down each argument on a line
cat >"$work/docker" <<SH
#!/usr/bin/env bash
case "\$1 \${2:-}" in
    "info --format") echo "{\"runc\":{}\${NVIDIA:+,\"nvidia\":{}}}" ;;
    "info "*) [ "\${ENGINE:-yes}" = yes ] || { echo "Cannot connect to the Docker daemon" >&2; exit 1; } ;;
    "image inspect") [ "\${IMAGE:-yes}" = yes ] ;;
    *) printf '%s\n' "\$@" "--end--" >>"$work/calls" ;;
esac
SH
printf '#!/bin/sh\necho "GPU 0: X"\n' >"$work/nvidia-smi"
chmod +x "$work/docker" "$work/nvidia-smi"
# run [VARIABLE=VALUE...] -- ARGUMENT...: prints the exit code
run() {
    local variables=() code=0
    while [ "$1" != -- ]; do variables+=("$1"); shift; done
    shift
    : >"$work/calls"
    env ANYO_DOCKER="$work/docker" "${variables[@]}" "$start" "$@" >"$log" 2>&1 </dev/null || code=$?
    echo "$code"
}
called() { if grep -qxF -- "$1" "$work/calls"; then echo yes; else echo no; fi; }

expect "no docker" 1 "$(run ANYO_DOCKER=/no/such/docker -- true)" "install Docker"
expect "no engine" 1 "$(run ENGINE=no -- true)" "cannot reach its engine: Cannot connect to the Docker daemon"
expect "unknown option" 2 "$(run -- --rebild)" "--rebuild, --dry-run or --help"
expect "a command" 0 "$(run -- bash -c 'echo "a  b" $HOME; it'\''s')"
expect "a command: quoting survives" yes "$(called "echo \"a  b\" \$HOME; it's")"
expect "the project is mounted" yes "$(called "$root:/workspace")"
expect "files belong to the user" yes "$(called "$(id -u):$(id -g)")"
expect "the image is there: not built" no "$(called build)"
expect "no GPU is asked for without one" no "$(if PATH=/usr/bin:/bin command -v nvidia-smi >/dev/null; then echo no; else called --gpus; fi)"
expect "default command" 0 "$(run --)"
expect "default command: bash" yes "$(called bash)"
expect "built when missing" 0 "$(run IMAGE=no -- true)" "is built now"
expect "built when missing: built" yes "$(called build)"
expect "--rebuild" 0 "$(run -- --rebuild true)"
expect "--rebuild: built" yes "$(called --no-cache)"
expect "GPU and runtime" 0 "$(run NVIDIA=1 PATH="$work:$PATH" -- true)"
expect "GPU and runtime: passed on" yes "$(called --gpus)"
if ! command -v nvidia-ctk >/dev/null 2>&1; then
    expect "GPU without runtime" 0 "$(run PATH="$work:$PATH" -- true)" "install nvidia-container-toolkit"
    expect "GPU without runtime: not passed on" no "$(called --gpus)"
fi
expect "data folder" 0 "$(run ANYO_DATA="/a b/data" -- true)"
expect "data folder: mounted" yes "$(called "/a b/data:/workspace/data")"
expect "--dry-run" 0 "$(run -- --dry-run echo "a b")"
expect "--dry-run runs nothing" "" "$(cat "$work/calls")"
expect "--dry-run can be read back by a shell" "echo|a b" "$(eval "set -- $(tail -n 1 "$log")"; shift $(($# - 2)); printf '%s|%s' "$1" "$2")"

[ "$failures" -eq 0 ] || { echo "$failures cases failed"; exit 1; }
