#!/bin/sh
# coir-sim and examples/lost_update: the fault is found within 1000 seeds, the same run comes again, and the cure helps.
# usage: e_sim.sh COIR_SIM PROGRAM
set -eu
sim=$1 program=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export COIR_HARD_SEED="${COIR_HARD_SEED-1}" # a build in hard mode draws from that one, too

fail() {
  echo "$1" >&2
  head -n 40 "$work"/* >&2
  exit 1
}

if "$sim" "$program" > "$work/found" 2>&1; then fail "no seed of 1000 lost an update"; fi
seed=$(sed -n 's/^seed \([0-9]*\): it ended with 1\..*/\1/p' "$work/found")
[ -n "$seed" ] || fail "the seed is not told"
grep -q '^paid in: 40, balance: [0-9]*$' "$work/found" || fail "what it printed is not shown"

for run in 1 2 3; do
  COIR_SIM_SEED=$seed COIR_SIM_LOG=2 "$program" > "$work/run$run" 2>&1 && fail "seed $seed did not fail again"
  cmp -s "$work/run1" "$work/run$run" || fail "seed $seed was not the same run again"
done
grep -q 'simulation: step [0-9]* at .*: fiber [0-9]* "teller"' "$work/run1" || fail "steps are not told"
grep -q "simulation: seed $seed: [0-9]* steps" "$work/run1" || fail "the end is not told"

COIR_SIM_SEED=$((seed + 1)) COIR_SIM_LOG=2 "$program" > "$work/other" 2>&1 || :
if cmp -s "$work/run1" "$work/other"; then fail "another seed is the same run"; fi

"$sim" -n 200 "$program" fixed > "$work/fixed" || fail "the cure does not help"
grep -q '^0 of 200 seeds failed$' "$work/fixed" || fail "the end is not told"

"$sim" -k -n 20 "$program" > "$work/all" && fail "no seed of 20 lost an update"
grep -q "of 20 seeds failed: .*$seed" "$work/all" || fail "seeds are not told: $seed"

for wrong in "" "-n x true" "-f 0 true" "-x true" "no-such-program"; do
  rc=0
  # shellcheck disable=SC2086
  "$sim" $wrong > /dev/null 2>&1 || rc=$?
  [ $rc -eq 2 ] || fail "coir-sim $wrong ends with $rc, not 2"
done
echo "seed $seed loses an update, and does so each time"
