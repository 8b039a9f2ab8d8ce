#!/bin/sh
# Makes one target after the other, those behind one that failed, too; the last line says which passed and which did not.
# usage: tools/everything.sh MAKE TARGET...
set -eu
make=$1
shift
begin=$(date +%s)
passed=
failed=
for target in "$@"; do
  echo "== $target"
  since=$(date +%s)
  rc=0
  $make --no-print-directory "$target" || rc=$?
  took=$((($(date +%s) - since + 59) / 60))
  echo "== $target ended with $rc after $took min"
  if [ $rc = 0 ]; then passed="$passed $target ($took min)"; else failed="$failed $target ($took min)"; fi
done
total=$((($(date +%s) - begin + 59) / 60))
if [ -n "$failed" ]; then
  echo "test-all: FAILED in $total min:$failed; passed:${passed:- nothing}"
  exit 1
fi
echo "test-all: all passed in $total min:$passed"
