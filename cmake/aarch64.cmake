# Toolchain file: build for 64-bit ARM on another machine, run the tests under qemu's user emulation.
# Debian: tools/deps.sh aarch64; then cmake --preset aarch64.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
find_program(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++) # without it the tests in C++ are left out
# The cross compiler's C library, or that of the architecture itself where it is installed: a mixture of both hangs.
if(EXISTS /lib/ld-linux-aarch64.so.1)
  set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
else()
  # By the environment, so that children of a test find it, too.
  set(CMAKE_CROSSCOMPILING_EMULATOR env QEMU_LD_PREFIX=/usr/aarch64-linux-gnu qemu-aarch64)
endif()
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu /) # and Debian's own folder for this architecture's libraries
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
