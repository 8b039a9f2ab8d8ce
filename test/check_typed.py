#!/usr/bin/env python3
"""Typed channels: what is right compiles without a warning, and what is wrong does not compile.

Every line below is the body of a function. A wrong one differs from a right one in nothing but the type at fault, so
that nothing else can be the reason why it is refused.

usage: check_typed.py INCLUDE_DIR        CC and CXX are tried beside gcc, clang, g++ and clang++
"""
import concurrent.futures
import os
import shutil
import subprocess
import sys

INCLUDE = sys.argv[1]

PROLOGUE = """
#include "coir.h"
struct point { double x, y; };
struct other { double x, y; };
struct incomplete;
union either { int i; float f; };
typedef int (*function)(int);
typedef int number;
typedef int four[4];
struct holder { COIR_CHAN(int) ints; COIR_CHAN(struct point) points[2]; };
int take(COIR_CHAN(int) c, int *v);
int take(COIR_CHAN(int) c, int *v) { return COIR_RECV(c, v, COIR_NEVER); }
COIR_CHAN(int) give(COIR_CHAN(int) c);
COIR_CHAN(int) give(COIR_CHAN(int) c) { return c; }
int use(struct holder *h, struct coir_chan *raw, void *memory);
int use(struct holder *h, struct coir_chan *raw, void *memory) {
  COIR_CHAN(int) c = h->ints;
  COIR_CHAN(unsigned) cu = COIR_CHAN_CREATE(unsigned, 1);
  COIR_CHAN(long) cl = COIR_CHAN_CREATE(long, 1);
  COIR_CHAN(char) cc = COIR_CHAN_CREATE(char, 1);
  COIR_CHAN(double) cd = COIR_CHAN_CREATE(double, 1);
  COIR_CHAN(struct point) cp = h->points[1];
  COIR_CHAN(int *) cip = COIR_CHAN_CREATE(int *, 1);
  COIR_CHAN(void *) cv = COIR_CHAN_CREATE(void *, 1);
  COIR_CHAN(const char *) cs = COIR_CHAN_CREATE(const char *, 1);
  int v = 1; const int k = 2; unsigned u = 3; long l = 4; long long ll = 5; char ch = 6; signed char sc = 7; short s = 8;
  float f = 9; double d = 10; int *ip = &v; void *vp = memory; const char *str = ""; char *mut = &ch;
  volatile int vol = 11; struct point p = {1, 2}; struct other o = {1, 2}; int ***ppp = 0; int array[2] = {1, 2};
  (void)v, (void)k, (void)u, (void)l, (void)ll, (void)ch, (void)sc, (void)s, (void)f, (void)d, (void)ip, (void)vp;
  (void)str, (void)mut, (void)vol, (void)p, (void)o, (void)ppp, (void)array, (void)raw, (void)memory;
  (void)c, (void)cu, (void)cl, (void)cc, (void)cd, (void)cp, (void)cip, (void)cv, (void)cs;
  {
    BODY
  }
  return 0;
}
"""

