# nim_pipeline.nim: goroutines that make Nim strings and seqs under ORC and send them through channels. They go on on
# another thread after a wait, perhaps, and what one of them made another one frees.
#
# From build/libcsp, where .libs is, with $SRC the folder libcsp of the sources:
#
#   nim c -d:danger --mm:orc --threads:on --panics:on --passC:-I$SRC/include --passL:-L.libs --passL:-lcsp \
#     -o:nim_pipeline $SRC/examples/nim_pipeline.nim
#   LD_LIBRARY_PATH=.libs ./nim_pipeline
#
# Stacks: nothing is needed. ORC counts references and never looks for them on stacks, so that it does not matter which
# stack the program is on. What matters is what Nim keeps for each thread, and that its counts are not atomic:
#
#   memory     --threads:on gives Nim 1.6 one heap for all threads, under a lock. Without it goroutines on two workers
#              corrupt the heap as soon as both allocate. (-d:useMalloc does as well: then it is libc's malloc.)
#   counts     A string or a seq has one owner, and a `ref` is counted without atomic operations. So a value is *moved*
#              through a channel: the sender has none of it afterwards (send and receive, below). A `ref` that several
#              goroutines hold at once is not safe, nor is GC_ref before a send: the sender counts down while the
#              receiver counts, too.
#   cycles     ORC keeps for each thread a list, by index, of what may be part of a cycle. An object that was listed by
#              one thread must not be touched on another. Strings, seqs and objects whose type cannot form a cycle (or
#              is marked {.acyclic.}) are never listed. For others there is --mm:arc, which has no such list.
#   exceptions What tells that one is on its way is a variable of the thread. A proc that calls what may raise takes the
#              address of it when it begins; after a wait that may be another thread's. So a proc that waits calls only
#              what is {.raises: [].}, and --panics:on makes Nim believe that and leave the checks out. Raise, and
#              catch, in procs that do not wait. They are {.noinline.}, so that the C compiler does not carry the
#              address of such a variable over a wait of the proc that calls them.
#   threadvar  The same holds for a {.threadvar.} of your own: only in {.noinline.} procs that do not wait.
#   traces     -d:danger, or --stackTrace:off, is needed, as nim_example.nim tells.
import strutils

const
  Makers = 8
  Parsers = 4
  Batches = 200

type
  CspGoChan = ptr object
  CspProcFunc = proc(arg: pointer) {.noconv.}
  Batch = seq[string]
  Report = object
    lines: seq[string]
    sum, bad: int

proc csp_proc_create(id: cint, fn: CspProcFunc, arg: pointer): pointer {.importc, header: "csp.h".}
proc csp_gochan_new(cap: csize_t): CspGoChan {.importc, header: "csp.h".}
proc csp_gochan_send(ch: CspGoChan, val: pointer): bool {.importc, header: "csp.h".}
proc csp_gochan_recv(ch: CspGoChan, ok: ptr bool): pointer {.importc, header: "csp.h".}
proc csp_gochan_close(ch: CspGoChan) {.importc, header: "csp.h".}
proc csp_yield() {.importc, header: "csp.h".}

# ---- Values through channels of pointers

# Puts a value into memory that nobody owns, and takes it out again.
proc box[T](value: sink T): pointer {.noinline, raises: [].} =
  let p = createShared(T)
  p[] = value
  p

proc unbox[T](p: pointer): T {.noinline, raises: [].} =
  let b = cast[ptr T](p)
  result = move(b[])
  freeShared(b)

proc send[T](ch: CspGoChan, value: sink T) {.raises: [].} =
  discard csp_gochan_send(ch, box(value))

# False: the channel is closed and empty.
proc receive[T](ch: CspGoChan, value: var T): bool {.raises: [].} =
  var ok: bool
  let p = csp_gochan_recv(ch, addr ok)
  if ok: value = unbox[T](p)
  ok

# ---- The goroutines

let
  batches = csp_gochan_new(4)
  reports = csp_gochan_new(0)
  ended = csp_gochan_new(Makers)

proc makeBatch(maker, number: int): Batch {.noinline, raises: [].} =
  for i in 0 ..< 10: result.add($(maker * 1000 + number) & repeat('0', i mod 3))
  result.add("not a number: " & $number)

proc maker(arg: pointer) {.noconv, raises: [].} =
  for number in 0 ..< Batches:
    var batch = makeBatch(cast[int](arg), number)
    csp_yield() # and on, on another worker perhaps
    batch.add("7")
    send(batches, batch)
  discard csp_gochan_send(ended, nil)

# What cannot be read is counted: the exception begins and ends in here.
proc add(report: var Report, text: string) {.noinline, raises: [].} =
  try:
    report.sum += parseInt(text)
    report.lines.add(text)
  except ValueError as error:
    if error.msg.len > 0: inc report.bad

proc parser(arg: pointer) {.noconv, raises: [].} =
  var batch: Batch
  var report: Report
  while receive(batches, batch):
    for text in batch:
      report.add(text)
    csp_yield()
  send(reports, report)

proc main() =
  for i in 0 ..< Makers: doAssert csp_proc_create(0, maker, cast[pointer](i)) != nil
  for i in 0 ..< Parsers: doAssert csp_proc_create(0, parser, nil) != nil
  for i in 0 ..< Makers: discard csp_gochan_recv(ended, nil)
  csp_gochan_close(batches)
  var sum, bad, lines = 0
  for i in 0 ..< Parsers:
    var report: Report
    doAssert receive(reports, report)
    sum += report.sum
    bad += report.bad
    lines += report.lines.len
  echo lines, " numbers, the sum is ", sum, ", ", bad, " were none"

main()
