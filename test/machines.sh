#!/bin/bash
# The library built in other ways and run on other machines, or on what looks like them: a choice of the tests in each.
# usage: machines.sh [-l] [WAY...]     -l: only lists the ways; without WAY: all of them
# Each way prints "pass", "FAIL" or "skip" and why; its log stays in MACHINES_BUILD (default: out/machines).
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
build=${MACHINES_BUILD:-$root/out/machines}
jobs=$(nproc)
at_once=$jobs # tests; cmake/tests.cmake says which may run beside others
programs='smoke t_ctx t_stack t_timer t_os t_fiber t_wait t_scope t_chan t_select t_sync t_runtime t_sched t_io t_file
  t_signal t_process t_resolve t_carry t_preempt_state t_tls t_gen t_raw_fiber t_job t_job_fork t_sort
  t_backtrace t_deadlock stress_core stress_chan stress_job stress_signal fire_c fault_alloc bug_unaligned_runtime
  bug_wake_in_emulator'
chosen=$programs

ways='clang ucontext file-by-file one-command cxx20 lto lto-clang native O3 Os O0 one-cpu quota no-uring no-membarrier no-aio
  kqueue musl msan aarch64 aarch64-ucontext riscv64'

# needs 'WHY' COMMAND...: skips the way unless all of them are installed
needs() {
  local tool
  for tool in "${@:2}"; do
    command -v "$tool" > /dev/null || { echo "skipped: no $tool ($1)"; exit 77; }
  done
}

# make_in FOLDER CMAKE_ARGUMENT...: the programs, and nothing else
make_in() {
  local targets
  cmake -S "$root" -B "$build/$1" -DCMAKE_BUILD_TYPE=Release -DCOIR_WERROR=ON -DCOIR_BENCH=OFF -DCOIR_EXAMPLES=OFF \
    "${@:2}" || return
  read -ra targets <<< "$(echo $chosen)"
  cmake --build "$build/$1" -j "$jobs" --target "${targets[@]}"
}

# run_in FOLDER [LAUNCHER...]: those tests, on 4 workers where they run on several numbers
run_in() {
  local names
  names=$(echo $chosen | tr ' ' '|')
  (cd "$build/$1" && "${@:2}" ctest -j "$at_once" --output-on-failure --no-tests=error -R "^($names)(_w4)?\$")
}

# without PROGRAM...: what remains of them
without() { for program in $programs; do case " $* " in *" $program "*) ;; *) echo "$program" ;; esac; done; }

both() { make_in "$@" && run_in "$1"; }
# What mostly waits for the system sees little of how it is compiled.
by_system='t_io t_file t_signal stress_signal t_process t_resolve t_deadlock t_carry t_sched fault_alloc'
compiled() { chosen=$(without $by_system) && both "$@"; }
plain() { make_in plain > /dev/null; } # shared by the ways that differ in how the programs are run

stand_in=(-DCMOCKA_INCLUDE="$here/machines" -DCMOCKA_LIBRARY=m -DCMAKE_CXX_COMPILER=NOTFOUND)

way_clang() { needs 'second compiler' clang && both clang -DCMAKE_C_COMPILER=clang; }
way_ucontext() { both ucontext -DCOIR_CONTEXT=ucontext -DCMAKE_BUILD_TYPE=Debug; }
way_file-by-file() { compiled file-by-file -DCOIR_SINGLE_FILE=OFF; }
way_lto() { compiled lto -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON; }
way_native() { compiled native -DCMAKE_C_FLAGS=-march=native; }
way_O3() { compiled O3 -DCMAKE_C_FLAGS_RELEASE=-O3; }
way_Os() { compiled Os -DCMAKE_C_FLAGS_RELEASE=-Os; }
way_O0() { compiled O0 -DCMAKE_C_FLAGS_RELEASE=-O0; }

way_lto-clang() {
  needs 'second compiler, and a linker for its LTO' clang ld.lld
  compiled lto-clang -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=NOTFOUND -DCMAKE_C_FLAGS=-flto=thin \
    -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld -DCMAKE_SHARED_LINKER_FLAGS=-fuse-ld=lld
}

# As the README tells those who embed the library.
way_one-command() {
  local program=$build/one-command/app compiler
  mkdir -p "$build/one-command"
  for compiler in gcc clang; do
    command -v $compiler > /dev/null || continue
    $compiler -O2 -std=gnu11 -Wall -Wextra -Werror -pthread "-I$root/include" "-I$root/src" "$root/src/coir.c" \
      "$root/src/arch/ctx_$(uname -m).S" "$here/install/app.c" -o "$program" || return
    for workers in 1 4; do COIR_WORKERS=$workers timeout 60 "$program" || return; done
  done
}

way_cxx20() {
  local compiler standard
  chosen='t_cxx t_job_cxx'
  for compiler in g++ clang++; do
    command -v $compiler > /dev/null || continue
    for standard in 20 2b; do
      make_in "cxx20-$compiler" -DCMAKE_CXX_COMPILER=$compiler \
        "-DCMAKE_CXX_FLAGS=-std=c++$standard -Wall -Wextra -Werror" || return
      run_in "cxx20-$compiler" || return
    done
  done
}

way_one-cpu() {
  needs 'limits CPUs' taskset
  at_once=1
  plain && run_in plain taskset -c "$(taskset -cp $$ | sed 's/.*: *\([0-9]*\).*/\1/')"
}

