#!/usr/bin/env bash
# Sets up, builds into build/ and passes the tests; then says which rows of which ops this processor could not run.
# Arguments go to ctest: tools/test.sh -L fast
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
tools/build.sh release
# Several ranks may share a core here; MPI refuses root unless told twice.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
rm -f build/row_coverage.txt
code=0
ctest --preset release -j "$(nproc)" "$@" || code=$?
# The test row_coverage has judged it, if all tests of the kernels were to run; this is for people.
if [ -e build/row_coverage.txt ]; then
  echo
  build/row_coverage_report build/row_coverage.txt || true
fi
exit $code
