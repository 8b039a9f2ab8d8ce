#!/bin/sh
# Compiles a program with Nim, runs it on 1, 2, 4 and 8 workers, staying there, changing the worker with each wait, and
# paused every 0.1 ms, and compares what it prints. 77: there is no Nim.
# usage: nim.sh PROGRAM.nim EXPECTED.txt INCLUDE_DIR LIBS_DIR WORK_DIR [OPTION]...
set -eu
program=$1 expected=$2 include=$3 libs=$4 work=$5
shift 5
command -v nim > /dev/null || { echo "left out: no nim (tools/deps.sh test installs it)"; exit 77; }
mkdir -p "$work"
nim c --hints:off --nimcache:"$work/cache" -o:"$work/program" -d:danger --mm:orc "$@" --passC:"-I$include" \
  --passL:"-L$libs" --passL:-lcsp "$program"
for workers in 1 2 4 8; do
  for migrate in 0 1; do
    COIR_WORKERS=$workers COIR_MIGRATE=$migrate LD_LIBRARY_PATH=$libs timeout 60 "$work/program" > "$work/got"
    diff -u "$expected" "$work/got"
  done
  LIBCSP_PREEMPT=1 COIR_QUANTUM_US=100 COIR_WORKERS=$workers LD_LIBRARY_PATH=$libs timeout 60 "$work/program" \
    > "$work/got"
  diff -u "$expected" "$work/got"
done
