#!/usr/bin/env bash
# docs/specification/02, section 11: iLoRA beside plain LoRA of the same budget on the next-item windows of LLaRA and iLoRA, built-in language model,
# three seeds. 122 and 95 validation rows are too few to select weights by, so the last ones count. Two cores, one run a core:
# about an hour.
#   cmd/teacher_llara.sh [override…]     e.g. data.root=../shared/data
set -euo pipefail
cd "$(dirname "$0")/.."
. cmd/experiment.sh

columns="choice:hr@1 choice:valid_ratio choice:by_scores.likelihood.hr@1 choice:by_scores.ranking.hr@1 ndcg@10"
for dataset in lastfm movielens-llara; do
  folder=teacher_${dataset//-/_}
  run "${folder}_encoder" student=sasrec_dllm2rec train.batch_size=256 train.patience=5 seed=1 "$@" | queue teacher_encoders dataset=$dataset
  prompt=music
  [ $dataset = lastfm ] || prompt=movies
  for seed in 1 2 3; do
    for teacher in ilora lora; do
      run "${teacher}_s$seed" teacher=$teacher teacher/prompt=$prompt teacher.encoder_run="result/teacher_encoders/${folder}_encoder" \
        teacher.head.encoder=true teacher.train.max_steps=1000 teacher.train.valid_every=0 choice.rows=null export.enabled=false seed=$seed "$@"
    done
  done | APP=run-teacher COLUMNS_OF_TABLE="$columns" queue "$folder" dataset=$dataset
done
