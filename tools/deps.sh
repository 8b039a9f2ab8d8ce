#!/bin/sh
# Looks for what a purpose needs and installs what is missing, from Debian's packages.
# usage: tools/deps.sh [-n] PURPOSE...     -n: only say what is missing
# purposes: build test demo bench dev fuzz aarch64 machines coverage
set -eu

has_command() { command -v "$1" > /dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
has_header() { echo "#include <$1>" | "${CC:-cc}" -E -x c - > /dev/null 2>&1; }
has_cxx_header() { echo "#include <$1>" | "${CXX:-c++}" -E -x c++ - > /dev/null 2>&1; }
has_library() { PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q "$1"; }
has_clang_library() { ls "$(clang -print-resource-dir 2> /dev/null)"/lib/linux/"$1"* > /dev/null 2>&1; }
has_crate() { ls -d "/usr/share/cargo/registry/$1"-[0-9]* > /dev/null 2>&1; }

# need PACKAGE 'WHY' CHECK...: remembers the package when the check fails. a|b: whichever of them exists.
missing=
need() {
  package=$1 why=$2
  shift 2
  "$@" && return 0
  case " $missing " in *" $package "*) return 0 ;; esac
  echo "missing: ${package%|} ($why)"
  missing="$missing $package"
}

# want PACKAGE 'WHY' CHECK...: the same for what the purpose can do without, where it cannot be had.
want() {
  package=$1
  shift
  need "$package|" "$@"
}

need_build() {
  need gcc 'the C compiler' has_command "${CC:-cc}"
  need libc6-dev 'the C library' has_header stdio.h
  need cmake 'the build' has_command cmake
}

need_test() {
  need libcmocka-dev 'the test programs are written with cmocka' has_header cmocka.h
  need pkg-config 'a test uses the installed library through it' has_command pkg-config
  need g++ 'a test uses the headers from C++' has_command "${CXX:-c++}"
  need python3 'tests of the HTTP server and of the documentation' has_command python3
  need binutils 'a test disassembles the library' has_command objdump
  need libhttp-parser-dev 'the HTTP server parses with it' has_header http_parser.h
  want libpng-dev 'two examples write pictures' has_header png.h
  want libssl-dev 'an example hashes with it' has_header openssl/evp.h
  want nim 'two examples are written in Nim' has_command nim
  want spin 'models of two protocols are verified with it' has_command spin
  want libjemalloc2 'tests of preemption run with another malloc, too' has_library libjemalloc.so.2
  want valgrind 'counts instructions; tests of preemption run by it, too' has_command valgrind
  want gdb 'tests are run by a debugger' has_command gdb
  want libunwind-dev 'a test unwinds the stacks of fibers with it' has_header libunwind.h
  want linux-perf 'a test unwinds them by it, too' has_command perf
}

need_http() {
  need libhttp-parser-dev 'the HTTP server parses with it' has_header http_parser.h
  need wrk 'the load for the HTTP server' has_command wrk
  need strace 'counts system calls' has_command strace
}

need_demo() { need_http; }

need_bench() {
  need_http
  need golang-go 'goroutines, a peer in the tables' has_command go
  need g++ 'builds the peers Boost.Fiber and oneTBB' has_command "${CXX:-c++}"
  need libboost-fiber-dev 'Boost.Fiber, a peer in the tables' has_cxx_header boost/fiber/all.hpp
  need cargo 'builds the peers Tokio and Rayon' has_command cargo
  need librust-tokio-dev 'Tokio, a peer in the tables' has_crate tokio
  need librust-rayon-dev 'Rayon, a peer in the tables' has_crate rayon
  need libtbb-dev 'oneTBB, a peer in the tables' has_cxx_header tbb/version.h
  need libuv1-dev 'libuv, a peer in the tables' has_header uv.h
  need liburing-dev 'io_uring without a runtime, a peer in the tables' has_header liburing.h
  need nginx-light 'nginx, a peer of the HTTP server' has_command nginx
  need fio 'a peer of reading files' has_command fio
  need gnuplot-nox 'the pictures beside the tables' has_command gnuplot
}

