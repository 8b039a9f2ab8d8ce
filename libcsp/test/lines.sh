#!/bin/sh
# Compiles lines.c in the ways in which programs are compiled, links it with both kinds of the library, and runs it;
# then compiles each header alone.
# usage: lines.sh INCLUDE_DIR BUILD_DIR WORK_DIR       BUILD_DIR: where .libs is. CC and CXX choose the first compilers
set -eu
include=$1 build=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd)
unset CFLAGS CXXFLAGS LDFLAGS C_INCLUDE_PATH LIBRARY_PATH LD_LIBRARY_PATH || :
rm -rf "$work"
mkdir -p "$work"
count=0

fail() { echo "FAILED: $*" >&2; exit 1; }

# passes WORDS...: they run a program, which must say that all is well
passes() {
  output=$(timeout 60 "$@" 2>&1) || output="$output [exit status $?]"
  [ "$output" = "lines: passed" ] || fail "$what: $*: $output"
  count=$((count + 1))
}

# compilers FIRST OTHER...: those that are there, each once
compilers() {
  found=
  for compiler in "$@"; do
    path=$(readlink -f "$(command -v "$compiler" || echo /nowhere)")
    case " $found " in *" $path "*) continue ;; esac
    [ ! -x "$path" ] || { found="$found $path"; echo "$compiler"; }
  done
}
cc=$(compilers "${CC:-cc}" gcc clang)
cxx=$(compilers "${CXX:-c++}" g++ clang++)

# As it is written in the documentation, from both places.
for compiler in $cc; do
  what="$compiler, the line of the documentation"
  cd "$build/.libs"
  $compiler -O3 -fno-stack-protector -I"$include" "$here/lines.c" -o "$work/program" -L. -lcsp -lpthread -lrt
  passes env LD_LIBRARY_PATH=. "$work/program"
  cd "$build"
  $compiler -O3 -fno-stack-protector -I"$include" "$here/lines.c" -o "$work/program" -L.libs -lcsp -lpthread -lrt
  passes env LD_LIBRARY_PATH=.libs "$work/program"
done

# And with other flags, which are words to be split. shellcheck disable=SC2086
case $(uname -m) in
  x86_64) branches=-fcf-protection ;;
  aarch64) branches=-mbranch-protection=standard ;;
  *) branches= ;;
esac
for compiler in $cc; do
  for level in -O0 -O3; do
    for frame in -fomit-frame-pointer -fno-omit-frame-pointer; do
      for guard in -fno-stack-protector '' "-fstack-protector-strong $branches"; do
        what="$compiler $level $frame $guard"
        $compiler $level $frame $guard -Wall -Wextra -Werror -I"$include" -c "$here/lines.c" -o "$work/lines.o"
        $compiler "$work/lines.o" -o "$work/shared" -L.libs -lcsp -lpthread -lrt
        passes env LD_LIBRARY_PATH=.libs "$work/shared"
        # The linker has a word to say about the resolver in any static program.
        $compiler -static "$work/lines.o" -o "$work/static" -L.libs -lcsp -lpthread -lrt 2> "$work/said" \
          || { cat "$work/said" >&2; fail "$what: -static"; }
        passes "$work/static"
      done
    done
  done
done

# alone HEADER COMPILER FLAGS...
alone() {
  echo "#include \"$1\"" > "$work/alone"
  shift
  "$@" -Wall -Wextra -Werror -I"$include" -fsyntax-only "$work/alone" || fail "$(cat "$work/alone") with $*"
  count=$((count + 1))
}
for header in "$include"/*.h; do
  header=${header##*/}
  defines=-DNOTHING
  [ "$header" != csp.h ] || defines="$defines -DCSP_NO_ALIASES -Dcsp_without_prefix"
  for define in $defines; do
    for compiler in $cc; do
      alone "$header" "$compiler" -x c -std=c11 -pedantic-errors "$define"
      alone "$header" "$compiler" -x c -std=gnu11 "$define"
    done
    for compiler in $cxx; do alone "$header" "$compiler" -x c++ -std=c++17 -pedantic-errors "$define"; done
  done
done
echo "lines: $count times as it should be"
