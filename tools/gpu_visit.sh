#!/usr/bin/env bash
# One visit to a GPU, all answers: what is worth knowing of our CUDA code on it, in order of worth, within eight minutes.
# Runs in a folder that `tools/package.sh --gpu-visit` made, on a machine with a driver and no more:
#   ./gpu_visit.sh [--checks] [--timings] [--quick] [RESULTS]      default: results_DATE in that folder
#     --checks    only whether it is right: rows against the CPU's, training, the sanitizer, bits
#     --timings   only how fast it is: rows, steps of models, PyTorch's beside them
#     --quick     within 150 s: fewer shapes of the rows, two of the sanitizer's tools, no model twice
#
# A step that hangs is ended at its limit, one that fails ends nothing; RESULTS/visit.json is whole after each of them and
# says how it ended, what it wrote stands beside it. Afterwards the folder goes to tools/bench/results/.
#   SHOESTRING_VISIT_SECONDS   for all of it (480, or 150); the limits of the steps shrink or grow with it
#   SHOESTRING_SANITIZER       compute-sanitizer, where it is neither in the folder nor in PATH
#   SHOESTRING_PYTHON          a python3 whose torch is to run a step beside ours, if it has one (python3)
set -uo pipefail
cd "$(dirname "$0")" || exit 66
[ -x shoestring_gpu_check ] || { echo "shoestring_gpu_check is missing: tools/package.sh puts it beside this script" >&2; exit 66; }
checks=no timings=no quick=no
while [[ ${1:-} == --* ]]; do
  case $1 in
    --checks) checks=yes ;;
    --timings) timings=yes ;;
    --quick) quick=yes ;;
    *) echo "$1: usage: gpu_visit.sh [--checks] [--timings] [--quick] [RESULTS]" >&2; exit 64 ;;
  esac
  shift
done
[ $checks$timings != nono ] || checks=yes timings=yes
results=${1:-results_$(date -u +%Y-%m-%d_%H%M%S)}
mkdir -p "$results" || exit 74
results=$(cd "$results" && pwd -P)

readonly kLeast=1
kAll=480  # what the limits of the steps below are for
[ $quick = no ] || kAll=150
all=${SHOESTRING_VISIT_SECONDS:-$kAll}
now() { echo "${EPOCHREALTIME/[.,]/}"; }  # microseconds
began=$(now)
left() { echo $((all - ($(now) - began) / 1000000)); }

# ---- what is kept

entries=()
device=unknown
quoted() { printf '%s' "$1" | LC_ALL=C tr -cd '\040-\176' | sed 's/[\\"]/\\&/g; s/^/"/; s/$/"/'; }
save() {
  local i
  {
    printf '{\n "schema": "shoestring.gpu_visit/1",\n "date": "%s",\n "device": %s,\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
      "$(quoted "$device")"
    printf ' "limit_seconds": %d,\n "complete": %s,\n "steps": [' "$all" "$1"
    for i in "${!entries[@]}"; do
      [ "$i" -eq 0 ] || printf ','
      printf '\n  %s' "${entries[i]}"
    done
    printf '\n ]\n}\n'
  } >"$results/visit.json.new" && sync "$results/visit.json.new" && mv "$results/visit.json.new" "$results/visit.json" ||
    echo "visit.json could not be written" >&2
}
# NAME HOW SECONDS LIMIT CODE: code -1 where nothing ran
note() {
  entries+=("{\"step\": \"$1\", \"ended\": $(quoted "$2"), \"seconds\": $3, \"limit_seconds\": $4, \"exit_code\": $5}")
  echo "$1: $2, after $3 s"
  save false
}

# ---- steps

child=
sampler=
leave() {
  [ -z "$child" ] || kill "$child" 2>/dev/null
  [ -z "$sampler" ] || kill "$sampler" 2>/dev/null
}
trap 'leave; save false; exit 75' TERM INT HUP
trap leave EXIT

# step NAME SECONDS COMMAND...: output to RESULTS/NAME.log. Returns the command's code.
step() {
  local name=$1 limit=$(($2 * all / kAll)) rest from took how code=0
  shift 2
  rest=$(left)
  [ "$limit" -ge $kLeast ] || limit=$kLeast
  [ "$limit" -le "$rest" ] || limit=$rest
  if [ "$limit" -lt $kLeast ]; then
    note "$name" "not run: the time of the visit is over" 0 0 -1
    return 1
  fi
  from=$(now)
  timeout --kill-after=3 "$limit" "$@" >"$results/$name.log" 2>&1 </dev/null &
  child=$!
  wait "$child" || code=$?
  child=
  took=$((($(now) - from) / 1000))
  case $code in
    0) how="done" ;;
    124 | 137) how="ended at its limit" ;;
    *) how="failed: $(tail -n 1 "$results/$name.log" | cut -c -300)" ;;
  esac
  note "$name" "$how" "$((took / 1000)).$(printf %03d $((took % 1000)))" "$limit" "$code"
  return "$code"
}
skip() { note "$1" "not run: $2" 0 0 -1; }

# ---- what a device is asked

