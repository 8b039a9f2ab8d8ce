#!/bin/sh
# The part of the style that a program can check. Prints file:line: for each breach and fails when there is one.
# usage: tools/tidy.sh          CC and CXX choose the compilers
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-cc} cxx=${CXX:-c++}
columns_max=120
lines_max=70
breaches=$(mktemp)
trap 'rm -f "$breaches"' EXIT

# files DIR... -- PATTERN...: the files below the directories that exist
files() {
  dirs= names=
  while [ "$1" != -- ]; do
    [ ! -d "$1" ] || dirs="$dirs $1"
    shift
  done
  shift
  for pattern in "$@"; do names="$names -o -name $pattern"; done
  # Words are meant to be split, patterns not to be expanded. shellcheck disable=SC2086
  (set -f && [ -z "$dirs" ] || find $dirs -type f \( ${names# -o} \) -print | sort)
}

sources=$(files src include test examples bench libgo libcsp -- '*.c' '*.h' '*.S' '*.cc')
core=$(files src -- '*.c' '*.h')
core_c=$(files src -- '*.c')
[ -n "$core" ] || core=/dev/null

# Layout. A line's length counts characters, not bytes.
# shellcheck disable=SC2086
awk -v max=$columns_max '
  { line = $0; gsub(/[\200-\277]/, "", line) }
  length(line) > max { print FILENAME ":" FNR ": " length(line) " columns, at most " max }
  /[ \t\r]$/ { print FILENAME ":" FNR ": white space at the end of the line" }
  /\t/ && FILENAME !~ /\.S$/ { print FILENAME ":" FNR ": tab" }
  /(TO''DO|FIX''ME|XX''X)/ { print FILENAME ":" FNR ": unfinished work; finish it, or open an issue" }
' /dev/null $sources >> "$breaches"

# Banned outside their homes, in the code of src/, comments and strings left out.
# shellcheck disable=SC2086
awk '
  function breach(what) { print FILENAME ":" FNR ": " what }
  FNR == 1 { in_comment = 0; is_os = FILENAME ~ /^src\/os[\/.]/; is_memory = is_os || FILENAME == "src/runtime.c" }
  {
    line = $0; code = ""
    gsub(/\\./, "", line)
    while (line != "") {
      if (in_comment) {
        if (!match(line, /\*\//)) break
        line = substr(line, RSTART + 2); in_comment = 0
      } else if (match(line, /\/\*|\/\/|"[^"]*"|\047[^\047]*\047/)) {
        code = code substr(line, 1, RSTART - 1) " "
        token = substr(line, RSTART, 2)
        if (token == "//") break
        if (token == "/*") { in_comment = 1; line = substr(line, RSTART + 2) }
        else line = substr(line, RSTART + RLENGTH)
      } else { code = code line; break }
    }
    code = " " code " "
  }
  !is_os && code !~ /# *include/ && code ~ /[^A-Za-z0-9_]errno[^A-Za-z0-9_]/ {
    breach("errno: its home is src/os/; return -errno there")
  }
  !is_os && code ~ /[^A-Za-z0-9_](_Thread_local|__thread|thread_local)[^A-Za-z0-9_]/ {
    breach("thread-local: its home is src/os/")
  }
  !is_memory && code ~ /[^A-Za-z0-9_.>](malloc|calloc|realloc|free|aligned_alloc|posix_memalign|strdup|strndup) *\(/ {
    breach("bare allocation: its home is src/runtime.c and src/os/")
  }
' $core >> "$breaches"

# Long functions are listed, not refused: an interpreter or a state machine may have a reason.
# shellcheck disable=SC2086
awk -v max=$lines_max '
  FNR == 1 { inside = 0; head = "" }
  inside && /^}/ {
    if (FNR - start + 1 > max) print FILENAME ":" start ": note: " FNR - start + 1 " lines: " name
    inside = 0
    next
  }
  inside { next }
  head == "" && /^[A-Za-z_]/ { start = FNR }
  head != "" || /^[A-Za-z_]/ { head = head " " $0 }
  head != "" && /\{$/ {
    if (head ~ /\(/ && head !~ /=/) { inside = 1; name = head; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name) }
    head = ""
  }
  /[;}]$/ || /^#/ || /^$/ { head = "" }
' /dev/null $core_c

# Every header compiles alone: public ones as strict C11 and as C++, those of src/ as C.
alone() {
  header=$1
  shift
  if ! message=$(echo "#include \"$header\"" | "$@" -Wall -Wextra -Werror -fsyntax-only - 2>&1); then
    echo "$header:1: does not compile alone with $*:"
    echo "$message"
  fi
}
for header in $(files include -- '*.h'); do
  alone "$header" "$cc" -x c -std=c11 -pedantic-errors -I. >> "$breaches"
  if command -v "$cxx" > /dev/null; then alone "$header" "$cxx" -x c++ -std=c++11 -I. >> "$breaches"; fi
done
for header in $(files src -- '*.h'); do
  alone "$header" "$cc" -x c -std=gnu11 -I. -Iinclude -Isrc >> "$breaches"
done

if [ -s "$breaches" ]; then
  cat "$breaches"
  echo "tidy: $(grep -c -E '^[^ ]+:[0-9]+: ' "$breaches") breaches of the style"
  exit 1
fi
echo "tidy: clean"
