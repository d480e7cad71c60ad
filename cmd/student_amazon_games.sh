#!/usr/bin/env bash
# README, Amazon Games: the strong recipe, three seeds. Two cores, one run a core: about 20 minutes.
#   cmd/student_amazon_games.sh [override…]
set -euo pipefail
cd "$(dirname "$0")/.."
. cmd/experiment.sh

for seed in 1 2 3; do run "s$seed" seed=$seed "$@"; done | queue amazon_games +experiment=amazon_games
