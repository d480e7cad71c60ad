# For an interactive shell: `source env_shell/env.sh` (bash or zsh).
#
# Plain cargo commands work without it, because .cargo/config.toml names libtorch. It adds two things: cargo uses the
# target folder of cmd/quickstart.sh and cmd/test.sh (nothing is compiled twice), and programs that start without cargo
# (a debugger, Python scripts that load our libraries) find libtorch.
# shellcheck shell=bash

if [ -n "${BASH_SOURCE:-}" ]; then
    _anyo_here=${BASH_SOURCE[0]}
else
    _anyo_here=$0 # zsh: the sourced file
fi
_anyo_root=$(cd "$(dirname "$_anyo_here")/.." && pwd)
if [ -z "${LIBTORCH:-}" ]; then
    if [ -e "$_anyo_root/.libtorch/lib/libtorch.so" ]; then
        # the real folder, as .libtorch/cargo.toml has it: another spelling would compile torch-sys again
        LIBTORCH=$(readlink -f "$_anyo_root/.libtorch")
        export LIBTORCH
    else
        printf 'error: libtorch is not set up\nhint: run %s/env_shell/setup_libtorch.sh once\n' "$_anyo_root" >&2
    fi
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${ANYO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anyo}/target}"
if [ -n "${LIBTORCH:-}" ]; then
    export LIBTORCH_CXX11_ABI=1
    case ":${LD_LIBRARY_PATH:-}:" in
        *":$LIBTORCH/lib:"*) ;;
        *) export LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
    esac
fi
unset _anyo_here _anyo_root
