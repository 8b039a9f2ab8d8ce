#!/usr/bin/env python3
"""Plants faults in the sources, one at a time, each of which a fuzz program has to find.

usage: planted.py [--jobs N] [WORD...]      with WORDs: only the faults that have one of them in their names
       planted.py --texts                   only looks whether each still has a place to be planted at

Each is found by RUNS inputs, made of the same seeds each time. The last line is the score; exits with 1 unless it is full,
with 77, and says why, where it cannot run. MISSED may also mean that the fault is none any more."""
import argparse
import concurrent.futures
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CC = os.environ.get("CC", "gcc")
RUNS, RUN_S = 4000, 60

# (what it does, the fuzz program, the file, the text there, what replaces it)
FAULTS = [
    ("chan: nobody refills from the sender that waits", "chan", "src/chan.c",
     "if ((sender = partner_of(&c->senders))) ring_put(c, sender->slot);", "sender = partner_of(&c->senders);"),
    ("chan: closing leaves senders", "chan", "src/chan.c", "*senders = dismiss(&chan->senders);", "*senders = NULL;"),
    ("chan: the ring wraps one late", "chan", "src/chan.c", "if (++c->head == c->capacity)", "if (++c->head > c->capacity)"),
    ("chan: what a closed one holds is lost", "chan", "src/chan.c", "if (atm_load_rlx(&c->count)) {\n    ring_get",
     "if (atm_load_rlx(&c->count) && !atm_load_rlx(&c->closed)) {\n    ring_get"),
    ("select: a closed channel is not ready", "chan", "src/chan.c", "  if (atm_load_rlx(&c->closed)) return true;\n", ""),
    ("select: the arm of a deadline is a timeout", "chan", "src/select.c",
     "return ch->limit < ch->deadline ? -EAGAIN : -ETIMEDOUT;", "return -ETIMEDOUT;"),
    ("select: the end of a channel is not told", "chan", "src/select.c",
     "case COIR_ARM_RECV: arm->result = s->chan.result;", "case COIR_ARM_RECV: arm->result = 0;"),
    ("select: the latest deadline counts", "chan", "src/select.c", "if (arm->deadline < ch->limit) ch->limit",
     "if (arm->deadline > ch->limit) ch->limit"),
    ("wait: a cancellation is told again", "scope", "src/wait.c",
     "  if (!is_keeping(self)) take_once(self);\n", "  (void)self;\n"),
    ("wait: shields do nothing", "scope", "src/wait.h",
     "if (COIR_UNLIKELY(self->shield) && code < COIR__CODE_SHIELDED) code = COIR__CODE_SHIELDED;", ""),
    ("wait: who does not wait is not cancelled", "scope", "src/wait.c",
     "  if (cancel_claim(waiter, what, false)) coir__wake(waiter);\n}",
     "  if (cancel_claim(waiter, what, false)) coir__wake(waiter);\n  else take_once(waiter);\n}"),
    ("wait: a timer stays when the wait is over", "scope", "src/wait.c",
     "code != COIR__CODE_TIMEOUT) coir__timer_cancel(&wait->timer);", "code != COIR__CODE_TIMEOUT) (void)0;"),
    ("wait: the deeper body wins", "scope", "src/wait.c", "a && (!b || a < b) ? a : b", "a && (!b || a > b) ? a : b"),
    ("wait: a sleep ends though it is shielded", "scope", "src/wait.c",
     "if (COIR_LIKELY(!pending) || w->shield) return false;", "if (COIR_LIKELY(!pending)) return false;"),
    ("scope: a scope is as deep as its parent", "scope", "src/scope.c", "? parent->depth + 1 : 1;", "? parent->depth : 1;"),
    ("scope: a cancelled one takes fibers", "scope", "src/scope.c", "  if (scope_reason(scope)) return -ECANCELED;\n", ""),
    ("scope: the old alarm stays", "scope", "src/scope.c", "  do {\n    coir__alarm_cancel(&scope->alarm);\n", "  do {\n"),
    ("semaphore: later ones pass", "sync", "src/sync.c",
     "if (COIR_LIKELY(!s->q.list.first && permits <= s->permits)) {", "if (COIR_LIKELY(permits <= s->permits)) {"),
    ("semaphore: gives without taking", "sync", "src/sync.c", "    s->permits -= wanted;\n",
     "    s->permits -= wanted > 1 ? wanted : 0;\n"),
    ("counter: wakes at one", "sync", "src/counter.c", "if (count_of(left)) return false;",
     "if (count_of(left) > 1) return false;"),
    ("rwlock: readers pass writers", "sync", "src/mutex.c",
     "if (COIR_UNLIKELY(atm_load_rlx(&l->writer) || l->q.list.first)) return rwlock_wait(w, l, false, deadline);",
     "if (COIR_UNLIKELY(atm_load_rlx(&l->writer))) return rwlock_wait(w, l, false, deadline);"),
    ("rwlock: a writer beside readers", "sync", "src/mutex.c", "    if (is_writer && l->readers) break;\n", ""),
    ("barrier: opens for one too few", "sync", "src/sync.c", "if ((int64_t)b->waiting + 1 >= b->parties) {",
     "if ((int64_t)b->waiting + 2 >= b->parties) {"),
    ("ticker: makes up for lost periods", "timer", "src/tick.c",
     "  t->due += (now - t->due) / t->period * t->period; /* the last one that is over */\n", ""),
    ("timer: a moment early", "timer", "src/timer.c", "if (t->deadline > now) break;",
     "if (t->deadline > now + 100000) break;"),
    ("timer: a level too low", "timer", "src/timer.c", "return bit * 43 >> 8;", "return (bit - (bit > 20)) * 43 >> 8;"),
    ("timer: due in any order", "timer", "src/timer.c", "if (!first || t->deadline < first->deadline) first = t;",
     "if (!first) first = t;"),
    ("config: no upper end", "config", "src/config.c", "v < min ? min : v > max ? max : v", "v < min ? min : v"),
    ("config: text behind a number", "config", "src/config.c", "return end != text && !*end;", "return end != text;"),
    ("config: the environment comes first", "config", "src/config.c", "v ? given(&fields[i], v) : from_environment(&fields[i])",
     "v && !getenv(fields[i].variable) ? given(&fields[i], v) : from_environment(&fields[i])"),
    ("config: off is on", "config", "src/config.c", "return v > 0;", "return v != 0;"),
    ("config: reads behind an old struct", "config", "src/config.c", "memcpy(&c, in, size);", "memcpy(&c, in, sizeof c);"),
    ("config: silent about nonsense", "config", "src/config.c", "not understood and ignored\\n", "fine\\n"),
    ("httpd: the target is not cleared", "http", "examples/httpd.c", "  c->target_bytes = 0;\n", ""),
    ("httpd: the body's bytes are those of all", "http", "examples/httpd.c", "  c->body_bytes = 0;\n", ""),
    ("httpd: HEAD is answered by a body", "http", "examples/httpd.c", "  if (!c->is_head) put(c, body", "  put(c, body"),
    ("httpd: sends the beginning again", "http", "examples/httpd.c", "c->b->out + sent, c->out_bytes - sent",
     "c->b->out, c->out_bytes - sent"),
    ("httpd: writes behind its buffer", "http", "examples/httpd.c", "if (c->out_bytes + bytes > BUFFER_BYTES) flush(c);",
     "if (c->out_bytes + bytes > BUFFER_BYTES + 60) flush(c);"),
    ("httpd: goes on after nonsense", "http", "examples/httpd.c", "  c->is_closing = c->has_unread = true;\n",
     "  c->has_unread = true;\n"),
]


