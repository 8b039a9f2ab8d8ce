#!/bin/sh
# gof_bench_poll_partition with 8 workers and 4 pollers, step by step through what can be set: partition on, then off,
# then no affinity, then the rebalancer as well. Each step must move messages, end close to when it is told to, and show
# in its statistics what was set.
# usage: walk.sh [EMULATOR...] PROGRAM
set -eu
duration_ms=200
# A loaded machine may leave threads lying for a second. So a step that ends late may try again, but it must not always
# be late, nor ever very late.
late_ms_max=500
very_late_ms=20000
tries_max=5
failed=0
fail() {
  echo "failed: $*"
  failed=1
}

# once COMMAND...: runs a step, and checks all but its time. Leaves $late_ms.
once() {
  late_ms=0
  if ! output=$("$@" -conns 64 -duration_ms $duration_ms -msg_size 64 -stats 1); then
    fail "it ended with an error"
    return
  fi
  echo "$output"
  head=$(echo "$output" | sed -n 1p)
  [ "$head" = "bench_poll_partition: conns=64 msg_size=64 duration_ms=$duration_ms" ] || fail "the first line"
  if ! echo "$output" | sed -n 2p | grep -Eqx \
    '  total_msgs=[1-9][0-9]* elapsed_ms=[0-9]+ msgs_per_sec=[0-9]+\.[0-9]{2}'; then
    fail "the second line"
    return
  fi
  late_ms=$(($(echo "$output" | sed -n '2s/.*elapsed_ms=\([0-9]*\).*/\1/p') - duration_ms))
  for expected in nworkers=8 npollers=4 live_fibers=0 "affinity_enable=$GOF_AFFINITY" \
    "rebalance_enable=$GOF_REBALANCE"; do
    echo "$output" | grep -qx "$expected" || fail "it does not say $expected"
  done
}

# walk COMMAND...: one step, with the environment as it is
walk() {
  echo "partition $GOF_POLL_PARTITION, affinity $GOF_AFFINITY, rebalance $GOF_REBALANCE"
  for _ in $(seq $tries_max); do
    once "$@"
    [ "$late_ms" -ge 0 ] || fail "it ended early"
    [ "$late_ms" -lt $very_late_ms ] || fail "it ended very late"
    [ "$late_ms" -gt $late_ms_max ] || return 0
  done
  fail "it always ends late"
}

export GOF_NWORKERS=8 GOF_NPOLLERS=4 GOF_POLL_PARTITION=1 GOF_AFFINITY=1 GOF_REBALANCE=0
walk "$@"
export GOF_POLL_PARTITION=0
walk "$@"
export GOF_AFFINITY=0
walk "$@"
export GOF_REBALANCE=1 GOF_REBALANCE_THRESHOLD=4 GOF_REBALANCE_INTERVAL_MS=10
walk "$@"
exit $failed
