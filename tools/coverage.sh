#!/bin/sh
# Runs the suite on a library that counts which lines ran, and lists those of src/ that none did, by file.
# usage: tools/coverage.sh [CTEST_ARGUMENT...]     the list is out/coverage/uncovered.txt, too
set -eu
cd "$(dirname "$0")/.."
build=${COVERAGE_BUILD:-out/coverage}
# File by file, so that lines belong to their files; counted atomically, because threads do count.
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE='-O1 -g --coverage -fprofile-update=atomic' \
  -DCMAKE_EXE_LINKER_FLAGS=--coverage -DCMAKE_SHARED_LINKER_FLAGS=--coverage -DCOIR_SINGLE_FILE=OFF -DCOIR_BENCH=OFF
cmake --build "$build"
find "$build" -name '*.gcda' -delete
# Slower code fails tests of time: what failed is said, and what ran is counted all the same.
(cd "$build" && ctest --no-label-summary -LE '^long$' -E '^(guard|explore|model|check_tls)' "$@") || echo 'coverage: tests failed'
gcovr --root . --filter src/ --print-summary "$build/CMakeFiles/coir_core.dir" | tee "$build/uncovered.txt"
