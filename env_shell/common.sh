# Sourced by the scripts of env_shell/, cmd/ and .ci/: messages, folders, and the one libtorch that a build uses.
# shellcheck shell=bash

# The clone, and the per-user folder that every clone shares (libtorch, the target folder of the scripts).
anyo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT]: one clear message, what to do, exit code 1.
die() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# Prints the per-user cache folder.
anyo_cache() {
    if [ -n "${ANYO_CACHE:-}" ]; then
        realpath -m -- "$ANYO_CACHE"
    elif [ -n "${XDG_CACHE_HOME:-}" ]; then
        printf '%s/anyo\n' "$XDG_CACHE_HOME"
    elif [ -n "${HOME:-}" ]; then
        printf '%s/.cache/anyo\n' "$HOME"
    else
        die "neither ANYO_CACHE nor HOME is set, so there is no place for libtorch and the build" \
            "export ANYO_CACHE=/some/folder with 10 GB free"
    fi
}

# need_command NAME HINT
need_command() { command -v "$1" >/dev/null 2>&1 || die "$1 was not found" "$2"; }

# Rust: rustup reads rust-toolchain.toml and fetches the pinned version by itself.
need_rust() {
    if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
    fi
    need_command cargo "install Rust from https://rustup.rs , open a new shell, and run this again"
    if ! (cd "$anyo_root" && cargo --version) >/dev/null 2>&1; then
        (cd "$anyo_root" && cargo --version) || true
        die "cargo does not start in $anyo_root" \
            "rust-toolchain.toml pins a version; 'rustup toolchain install' fetches it and needs the network"
    fi
}

# Sets up libtorch when missing, then exports what cargo needs. LIBTORCH is given as the real folder, the same for
# every clone, so that the shared target folder does not compile torch-sys again for each of them.
prepare_build() {
    need_rust
    "$anyo_root/env_shell/setup_libtorch.sh"
    # shellcheck source-path=SCRIPTDIR source=libtorch_parts.sh
    . "$anyo_root/env_shell/libtorch_parts.sh"
    case "${LIBTORCH:-}" in
        "" | "$anyo_root/.libtorch" | "$anyo_root/.libtorch/") LIBTORCH=$(readlink -f "$anyo_root/.libtorch") ;;
        # the set-up has warned of a LIBTORCH that cannot be used
        *) [ -z "$(problem_of "$LIBTORCH")" ] || LIBTORCH=$(readlink -f "$anyo_root/.libtorch") ;;
    esac
    export LIBTORCH LIBTORCH_CXX11_ABI=1
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$(anyo_cache)/target}"
    # cargo would otherwise read a relative folder from the current one, which the scripts change
    CARGO_TARGET_DIR=$(realpath -m -- "$CARGO_TARGET_DIR")
    limit_jobs
}

# A compiler process of the heavy dependencies takes up to 2 GB: fewer jobs where memory is short.
limit_jobs() {
    [ -z "${CARGO_BUILD_JOBS:-}" ] && [ -r /proc/meminfo ] || return 0
    local cores by_memory
    cores=$(nproc 2>/dev/null || echo 1)
    by_memory=$(awk '/^MemAvailable:/ {print int($2 / 2000000)}' /proc/meminfo)
    [ "$by_memory" -ge 1 ] || by_memory=1
    if [ "$by_memory" -lt "$cores" ]; then
        say "memory is short: compiling with $by_memory of $cores jobs (CARGO_BUILD_JOBS overrides it)"
        export CARGO_BUILD_JOBS="$by_memory"
    fi
}

# minutes SECONDS: "3 min 20 s"
minutes() { if [ "$1" -ge 60 ]; then printf '%d min %d s' $(($1 / 60)) $(($1 % 60)); else printf '%d s' "$1"; fi; }
