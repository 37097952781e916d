#!/usr/bin/env bash
# Sets up and runs the main job: token shards from the C and C++ headers under /usr/include, a small DeepSeek-V3-style
# mixture of experts trained in FP8 inside a capped budget, then held-out compression, a sample and the cost report.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup.sh
tools/build.sh release shoestring

corpus=shards/headers
run=runs/tiny_moe
if [ ! -e "$corpus" ]; then
  # A machine with many -dev packages has hundreds of megabytes there; three minutes of training do not need them.
  build/shoestring data build /usr/include --out "$corpus" --source "headers under /usr/include" --hold-out 0.01 \
    --limit-bytes 60000000
fi
if [ -e "$run" ]; then
  echo "removing the demo's earlier run $run"
  rm -rf "$run"
fi

# The recipe of this demo: recipes/tiny_moe.recipe on this machine, which is measured once.
recipe=runs/demo.recipe
mkdir -p runs/hardware
[ -e runs/hardware/this_machine.hardware ] || build/shoestring bench --calibrate runs/hardware/this_machine.hardware
printf '%s\n' 'include = ../recipes/tiny_moe.recipe' '[budget]' 'hardware = this_machine' >"$recipe"

# What the cap will buy, foretold by some steps; the report says how far off that was.
build/shoestring plan "$recipe" --measure 10
steps=$(sed -n 's/^ "steps": *\([0-9]*\).*/\1/p' "$run/plan.json")
if [ "$steps" -lt 300 ]; then
  # A smaller model makes more of so little computing: two layers for four, and without multi-token prediction, see almost
  # twice the text in the same time.
  echo "$steps steps are few for this model: two of its layers are trained, without multi-token prediction"
  printf '%s\n' '[model]' 'layers = 2' 'mtp_layers = 0' '[schedule]' 'warmup_steps = 10' 'decay_fraction = 0.6' >>"$recipe"
  rm -rf "$run"
  build/shoestring plan "$recipe" --measure 10
fi
build/shoestring train "$recipe"

# What general-purpose compressors reach on the same held-out files, one by one.
bytes=0 gzip_bytes=0 xz_bytes=0
while IFS= read -r file; do
  file=${file%%#*}
  bytes=$((bytes + $(wc -c <"$file")))
  gzip_bytes=$((gzip_bytes + $(gzip -9 -c "$file" | wc -c)))
  xz_bytes=$((xz_bytes + $(xz -9 -c "$file" | wc -c)))
done <"$corpus/held_out.txt"
model=$(sed -n 's/.*"bits_per_byte": *\([0-9.]*\).*/\1/p' "$run/report.json" | head -n 1)
echo
echo "held-out text ($bytes bytes in $(wc -l <"$corpus/held_out.txt") files), bits per byte:"
awk -v m="$model" -v n="$bytes" -v g="$gzip_bytes" -v x="$xz_bytes" 'BEGIN {
  printf "  tiny_moe  %.3f\n  gzip -9   %.3f\n  xz -9     %.3f\n", m, 8 * g / n, 8 * x / n }'

echo
echo "a sample:"
build/shoestring sample "$run" --prompt '#include <' --tokens 200 --temperature 0.7
echo
build/shoestring report "$run"