RIGHT = """
COIR_SEND(c, &v, COIR_NEVER); COIR_RECV(c, &v, 0);
COIR_SEND(c, &k, coir_after(COIR_MS(1)));
return COIR_SEND(c, &v, 0) ? COIR_RECV(c, ip, 0) : COIR_SEND(c, ip, 0);
COIR_SEND(cu, &u, 0); COIR_RECV(cu, &u, 0);
COIR_SEND(cl, &l, 0); COIR_RECV(cl, &l, 0);
COIR_SEND(cc, &ch, 0); COIR_RECV(cc, &ch, 0);
COIR_SEND(cd, &d, 0); COIR_RECV(cd, &d, 0);
COIR_SEND(cp, &p, 0); COIR_RECV(cp, &p, 0);
COIR_SEND(h->points[0], &p, 0); COIR_RECV(h->ints, &v, 0);
COIR_SEND(cip, &ip, 0); COIR_RECV(cip, &ip, 0);
COIR_SEND(cv, &vp, 0); COIR_RECV(cv, &vp, 0);
COIR_SEND(cs, &str, 0); COIR_RECV(cs, &str, 0);
number n = 1; COIR_SEND(c, &n, 0); COIR_CHAN(number) same = c; COIR_RECV(same, &v, 0);
COIR_CHAN(int) a = COIR_CHAN_CREATE(int, 16); a = give(a); take(a, &v); h->ints = a;
COIR_SEND(c, array, 0); COIR_RECV(c, array + 1, 0); COIR_SEND(give(c), &array[1], 0);
COIR_CHAN(function) cf = COIR_CHAN_CREATE(function, 0); function fn = 0; COIR_SEND(cf, &fn, 0); COIR_RECV(cf, &fn, 0);
COIR_CHAN(union either) ce = COIR_CHAN_CREATE(union either, 0); union either e = {1}; COIR_SEND(ce, &e, 0);
COIR_CHAN(struct incomplete *) ci = COIR_CHAN_CREATE(struct incomplete *, 0); struct incomplete *i = 0; COIR_SEND(ci, &i, 0);
COIR_CHAN(COIR_CHAN(int)) deep = COIR_CHAN_CREATE(COIR_CHAN(int), 1); COIR_SEND(deep, &c, 0); COIR_RECV(deep, &c, 0);
COIR_CHAN(unsigned char) cb = COIR_CHAN_CREATE(unsigned char, 1); unsigned char b = 1; COIR_SEND(cb, &b, 0);
COIR_CHAN(long double) cw = COIR_CHAN_CREATE(long double, 1); long double w = 1; COIR_SEND(cw, &w, 0); COIR_RECV(cw, &w, 0);
COIR_CHAN(four) c4 = COIR_CHAN_CREATE(four, 1); four v4 = {1, 2, 3, 4}; COIR_SEND(c4, &v4, 0); COIR_RECV(c4, &v4, 0);
COIR_CHAN(bool) cz = COIR_CHAN_CREATE(bool, 1); bool z = true; COIR_SEND(cz, &z, 0); COIR_RECV(cz, &z, 0);
struct coir_arm arm = coir_arm_recv(COIR_CHAN_RAW(c), &v); coir_select(&arm, 1, 0);
struct coir_arm arms[2] = {coir_arm_send(COIR_CHAN_RAW(cp), &p), coir_arm_deadline(5)}; coir_select(arms, 2, 0);
coir_chan_close(COIR_CHAN_RAW(c)); coir_chan_unref(COIR_CHAN_RAW(give(c))); coir_chan_ref(COIR_CHAN_RAW(cv));
c = 0; if (!c) return 1; if (c == give(c)) return 2;
COIR_CHAN(int) list[3] = {c, c, c}; COIR_SEND(list[2], &v, 0); COIR_CHAN(int) *at = &list[1]; COIR_RECV(*at, &v, 0);
COIR_CHAN(int64_t) t = coir_timer_chan(0); int64_t time; COIR_RECV(t, &time, 0); coir_chan_unref(COIR_CHAN_RAW(t));
"""

# Neither language takes these.
WRONG = """
COIR_SEND(c, &u, 0);
COIR_SEND(c, &l, 0);
COIR_SEND(c, &d, 0);
COIR_SEND(c, &ch, 0);
COIR_SEND(c, &p, 0);
COIR_SEND(c, &ip, 0);
COIR_SEND(c, vp, 0);
COIR_SEND(c, v, 0);
COIR_SEND(c, &vol, 0);
COIR_SEND(c, &array, 0);
COIR_SEND(c, str, 0);
COIR_SEND(cl, &ll, 0);
COIR_SEND(cc, &sc, 0);
COIR_SEND(cd, &f, 0);
COIR_SEND(cp, &o, 0);
COIR_SEND(cp, p, 0);
COIR_SEND(cip, ip, 0);
COIR_SEND(cv, &ip, 0);
COIR_SEND(cv, vp, 0);
COIR_SEND(cs, &mut, 0);
COIR_SEND(cs, str, 0);
COIR_RECV(c, &u, 0);
COIR_RECV(c, &k, 0);
COIR_RECV(c, &vol, 0);
COIR_RECV(c, vp, 0);
COIR_RECV(c, v, 0);
COIR_RECV(c, &array, 0);
COIR_RECV(cc, &sc, 0);
COIR_RECV(cp, &o, 0);
COIR_RECV(cv, &ip, 0);
COIR_RECV(cs, &mut, 0);
COIR_RECV(h->points[0], &o, 0);
COIR_RECV(give(c), &u, 0);
COIR_SEND(raw, &v, 0);
COIR_RECV(raw, &v, 0);
COIR_SEND(memory, &v, 0);
COIR_SEND(ip, &v, 0);
COIR_RECV(ppp, &v, 0);
COIR_SEND(&c, &v, 0);
COIR_SEND(v, &v, 0);
coir_chan_close(COIR_CHAN_RAW(raw));
coir_chan_close(COIR_CHAN_RAW(ip));
coir_chan_close(COIR_CHAN_RAW(ppp));
COIR_CHAN(struct incomplete) no = COIR_CHAN_CREATE(struct incomplete, 1); (void)no;
"""

