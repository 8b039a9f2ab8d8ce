#!/bin/sh
# Holds examples/build_graph.c to what its --help says.
# usage: e_build_graph.sh PROGRAM...          the program, after what runs it if need be
set -eu
program=$*
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# expect STATUS TEXT ARGUMENT...: how it ends, and all that it prints
expect() {
  status=$1 text=$2
  shift 2
  rc=0
  # Words are meant to be split. shellcheck disable=SC2086
  output=$($program "$@" 2>&1 < /dev/null) || rc=$?
  output=$(echo "$output" | sed '/^coir: COIR_HARD_SEED=/d') # of a build in hard mode
  [ "$rc" = "$status" ] && [ "$output" = "$text" ] && return
  echo "build_graph $* ended with $rc, not $status, and printed"
  echo "$output"
  echo "and not"
  echo "$text"
  exit 1
}

# sorted STATUS TEXT ARGUMENT...: the same, when the order of lines is left to chance
sorted() {
  status=$1 text=$2
  shift 2
  rc=0
  # shellcheck disable=SC2086
  output=$($program "$@" 2> /dev/null < /dev/null) || rc=$?
  [ "$rc" = "$status" ] && [ "$(echo "$output" | sort)" = "$text" ] && return
  echo "build_graph $* ended with $rc, not $status, and printed, sorted,"
  echo "$output" | sort
  exit 1
}

fail() {
  echo "$1"
  exit 1
}

# The program itself checks the order.
simulate() {
  count=$1
  shift
  # shellcheck disable=SC2086
  output=$($program --generate "$count" | $program -f - --simulate 5 "$@")
  echo "$output"
  case $output in
    "$count targets, each once and after what it depends on: "*) ;;
    *) fail "that is not what it should print" ;;
  esac
}
simulate 10000 --threads 4
simulate 1000 --threads 1
simulate 1000 --threads 2 -j 50 --trace trace.json
[ "$(grep -o '"name": *"t[0-9]*"' trace.json | sort -u | wc -l)" = 999 ] || fail "the trace lacks some of the targets"
# shellcheck disable=SC2086
$program --generate 1000 > graph
# shellcheck disable=SC2086
$program -f graph -n -j 8 > printed
[ "$(wc -l < printed)" = 1000 ] && [ "$(sort -u printed | wc -l)" = 1000 ] || fail "-n does not print every command once"

# Files: made when they are missing, and again when what they depend on is newer; nothing else is.
cat > Makefile << 'END'
# Two files and what is made of them
out: a \
  b
	cat $^ > $@    # $$
	@cp $< first
a: source
	cp source $@
b:
	echo b > b
	-false
END
echo 1 > source
sorted 0 "cat a b > out    # \$
cp a first
cp source a
echo b > b
false" -n
[ ! -e a ] && [ ! -e out ] || fail "-n has run something"
sorted 0 "cat a b > out    # \$
cp source a
echo b > b
false" -j 3
[ "$(cat out)" = "1
b" ] && [ "$(cat first)" = 1 ] || fail "the files are not as they should be"
expect 0 "build_graph: nothing is to be done for 'out'"
echo 2 > source
touch -d '1 hour' source
expect 0 "cp source a
cat a b > out    # \$"
[ "$(cat out)" = "2
b" ] || fail "out has not been made again"
expect 0 "build_graph: nothing is to be done for 'b'" b

# Both commands must run at the same time, on one worker: each waits for the other.
mkfifo there back
cat > both << 'END'
.PHONY: all x y
all: x y
x:
	@echo 1 > there && read n < back && echo $@ $$n
y:
	@read n < there && echo 2 > back && echo $@ $$n
END
sorted 0 "x 2
y 1" -f both -j 2 --threads 1

# And no two of them with -j 1.
cat > one << 'END'
all: a1 a2 a3 a4
a1 a2 a3 a4:
	@mkdir busy && sleep 0.02 && rmdir busy
END
expect 0 "" -f one -j 1 --threads 3

# Failures
cat > failing << 'END'
.PHONY: all bad good after
all: after good
after: bad
	@echo $@
bad:
	@echo oops; exit 3
	@echo not this
good:
	@echo $@
END
sorted 2 "build_graph: failing:5: 'bad': ended with status 3
good
oops" -f failing -k
expect 2 "oops
build_graph: failing:5: 'bad': ended with status 3" -f failing -j 1 --threads 1 after
printf 'x:\n\t@kill -9 $$$$\n' > killed
expect 2 "build_graph: killed:1: 'x': ended by signal 9" -f killed

# Files that are wrong
wrong() {
  printf "$1" > bad
  expect 1 "build_graph: bad:$2" -f bad
}
wrong 'a: b\nb: c d\nd: e\ne: b\nc:\n' "2: a cycle: b -> d -> e -> b"
wrong 'a: a\n' "1: a cycle: a -> a"
wrong 'a: b\n\n# what\nb: nowhere\n' "4: there is no rule for 'nowhere', which 'b' depends on"
wrong '\techo\n' "1: a command without a target"
wrong 'a:\n\techo \\\n  $(CC)\n' "2: '\$(CC)': only \$@, \$<, \$^ and \$\$ are understood"
wrong 'a:\nCC = gcc\n' "2: variables and patterns are not understood"
wrong '%%.o: %%.c\n' "1: variables and patterns are not understood"
wrong 'a b\n' "1: a rule needs a ':'"
wrong ': b\n' "1: no target before the ':'"
wrong 'a: b: c\n' "1: a second ':', in 'b:'"
wrong '# nothing\n' " there is no target"
expect 1 "build_graph: nowhere: No such file or directory" -f nowhere
expect 1 "build_graph: both: there is no rule for 'z'" -f both z

# shellcheck disable=SC2086
$program --help | grep -q -- --generate || fail "--help does not help"
# shellcheck disable=SC2086
! $program -j many 2> /dev/null || fail "-j many is taken for a number"
echo "build_graph: as it should be"
