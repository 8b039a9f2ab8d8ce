#!/bin/bash
# Shows the HTTP server under load: requests per second, latency, what the runtime did meanwhile, and a clean stop.
# Fails when a single request failed or the server did not drain. usage: examples/demo.sh BUILD_DIR [SECONDS [WORKERS]]
set -euo pipefail
build=${1:?usage: examples/demo.sh BUILD_DIR [SECONDS [WORKERS]]}
seconds=${2:-5} workers=${3:-0}
httpd=$build/examples/httpd
[ -x "$httpd" ] || { echo "demo: $httpd is not there; build first (it needs libhttp-parser-dev)" >&2; exit 1; }
command -v wrk > /dev/null || { echo "demo: wrk is missing (tools/deps.sh demo installs it)" >&2; exit 1; }
ulimit -n "$(ulimit -Hn)" || :

scratch=$(mktemp -d)
server=
cleanup() {
  if [ -n "$server" ]; then kill -KILL "$server" 2> /dev/null || :; fi
  rm -rf "$scratch"
}
trap cleanup EXIT

"$httpd" --port 0 --workers "$workers" > "$scratch/out" 2> "$scratch/err" &
server=$!
port=
for _ in $(seq 100); do
  port=$(sed -n 's/^listening on .*://p' "$scratch/out")
  if [ -n "$port" ] || ! kill -0 "$server" 2> /dev/null; then break; fi
  sleep 0.05
done
[ -n "$port" ] || { echo "demo: httpd did not start" >&2; cat "$scratch/err" >&2; exit 1; }

# The body of GET $1, by bash alone.
get() {
  exec 3<> "/dev/tcp/127.0.0.1/$port"
  printf 'GET %s HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n' "$1" >&3
  sed '1,/^\r$/d' <&3
  exec 3<&- 3>&-
}

# field NAME < JSON: the value of one number
field() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }

show_stats() {
  local json name value
  json=$(get /stats)
  printf '  %-11s' "$1"
  for name in workers fibers_live switches parks steals; do
    value=$(field "$name" <<< "$json")
    printf ' %s %s ' "$name" "$value"
  done
  printf ' rss %d.%d MiB\n' $(($(field rss_bytes <<< "$json") / 1048576)) \
    $(($(field rss_bytes <<< "$json") % 1048576 * 10 / 1048576))
}

failed=0
# load CONNECTIONS: drives the server and prints a line; counts what went wrong in `failed`
load() {
  local log=$scratch/wrk.$1 errors
  wrk -t1 -c"$1" -d"${seconds}s" --timeout 10s --latency "http://127.0.0.1:$port/" > "$log" &
  local wrk=$!
  sleep "$((seconds / 2)).5"
  show_stats 'under load' > "$scratch/load"
  wait "$wrk" || { failed=$((failed + 1)); cat "$log"; }
  errors=$(sed -n 's/.*Socket errors: //p; s/.*Non-2xx or 3xx responses: /bad answers /p' "$log" | paste -sd' ')
  [ -z "$errors" ] || failed=$((failed + 1))
  awk -v conns="$1" -v errors="${errors:-none}" '
    $1 == "50%" { p50 = $2 }
    $1 == "99%" { p99 = $2 }
    $1 == "Requests/sec:" { rate = $2; seen = 1 }
    END {
      printf "%5d connections: %9.0f requests/s   p50 %-8s p99 %-8s errors %s\n", conns, rate, p50, p99, errors
      exit !(seen && rate > 0)
    }' "$log" || failed=$((failed + 1))
  cat "$scratch/load"
  show_stats 'afterwards'
}

printf 'Coir httpd, driven by wrk -t1 for %s s each, on the same %s CPUs\n' "$seconds" "$(nproc)"
load 64
load 1000

# A request in progress must survive the signal.
get '/sleep?ms=500' > "$scratch/slept" &
slept=$!
sleep 0.2
kill -TERM "$server"
wait "$slept" || :
rc=0
wait "$server" || rc=$?
server=
if [ "$rc" = 0 ] && grep -q '^slept 500 ms' "$scratch/slept"; then
  printf 'stopped cleanly: the request in progress was finished, exit status 0, %s requests served\n' \
    "$(field requests < "$scratch/err")"
else
  printf 'DID NOT STOP CLEANLY: exit status %s\n' "$rc"
  cat "$scratch/err"
  failed=$((failed + 1))
fi
[ "$failed" = 0 ] || { echo "demo: $failed checks failed"; exit 1; }
