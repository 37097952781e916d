#!/usr/bin/env bash
# What FP8 costs in quality: held-out loss of fp8_block and fp32 against bf16 with the same data, seeds and initial
# weights, every difference being the precision policy. Nine runs of one recipe, one after the other; a run that was
# interrupted goes on when the command is given again, one that is done is only read. All together they take about two
# hours of one core with AMX, two thirds of it for fp32.
#
#   tools/bench/precision_gap.sh [--recipe FILE] [--tokens N] [--seeds "1 2 3"] [--out FOLDER] [-- OVERRIDE...]
#
# Defaults: recipes/tiny_dense.recipe with two layers and 3M tokens, half its learning rate, all of the held-out text,
# and a warm-up of 200 steps. The recipe's own 50 steps make the outcome a matter of luck in any precision: in BF16 with
# 46 steps in place of 50 it ends 1% higher, so that three seeds say nothing about a quarter of one; choices of experts
# do the same. Needs build/shoestring; makes its shards from the headers under /usr/include, one file in twenty held
# out. Prints a table with the standard error of the mean, writes FOLDER/precision_gap.json; exit code 1 if the mean gap
# of fp8_block to bf16 is 0.25% or more.
set -euo pipefail
program=${SHOESTRING:-build/shoestring}
recipe=recipes/tiny_dense.recipe tokens=3000000 seeds="1 2 3" out=runs/precision_gap
corpus=shards/precision_gap
overrides=(--model.layers=2 --schedule.warmup_steps=200 --schedule.learning_rate=1e-3)
while [ $# -gt 0 ]; do
  case $1 in
    --recipe) recipe=$2; overrides=(); shift 2 ;;
    --tokens) tokens=$2; shift 2 ;;
    --seeds) seeds=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --) shift; overrides+=("$@"); break ;;
    *) echo "precision_gap.sh: unknown option $1 (see the head of the file)" >&2; exit 64 ;;
  esac
done

# The figure after "key": in the section that begins with "section": of a report; sections close at two spaces.
figure() {
  sed -n "/^  \"$2\": {/,/^  }/s/.*\"$3\": *\([0-9.eE+-]*\).*/\1/p" "$1" | head -n 1
}

if [ ! -x "$program" ]; then
  echo "precision_gap.sh: there is no $program; build it with tools/build.sh and call this from the top of the tree" >&2
  exit 66
fi
if [ ! -e "$corpus" ]; then
  "$program" data build /usr/include --out "$corpus" --source "headers under /usr/include" --hold-out 0.05 \
    --limit-bytes 60000000
fi
mkdir -p "$out"
rows=$out/losses.txt
: >"$rows"
for seed in $seeds; do
  for policy in bf16 fp8_block fp32; do
    name=${policy}_seed$seed
    "$program" train "$recipe" --run.name="$name" --run.directory="$out/$name" --run.seed="$seed" \
      --run.tensorboard=false --data.train="$corpus/train" --data.validation="$corpus/validation" \
      --evaluation.tokens=0 --precision.policy="$policy" --schedule.horizon=tokens \
      --phase.pretrain.tokens="$tokens" --budget.gpu_hours=10 "${overrides[@]}" >"$out/$name.log" 2>&1 || {
      code=$?
      tail -n 5 "$out/$name.log" >&2
      echo "precision_gap.sh: run $name ended with exit code $code; its log is $out/$name.log" >&2
      exit "$code"
    }
    loss=$(figure "$out/$name/report.json" validation loss)
    echo "$seed $policy $loss $(figure "$out/$name/report.json" budget spent_gpu_hours)" >>"$rows"
    echo "seed $seed  $policy  held-out loss $loss"
  done
done

awk -v date="$(date -u +%F)" -v tokens="$tokens" -v recipe="$recipe" -v extra="${overrides[*]}" -v json="$out/precision_gap.json" '
  function standard_error(variance, n) { return n > 1 && variance > 0 ? sqrt(variance / (n - 1)) : 0 }
  { loss[$1, $2] = $3; hours[$2] += $4; if (!($1 in known)) { known[$1] = 1; seed[++n] = $1 } }
  END {
    printf "\n%-6s %12s %12s %12s %16s %16s\n", "seed", "bf16", "fp8_block", "fp32", "fp8_block/bf16", "fp32/bf16"
    for (i = 1; i <= n; ++i) {
      s = seed[i]
      gap8[i] = 100 * (loss[s, "fp8_block"] / loss[s, "bf16"] - 1)
      gap32[i] = 100 * (loss[s, "fp32"] / loss[s, "bf16"] - 1)
      mean8 += gap8[i] / n; mean32 += gap32[i] / n
      square8 += gap8[i] ^ 2 / n; square32 += gap32[i] ^ 2 / n
      printf "%-6s %12.5f %12.5f %12.5f %+15.3f%% %+15.3f%%\n", s, loss[s, "bf16"], loss[s, "fp8_block"], \
        loss[s, "fp32"], gap8[i], gap32[i]
    }
    printf "%-6s %12s %12s %12s %+15.3f%% %+15.3f%%\n", "mean", "", "", "", mean8, mean32
    error8 = standard_error(square8 - mean8 ^ 2, n)
    error32 = standard_error(square32 - mean32 ^ 2, n)
    printf "%-6s %12s %12s %12s %15.3f%% %15.3f%%\n", "error", "", "", "", error8, error32
    printf "{\n \"schema\": \"shoestring.precision_gap/1\",\n \"date\": \"%s\",\n \"recipe\": \"%s\",\n \"overrides\": \"%s\",\n", date, recipe, extra > json
    printf " \"tokens\": %s,\n \"goal_percent\": 0.25,\n", tokens > json
    printf " \"mean_gap_percent\": {\"fp8_block\": %.4f, \"fp32\": %.4f},\n", mean8, mean32 > json
    printf " \"standard_error_percent\": {\"fp8_block\": %.4f, \"fp32\": %.4f},\n \"seeds\": [\n", error8, error32 > json
    for (i = 1; i <= n; ++i) {
      s = seed[i]
      printf "  {\"seed\": %s, \"loss\": {\"bf16\": %s, \"fp8_block\": %s, \"fp32\": %s}, \"gap_percent\": {\"fp8_block\": %.4f, \"fp32\": %.4f}}%s\n", \
        s, loss[s, "bf16"], loss[s, "fp8_block"], loss[s, "fp32"], gap8[i], gap32[i], i < n ? "," : "" > json
    }
    printf " ],\n \"gpu_hours\": {\"bf16\": %.5f, \"fp8_block\": %.5f, \"fp32\": %.5f}\n}\n", hours["bf16"], hours["fp8_block"], hours["fp32"] > json
    exit mean8 < 0.25 ? 0 : 1
  }' "$rows"