losses() {  # of a run: step, loss, its bits
  sed -n 's/^{"step":\([0-9]*\),"phase".*"loss":\([^,]*\),"loss_hex":\("[^"]*"\).*/\1 \2 \3/p' "$1/metrics.jsonl" |
    sort -k1,1
}
# compare LIMIT RUN TWIN: the largest relative difference of the losses of their steps. Fails beyond LIMIT, at what is no
# number, and where RUN lacks a step of TWIN.
compare() {
  join -a 2 -e none -o 0,1.2,1.3,2.2,2.3 <(losses "$2") <(losses "$3") | awk -v limit="$1" '
    function number(x) { return x ~ /^-?[0-9.]+(e[-+]?[0-9]+)?$/ }
    { n += 1; same += $3 == $5 }
    !number($2) || !number($4) { wrong += 1; next }
    { d = $2 - $4; r = (d < 0 ? -d : d) / ($4 < 0 ? -$4 : $4); if (r > most) most = r }
    END { printf "{\"steps\": %d, \"equal_in_every_bit\": %d, \"without_a_loss\": %d, ", n, same, wrong
          printf "\"largest_relative_difference\": %.3e, \"limit\": %s}\n", most, limit
          exit !(n > 0 && wrong == 0 && most <= limit) }'
}
train() {  # RECIPE RUN: 50 steps of it on the device
  ./shoestring train "visit/$1.recipe" --run.directory="$results/$2" --run.device=cuda --begin-anew
}
measure() {  # RECIPE POLICY
  ./shoestring plan "visit/$1.recipe" --measure 8 --run.device=cuda --precision.policy="$2" \
    --run.directory="$results/$1_$2"
}
two_ranks() {
  mpirun -n 2 --oversubscribe ./shoestring train visit/tiny_dense.recipe --run.directory="$results/two_ranks" \
    --run.device=cuda --begin-anew
}
pytorch() {  # dense_1b's shape in BF16, compiled: seconds of ten steps of one micro-batch
  local python=${SHOESTRING_PYTHON:-python3}
  yes step | head -n 10 | "$python" bench/pytorch_step.py random 8 4 2048 16 2048 32 8 8192 128256 --cuda
}
export -f losses compare train measure two_ranks pytorch
export results
as_function() { step "$1" "$2" bash -c '"$@"' - "${@:3}"; }

sanitizer() {
  local found
  for found in "${SHOESTRING_SANITIZER:-}" sanitizer/compute-sanitizer "$(command -v compute-sanitizer)" \
    /usr/local/cuda/bin/compute-sanitizer; do
    if [ -x "$found" ]; then echo "$found"; return; fi
  done
}

# ---- the visit

save false
device=$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv,noheader 2>/dev/null | head -n 1)
[ -n "$device" ] || device="unknown: nvidia-smi says nothing"
step machine 20 nvidia-smi -q
nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_throttle_reasons.active \
  --format=csv -lms 500 >"$results/clocks.csv" 2>/dev/null &
sampler=$!

rows() {  # NAME SECONDS FLAG...
  local words=("${@:3}")
  [ $quick = no ] || words+=(--quick)
  step "$1" "$2" ./shoestring_gpu_check "${words[@]}" "$results/$1.json"
}
wanted() { [ "${!1}" = yes ]; }
whole() { [ $quick = no ]; }

if wanted checks; then
  if whole; then rows checks 100 --checks; else rows checks 40 --checks; fi
  trained=no
  for recipe in tiny_dense tiny_moe; do
    if [ ! -e "visit/$recipe/metrics.jsonl" ]; then
      skip "$recipe" "the folder was made without --gpu-visit"
      continue
    fi
    band=1e-4
    [ "$recipe" = tiny_dense ] || band=2.5e-3  # FP8 turns codes
    if as_function "$recipe" 40 train "$recipe" "$recipe"; then
      trained=yes
      as_function "${recipe}_against_cpu" 20 compare "$band" "$results/$recipe" "visit/$recipe"
    fi
  done
fi

if wanted timings; then
  if whole; then rows timings 100 --timings; else rows timings 30 --timings; fi
  models=("dense_1b bf16" "dense_1b fp8_block" "moe_16b bf16" "moe_16b fp8_block")
  whole || models=("dense_1b fp8_block")
  for run in "${models[@]}"; do
    read -r recipe policy <<<"$run"
    if [ -e "visit/$recipe.recipe" ]; then
      as_function "${recipe}_$policy" 40 measure "$recipe" "$policy"
    else
      skip "${recipe}_$policy" "the folder was made without --gpu-visit"
    fi
  done
fi

if wanted checks; then
  # All checks: a limit ends them, and what was found until then is in the log.
  tool=$(sanitizer)
  tools=(memcheck racecheck initcheck synccheck)
  whole || tools=(memcheck racecheck)
  for check in "${tools[@]}"; do
    if [ -z "$tool" ]; then
      skip "$check" "compute-sanitizer is not on this machine"
    else
      step "$check" 45 "$tool" --tool "$check" --error-exitcode 70 --print-limit 20 \
        ./shoestring_gpu_check --checks --quick "$results/$check.json"
    fi
  done
fi
if wanted checks && whole; then
  if [ $trained = yes ]; then
    if as_function tiny_dense_again 40 train tiny_dense tiny_dense_again; then
      as_function tiny_dense_bits 20 compare 0 "$results/tiny_dense_again" "$results/tiny_dense"
    fi
  else
    skip tiny_dense_again "no model was trained"
  fi
  if ! command -v mpirun >/dev/null; then
    skip two_ranks "no mpirun is on this machine"
  elif as_function two_ranks 40 two_ranks; then
    as_function two_ranks_against_cpu 20 compare 1e-4 "$results/two_ranks" visit/tiny_dense
  fi
fi
if wanted timings && whole; then
  if "${SHOESTRING_PYTHON:-python3}" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    as_function pytorch 60 pytorch
  else
    skip pytorch "no python3 here has a torch that sees the device"
  fi
fi
save true
echo "$results/visit.json"
