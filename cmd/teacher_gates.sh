#!/usr/bin/env bash
# docs/specification/02: the gates against one another, and the number of experts, on generated data and MovieLens-100K,
# three seeds. The encoder is trained once for each data set. Two cores, one run a core: about an hour.
#   cmd/teacher_gates.sh [override…]     e.g. data.root=../shared/data
set -euo pipefail
cd "$(dirname "$0")/.."
. cmd/experiment.sh

# No questions with candidates and short prompts: the gate acts on the ranking of the catalogue, which is what is compared.
common=(teacher.train.choice_share=0 teacher.prompt.window=6 choice.rows=0 export.enabled=false teacher.train.valid_every=200)
gates() { # ENCODER OVERRIDE…
  local encoder=$1 seed gate experts
  shift
  for seed in 1 2 3; do
    for gate in uniform random top1 linear resnet1d; do
      run "${gate}_4_s$seed" teacher.encoder_run="$encoder" "${common[@]}" teacher.gate.name=$gate seed=$seed "$@"
    done
    for experts in 1 2 8; do
      run "linear_${experts}_s$seed" teacher.encoder_run="$encoder" "${common[@]}" teacher.gate.experts=$experts seed=$seed "$@"
    done
  done
}

for dataset in toy movielens-100k; do
  folder=gates_${dataset//-/_}
  run "${folder}_encoder" student=sasrec_dllm2rec train.batch_size=256 train.patience=5 seed=1 "$@" | queue gates_encoders dataset=$dataset
  prompt=generic steps=800
  [ $dataset = toy ] || prompt=movies
  gates "result/gates_encoders/${folder}_encoder" teacher/prompt=$prompt teacher.train.max_steps=$steps "$@" |
    APP=run-teacher COLUMNS_OF_TABLE="ndcg@10 hr@10 tail:ndcg@10" queue "$folder" dataset=$dataset
  # every gate against the uniform one, user by user
  named=
  for method in uniform_4 random_4 top1_4 linear_4 resnet1d_4 linear_2 linear_8; do
    named+="${named:+, }$method: [$(for seed in 1 2 3; do printf 'result/%s/%s_s%s, ' "$folder" $method $seed; done)]"
  done
  "$CARGO_TARGET_DIR/release/run-eval-all" "named={${named//, ]/]}}" reference=uniform_4 headline=ndcg@10 "metrics=[ndcg@10, hr@10]"
done
