#!/usr/bin/env python3
"""No thread pointer is kept across a switch: looks at the machine code of the library.

usage: check_tls.py OBJDUMP ARCHIVE

A fiber may go on on another thread after every switch, so an address of a thread-local that the compiler computed before
is wrong after it (docs/tls.md). The core therefore reads thread-locals in one sequence only, coir__thread_peek in os.h, that
leaves no address behind, and asks for errno's address in a few functions of os/ that are never inlined. This checks what the
compiler made of that:

  x86-64   each use of %fs is an access through the offset of coir__tls that the instruction before loaded, or the stack
           protector's word (%fs:0x28); the thread pointer itself (%fs:0x0) is never read
  aarch64  each read of tpidr_el0 is the first instruction of the sequence
  both     a function that calls __errno_location, pthread_self or __tls_get_addr, whose results compilers keep, can reach no
           switch: neither by what it calls, as far as that lies in the archive, nor through a pointer

Exits with 77 where it knows nothing of the machine."""
import re
import subprocess
import sys

ADDRESS_CALLS = {'__errno_location', 'pthread_self', '__tls_get_addr'}
OWN_STACK = {'thread_main'}  # runs on a thread's own stack, which stays with its thread
WRITER = 'tls_set'  # the one that sets the thread-local; opaque to the compiler, and calls nothing
SWITCHES = {'coir__ctx_swap', 'coir__ctx_launch', 'coir__ctx_restart', 'swapcontext', 'setcontext'}


def instructions(objdump, archive):
    """Yields (member, function, list of (text, relocations))."""
    run = subprocess.run([objdump, '-dr', '--no-show-raw-insn', archive], check=True, capture_output=True, text=True)
    member = function = None
    code = []
    for line in run.stdout.splitlines():
        if match := re.match(r'(\S+):\s+file format', line):
            if function:
                yield member, function, code
            member, function, code = match[1], None, []
        elif match := re.match(r'[0-9a-f]+ <(.+)>:$', line):
            if function:
                yield member, function, code
            function, code = match[1], []
        elif match := re.match(r'\s+[0-9a-f]+:\s+(R_\S+\s+\S+)', line):
            if code:
                code[-1][1].append(match[1])
        elif match := re.match(r'\s+[0-9a-f]+:\s+(.+?)\s*$', line):
            code.append((re.sub(r'^((data16|notrack|bnd|rex\S*)\s+)+', '', match[1]), []))
    if function:
        yield member, function, code


def x86_64(code):
    """Yields (index, why) for each use of %fs that is not in order; returns how many are."""
    good = 0
    for i, (text, _) in enumerate(code):
        if '%fs' not in text or '%fs:0x28' in text:
            continue
        before, relocations = code[i - 1] if i else ('', [])
        loaded = re.match(r'mov\s+0x0\(%rip\),(%r\w+)', before)
        offset = any('GOTTPOFF' in r and 'coir__tls' in r for r in relocations)
        if loaded and offset and re.search(r'%fs:(0x0)?\(' + loaded[1] + r'\)', text):
            good += 1
        elif re.match(r'\w+\s+.*%fs:0x0\b.*', text) and any('TPOFF' in r and 'coir__tls' in r for r in code[i][1]):
            good += 1  # local-exec, in a program: the access in one instruction
        else:
            yield i, 'thread pointer'
    return good


def aarch64(code):
    good = 0
    for i, (text, _) in enumerate(code):
        if 'tpidr_el0' not in text:
            continue
        sequence = code[i + 1:i + 4]
        names = [t.split()[0] for t, _ in sequence]
        if names == ['adrp', 'ldr', 'ldr'] and any('coir__tls' in r for r in sequence[0][1]):
            good += 1
        elif names and any('coir__tls' in r for _, rs in code[max(0, i - 3):i + 4] for r in rs) and is_leaf(code):
            good += 1  # the compiler's own sequence, in a function that calls nothing
        else:
            yield i, 'thread pointer'
    return good


def is_leaf(code):
    return not any(re.match(r'(call|bl|blr|b\s+coir__ctx|jmp\s+.*coir__ctx)\b', t) for t, _ in code)


def targets(function, code):
    """What a function calls or jumps to; '*' is a pointer."""
    found = set()
    for text, relocations in code:
        if not re.match(r'(call|jmp|blr?|br|b)\b', text):
            continue
        if match := re.search(r'<([^>+]+)(\+0x[0-9a-f]+)?>', text):
            if match[1] != function:
                found.add(match[1])
        elif re.match(r'(call|jmp)\s+\*|(blr|br)\s', text):
            if not relocations:
                found.add('*')
        for relocation in relocations:
            name = relocation.split()[1]
            found.add(re.sub(r'[-+]0x[0-9a-f]+$', '', name))
    return found


def reaching_switch(graph):
    """The functions that can reach a switch."""
    reach = {f for f, called in graph.items() if '*' in called or called & SWITCHES}
    while more := {f for f, called in graph.items() if f not in reach and called & reach}:
        reach |= more
    return reach


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    objdump, archive = sys.argv[1:]
    header = subprocess.run([objdump, '-f', archive], check=True, capture_output=True, text=True).stdout
    check = x86_64 if 'i386:x86-64' in header else aarch64 if 'aarch64' in header else None
    if not check:
        print('check_tls: not for this machine')
        sys.exit(77)
    faults = reads = 0
    functions = list(instructions(objdump, archive))
    graph = {}
    for member, function, code in functions:
        graph.setdefault(function, set()).update(targets(function, code))
        if function == WRITER and not targets(function, code):
            continue
        checks = check(code)
        try:
            while True:
                i, why = next(checks)
                faults += 1
                print(f'{member}: {function}: {why}: {code[i][0]}')
        except StopIteration as end:
            reads += end.value
    reach = reaching_switch(graph)
    for function in sorted(reach - OWN_STACK):
        for name in graph[function] & ADDRESS_CALLS:
            faults += 1
            print(f'{function}: calls {name}, and can reach a switch')
    if not reach & {'coir_yield', 'coir_sleep', 'coir_sleep_until'}:
        faults += 1
        print('check_tls: does not even see that a sleep can switch')
    print(f'check_tls: {len(functions)} functions, {reads} reads of the thread-local, {faults} faults')
    if not reads:
        print('check_tls: found none of the reads that must be there')
    sys.exit(1 if faults or not reads else 0)


if __name__ == '__main__':
    main()
