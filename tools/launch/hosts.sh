#!/usr/bin/env bash
# Trains a recipe on the machines of a hostfile ("node1 slots=8", a line each), and again after each stop that asks for
# it:
#   tools/launch/hosts.sh HOSTFILE RECIPE [--section.key=value ...]
# The program, the recipe, the shards and the run's folder lie under the same path on every machine; ssh to each works
# without a password. SIGUSR2, SIGTERM, SIGHUP or Ctrl-C to this script: the run is saved and left, exit code 75.
#   SHOESTRING          the program (default: shoestring, from PATH)
#   SHOESTRING_MPIRUN   further options of mpirun, such as "--mca btl_tcp_if_include 10.0.0.0/8"
#   SHOESTRING_PATIENCE seconds that mpirun may take to end once the run has ended with an error (default 30)
set -uo pipefail

if [ $# -lt 2 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 64
fi
hostfile=$1
recipe=$2
shift 2
program=${SHOESTRING:-shoestring}
read -r -a options <<<"${SHOESTRING_MPIRUN:-}"
note=$(mktemp)
trap 'rm -f "$note"' EXIT

asked=
child=
reminder=
# mpirun passes a signal on to the ranks that there are: one that comes while it still starts them is lost. So again,
# until it is gone.
remind() {
  while kill -USR2 "$1" 2>/dev/null; do sleep 1; done
}
ask() {
  asked=yes
  if [ -n "$child" ] && [ -z "$reminder" ]; then
    remind "$child" &
    reminder=$!
  fi
}
trap ask USR2 TERM HUP INT

# Passes on what a run says, and notes the code that a rank ends it with.
listen() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line" >&2
    if [[ $line =~ \ ends\ the\ run\ with\ code\ ([0-9]+) ]]; then echo "${BASH_REMATCH[1]}" >"$note"; fi
  done
}

# Open MPI's mpirun waits for the daemon of a machine that is gone until TCP gives up, which is a quarter of an hour. The
# ranks have ended by then: so do it and the ssh to that machine.
end_with_the_ranks() {
  while [ ! -s "$note" ]; do sleep 1; done
  sleep "${SHOESTRING_PATIENCE:-30}"
  ps -o pid= --sid "$1" | xargs -r kill -KILL 2>/dev/null
}

while :; do
  : >"$note"
  # A session of its own: a Ctrl-C on the terminal is this script's to pass on, as the signal that mpirun forwards.
  setsid mpirun --hostfile "$hostfile" -x SHOESTRING_MAX_ISA ${options[@]+"${options[@]}"} \
    "$program" train "$recipe" "$@" 2> >(trap '' USR2 TERM HUP INT && listen) &
  child=$!
  end_with_the_ranks "$child" &
  reaper=$!
  if [ -n "$asked" ]; then ask; fi
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do  # a signal ended the wait, not the run
    wait "$child"
    code=$?
  done
  child=
  kill "$reaper" ${reminder:+"$reminder"} 2>/dev/null
  wait "$reaper" ${reminder:+"$reminder"} 2>/dev/null
  if [ "$code" -eq 137 ] && [ -s "$note" ]; then code=$(cat "$note"); fi
  # Ended by the signal itself: mpirun or a rank had not come so far as to obey it. Nothing was begun.
  if [ "$code" -eq 140 ] && [ -n "$asked" ]; then code=75; fi
  # 75: saved, and not because we were told to stop (a job's hours, budget.job_hours): the next one goes on.
  if [ "$code" -ne 75 ] || [ -n "$asked" ]; then exit "$code"; fi
done
