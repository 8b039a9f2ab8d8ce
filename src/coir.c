/* The whole core as one translation unit: for embedding (compile this file, and arch/ctx_<arch>.S, with -I of
 * include/ and src/), and for the release build, where the compiler sees through the layers. In the order of the
 * layers. */
/* clang-format off: the order matters */
#include "os/linux.c"
#include "os/linux_io.c"
#include "stack.c"
#include "runq.c"
#include "idle.c"
#include "timer.c"
#include "slab.c"
#include "local.c"
#include "fiber.c"
#include "wait.c"
#include "poll.c"
#include "os/poll_epoll.c"
#include "block.c"
#include "worker.c"
#include "balance.c"
#include "config.c"
#include "runtime.c"
#include "io.c"
#include "inspect.c"