# A group of this process's own, with half a CPU and with one and a half.
way_quota() {
  local dir quota rc=0
  at_once=1
  chosen=$(without t_preempt_state) # with half a CPU the monitor may not come to run while somebody computes
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then dir=/sys/fs/cgroup/coir.$$; else dir=/sys/fs/cgroup/cpu/coir.$$; fi
  mkdir "$dir" 2> /dev/null || { echo 'skipped: no group of CPU time can be made here'; exit 77; }
  # shellcheck disable=SC2064
  trap "rmdir '$dir'" EXIT
  plain || return
  for quota in 50000 150000; do
    if [ -w "$dir/cpu.max" ]; then echo "$quota 100000" > "$dir/cpu.max"
    elif [ -w "$dir/cpu.cfs_quota_us" ]; then echo $quota > "$dir/cpu.cfs_quota_us"
    else echo 'skipped: no quota can be set here'; exit 77
    fi || { echo 'skipped: the quota is refused'; exit 77; }
    # shellcheck disable=SC2016
    run_in plain sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$dir" || rc=1
  done
  return $rc
}

# denied CALLS: the kernel refuses them, as containers' rules do
denied() {
  local error
  plain && "${CC:-cc}" -O1 -Wall -Wextra "$here/machines/deny.c" -o "$build/deny" || return
  for error in ENOSYS EPERM; do run_in plain "$build/deny" $error "$@" -- || return; done
}
way_no-uring() { chosen="smoke t_runtime $by_system" && denied io_uring; }
way_no-membarrier() { chosen=$(without $by_system) && denied membarrier; }
way_no-aio() { chosen='smoke t_runtime t_file t_io fault_alloc' && denied aio; }

# By a stand-in of kqueue: Debian 12 has no libkqueue. A child of fork has the parent's queue there, which BSD's has not.
way_kqueue() {
  chosen=$(without bug_unaligned_runtime)
  both kqueue "-DCMAKE_C_FLAGS=-DCOIR_KQUEUE=1 -isystem $here/machines/kqueue"
}

# The kernel's headers are those of this machine; the C library's must not come with them.
way_musl() {
  local headers=$build/musl-kernel
  needs 'musl-tools' musl-gcc
  mkdir -p "$headers"
  ln -sfn /usr/include/linux "$headers/linux"
  ln -sfn /usr/include/asm-generic "$headers/asm-generic"
  ln -sfn "/usr/include/$(uname -m)-linux-gnu/asm" "$headers/asm"
  chosen=$(without t_ctx t_job_fork t_backtrace) # backtrace(3), mallinfo2 and tables for unwinding are glibc's
  both musl -DCMAKE_C_COMPILER=musl-gcc "-DCMAKE_C_FLAGS=-isystem $headers" "${stand_in[@]}"
}

# qemu-user 7.2 ends, or hangs, in children of fork when there are threads (an assertion in qemu_plugin_vcpu_init_hook),
# has no seccomp, and memory of its own; what checks the like is left out. stress_signal: see there.
# Emulated tests run one at a time: it takes threads of its own, and a multiple of the time.
by_qemu='t_backtrace t_ctx t_deadlock t_file t_io t_process t_raw_fiber t_runtime t_scope stress_signal'

# on_aarch64 FOLDER CMAKE_ARGUMENT...
on_aarch64() {
  needs 'tools/deps.sh aarch64' aarch64-linux-gnu-gcc qemu-aarch64
  chosen=$(without $by_qemu)
  at_once=1
  both "$1" -DCMAKE_TOOLCHAIN_FILE="$root/cmake/aarch64.cmake" "${@:2}"
}
way_aarch64() { on_aarch64 aarch64; }
way_aarch64-ucontext() { on_aarch64 aarch64-ucontext -DCOIR_CONTEXT=ucontext; }

way_riscv64() {
  needs 'tools/deps.sh machines' riscv64-linux-gnu-gcc qemu-riscv64
  chosen=$(without $by_qemu)
  at_once=1
  both riscv64 -DCMAKE_TOOLCHAIN_FILE="$root/cmake/riscv64.cmake" "${stand_in[@]}"
}

# MemorySanitizer wants to see every write, so cmocka is the stand-in. Left out: t_ctx switches without what fiber.c
# tells the sanitizer; t_io writes memory that was never set; t_job_fork asks mallinfo2; t_file takes too long.
way_msan() {
  needs 'the compiler with this sanitizer' clang
  chosen="$(without t_backtrace t_ctx t_file t_io t_job_fork fault_alloc) defects"
  export MSAN_OPTIONS=allocator_may_return_null=1 # for tests of what no memory can hold
  both msan -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug '-DCMAKE_C_FLAGS_DEBUG=-O1 -g' -DCOIR_SANITIZE=memory \
    "${stand_in[@]}" && (cd "$build/msan" && ctest --output-on-failure --no-tests=error -R '^(defect|sound)_')
}

if [ "${1:-}" = -l ]; then
  echo $ways
  exit
fi
[ $# -gt 0 ] || set -- $ways
mkdir -p "$build"
failed=0
for way in "$@"; do
  declare -F "way_$way" > /dev/null || { echo "machines.sh: no way '$way' ($(echo $ways))" >&2; exit 2; }
  since=$SECONDS
  ("way_$way") > "$build/$way.log" 2>&1
  rc=$?
  took="$way, $((SECONDS - since)) s: $(sed -n 's/^[0-9]*% tests passed, //p' "$build/$way.log" | paste -sd';')"
  case $rc in
    0) echo "pass $took" ;;
    77) echo "skip $way: $(sed -n 's/^skipped: //p' "$build/$way.log" | tail -n 1)" ;;
    *)
      echo "FAIL $took; $build/$way.log"
      tail -n 30 "$build/$way.log"
      failed=1
      ;;
  esac
done
exit $failed
