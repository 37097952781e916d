#!/usr/bin/env bash
# Builds the package twice, in two folders and without a compiler cache, and compares every file of the two by its hash.
#
#   tools/reproducible.sh [FOLDER]     default: build/reproducible
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-build/reproducible}")
rm -rf "$folder"
export CCACHE_DISABLE=1 SHOESTRING_CUDA=${SHOESTRING_CUDA:-OFF}
for name in one another_with_a_longer_name; do
  source=$folder/$name
  mkdir -p "$source"
  git ls-files -z | tar --null --files-from=- -c | tar -x -C "$source"
  "$source/tools/build.sh" release shoestring
  "$source/tools/package.sh" "$source/package"
  (cd "$source/package" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$folder/$name.sha256"
done
if ! diff "$folder/one.sha256" "$folder/another_with_a_longer_name.sha256"; then
  echo "the two packages differ" >&2
  exit 1
fi
echo "$(wc -l <"$folder/one.sha256") files, the same in both"
