#!/usr/bin/env bash
# docs/specification/03, section 9: teacher and student teach one another by turns (mutual distillation) on MovieLens-100K. Round 1 is the
# ordinary one; from round 2 on the teacher also learns the lists of the round before's student of seed 1. Then students of all rounds are compared.
#   ROUNDS=3 SEEDS="1 2 3" cmd/distill_rounds.sh [override of teacher and students…]     e.g. data.root=../shared/data
# TEACHER and STUDENT: further overrides of the one or the other, e.g. TEACHER="teacher.train.max_steps=2000" STUDENT="train.patience=60"
set -euo pipefail
cd "$(dirname "$0")/.."
. cmd/experiment.sh
cargo build --release --bin export-bundle </dev/null >&2

folder=distill_rounds common=(dataset=movielens-100k)
teacher=(teacher/prompt=movies teacher.head.encoder=true teacher.train.max_steps=4000 teacher.train.choice_share=0.1 choice.rows=0 seed=42)
read -ra seeds <<<"${SEEDS:-1 2 3}"
read -ra of_teacher <<<"${TEACHER:-}"
read -ra of_student <<<"${STUDENT:-}"
named=
for ((round = 1; round <= ${ROUNDS:-3}; round++)); do
  before=result/$folder/listwise_r$((round - 1))_s${seeds[0]} soft=()
  if [ "$round" -gt 1 ]; then
    lists=result/${folder}_lists/r$((round - 1))
    if [ ! -f "$lists/bundle/manifest.json" ]; then
      rm -rf "$lists"
      "$CARGO_TARGET_DIR/release/export-bundle" "$before" run.dir="$lists"
    fi
    soft=("soft_targets.run=$lists")
  fi
  run "teacher_r$round" "${teacher[@]}" "${soft[@]}" "${of_teacher[@]}" "$@" | APP=run-teacher queue "$folder" "${common[@]}"
  for seed in "${seeds[@]}"; do
    run "listwise_r${round}_s$seed" student=sasrec distill=listwise teacher_run="result/$folder/teacher_r$round" seed="$seed" "${of_student[@]}" "$@"
  done | APP=run-distill queue "$folder" "${common[@]}"
  named+="${named:+, }round_$round: [$(for seed in "${seeds[@]}"; do printf 'result/%s/listwise_r%s_s%s, ' $folder $round "$seed"; done)]"
done
"$CARGO_TARGET_DIR/release/run-eval-all" "named={${named//, ]/]}}" reference=round_1
