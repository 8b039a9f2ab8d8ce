#!/bin/sh
# Runs every fuzz program for a while: with libFuzzer, ASan and UBSan where clang has them, else on seeded inputs.
# usage: test/fuzz/run.sh SECONDS [NAME...]       what libFuzzer learns is kept in out/fuzz/corpus
set -eu
cd "$(dirname "$0")/../.."
seconds=$1
shift
names=${*:-$(sed -n 's/^ *coir_fuzz(\([a-z_]*\) .*/\1/p' test/fuzz/CMakeLists.txt)}

has_libfuzzer() {
  try=$(mktemp -d)
  echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' > "$try/try.c"
  clang -fsanitize=fuzzer,address "$try/try.c" -o "$try/try" 2> /dev/null && found=0 || found=1
  rm -r "$try"
  return $found
}

if has_libfuzzer; then
  mkdir -p out
  cmake --preset fuzz > out/fuzz.log 2>&1 || { cat out/fuzz.log; exit 1; }
  # shellcheck disable=SC2086
  cmake --build --preset fuzz --target $names
  for name in $names; do
    echo "== $name, $seconds s"
    mkdir -p "out/fuzz/corpus/$name"
    "out/fuzz/test/fuzz/$name" -max_total_time="$seconds" -timeout=60 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="out/fuzz/$name-" "out/fuzz/corpus/$name" > "out/fuzz/$name.log" 2>&1 ||
      { tail -40 "out/fuzz/$name.log"; exit 1; }
    sed -n 's/^stat::number_of_executed_units: */inputs: /p' "out/fuzz/$name.log"
  done
else
  echo "clang has no libFuzzer here: inputs made of seeds"
  # shellcheck disable=SC2086
  cmake --preset release && cmake --build --preset release --target $names
  for name in $names; do
    echo "== $name, $seconds s"
    "out/release/test/fuzz/$name" --seconds "$seconds"
  done
fi
