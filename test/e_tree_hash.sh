#!/bin/sh
# Holds examples/tree_hash.c to sha256sum, and to its serial run.
# usage: e_tree_hash.sh PROGRAM...          the program, after what runs it if need be
set -eu
program=$*
dir=$(mktemp -d)
trap 'chmod -R u+rwx "$dir"; rm -rf "$dir"' EXIT
cd "$dir"

fail() {
  echo "$1"
  exit 1
}
# Words are meant to be split. shellcheck disable=SC2086
hash_of() { $program "$@" | sed -n 's/  parallel: .*//p'; }

# Folders in folders, with files of all sizes, an empty one, odd names, and what is to be left out
mkdir -p 'tree/a/b/c/d/e/f' tree/empty 'tree/with space'
for i in 1 2 3 4 5 6 7 8 9 10; do
  for folder in tree tree/a tree/a/b tree/a/b/c/d/e/f 'tree/with space'; do
    head -c $((i * i * 3000)) /dev/zero | tr '\0' "$i" > "$folder/file $i"
  done
done
: > tree/a/nothing
ln -s a/nothing tree/link
mkfifo tree/pipe

for options in "--threads 1" "--threads 4" "--open 1"; do
  # shellcheck disable=SC2086
  output=$($program --check --list $options tree)
  echo "$output" | tail -n 3
  echo "$output" | grep -q '^the same$' || fail "it is not what the serial run has"
  echo "$output" | grep -q '  parallel: 51 files, 5775000 bytes' || fail "some files are missing"
  echo "$output" | sed '/ parallel: /,$d' | sort > listed
  (cd tree && find . -type f -exec sha256sum {} + | sed 's/  \.\//  /') | sort > expected
  cmp listed expected || fail "it is not what sha256sum says"
done

# The hash tells what is where, and nothing else.
cp -r tree copy
one=$(hash_of tree)
[ "$one" ] && [ "$one" = "$(hash_of copy/)" ] || fail "a copy has another hash"
mv copy/a/nothing copy/a/moved
[ "$one" != "$(hash_of copy)" ] || fail "a file that was moved is not noticed"
mv copy/a/moved copy/a/nothing
echo x >> 'copy/with space/file 7'
[ "$one" != "$(hash_of copy)" ] || fail "a file that was changed is not noticed"

# What cannot be read is told, and does not keep the rest from being hashed.
# shellcheck disable=SC2086
! $program nowhere 2> message || fail "a tree that does not exist is a success"
grep -q '^tree_hash: nowhere: No such file or directory$' message || fail "it does not say what is missing"
if [ "$(id -u)" != 0 ]; then
  chmod 0 tree/a/b
  # shellcheck disable=SC2086
  ! output=$($program --check tree 2> /dev/null) || fail "a folder that cannot be read is a success"
  echo "$output" | grep -q '  parallel: 31 files' || fail "the rest has not been hashed"
fi
echo "tree_hash: as it should be"
