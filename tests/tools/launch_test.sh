#!/usr/bin/env bash
# The launchers of tools/launch against an mpirun and a scontrol that only note how they were called:
#   launch_test.sh SOURCE_FOLDER EMPTY_FOLDER
set -euo pipefail
launch=$(realpath "$1")/tools/launch
place=$2
rm -rf "$place"
mkdir -p "$place/bin"
cd "$place"
fail() {
  echo "FAILED: $*"
  exit 1
}

# Ends with the next of the codes in `codes`; waits for SIGUSR2 where that is "asked", and leaves with 75 then. The first
# one is lost, as it is while mpirun starts its ranks. "early" ends by the signal.
cat >bin/mpirun <<'END'
#!/usr/bin/env bash
echo "$*" >>calls
code=$(head -n 1 codes)
sed -i 1d codes
if [ "$code" = asked ]; then
  heard=0
  trap 'heard=$((heard + 1)); if [ $heard -ge 2 ]; then echo heard >>calls; exit 75; fi' USR2
  touch waiting
  for _ in $(seq 600); do sleep 0.05; done
  exit 1
fi
if [ "$code" = early ]; then
  touch waiting
  exec sleep 30
fi
exit "$code"
END
cat >bin/scontrol <<'END'
#!/usr/bin/env bash
echo "scontrol $*" >>calls
END
chmod +x bin/*
export PATH=$PWD/bin:$PATH

# expect CODE COMMAND...: runs it, with a fresh record.
expect() {
  local wanted=$1 code=0
  shift
  rm -f calls waiting
  "$@" >out.log 2>&1 || code=$?
  [ "$code" -eq "$wanted" ] || fail "$*: exit code $code, not $wanted"
}
calls() { grep -c '^-' calls || true; }

# Started again after 75, until another code comes, which is passed on.
printf '%s\n' 75 75 0 >codes
expect 0 "$launch/hosts.sh" hosts my.recipe --run.name=x
[ "$(calls)" -eq 3 ] || fail "$(calls) starts"
grep -q -- '--hostfile hosts .*shoestring train my.recipe --run.name=x' calls || fail "$(cat calls)"
for code in 84 80 137; do
  echo "$code" >codes
  expect "$code" "$launch/hosts.sh" hosts my.recipe
  [ "$(calls)" -eq 1 ] || fail "code $code: $(calls) starts"
done
expect 64 "$launch/hosts.sh" hosts

# Asked to leave, whatever the signal: mpirun hears SIGUSR2, and it is not started again.
for signal in USR2 TERM HUP; do
  printf '%s\n' asked 0 >codes
  rm -f calls waiting
  "$launch/hosts.sh" hosts my.recipe >out.log 2>&1 &
  script=$!
  while [ ! -e waiting ]; do sleep 0.02; done
  kill "-$signal" "$script"
  code=0
  wait "$script" || code=$?
  [ "$code" -eq 75 ] || fail "after SIG$signal: exit code $code"
  grep -q heard calls || fail "SIG$signal was not passed on"
  [ "$(calls)" -eq 1 ] || fail "started again after SIG$signal"
done

# Asked before mpirun and the ranks can obey: they end by the signal.
printf '%s\n' early 0 >codes
rm -f calls waiting
"$launch/hosts.sh" hosts my.recipe >out.log 2>&1 &
script=$!
while [ ! -e waiting ]; do sleep 0.02; done
kill -TERM "$script"
code=0
wait "$script" || code=$?
[ "$code" -eq 75 ] || fail "asked early: exit code $code"
[ "$(calls)" -eq 1 ] || fail "started again when asked early"

# Slurm: queued again after 75 alone, with what is left of the job's time as its limit.
export SLURM_NTASKS=16 SLURM_JOB_ID=7 SLURM_JOB_END_TIME=$(($(date +%s) + 3600))
echo 75 >codes
expect 75 "$launch/slurm.sbatch" my.recipe
grep -q '^scontrol requeue 7$' calls || fail "not queued again"
grep -q -- '^-n 16 .*shoestring train my.recipe --budget.job_hours=3[56][0-9][0-9]s$' calls || fail "$(cat calls)"
for code in 0 84 80; do
  echo "$code" >codes
  expect "$code" "$launch/slurm.sbatch" my.recipe
  if grep -q scontrol calls; then fail "queued again after $code"; fi
done
echo asked >codes
rm -f calls waiting
"$launch/slurm.sbatch" my.recipe >out.log 2>&1 &
script=$!
while [ ! -e waiting ]; do sleep 0.02; done
kill -USR2 "$script"
code=0
wait "$script" || code=$?
[ "$code" -eq 75 ] || fail "Slurm's SIGUSR2: exit code $code"
grep -q '^scontrol requeue 7$' calls || fail "not queued again after SIGUSR2"
(unset SLURM_NTASKS && ! "$launch/slurm.sbatch" my.recipe >out.log 2>&1) || fail "started outside of Slurm"

if command -v shellcheck >/dev/null; then shellcheck "$launch"/*.sh "$launch"/*.sbatch; fi
if python3 -c 'import yaml' 2>/dev/null; then
  python3 - "$launch/mpijob.yaml" <<'END'
import sys, yaml
job = yaml.safe_load(open(sys.argv[1]))
assert job["apiVersion"] == "kubeflow.org/v2beta1" and job["kind"] == "MPIJob", job
roles = job["spec"]["mpiReplicaSpecs"]
container = roles["Launcher"]["template"]["spec"]["containers"][0]
assert container["command"][0] == "mpirun" and "train" in container["command"], container
assert roles["Launcher"]["restartPolicy"] == "OnFailure", roles
assert "USR2" in container["lifecycle"]["preStop"]["exec"]["command"][-1], container
END
fi
echo "the launchers start, pass on and end as they say"