need_dev() {
  need ninja-build 'faster builds' has_command ninja
  need clang 'the second compiler' has_command clang
  need clang-format 'make fmt' has_command clang-format
  need clang-tidy 'make tidy' has_command clang-tidy
}

need_fuzz() {
  need libhttp-parser-dev 'the HTTP server parses with it' has_header http_parser.h
  want clang 'the second compiler, with libFuzzer' has_command clang
  want libclang-rt-14-dev 'libFuzzer, and sanitizers for clang' has_clang_library libclang_rt.fuzzer
}

need_aarch64() {
  need gcc-aarch64-linux-gnu 'the compiler for 64-bit ARM' has_command aarch64-linux-gnu-gcc
  need qemu-user 'runs what it makes' has_command qemu-aarch64
  want g++-aarch64-linux-gnu 'tests in C++ for it' has_command aarch64-linux-gnu-g++
  need libcmocka-dev:arm64 'the test programs, for 64-bit ARM' test -e /usr/lib/aarch64-linux-gnu/libcmocka.so
}

need_machines() {
  need gcc-aarch64-linux-gnu 'the compiler for 64-bit ARM' has_command aarch64-linux-gnu-gcc
  need gcc-riscv64-linux-gnu 'the compiler for 64-bit RISC-V' has_command riscv64-linux-gnu-gcc
  need qemu-user 'runs what they make' has_command qemu-riscv64
  need musl-tools 'another C library' has_command musl-gcc
  need clang 'the second compiler' has_command clang
  want lld 'its linker, for optimizing at link time' has_command ld.lld
}

need_coverage() { need gcovr 'lists the lines that no test ran' has_command gcovr; }

dry_run=
for purpose in "$@"; do
  case $purpose in
    -n) dry_run=1 ;;
    build | test | demo | bench | dev | fuzz | aarch64 | machines | coverage) "need_$purpose" ;;
    *) echo "tools/deps.sh: no purpose '$purpose' (build test demo bench dev fuzz aarch64 machines coverage)" >&2; exit 2 ;;
  esac
done
[ -n "$missing" ] || exit 0

can_do_without=1
for package in $missing; do
  case $package in *'|') ;; *) can_do_without= ;; esac
done
sudo=
if [ "$(id -u)" != 0 ]; then sudo="sudo -n"; fi
if [ -n "$dry_run" ] || ! has_command apt-get || { [ -n "$sudo" ] && ! $sudo true 2> /dev/null; }; then
  echo "tools/deps.sh: please install what is missing; on Debian, as root:" >&2
  case $missing in *:arm64*) echo "  dpkg --add-architecture arm64" >&2 ;; esac
  echo "  apt-get update && apt-get install -y --no-install-recommends$(echo "$missing" | sed 's/|[^ ]*//g')" >&2
  [ -n "$can_do_without" ]
  exit
fi

apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }
case $missing in *:arm64*) $sudo dpkg --add-architecture arm64 ;; esac
apt update
chosen=
for package in $missing; do
  for name in $(echo "$package" | tr '|' ' '); do
    if apt-cache show "$name" > /dev/null 2>&1; then break; fi
  done
  case $package in *'|') apt-cache show "$name" > /dev/null 2>&1 || continue ;; esac
  chosen="$chosen $name"
done
[ -n "$chosen" ] || exit 0
echo "installing:$chosen"
# shellcheck disable=SC2086
apt install -y --no-install-recommends $chosen

# nginx is here to be measured, not to serve this machine.
case " $chosen " in
  *' nginx-light '*)
    $sudo service nginx stop > /dev/null 2>&1 || :
    $sudo update-rc.d nginx disable > /dev/null 2>&1 || :
    ;;
esac
