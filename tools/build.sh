#!/usr/bin/env bash
# Configures and builds a preset (release unless named): tools/build.sh [PRESET] [TARGET...]
# With ccache, where it is installed and CCACHE_DISABLE is not set; else standard headers are precompiled.
# SHOESTRING_CUDA=ON builds the GPU rows on a machine without a driver too, SHOESTRING_STRICT=ON makes warnings errors;
# SHOESTRING_CUDA_ARCHITECTURES="80;89;90a;100" builds them for other GPUs than Hopper as well.
# SHOESTRING_PYARROW names the folder of PyPI's pyarrow, where python3 in the PATH does not have it.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
[ $# -gt 0 ] && shift
options=()
if command -v ccache >/dev/null && [ -z "${CCACHE_DISABLE:-}" ]; then
  options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
fi
if [ -n "${SHOESTRING_CUDA:-}" ]; then options+=("-DSHOESTRING_CUDA=$SHOESTRING_CUDA"); fi
if [ -n "${SHOESTRING_STRICT:-}" ]; then options+=("-DSHOESTRING_STRICT=$SHOESTRING_STRICT"); fi
if [ -n "${SHOESTRING_CUDA_ARCHITECTURES:-}" ]; then
  options+=("-DSHOESTRING_CUDA_ARCHITECTURES=$SHOESTRING_CUDA_ARCHITECTURES")
fi
if [ -n "${SHOESTRING_PYARROW:-}" ]; then options+=("-DSHOESTRING_PYARROW=$SHOESTRING_PYARROW"); fi
export NINJA_STATUS=${NINJA_STATUS-'[%f of %t, %e s] '}
cmake --preset "$preset" "${options[@]}"
if [ $# -gt 0 ]; then
  cmake --build --preset "$preset" --target "$@"
else
  cmake --build --preset "$preset"
fi
