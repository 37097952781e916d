#!/usr/bin/env bash
# tools/gpu_visit.sh with stand-ins for the programs it starts: the order of its steps, their limits, and that what it has
# found is kept, whole, whatever becomes of a step or of the script itself.
#   gpu_visit_test.sh SOURCE FOLDER
set -euo pipefail
source=$1 folder=$2
wrong() { echo "$*" >&2; exit 1; }

rm -rf "$folder"
mkdir -p "$folder/visit/tiny_dense" "$folder/visit/tiny_moe" "$folder/sanitizer" "$folder/path" "$folder/bench"
folder=$(cd "$folder" && pwd -P)
cp "$source/tools/gpu_visit.sh" "$folder/"
touch "$folder/visit/"{tiny_dense,tiny_moe,dense_1b,moe_16b}.recipe
stand_in() { cat >"$folder/$1"; chmod +x "$folder/$1"; }

# The losses of four steps, the third as given: line of a step, and one of an evaluation that is none.
metrics() {
  local step loss
  for step in 1 2 3 4; do
    loss=$((9 - step)).5
    [ $step -ne 3 ] || loss=$1
    echo "{\"step\":$step,\"phase\":\"pretrain\",\"tokens\":1,\"loss\":$loss,\"loss_hex\":\"0x$loss\",\"mtp_loss\":1.0}"
  done
  echo '{"step":4,"evaluation":{"tokens":1,"loss":7.0,"loss_hex":"0x1p0"}}'
}
metrics 6.5 >"$folder/visit/tiny_dense/metrics.jsonl"
metrics 6.5 >"$folder/visit/tiny_moe/metrics.jsonl"
export -f metrics

# Each looks first whether what was found before it is kept.
cat >"$folder/whole.sh" <<'WHOLE'
python3 -m json.tool "$results/visit.json" >/dev/null || { echo torn >>"$results/../faults"; }
WHOLE
stand_in shoestring_gpu_check <<'CHECK'
#!/usr/bin/env bash
results=$(dirname "${@: -1}")
. ./whole.sh
echo '{"partial": true}' >"${@: -1}"
case "$*" in
  *memcheck*) echo "begins to hang"; sleep 60 ;;
  *racecheck*) printf 'race in "a\\b"\tof block 3\n'; exit 70 ;;
esac
CHECK
stand_in shoestring <<'TRAIN'
#!/usr/bin/env bash
. ./whole.sh
for word in "$@"; do case $word in --run.directory=*) run=${word#*=} ;; esac; done
mkdir -p "$run"
case "$*" in
  *tiny_moe*) metrics 6.6 >"$run/metrics.jsonl" ;;        # further off than FP8 may be
  *two_ranks*) metrics 6.5 | sed 2d >"$run/metrics.jsonl" ;;  # a step is missing
  *tiny_dense_again*) metrics 6.500065 >"$run/metrics.jsonl" ;;
  train*) metrics 6.500065 >"$run/metrics.jsonl" ;;       # 1e-5 off
  *moe_16b*fp8_block*) echo "no row takes it"; exit 78 ;;
esac
TRAIN
stand_in sanitizer/compute-sanitizer <<'SANITIZER'
#!/usr/bin/env bash
while [ "$1" != ./shoestring_gpu_check ]; do shift; done
exec "$@"
SANITIZER
stand_in path/nvidia-smi <<<$'#!/usr/bin/env bash\necho "Some \\"GPU\\", 580.1"'
stand_in path/mpirun <<<$'#!/usr/bin/env bash\nwhile [ "$1" != ./shoestring ]; do shift; done\nexec "$@"'
export PATH="$folder/path:$PATH" SHOESTRING_PYTHON=false

# field STEP NAME: of a step of the visit that `seen` shows
field() { python3 -c 'import json, sys
print(next((s[sys.argv[3]] for s in json.load(open(sys.argv[1]))["steps"] if s["step"] == sys.argv[2]), "absent"))' \
  "$seen/visit.json" "$1" "$2"; }
ended() { case $(field "$1" ended) in $2) ;; *) wrong "$1: $(field "$1" ended), not $2" ;; esac; }

