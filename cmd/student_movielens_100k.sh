#!/usr/bin/env bash
# README, MovieLens-100K: every student and loss, five seeds. Two cores, one run a core: about an hour.
#   cmd/student_movielens_100k.sh [override…]     e.g. data.root=../shared/data
set -euo pipefail
cd "$(dirname "$0")/.."
. cmd/experiment.sh

for seed in 1 2 3 4 5; do
  run "bce_s$seed" student=sasrec train.valid_every=5 train.patience=10 train.epochs=300 seed=$seed "$@"
  run "ce_s$seed" student=sasrec student.loss.name=ce seed=$seed "$@"
  run "sampled_softmax_s$seed" student=sasrec student.loss.name=sampled_softmax student.loss.n_negatives=256 seed=$seed "$@"
  run "gbce_s$seed" student=sasrec student.loss.name=gbce student.loss.n_negatives=64 train.valid_every=5 train.patience=10 train.epochs=300 seed=$seed "$@"
  run "dros_s$seed" student=sasrec student.loss.dros_alpha=0.5 seed=$seed "$@"
  run "modern_s$seed" student=sasrec_modern student.n_heads=1 train.batch_size=64 seed=$seed "$@"
  run "modern_seen_s$seed" student=sasrec_modern student.n_heads=1 student.seen_bias=true train.batch_size=64 seed=$seed "$@"
  for student in sasrec_dllm2rec gru4rec caser; do
    run "${student}_s$seed" student=$student train.batch_size=256 train.patience=5 seed=$seed "$@"
  done
done | queue movielens_100k dataset=movielens-100k
