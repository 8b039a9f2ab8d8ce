#!/bin/sh
# Runs the fire programs (fire.h).
# usage: fire.sh plain|jemalloc|valgrind PROGRAM SECONDS    one of them; 77 where what it takes is not installed
#        fire.sh all DIRECTORY SECONDS                      both, in all ways, on 1, 2 and 4 workers, so long in all
set -eu

jemalloc() { PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | sed -n 's/.*libjemalloc\.so\.2.* => //p' | head -n 1; }

run() {
  case $1 in
    plain) "$2" "$3" ;;
    jemalloc)
      library=$(jemalloc)
      [ -n "$library" ] || { echo "skipped: there is no libjemalloc.so.2"; return 77; }
      LD_PRELOAD=$library "$2" "$3"
      ;;
    valgrind)
      command -v valgrind > /dev/null || { echo "skipped: there is no valgrind"; return 77; }
      # It runs one thread at a time, on a processor of its own making. Without memcheck, which takes stacks that it
      # was not told of for what they are not; and without guard pages of MADV_GUARD_INSTALL, where it ends.
      COIR_GUARD=mprotect FIRE_HOGS=${FIRE_HOGS:-8} valgrind -q --tool=none --fair-sched=try "$2" "$3"
      ;;
    *) echo "fire.sh: no way '$1' (plain jemalloc valgrind all)" >&2; return 2 ;;
  esac
}

if [ "$1" != all ]; then
  run "$1" "$2" "$3"
  exit
fi
each=$(($3 / 18 > 0 ? $3 / 18 : 1))
for workers in 1 2 4; do
  for program in fire_c fire_cxx; do
    for way in plain jemalloc valgrind; do
      [ -x "$2/$program" ] || continue
      echo "== $program, $way, $workers workers"
      rc=0
      COIR_WORKERS=$workers run "$way" "$2/$program" "$each" || rc=$?
      [ "$rc" = 0 ] || [ "$rc" = 77 ] || exit "$rc"
    done
  done
done