def planted(fault, tree):
    """The text of its file, with the fault."""
    _, _, file, before, after = fault
    text = (tree / file).read_text()
    if text.count(before) != 1:
        raise RuntimeError(f"{file} has {text.count(before)} times what the fault replaces")
    return text.replace(before, after)


def compiled(fault, tree):
    """Builds the program in a copy of the sources that has the fault. Returns its path."""
    _, program, file, _, _ = fault
    for folder in ("src", "include", "examples", "test"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("explore", "model", "*.o"))
    (tree / file).write_text(planted(fault, tree))
    names = ["src/coir.c", f"src/arch/ctx_{platform.machine()}.S", f"test/fuzz/fuzz_{program}.c", "test/fuzz/fuzz_clock.c",
             "test/fuzz/fuzz_main.c"]
    binary = tree / "fuzz"
    subprocess.run([CC, "-std=gnu11", "-O1", "-g", "-w", "-fsanitize=address", f"-I{tree}/include", f"-I{tree}/src",
                    f"-I{tree}/test/fuzz", *[str(tree / name) for name in names], "-Wl,--wrap=clock_gettime", "-pthread",
                    *(["-lhttp_parser"] if program == "http" else []), "-o", str(binary)], check=True)
    return binary


def plant(fault):
    """(whether it was found, how)"""
    with tempfile.TemporaryDirectory() as folder:
        try:
            binary = compiled(fault, pathlib.Path(folder))
            done = subprocess.run([binary, "--seed", "1", "--runs", str(RUNS)], capture_output=True, text=True,
                                  errors="replace", timeout=RUN_S)
        except RuntimeError as error:
            return False, str(error)
        except subprocess.CalledProcessError:
            return False, "does not compile"
        except subprocess.TimeoutExpired:
            return True, f"still runs after {RUN_S} s"
    words = [line for line in done.stderr.splitlines() if "not true" in line or " is " in line or "ERROR" in line]
    return done.returncode != 0, (words or done.stderr.splitlines()[-1:] or [f"{RUNS} inputs say nothing"])[0].strip()


def look_at_texts():
    failed = 0
    for fault in FAULTS:
        try:
            planted(fault, ROOT)
        except (RuntimeError, OSError) as error:
            print(f"{fault[0]}: {error}")
            failed = 1
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--texts", action="store_true")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    if options.texts:
        return look_at_texts()
    if not (ROOT / f"src/arch/ctx_{platform.machine()}.S").exists() or not shutil.which(CC):
        print(f"skipped: needs {CC}, and a processor that Coir has an assembly for")
        return 77
    faults = [f for f in FAULTS if not options.words or any(word in f[0] for word in options.words)]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(plant, faults))
    for fault, (found, words) in zip(faults, results):
        print(f"{'found ' if found else 'MISSED'} {fault[0]}: {words[:110]}")
    caught = sum(found for found, _ in results)
    print(f"planted faults found: {caught} of {len(faults)}")
    return 0 if caught == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
