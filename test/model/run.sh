#!/bin/bash
# Verifies the models beside it with Spin, and that each mutation of them is found.
# usage: run.sh [all]     all: also what takes minutes or gigabytes. Exits with 77, and says why, where it cannot.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-cc}
for tool in spin "$cc"; do
  command -v "$tool" > /dev/null || { echo "skipped: no $tool (tools/deps.sh test installs spin)"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
megabytes=1500
optimize=-O2
failed=0

# verify MODEL FLAG...: its output is in $work/out
verify() {
  rm -rf "${work:?}"/*
  cp "$here/$1.pml" "$work/model.pml"
  (
    cd "$work"
    spin -P"$cc -E -x c" -a "${@:2}" model.pml > out 2>&1 || exit 1
    "$cc" "$optimize" -w -DSAFETY -DMEMLIM=$megabytes -o pan pan.c >> out 2>&1 || exit 1
    ./pan -m1000000 >> out 2>&1
  ) || { echo "$*: could not be run" && cat "$work/out" && exit 1; }
}

states() { sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$work/out"; }

# holds MODEL FLAG...: no error, in any state
holds() {
  verify "$@"
  if grep -q 'errors: 0$' "$work/out" && ! grep -Eq 'not completed|too small|reached -DMEMLIM' "$work/out"; then
    echo "holds: $* ($(states) states)"
  else
    echo "FAILED: $*"
    cat "$work/out"
    [ ! -f "$work/model.pml.trail" ] || (cd "$work" && spin -P"$cc -E -x c" "${@:2}" -t -p model.pml | tail -n 100)
    failed=1
  fi
}

# found MODEL MUTATION FLAG...: an assertion is violated, or somebody waits for ever
found() {
  optimize=-O0 verify "$1" "-DMUTATE_$2" "${@:3}"
  if grep -Eq '^pan:1: (assertion violated|invalid end state)' "$work/out"; then
    echo "found: $1 $2: $(sed -n 's/^pan:1: //p' "$work/out")"
  else
    echo "FAILED: $1: the mutation $2 is not found"
    cat "$work/out"
    failed=1
  fi
}

holds model_takeaway -DBLOCKS -DENDS
holds model_takeaway -DNESTED
holds model_takeaway -DHOLDS
holds model_takeaway -DTHREADS=3 -DBUFFER=1
for mutation in FENCE VERDICT OWNER LEAVE AWAY SPARE; do found model_takeaway $mutation; done

holds model_preempt -DCALLS -DBLOCKS
holds model_preempt -DCALLS -DMUTEX
holds model_preempt -DTHREADS=3 -DTAKES=2
for mutation in GRANT ORDER LOOK SLEEP HALT BACK LOOSE; do found model_preempt $mutation; done
found model_preempt DROP
found model_preempt AWAY -DTHREADS=3 -DTAKES=2
found model_preempt VALVE -DMUTEX
found model_preempt INSIDE -DMUTEX -DCALLS

holds deque
holds deque -DREAL
holds deque -DWEAK
holds deque -DTHIEVES=2 -DTOTAL=3
for mutation in LAST RESTORE SLOT ROOM RING COPY LATE; do found deque $mutation; done
for mutation in HEAVY LIGHT INSIDE ENTER; do found deque $mutation -DMANY; done
found deque HEAVY -DONE
found deque RELEASE -DWEAK

holds counter
holds counter -DREFS -DDECS=3
holds counter -DOWNED -DDECS=3
holds counter -DOWNED -DREFS -DDECS=3
for mutation in CLEAR UNLOCK WAKE LOOK MARK STORE LINK CLAIM LEAVE STAY ZERO; do found counter $mutation; done
found counter OTHERS -DREFS
found counter BIT -DOWNED
found counter FREE -DOWNED -DREFS

holds fork
for mutation in STORE CAS SLEEP CLAIM LATE CLAUSE BACK FAIL BIND; do found fork $mutation; done

if [ "${1:-}" = all ]; then
  megabytes=12000
  holds model_takeaway -DBLOCKS -DENDS -DNESTED -DHOLDS
  holds model_takeaway -DTHREADS=3
  holds model_preempt -DTHREADS=3
  holds model_preempt -DTHREADS=3 -DWORKERS=2
  holds deque -DBUFFER=4 -DTOTAL=5
  holds deque -DWEAK -DTHIEVES=2 -DTOTAL=3
fi
exit $failed