# ---- a whole visit
seen=$folder/seen
SHOESTRING_VISIT_SECONDS=48 "$folder/gpu_visit.sh" "$seen" >"$folder/output" || wrong "the visit ended with $?"
[ ! -e "$folder/faults" ] || wrong "visit.json was torn between steps"
python3 - "$seen/visit.json" <<'ORDER' || wrong "steps in another order"
import json, sys
visit = json.load(open(sys.argv[1]))
assert visit["schema"] == "shoestring.gpu_visit/1" and visit["complete"] and visit["device"] == 'Some "GPU", 580.1', visit
steps = [s["step"] for s in visit["steps"]]
assert steps == ["machine", "checks", "tiny_dense", "tiny_dense_against_cpu", "tiny_moe", "tiny_moe_against_cpu",
                 "timings", "dense_1b_bf16", "dense_1b_fp8_block", "moe_16b_bf16", "moe_16b_fp8_block",
                 "memcheck", "racecheck", "initcheck", "synccheck", "tiny_dense_again", "tiny_dense_bits", "two_ranks",
                 "two_ranks_against_cpu", "pytorch"], steps
assert all(s["seconds"] <= s["limit_seconds"] + 5 for s in visit["steps"] if s["exit_code"] != -1), visit
ORDER
ended checks done
ended timings done
ended tiny_dense_against_cpu done
grep -q '"steps": 4, "equal_in_every_bit": 3, "without_a_loss": 0' "$seen/tiny_dense_against_cpu.log" ||
  wrong "compared: $(cat "$seen/tiny_dense_against_cpu.log")"
ended tiny_moe_against_cpu 'failed: *1.538e-02*'
ended tiny_dense_bits done
ended two_ranks_against_cpu 'failed: *"without_a_loss": 1*'
ended racecheck 'failed: race in "a\\b"of block 3'
ended synccheck done
ended memcheck 'ended at its limit'
[ "$(field memcheck limit_seconds)" = 4 ] || wrong "memcheck had $(field memcheck limit_seconds) s"
[ "$(cat "$seen/memcheck.json")" = '{"partial": true}' ] || wrong "what memcheck had was lost"
grep -q 'begins to hang' "$seen/memcheck.log" || wrong "the log of memcheck was lost"
ended moe_16b_bf16 done
ended moe_16b_fp8_block 'failed: no row takes it'
ended pytorch 'not run: *'

# ---- parts of a visit
steps_of() { python3 -c 'import json, sys
print(*(s["step"] for s in json.load(open(sys.argv[1]))["steps"]))' "$seen/visit.json"; }
parts() {  # STEPS FLAG...
  seen=$folder/parts
  rm -rf "$seen"
  SHOESTRING_VISIT_SECONDS=24 "$folder/gpu_visit.sh" "${@:2}" "$seen" >"$folder/output" || wrong "${*:2} ended with $?"
  [ "$(steps_of)" = "machine $1" ] || wrong "${*:2}: $(steps_of)"
}
parts "timings dense_1b_bf16 dense_1b_fp8_block moe_16b_bf16 moe_16b_fp8_block pytorch" --timings
parts "timings dense_1b_fp8_block" --timings --quick
parts "checks tiny_dense tiny_dense_against_cpu tiny_moe tiny_moe_against_cpu memcheck racecheck" --checks --quick
code=0
"$folder/gpu_visit.sh" --tests "$seen" 2>"$folder/output" || code=$?
[ $code = 64 ] && grep -q -e '--tests: usage' "$folder/output" || wrong "an unknown flag ends with $code"

# ---- no time left: what has not begun says so
seen=$folder/short
stand_in shoestring_gpu_check <<<$'#!/usr/bin/env bash\nsleep 60'
SHOESTRING_VISIT_SECONDS=1 "$folder/gpu_visit.sh" "$seen" >"$folder/output" || wrong "the short visit ended with $?"
ended checks 'ended at its limit'
ended moe_16b_fp8_block 'not run: the time of the visit is over'

# ---- a script that is killed leaves what it has; one that is asked to stop ends its step
seen=$folder/killed
stand_in shoestring_gpu_check <<<$'#!/usr/bin/env bash\necho $$ >"${@: -1}.pid"; sleep 60'
for signal in KILL TERM; do
  rm -rf "$seen"
  "$folder/gpu_visit.sh" "$seen" >"$folder/output" 2>&1 &
  visit=$!
  until [ -s "$seen/checks.json.pid" ]; do sleep 0.05; done
  kill -$signal $visit
  wait $visit 2>/dev/null || true
  ended machine done
  grep -q '"complete": false' "$seen/visit.json" || wrong "a visit that was ended by $signal is complete"
  step=$(cat "$seen/checks.json.pid")
  if [ $signal = TERM ]; then
    for i in $(seq 100); do kill -0 "$step" 2>/dev/null || break; sleep 0.05; done
    ! kill -0 "$step" 2>/dev/null || wrong "the step outlives the script"
  else
    kill "$(ps -o ppid= -p "$step" | tr -d ' ')" 2>/dev/null || true  # its timeout, which takes it along
  fi
done
rm -rf "$folder"