# C has no error for pointers of the wrong type outside the calls, only a warning that is on by default.
WARNED_IN_C = """
c = cd;
cd = COIR_CHAN_CREATE(float, 1);
c = raw;
take(cu, &v);
h->ints = cd;
coir_chan_close(c);
coir_arm_recv(c, &v);
"""

# A pointer to a derived class is none to the class of the values, which would be cut.
WRONG_IN_CXX = """
struct derived : point { int more; } x = {}; COIR_SEND(cp, &x, 0);
struct derived : point { int more; } x = {}; COIR_RECV(cp, &x, 0);
COIR_SEND(c, nullptr, 0);
COIR_RECV(c, nullptr, 0);
"""

RIGHT_IN_CXX = """
auto made = COIR_CHAN_CREATE(int, 1); COIR_SEND(made, &v, 0); c = made;
struct derived : point { int more; } x = {}; COIR_CHAN(derived) cx = COIR_CHAN_CREATE(derived, 1); COIR_SEND(cx, &x, 0);
c = nullptr; if (c == nullptr) return 1;
COIR_CHAN(point) plain = cp; COIR_SEND(plain, &p, 0);
"""


def lines(text):
    return [line for line in text.split("\n") if line]


def compiles(compiler, language, standard, flags, body):
    """Returns what the compiler says against it, or "" when it takes it."""
    command = [compiler, "-x", language, f"-std={standard}", "-I", INCLUDE, "-fsyntax-only", *flags, "-"]
    done = subprocess.run(command, input=PROLOGUE.replace("BODY", body), capture_output=True, text=True)
    return (done.stderr or "fails without a word") if done.returncode else ""


def expect(right, compiler, language, standard, flags, body):
    said = compiles(compiler, language, standard, flags, body)
    if right and said:
        return f"{compiler} -std={standard} refuses\n  {body}\n{said}"
    if not right and not said:
        return f"{compiler} -std={standard} takes\n  {body}\n"
    return ""


def cases(compiler, language):
    """Every program to be tried with this compiler: the right ones for each standard, in one piece; then each wrong
    one."""
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]
    right = lines(RIGHT) + (lines(RIGHT_IN_CXX) if language == "c++" else [])
    together = "\n".join("{ " + body + " }" for body in right)
    standards = ["c++11", "c++17", "c++20"] if language == "c++" else ["c11", "gnu11", "c17", "c2x"]
    for standard in standards:
        yield True, compiler, language, standard, strict, together
    standard = standards[0]
    for body in lines(WRONG) + (lines(WRONG_IN_CXX) if language == "c++" else []):
        yield False, compiler, language, standard, [], body
    for body in lines(WARNED_IN_C):
        yield False, compiler, language, standard, [] if language == "c++" else ["-Werror"], body


def main():
    tried, found = [], {}
    for language, names in (("c", [os.environ.get("CC"), "gcc", "clang"]),
                            ("c++", [os.environ.get("CXX"), "g++", "clang++"])):
        for name in names:
            path = shutil.which(name) if name else None
            if path and (language, os.path.realpath(path)) not in found:
                found[language, os.path.realpath(path)] = name
                tried += cases(path, language)
    if not tried:
        sys.exit("check_typed: there is no compiler")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [failure for failure in pool.map(lambda case: expect(*case), tried) if failure]
    print("\n".join(failures), end="")
    names = ", ".join(sorted(found.values()))
    print(f"check_typed: {len(tried)} programs, {len(failures)} not as they should be ({names})")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
