#!/bin/sh
# Runs every fuzz program for a while, as many at a time as there are CPUs: with libFuzzer, ASan and UBSan where clang has
# them, else on seeded inputs.
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
  # shellcheck disable=SC2016,SC2086
  printf '%s\n' $names | xargs -P "$(nproc)" -I NAME sh -c '
    mkdir -p "out/fuzz/corpus/NAME"
    "out/fuzz/test/fuzz/NAME" -max_total_time="$0" -timeout=60 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="out/fuzz/NAME-" "out/fuzz/corpus/NAME" > "out/fuzz/NAME.log" 2>&1 ||
      { echo "NAME failed"; tail -40 "out/fuzz/NAME.log"; exit 1; }
    sed -n "s/^stat::number_of_executed_units: */NAME, $0 s, inputs: /p" "out/fuzz/NAME.log"' "$seconds"
else
  echo "clang has no libFuzzer here: inputs made of seeds"
  # shellcheck disable=SC2086
  cmake --preset release && cmake --build --preset release --target $names
  # shellcheck disable=SC2086
  printf '%s\n' $names | xargs -P "$(nproc)" -I NAME out/release/test/fuzz/NAME --seconds "$seconds"
fi
