#!/bin/sh
# Checks one of the pairs. A status other than 0 is shown as a last line, [exit status N].
# usage: check.sh print NAME.txt PROGRAM...     the program prints what the file says
#        check.sh twin NAME.go FOLDER PROGRAM... the Go program, built in the folder, prints the same as the program
set -eu

# prints COMMAND...: what it writes to stdout, and its status
prints() {
  status=0
  "$@" || status=$?
  [ $status = 0 ] || echo "[exit status $status]"
}

what=$1 file=$2
shift 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
case $what in
print)
  prints "$@" > "$folder/got"
  diff -u "$file" "$folder/got"
  ;;
twin)
  command -v go > /dev/null || exit 77
  build=$1
  shift
  # The standard library is all that is needed; nothing is fetched.
  GO111MODULE=off GOFLAGS='' GOPROXY=off GOTOOLCHAIN=local GOPATH=$build/path GOCACHE=$build/cache \
    go build -o "$folder/twin" "$file"
  prints "$folder/twin" > "$folder/expected"
  prints "$@" > "$folder/got"
  diff -u "$folder/expected" "$folder/got"
  ;;
*) exit 2 ;;
esac
