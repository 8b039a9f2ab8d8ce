#!/bin/sh
# Installs a build into a fresh prefix and uses it as a stranger would: through find_package, through pkg-config
# (shared and static), from C++; then compares what the library exports with what the headers declare.
# usage: run.sh CMAKE BUILD_DIR CONFIG LIBDIR WORK_DIR          CC and CXX choose the compilers
set -eu
cmake=$1 build=$2 config=$3 libdir=$4 work=$5
here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-cc} cxx=${CXX:-c++}
unset DESTDIR CMAKE_GENERATOR MAKEFLAGS CFLAGS CXXFLAGS LDFLAGS || :

say() { echo "== $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

rm -rf "$work"
mkdir -p "$work/outside"
prefix=$work/prefix
say "install to $prefix"
"$cmake" --install "$build" --config "$config" --prefix "$work/staged" > "$work/install.log"
mv "$work/staged" "$prefix" # an installed tree may be moved
lib=$prefix/$libdir
for file in "$lib/libcoir.a" "$lib/libcoir.so" "$lib/libcoir.so.0" "$lib/pkgconfig/coir.pc" "$prefix/include/coir.h" \
  "$lib/libcsp.a" "$lib/libcsp.so" "$lib/libcsp.so.0" "$lib/pkgconfig/csp.pc" "$prefix/include/libcsp/csp.h"; do
  [ -e "$file" ] || fail "$file was not installed"
done

say "find_package"
cp "$here/CMakeLists.txt" "$here/app.c" "$here/csp.c" "$work/outside"
"$cmake" -S "$work/outside" -B "$work/outside/build" -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix" \
  > "$work/configure.log" || { cat "$work/configure.log"; fail "find_package(coir)"; }
"$cmake" --build "$work/outside/build" > "$work/build.log" || { cat "$work/build.log"; fail "build with find_package"; }
"$work/outside/build/app_shared" || fail "app_shared"
"$work/outside/build/app_static" || fail "app_static"
"$work/outside/build/csp_shared" || fail "csp_shared"
"$work/outside/build/csp_static" || fail "csp_static"

say "pkg-config"
command -v pkg-config > /dev/null || fail "no pkg-config (tools/deps.sh test installs it)"
export PKG_CONFIG_PATH="$lib/pkgconfig" LD_LIBRARY_PATH="$lib"
flags="-Wall -Wextra -Werror"
# Words that pkg-config prints are meant to be split. shellcheck disable=SC2046,SC2086
$cc -std=c11 $flags $(pkg-config --cflags coir) "$here/app.c" -o "$work/app_shared" $(pkg-config --libs coir)
"$work/app_shared" || fail "app_shared by pkg-config"
$cc -std=c11 $flags $(pkg-config --cflags coir) "$here/app.c" -o "$work/app_static" -static \
  $(pkg-config --static --libs coir)
env -u LD_LIBRARY_PATH "$work/app_static" || fail "app_static by pkg-config"
# libcsp.so is found by the program's own path, and libcoir.so then beside it.
$cc -std=c11 $flags $(pkg-config --cflags csp) "$here/csp.c" -o "$work/csp_shared" $(pkg-config --libs csp) \
  -Wl,-rpath,"$lib"
env -u LD_LIBRARY_PATH "$work/csp_shared" || fail "csp_shared by pkg-config"
$cc -std=c11 $flags $(pkg-config --cflags csp) "$here/csp.c" -o "$work/csp_static" -static \
  $(pkg-config --static --libs csp) 2> "$work/csp_static.log" || { cat "$work/csp_static.log"; fail "csp_static"; }
env -u LD_LIBRARY_PATH "$work/csp_static" || fail "csp_static by pkg-config"
$cc -std=c11 $flags -I"$prefix/include" -DCSP_HEADER='<libcsp/csp.h>' "$here/csp.c" -o "$work/csp_named" -L"$lib" -lcsp
"$work/csp_named" || fail "csp_named"

if command -v "$cxx" > /dev/null; then
  say "C++"
  (cd "$prefix/include" && for header in *.h; do echo "#include <$header>"; done) > "$work/headers.hh"
  for std in c++11 c++20; do
    $cxx -std=$std $flags -DHEADERS="\"$work/headers.hh\"" $(pkg-config --cflags coir) "$here/app.cc" \
      -o "$work/app_$std" $(pkg-config --libs coir)
    "$work/app_$std" || fail "app_$std"
  done
else
  say "C++: left out, no $cxx (tools/deps.sh test installs it)"
fi

say "exports are what the headers declare"
# exports LIBRARY MARK NAMES HEADER...: what follows MARK in the headers and looks like NAMES is what the library exports
exports() {
  library=$1 mark=$2 names=$3
  shift 3
  grep -hv "^#" "$@" | sed 's/COIR_CHAN([^)]*)/chan/g' | tr '\n' ' ' | sed "s/$mark/\n&/g" \
    | sed -n "s/^$mark [^(;]*[ *]\($names\) *[(;].*/\1/p" | sort -u > "$work/declared"
  nm -D --defined-only "$library" | awk '$2 != "A" && $3 !~ /^_(init|fini)$/ { print $3 }' | sort -u > "$work/exported"
  diff -u "$work/declared" "$work/exported" || fail "$library: declared (-) and exported (+) differ"
}
exports "$lib/libcoir.so" COIR_API '\(coir_[a-z0-9_]*\|JobSystem_[A-Za-z]*\)' "$prefix"/include/coir*.h
exports "$lib/libcsp.so" CSP_API '[a-z][a-z0-9_]*' "$prefix"/include/libcsp/*.h
say "all good"
