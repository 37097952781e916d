#!/usr/bin/env bash
# One folder that runs on a machine with nothing installed: the programs, the shared libraries they need in lib/ beside
# them, recipes. Build first: tools/build.sh release
#
#   tools/package.sh [--cuda-libraries] [--gpu-visit] [FOLDER]     default: package
#
# Programs load cuBLASLt, cuDNN and NCCL when they first use them, and look in lib/ before the machine's own folders.
# --cuda-libraries brings them along (some 870 MB), from the folder that SHOESTRING_CUDA_LIBRARIES names where they are
# there: PyPI's nvidia-cublas has a newer cuBLASLt, which takes the products of all experts in one call. Of cuDNN it brings
# the engines that are compiled when they are needed, which are all that attention uses, and NVRTC, which compiles them.
# --gpu-visit adds gpu_visit.sh and what it compares with: shards of the headers under /usr/include, and the losses of 50
# steps on this CPU, which takes two minutes; compute-sanitizer too, where this machine has it in /usr/local/cuda.
set -euo pipefail
cd "$(dirname "$0")/.."
cuda_libraries=no gpu_visit=no
while :; do
  case ${1:-} in
    --cuda-libraries) cuda_libraries=yes ;;
    --gpu-visit) gpu_visit=yes ;;
    *) break ;;
  esac
  shift
done
out=${1:-package}
case $out in -*) echo "usage: tools/package.sh [--cuda-libraries] [--gpu-visit] [FOLDER]" >&2; exit 64 ;; esac
[ -x build/shoestring ] || { echo "build/shoestring is missing: run tools/build.sh first" >&2; exit 66; }
command -v patchelf >/dev/null || { echo "patchelf is missing: run tools/setup.sh first" >&2; exit 66; }
if [ $gpu_visit = yes ] && [ ! -x build/shoestring_gpu_check ]; then
  echo "build/shoestring_gpu_check is missing: build with SHOESTRING_CUDA=ON first" >&2
  exit 66
fi
if [ -e "$out" ] && [ ! -e "$out/.shoestring_package" ]; then
  echo "$out exists and is not a package that this script made: name another folder" >&2
  exit 64
fi

rm -rf "$out"
mkdir -p "$out/lib"
touch "$out/.shoestring_package"
programs=(shoestring)
[ -x build/shoestring_gpu_check ] && programs+=(shoestring_gpu_check)
cp "${programs[@]/#/build/}" "$out/"
cp -r recipes "$out/recipes"

# The C library and the driver belong to the machine; everything else travels.
of_machine='/(libc|libm|libpthread|libdl|librt|libresolv|ld-linux[^/]*|libcuda)\.so'
for program in "${programs[@]}"; do
  ldd "build/$program" | awk '$3 ~ /^\// { print $3 }'
done | sort -u | grep -vE "$of_machine" | while IFS= read -r library; do cp -L "$library" "$out/lib/"; done
if [ $cuda_libraries = yes ]; then
  for name in libcublasLt.so.13 libnccl.so.2 libcudnn.so.9 libcudnn_graph.so.9 libcudnn_engines_runtime_compiled.so.9 \
    libnvrtc.so.13 'libnvrtc-builtins.so.13.*'; do
    library=$(find ${SHOESTRING_CUDA_LIBRARIES:+"$SHOESTRING_CUDA_LIBRARIES/"} /usr/local/cuda/lib64/ /usr/local/cuda/lib/ \
      /usr/lib/x86_64-linux-gnu/ -name "$name" 2>/dev/null |
      head -n 1 || true)  # find fails where one of the folders is not there
    [ -n "$library" ] || { echo "$name was not found" >&2; exit 66; }
    cp -L "$library" "$out/lib/"
  done
fi

# Programs look in lib/ first, for what their libraries need too: but not for one with a path of its own.
chmod u+w "$out"/lib/*
for library in "$out"/lib/*; do patchelf --remove-rpath "$library"; done
for program in "${programs[@]}"; do patchelf --force-rpath --set-rpath '$ORIGIN/lib' "$out/$program"; done

here=$(cd "$out" && pwd -P)
for program in "${programs[@]}"; do
  elsewhere=$(env -i "$(readlink -f /lib64/ld-linux-x86-64.so.2)" --list "$here/$program" |
    grep '=>' | grep -vF "=> $here/lib/" | grep -vE "$of_machine" || true)
  [ -z "$elsewhere" ] || { echo "$program of the package would look elsewhere for: $elsewhere" >&2; exit 70; }
done

if [ $gpu_visit = yes ]; then
  cp tools/gpu_visit.sh "$out/"
  mkdir "$out/bench" "$out/visit"
  cp tools/bench/pytorch_step.py "$out/bench/"
  cp recipes/gpu_visit/*.recipe "$out/visit/"
  if [ -d /usr/local/cuda/compute-sanitizer ]; then cp -rL /usr/local/cuda/compute-sanitizer "$out/sanitizer"; fi
  (
    cd "$out"
    ./shoestring data build /usr/include --out shards/headers --source "headers under /usr/include" --hold-out 0.01 \
      --limit-bytes 20000000
    for recipe in tiny_dense tiny_moe; do
      printf '%s\n' "include = ../recipes/$recipe.recipe" '[budget]' 'gpu_hours = 0.2' 'hardware = cpu' '[schedule]' \
        'horizon = steps' '[phase.pretrain]' 'steps = 50' '[evaluation]' 'tokens = 16K' >"visit/$recipe.recipe"
      ./shoestring train "visit/$recipe.recipe" --run.directory=twin
      mkdir "visit/$recipe"
      mv twin/metrics.jsonl "visit/$recipe/"
      rm -rf twin
    done
  )
fi
"$out/shoestring" --version
glibc=$(objdump -T "${programs[@]/#/$out/}" "$out"/lib/* | grep -oE 'GLIBC_2\.[0-9]+' | sort -uV | tail -n 1)
echo "$out: $(du -sh "$out" | cut -f1), for x86-64 machines with ${glibc/_/ } or newer"
