# nim_example.nim: a goroutine written in Nim sends a number to the main program.
#
# From build/libcsp, where .libs is, with $SRC the folder libcsp of the sources:
#
#   nim c -d:danger --mm:orc --passC:-I$SRC/include --passL:-L.libs --passL:-lcsp -o:nim_example \
#     $SRC/examples/nim_example.nim
#   LD_LIBRARY_PATH=.libs ./nim_example
#
# The shorter line `nim c -d:danger --mm:orc -L:.libs -l:csp examples/nim_example.nim` is not accepted by Nim 1.6, for
# two reasons. Nim's -L and -l both are --passL, which hands what follows to the linker as it stands: it then looks for
# files named `.libs` and `csp`, so that the options have to be written out (-l:-L.libs -l:-lcsp, for short). And the C
# compiler that Nim calls finds csp.h only when it is told where (--passC, -t for short), or when the folder is in its
# environment (C_INCLUDE_PATH).
#
# -d:danger, or --stackTrace:off, is needed: else Nim keeps a list of the active procs for each thread, which takes it
# for granted that what was called last returns first; goroutines do not keep to that. What else goroutines need that
# use Nim's memory is told in nim_pipeline.nim: the one below uses none.
import os

type
  CspGoChan = ptr object
  CspProcFunc = proc(arg: pointer) {.noconv.}

# Import C symbols from libcsp
proc csp_proc_create(id: cint, fn: CspProcFunc, arg: pointer): pointer {.importc, header: "csp.h".}
proc csp_gochan_new(cap: csize_t): CspGoChan {.importc, header: "csp.h".}
proc csp_gochan_send(ch: CspGoChan, val: pointer): bool {.importc, header: "csp.h".}
proc csp_gochan_recv(ch: CspGoChan, ok: ptr bool): pointer {.importc, header: "csp.h".}

proc nim_worker(arg: pointer) {.noconv.} =
  let ch = cast[CspGoChan](arg)
  discard csp_gochan_send(ch, cast[pointer](42))

# The workers start by themselves, with the first goroutine.
let ch = csp_gochan_new(0)
if csp_proc_create(0, nim_worker, ch) == nil: quit(osErrorMsg(osLastError()))
var ok = false
let value = csp_gochan_recv(ch, addr ok)
echo "received ", cast[int](value), ", ok: ", ok
