#!/usr/bin/env bash
# Makes .libtorch/ (lib/, include/): libtorch 2.11.0 for tch 0.24. Run once per clone; a second run does nothing.
#
#   env_shell/setup_libtorch.sh            set up what is missing
#   env_shell/setup_libtorch.sh --check    only say whether .libtorch can be used (exit code 0 or 1)
#   env_shell/setup_libtorch.sh --force    make it again
#
# Where it comes from, the first that fits:
#   1. LIBTORCH, when it names libtorch 2.11.0
#   2. a Python with torch 2.11.0 (ANYO_PYTHON, the active virtual environment, python3)
#   3. the torch 2.11.0 wheel, fetched with pip: about 540 MB, 500 MB on disk; with a GPU its
#      CUDA libraries too, 3.6 GB on disk
# The result lies in the cache folder of the user (ANYO_CACHE, else ~/.cache/anyo) and .libtorch links to it, so the
# next clone needs no download. A GPU is found through nvidia-smi; ANYO_CUDA=1 or ANYO_CUDA=0 decides by hand.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR source=libtorch_parts.sh
. "$(dirname "${BASH_SOURCE[0]}")/libtorch_parts.sh"

link=$anyo_root/.libtorch
tmp=""
ended() {
    local code=$?
    [ -z "$tmp" ] || rm -rf "$tmp"
    [ "$code" = 0 ] || [ "$code" = 2 ] || say "libtorch: not set up; nothing half-made was left"
}

main() {
    local force=no check=no
    for argument in "$@"; do
        case $argument in
            --force) force=yes ;;
            --check) check=yes ;;
            -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
            *) say "error: unknown argument $argument"; say "hint: --check, --force or --help"; exit 2 ;;
        esac
    done
    if [ "$check" = yes ]; then check_only; fi

    trap ended EXIT
    need_platform
    local kind
    kind=$(wanted_kind)
    if [ "$force" = no ] && [ -z "$(problem_of_link "$link")" ]; then
        if [ "${ANYO_CUDA:-}" = "" ] || [ "$(kind_of "$link")" = "$kind" ]; then
            say "libtorch: ready, $(describe "$link")"
            warn_of_environment
            if [ "$kind" = cuda ] && [ "$(kind_of "$link")" = cpu ]; then
                say "note: there is a GPU, but this libtorch is the CPU form; --force makes the CUDA form"
            fi
            exit 0
        fi
    fi
    need_compiler
    # a folder that someone made by hand is not ours to remove
    if [ -d "$link" ] && [ ! -L "$link" ]; then
        if [ -z "$(problem_of "$link")" ] && [ "$force" = no ]; then
            write_cargo_toml "$link"
            say "libtorch: ready, $(describe "$link") (your own folder, completed by cargo.toml)"
            exit 0
        fi
        die "$link is a folder that this script did not make, and it cannot be used: $(problem_of "$link")" \
            "move it away, then run this again"
    fi
    cache=$(anyo_cache)
    if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
        die "$cache cannot be written" "set ANYO_CACHE to a folder that can"
    fi
    lock_cache
    # the wheel last, outside the condition, because bash ignores `set -e` inside one
    if from_environment || from_python "$kind" || from_cache "$kind" "$force"; then :; else from_wheel "$kind"; fi
    say "libtorch: ready, $(describe "$link")"
}

check_only() {
    local problem
    problem=$(problem_of_link "$link")
    if [ -n "$problem" ]; then
        say "libtorch: $link: $problem"
        say "hint: run env_shell/setup_libtorch.sh"
        exit 1
    fi
    say "libtorch: ok, $(describe "$link")"
    exit 0
}

# Whether LIBTORCH names something else than .libtorch: cargo gives its own setting to every child process.
other_environment() {
    case ${LIBTORCH:-} in "" | "$link" | "$link/" | "$anyo_root/.cargo/libtorch-missing") return 1 ;; esac
    [ "$(realpath -m -- "$LIBTORCH")" != "$(realpath -m -- "$link")" ]
}

warn_of_environment() {
    local problem
    other_environment || return 0
    problem=$(problem_of "$(realpath -m -- "$LIBTORCH")")
    [ -n "$problem" ] || return 0
    say "warning: LIBTORCH=$LIBTORCH cannot be used: $problem"
    say "warning: unset LIBTORCH before you build, because cargo prefers it to .libtorch"
}

