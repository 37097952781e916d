#!/usr/bin/env bash
# Two hosts with names and addresses of their own: they train together, one is lost, the other goes on alone, to the bits
# of a run that nothing happened to.
#   hosts_test.sh PROGRAM SOURCE_FOLDER EMPTY_FOLDER
# A host is a network namespace with a host name, reached over ssh as mpirun reaches any other machine; its cable can be
# pulled. Needs root, ip, sshd and mpirun; ends with 77 where something of that is not there.
set -euo pipefail
program=$(realpath "$1")
source=$(realpath "$2")
place=$3

skip() {
  echo "skipped: $*"
  exit 77
}
fail() {
  echo "FAILED: $*"
  for log in "$place"/*.log; do echo "-- $log" && tail -n 40 "$log"; done
  exit 1
}

[ "$(id -u)" -eq 0 ] || skip "only root may make network namespaces"
for tool in ip mpirun ssh ssh-keygen unshare setsid; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done
[ -x /usr/sbin/sshd ] || skip "sshd is not installed"

a=shoe-$$-a
b=shoe-$$-b
ip netns add "$a" 2>/dev/null || skip "network namespaces are not allowed here"
mkdir -p "$place"
place=$(realpath "$place")
leave() {
  for host in "$a" "$b"; do
    ip netns pids "$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$host" 2>/dev/null || true
  done
}
trap leave EXIT
ip netns add "$b"
ip link add "v$$a" netns "$a" type veth peer name "v$$b" netns "$b" 2>/dev/null || skip "no veth devices here"
net=10.213.77
ip -n "$a" addr add "$net.1/24" dev "v$$a"
ip -n "$b" addr add "$net.2/24" dev "v$$b"
for host in "$a" "$b"; do
  ip -n "$host" link set lo up
done
ip -n "$a" link set "v$$a" up
ip -n "$b" link set "v$$b" up

# on HOST NAME COMMAND...: as a process of that host.
on() {
  local host=$1 name=$2
  shift 2
  # shellcheck disable=SC2016  # the words are for the shell inside
  ip netns exec "$host" unshare --uts sh -c 'hostname "$0" && exec "$@"' "$name" "$@"
}

ssh-keygen -q -t ed25519 -N '' -f "$place/key"
ssh-keygen -q -t ed25519 -N '' -f "$place/host_key"
cp "$place/key.pub" "$place/authorized_keys"
cat >"$place/sshd_config" <<END
HostKey $place/host_key
AuthorizedKeysFile $place/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
ListenAddress $net.2
END
cat >"$place/ssh_config" <<END
Host *
  IdentityFile $place/key
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
END
mkdir -p /run/sshd
on "$b" node-b /usr/sbin/sshd -D -e -f "$place/sshd_config" >"$place/sshd.log" 2>&1 &
for _ in $(seq 100); do
  on "$a" node-a ssh -F "$place/ssh_config" "$net.2" true 2>/dev/null && reached=yes && break
  sleep 0.1
done
[ -n "${reached:-}" ] || fail "node-b is not reached over ssh"

cd "$place"
for number in $(seq 30); do
  for line in $(seq 40); do echo "int value_$((number * 131 + line * line)) = compute($((line * number)));"; done
done >text.c
mkdir text && mv text.c text/
"$program" data build text --out shards --tokenizer bytes --hold-out 0.1 --threads 1 >build.log 2>&1 ||
  fail "no shards"
mkdir hardware && cp "$source/recipes/hardware/cpu.hardware" hardware/
cat >small.recipe <<'END'
[run]
name = small
threads = 1
tensorboard = false
hang_after = 5
[budget]
gpu_hours = 10
hardware = cpu
[kernels]
allow_reference = yes
[model]
architecture = llama
layers = 2
hidden = 32
heads = 1
feed_forward = 64
init_std = 0.02
[precision]
policy = fp32
[parallel]
reduction_groups = 2
[data]
train = shards/train
[schedule]
kind = constant
horizon = steps
learning_rate = 1e-3
[phase.pretrain]
sequence = 32
micro_batch = 1
global_batch = 4
steps = 1000000
[checkpoint]
every_steps = 100
END

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
printf '%s slots=1\n' "$net.1" "$net.2" >both
printf '%s slots=1\n' "$net.1" >one
export OMPI_MCA_plm_rsh_args="-F $place/ssh_config" OMPI_MCA_oob_tcp_if_include="$net.0/24"
export OMPI_MCA_btl_tcp_if_include="$net.0/24" OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
export SHOESTRING=$program SHOESTRING_PATIENCE=2
launch=$source/tools/launch/hosts.sh

# Both, until one is lost: its cable is pulled, so that nobody hears that its processes are gone.
on "$a" node-a "$launch" both small.recipe >both.log 2>&1 &
launcher=$!
for _ in $(seq 600); do
  [ -e runs/small/checkpoints/step_00000200 ] && break
  kill -0 "$launcher" 2>/dev/null || fail "the run on two hosts ended by itself"
  sleep 0.1
done
ip -n "$b" link set "v$$b" down
ip netns pids "$b" | xargs -r kill -9
code=0
wait "$launcher" || code=$?
grep -q 'launch: 2 ranks on 2 hosts: node-a (rank 0), node-b (rank 1)' both.log || fail "it was not on both hosts"
[ "$code" -eq 80 ] || fail "exit code $code, not 80"
grep -q 'rank 1 (host node-b, process [0-9]*) has stopped' both.log || fail "the lost rank is not named"
for _ in $(seq 50); do
  [ -z "$(ip netns pids "$a")" ] && gone=yes && break
  sleep 0.1
done
[ -n "${gone:-}" ] || fail "processes were left: $(ip netns pids "$a" | xargs)"

# The other goes on, ten steps beyond what is saved, to the bits of one process that nothing happened to.
saved=$(find runs/small/checkpoints -maxdepth 1 -name 'step_*' | sort | tail -n 1)
steps=$((10#${saved##*step_} + 10))
on "$a" node-a "$launch" one small.recipe --allow-recipe-change "--phase.pretrain.steps=$steps" >one.log 2>&1 ||
  fail "the run does not go on"
grep -q "going on from step $((steps - 10))" one.log || fail "it began anew"
"$program" train small.recipe --run.name=alone "--phase.pretrain.steps=$steps" >alone.log 2>&1 || fail "alone"
for file in model.safetensors training/optimizer.safetensors; do
  cmp "runs/small/checkpoints/step_$(printf %08d "$steps")/$file" "runs/alone/checkpoints/step_$(printf %08d "$steps")/$file" ||
    fail "$file differs"
done
echo "two hosts trained, node-b was lost and named, node-a went on from step $((steps - 10)) to the same bits"
