#!/usr/bin/env bash
# Opens the experiment container: CUDA, Rust and libtorch 2.11.0, with this project mounted at /workspace.
#
#   env_shell/start_experiment_container.sh                                  a shell
#   env_shell/start_experiment_container.sh cmd/quickstart.sh                one command
#   env_shell/start_experiment_container.sh --rebuild                        build the image again first
#   env_shell/start_experiment_container.sh --dry-run cmd/test.sh            only print the docker commands
#
# The image is built when missing. A GPU is passed on where nvidia-smi and docker's NVIDIA runtime are there. What cargo
# compiles and downloads lies in the volume anyo-cache and outlives the container. Files are written as you, not as root.
# ANYO_DOCKER (docker, podman), ANYO_IMAGE and ANYO_DATA (a folder with data sets, mounted at /workspace/data) are read.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

docker=${ANYO_DOCKER:-docker}
image=${ANYO_IMAGE:-anyo:libtorch-2.11.0}
rebuild=no dry_run=no
while [ $# -gt 0 ]; do
    case $1 in
        --rebuild) rebuild=yes ;;
        --dry-run) dry_run=yes ;;
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        --) shift; break ;;
        -*) say "error: unknown option $1"; say "hint: --rebuild, --dry-run or --help; -- starts the command"; exit 2 ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- bash

# show_or_run COMMAND...: --dry-run prints it so that a shell can read it back
show_or_run() {
    if [ "$dry_run" = yes ]; then
        printf '%q ' "$@"
        printf '\n'
    else
        "$@"
    fi
}

if ! command -v "$docker" >/dev/null 2>&1; then
    [ "$dry_run" = yes ] || die "$docker was not found" \
        "install Docker (https://docs.docker.com/engine/install), or work without a container: cmd/quickstart.sh"
fi
if [ "$dry_run" = no ] && ! message=$("$docker" info 2>&1 >/dev/null); then
    die "$docker cannot reach its engine: $(printf '%s' "$message" | tail -n 1)" \
        "start it (sudo systemctl start docker) and see that you may use it (group docker)"
fi

# the build reads nothing but the Dockerfile: .dockerignore leaves everything out
if [ "$rebuild" = yes ]; then
    show_or_run "$docker" build --pull --no-cache --tag "$image" "$anyo_root"
elif ! "$docker" image inspect "$image" >/dev/null 2>&1; then
    say "image $image is missing and is built now (once; several GB of download)"
    show_or_run "$docker" build --tag "$image" "$anyo_root"
fi

options=(--rm --init --ipc=host --user "$(id -u):$(id -g)" --workdir /workspace)
options+=(--volume "$anyo_root:/workspace" --volume anyo-cache:/cache)
if [ -n "${ANYO_DATA:-}" ]; then options+=(--volume "$(realpath -m -- "$ANYO_DATA"):/workspace/data"); fi
# a terminal only where there is one: cron and CI have none
if [ -t 0 ] && [ -t 1 ]; then options+=(--interactive --tty); fi
if nvidia-smi -L >/dev/null 2>&1; then
    if "$docker" info --format '{{json .Runtimes}} {{json .CDISpecDirs}}' 2>/dev/null | grep -qi nvidia ||
        command -v nvidia-ctk >/dev/null 2>&1; then
        options+=(--gpus all)
    else
        say "note: there is a GPU, but $docker has no NVIDIA runtime: install nvidia-container-toolkit to use it"
    fi
fi
show_or_run "$docker" run "${options[@]}" "$image" "$@"