# 1. LIBTORCH in the environment.
from_environment() {
    local given
    other_environment || return 1
    given=$(realpath -m -- "$LIBTORCH")
    if [ -n "$(problem_of "$given")" ]; then
        warn_of_environment
        return 1
    fi
    say "libtorch: LIBTORCH names $given"
    if [ -f "$given/origin.txt" ]; then # this script made it
        relink "$given"
    else
        link_folders "$given/lib" "$given/include" "$(kind_of "$given")" "$given"
    fi
}

# 2. A Python that has torch: its folders are used where they lie.
from_python() {
    local kind=$1 python found version folder
    for python in $(python_candidates); do
        found=$(torch_of "$python") || continue
        version=${found%% *} folder=${found#* }
        case $version in
            2.11.0 | 2.11.0+cpu | 2.11.0+cu*) ;;
            *) say "libtorch: $python has torch $version, not 2.11.0: not used"; continue ;;
        esac
        if [ "$kind" = cuda ] && [ ! -e "$folder/lib/libtorch_cuda.so" ]; then
            say "libtorch: the torch of $python has no CUDA part: not used"
            continue
        fi
        say "libtorch: $python has torch $version in $folder"
        if [ "$kind" = cpu ] && [ -e "$folder/lib/libtorch_cuda.so" ]; then
            say "libtorch: no GPU here, so only the CPU libraries are linked (ANYO_CUDA=1 takes all)"
            new_folder
            pick_cpu_files "$folder" "$(dirname "$folder")" "$tmp/lib" link
            ln -s "$folder/include" "$tmp/include"
        else
            link_folders "$folder/lib" "$folder/include" "$kind" "$folder" && return 0
            continue
        fi
        if finish "linked to $folder" "libtorch-2.11.0-$kind-$(short_hash "$folder")"; then return 0; fi
    done
    return 1
}

# An earlier clone of this user has made it.
from_cache() {
    local kind=$1 force=$2 folder=$cache/libtorch-2.11.0-$1
    [ "$force" = no ] && [ -d "$folder" ] && [ -z "$(problem_of "$folder")" ] || return 1
    say "libtorch: found $folder"
    relink "$folder"
}

# 3. The wheel. Each finished download stays until the set-up is complete, so an interrupted run goes on from there.
from_wheel() {
    local kind=$1 downloads=$cache/downloads/libtorch-2.11.0 need_mb=1300 wheel
    [ "$kind" = cpu ] || need_mb=9000
    need_space "$cache" "$need_mb"
    python=$(python_with_pip) || die "no Python with pip was found, which fetches libtorch 2.11.0" \
        "install Python 3.8 or later with pip (Debian: apt install python3-pip python3-venv), or set ANYO_PYTHON to one, or set LIBTORCH to an unpacked libtorch 2.11.0"
    mkdir -p "$downloads"
    new_folder
    say "libtorch: fetching the torch 2.11.0 wheel with $python -m pip (about 540 MB, kept in $downloads until done)"
    pip_download "$downloads" --no-deps torch==2.11.0
    wheel=$(one_wheel "$downloads" 'torch-2.11.0*.whl')
    if [ "$kind" = cuda ]; then
        say "libtorch: fetching the CUDA libraries that this wheel asks for (some GB)"
        cuda_requirements "$wheel" >"$tmp/requirements.txt"
        pip_download "$downloads" -r "$tmp/requirements.txt"
        mkdir "$tmp/site"
        unpack "$tmp/site" all "$wheel" "$downloads"/nvidia_*.whl
        ln -s site/torch/lib "$tmp/lib"
        ln -s site/torch/include "$tmp/include"
    else
        mkdir "$tmp/site"
        unpack "$tmp/site" cpu "$wheel"
        if readelf -d "$tmp/site/torch/lib/libtorch_cpu.so" | grep -q 'libcudart\.so'; then
            say "libtorch: its CPU library names two small CUDA libraries, fetching them too (about 13 MB)"
            pip_download "$downloads" --no-deps 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*'
            unpack "$tmp/site" cpu "$downloads"/nvidia_cuda_runtime-13.0.*.whl "$downloads"/nvidia_cuda_cupti-13.0.*.whl
        fi
        pick_cpu_files "$tmp/site/torch" "$tmp/site" "$tmp/lib" move
        mv "$tmp/site/torch/include" "$tmp/include"
        rm -rf "$tmp/site"
    fi
    finish "made from the torch 2.11.0 wheel" "libtorch-2.11.0-$kind" ||
        die "libtorch from the wheel does not load on this machine: $finish_problem" \
            "the C library may be older than 2.28; use the Dockerfile, or set LIBTORCH to a libtorch 2.11.0 built for this machine"
    rm -rf "$downloads"
    rmdir "$cache/downloads" 2>/dev/null || true
}

main "$@"
