#!/usr/bin/env bash
# One folder that runs on a machine with nothing installed: the programs, the shared libraries they need in lib/ beside
# them, recipes. tools/package.sh [FOLDER] (default: package). Build first: tools/build.sh release
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-package}
[ -x build/shoestring ] || { echo "build/shoestring is missing: run tools/build.sh first" >&2; exit 66; }

rm -rf "$out"
mkdir -p "$out/lib"
programs=(build/shoestring)
[ -x build/shoestring_gpu_check ] && programs+=(build/shoestring_gpu_check)
cp "${programs[@]}" "$out/"
cp -r recipes "$out/recipes"

# The C library and the driver belong to the machine; everything else travels.
for program in "${programs[@]}"; do
  ldd "$program" | awk '$3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libpthread|libdl|librt|libresolv|ld-linux[^/]*|libcuda)\.so' |
  while IFS= read -r library; do cp -L "$library" "$out/lib/"; done

# The programs look in $ORIGIN/lib first (RPATH, so that libraries of libraries are found there too).
missing=$(env -i "$(readlink -f /lib64/ld-linux-x86-64.so.2)" --list "$out/shoestring" | grep 'not found' || true)
[ -z "$missing" ] || { echo "the package lacks: $missing" >&2; exit 70; }
"$out/shoestring" --version
echo "$out: $(du -sh "$out" | cut -f1)"
