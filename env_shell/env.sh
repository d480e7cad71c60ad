# For an interactive shell: `source env_shell/env.sh` (bash or zsh).
#
# Plain cargo commands need none of this, because .cargo/config.toml sets it. It is for tools that start without
# cargo: a debugger, a profiler, Python scripts that load our libraries, a hand-written C++ test.
# shellcheck shell=bash

if [ -n "${BASH_SOURCE:-}" ]; then
    _anyo_here=${BASH_SOURCE[0]}
else
    _anyo_here=$0 # zsh: the sourced file
fi
_anyo_root=$(cd "$(dirname "$_anyo_here")/.." && pwd)
if [ -z "${LIBTORCH:-}" ]; then
    if [ -e "$_anyo_root/.libtorch/lib/libtorch.so" ]; then
        export LIBTORCH="$_anyo_root/.libtorch"
    else
        printf 'error: libtorch is not set up\nhint: run %s/env_shell/setup_libtorch.sh once\n' "$_anyo_root" >&2
    fi
fi
if [ -n "${LIBTORCH:-}" ]; then
    export LIBTORCH_CXX11_ABI=1
    case ":${LD_LIBRARY_PATH:-}:" in
        *":$LIBTORCH/lib:"*) ;;
        *) export LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
    esac
fi
unset _anyo_here _anyo_root
