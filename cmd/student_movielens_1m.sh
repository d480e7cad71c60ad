#!/usr/bin/env bash
# README, MovieLens-1M: the strong recipe, three seeds. Two cores, one run a core: about an hour and a half.
#   cmd/student_movielens_1m.sh [override…]
set -euo pipefail
cd "$(dirname "$0")/.."
. cmd/experiment.sh

for seed in 1 2 3; do run "s$seed" seed=$seed "$@"; done | queue movielens_1m +experiment=movielens_1m
