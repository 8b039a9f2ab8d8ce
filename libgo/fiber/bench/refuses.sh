#!/bin/sh
# A benchmark must refuse arguments that it does not understand: usage on stderr, nothing on stdout, exit status 1.
# usage: refuses.sh [EMULATOR...] PROGRAM
set -eu
failed=0
# refuses COMMAND...
refuses() {
  status=0
  usage=$("$@" 2>&1 > /dev/null) || status=$?
  printed=$("$@" 2> /dev/null) || true
  case $usage in
    usage:*) ;;
    *) status="$status and no usage" ;;
  esac
  [ "$status" = 1 ] && [ -z "$printed" ] && return
  echo "$*: status $status, printed '$printed'"
  failed=1
}

refuses "$@" x
refuses "$@" ''
refuses "$@" -1
refuses "$@" 1x
refuses "$@" 1.5
refuses "$@" ' 1'
refuses "$@" 99999999999999999999999
refuses "$@" 18446744073709551617
refuses "$@" 1 1 1 1
refuses "$@" --help
refuses "$@" -conns
refuses "$@" -conns 0
refuses "$@" -conns 1 -nothing 1
exit $failed
