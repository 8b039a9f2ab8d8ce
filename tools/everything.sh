#!/bin/sh
# Makes one target after the other, until one fails; the last line says what ran.
# usage: tools/everything.sh MAKE TARGET...
set -eu
make=$1
shift
begin=$(date +%s)
passed=
for target in "$@"; do
  echo "== $target"
  since=$(date +%s)
  if ! $make --no-print-directory "$target"; then
    echo "test-all: $target FAILED; passed before:${passed:- nothing}"
    exit 1
  fi
  passed="$passed $target ($((($(date +%s) - since + 59) / 60)) min)"
done
echo "test-all: all passed in $((($(date +%s) - begin + 59) / 60)) min:$passed"
