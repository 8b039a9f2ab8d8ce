#!/usr/bin/env python3
"""End-to-end test of examples/httpd: starts it with sharp limits and talks to it over raw sockets.

usage: e_httpd.py [EMULATOR...] HTTPD      a name in the variable CASES (comma separated) picks cases"""
import errno
import json
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

COMMAND = sys.argv[1:]
HELLO = b"Hello, World!"
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
HEADER_MS, IDLE_MS, WRITE_MS, GRACE_MS = 1500, 1000, 1000, 3000
LATE = 20.0  # seconds after which anything counts as hung; machines may be slow and builds instrumented

cases = []


def case(function):
    cases.append(function)
    return function


class Server:
    """A running httpd."""

    def __init__(self, *options, files_max=None):
        def limit():
            if files_max:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))

        numbers = {"--port": 0, "--header-ms": HEADER_MS, "--idle-ms": IDLE_MS, "--write-ms": WRITE_MS,
                   "--grace-ms": GRACE_MS}
        numbers.update(zip(options[::2], options[1::2]))
        arguments = [str(word) for pair in numbers.items() for word in pair]
        self.process = subprocess.Popen(COMMAND + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=limit)
        line = self.process.stdout.readline().decode()
        match = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        if not match:
            self.process.kill()
            raise AssertionError("httpd did not start: %r %r" % (line, self.process.stderr.read()))
        self.port = int(match.group(1))

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=LATE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Client(s)

    def ask(self, request):
        """The answer to one request, on a connection of its own."""
        with self.connect() as c:
            c.send(request)
            return c.answer(is_head=request.startswith(b"HEAD"))

    def stats(self):
        return json.loads(self.ask(b"GET /stats HTTP/1.1\r\n\r\n").body)

    def files(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def stop(self, sig=signal.SIGTERM):
        """Stops the server as it should be stopped; returns what it wrote to stderr."""
        self.process.send_signal(sig)
        return self.ended()

    def ended(self):
        try:
            _, err = self.process.communicate(timeout=LATE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("httpd did not stop: %r" % self.process.communicate()[1])
        assert self.process.returncode == 0, "httpd ended with %d: %r" % (self.process.returncode, err)
        return err.decode()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            if kind is None:
                self.stop()
            else:
                self.process.kill()
                self.process.communicate()
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


class Client:
    """A connection. Answers are parsed strictly: every one has a Content-Length and a Date."""

    def __init__(self, s):
        self.s, self.rest = s, b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, data):
        self.s.sendall(data)

    def more(self):
        data = self.s.recv(65536)
        self.rest += data
        return data

    def answer(self, is_head=False):
        while b"\r\n\r\n" not in self.rest:
            assert self.more(), "closed before a whole answer: %r" % self.rest
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        assert re.fullmatch(r"HTTP/1\.1 \d{3} [A-Z][A-Za-z -]+", lines[0]), lines[0]
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert len(headers) == len(lines) - 1, "a header came twice: %r" % lines
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["Date"]), headers
        bytes_due = 0 if is_head else int(headers["Content-Length"])
        while len(self.rest) < bytes_due:
            assert self.more(), "closed inside a body"
        body, self.rest = self.rest[:bytes_due], self.rest[bytes_due:]
        return Answer(int(lines[0].split()[1]), headers, body)

    def is_at_end(self):
        """Waits for the end of the stream, and says whether nothing came before it."""
        return not self.rest and self.s.recv(1) == b""

    def hello(self):
        self.send(GET)
        check_hello(self.answer())


def check_hello(answer):
    assert (answer.status, answer.body) == (200, HELLO), (answer.status, answer.body)


def check_refused(server, request, status):
    """The request is answered by an error, and the connection is closed in order."""
    with server.connect() as c:
        try:
            c.send(request)
        except (BrokenPipeError, ConnectionResetError):
            pass
        a = c.answer()
        assert a.status == status, (request[:40], a.status)
        assert a.headers["Connection"] == "close", a.headers
        assert c.is_at_end()


def is_refused(port):
    """Whether nobody listens."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def wait_for(what, message):
    """Waits until what() is true."""
    end = time.monotonic() + LATE
    while not what():
        assert time.monotonic() < end, message()
        time.sleep(0.02)


# ---- What is right --------------------------------------------------------------------------------------------------


@case
def answers_and_keeps_the_connection(server):
    with server.connect() as c:
        for _ in range(50):
            c.hello()


@case
def head_has_no_body(server):
    with server.connect() as c:
        for _ in range(3):
            c.send(b"HEAD / HTTP/1.1\r\n\r\n")
            a = c.answer(is_head=True)
            assert a.status == 200 and a.headers["Content-Length"] == str(len(HELLO)), a.headers
        c.hello()


@case
def connection_close_is_honoured(server):
    with server.connect() as c:
        c.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        a = c.answer()
        check_hello(a)
        assert a.headers["Connection"] == "close" and c.is_at_end()


@case
def http_1_0_closes_unless_asked(server):
    with server.connect() as c:
        c.send(b"GET / HTTP/1.0\r\n\r\n")
        check_hello(c.answer())
        assert c.is_at_end()
    with server.connect() as c:
        for _ in range(3):
            c.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            a = c.answer()
            check_hello(a)
            assert a.headers["Connection"] == "keep-alive", a.headers


@case
def pipelined_requests_are_answered_in_order(server):
    wanted = [(b"GET /upload HTTP/1.1\r\n\r\n", 405, None), (GET, 200, HELLO),
              (b"GET /sleep?ms=1 HTTP/1.1\r\n\r\n", 200, b"slept 1 ms\n"), (b"GET /no HTTP/1.1\r\n\r\n", 404, None),
              (b"POST /upload HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 200, b"3 bytes\n")]
    with server.connect() as c:
        c.send(b"".join(request for request, _, _ in wanted) * 20)  # 100 requests
        for request, status, body in wanted * 20:
            a = c.answer()
            assert a.status == status and body in (None, a.body), (request, a.status, a.body)
        c.hello()


@case
def pipelined_answers_are_sent_together(server):
    with server.connect() as c:
        c.hello()
        c.send(GET * 16)
        pieces = 0
        while c.rest.count(HELLO) < 16:
            assert c.more()
            pieces += 1
        assert pieces <= 4, "16 answers came in %d pieces" % pieces


@case
def pipelining_survives_any_cut(server):
    stream = (GET + b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n") * 30
    with server.connect() as c:
        chosen = random.Random(1)
        while stream:
            cut = chosen.randint(1, 60)
            c.send(stream[:cut])
            stream = stream[cut:]
        for _ in range(30):
            check_hello(c.answer())
            assert c.answer().body == b"4 bytes\n"


@case
def bodies_are_consumed(server):
    with server.connect() as c:
        c.send(b"POST /upload HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000)
        assert c.answer().body == b"100000 bytes\n"
        chunks = b"".join(b"%x\r\n%s\r\n" % (n, b"y" * n) for n in range(1, 200))
        c.send(b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: t\r\n\r\n")
        assert c.answer().body == b"%d bytes\n" % sum(range(1, 200))
        c.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert c.answer().status == 405
        c.send(b"PUT /upload HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nok")
        assert c.answer().body == b"2 bytes\n"
        c.hello()


@case
def wrong_paths_and_methods(server):
    with server.connect() as c:
        for request, status in ((b"GET /nothing", 404), (b"OPTIONS *", 404), (b"DELETE /", 405), (b"POST /stats", 405),
                                (b"GET /upload", 405), (b"GET /sleep", 400), (b"GET /sleep?ms=-1", 400),
                                (b"GET /sleep?ms=9999999", 400), (b"GET /sleep?ms=1x", 400), (b"GET /spin", 400),
                                (b"GET /block?ms=", 400), (b"POST /spin?ms=1", 405), (b"POST /block?ms=1", 405)):
            c.send(request + b" HTTP/1.1\r\n\r\n")
            a = c.answer()
            assert a.status == status, (request, a.status)
            assert ("Allow" in a.headers) == (status == 405), a.headers
        c.send(b"GET /?a=b HTTP/1.1\r\n\r\nGET http://host:80/?q HTTP/1.1\r\n\r\nGET http://host HTTP/1.1\r\n\r\n")
        for _ in range(3):
            check_hello(c.answer())
        c.hello()


@case
def requests_to_upgrade_are_answered_plainly(server):
    with server.connect() as c:
        c.send(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GET)
        check_hello(c.answer())
        check_hello(c.answer())
    with server.connect() as c:
        c.send(b"CONNECT host:443 HTTP/1.1\r\n\r\nsecret")
        assert c.answer().status in (404, 405) and c.is_at_end()


@case
def half_close_is_still_answered(server):
    for request in (GET, b"GET /sleep?ms=100 HTTP/1.1\r\n\r\n", GET * 10):
        with server.connect() as c:
            c.send(request)
            c.s.shutdown(socket.SHUT_WR)
            for _ in range(request.count(b"GET")):
                assert c.answer().status == 200
            assert c.is_at_end()


@case
def sleepers_do_not_hold_up_others(server):
    started = time.monotonic()
    sleepers = [server.connect() for _ in range(200)]
    for c in sleepers:
        c.send(b"GET /sleep?ms=700 HTTP/1.1\r\n\r\n")
    with server.connect() as c:
        for _ in range(20):
            c.hello()
    for c in sleepers:
        assert c.answer().body == b"slept 700 ms\n"
        c.s.close()
    assert 0.7 <= time.monotonic() - started < 200 * 0.7 / 4


@case
def blockers_do_not_hold_up_others(server):
    started = time.monotonic()
    blockers = [server.connect() for _ in range(60)]
    for c in blockers:
        c.send(b"GET /block?ms=700 HTTP/1.1\r\n\r\n")
    with server.connect() as c:
        for _ in range(20):
            c.hello()
    for c in blockers:
        assert c.answer().body == b"done\n"
        c.s.close()
    assert 0.7 <= time.monotonic() - started < 60 * 0.7 / 4


@case
def one_that_computes_is_answered(server):
    with server.connect() as c:
        started = time.monotonic()
        c.send(GET + b"GET /spin?ms=50 HTTP/1.1\r\n\r\n" + GET)
        check_hello(c.answer())
        assert c.answer().body == b"done\n"
        assert time.monotonic() - started >= 0.05
        check_hello(c.answer())


@case
def statistics_add_up(server):
    before = server.stats()
    with server.connect() as c:
        for _ in range(10):
            c.hello()
        after = server.stats()
    assert after["requests"] >= before["requests"] + 11, (before, after)
    assert after["accepted"] >= before["accepted"] + 2 and after["connections"] >= 2, after
    assert after["workers"] == int(os.environ.get("COIR_WORKERS", after["workers"])), after
    assert after["rss_bytes"] > 100000 and after["switches"] > before["switches"], after


# ---- What is wrong --------------------------------------------------------------------------------------------------


@case
def garbage_is_refused(server):
    check_refused(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50, 400)
    check_refused(server, b"HELLO / HTTP/1.1\r\n\r\n", 400)  # begins like HEAD, but is not
    check_refused(server, b"GET / HTTP/1.1\r\nBad\x01Header: x\r\n\r\n", 400)
    check_refused(server, b"GET / XTTP/1.1\r\n\r\n", 400)
    check_refused(server, b"GET / HTTP/3.0\r\n\r\n", 505)
    check_refused(server, b"POST /upload HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400)
    check_refused(server, b"POST /upload HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400)
    check_refused(server, b"POST /upload HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400)
    check_refused(server, b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400)
    with server.connect() as c:  # what came before is still answered
        c.send(GET * 3 + b"\x00garbage")
        for _ in range(3):
            check_hello(c.answer())
        assert c.answer().status == 400 and c.is_at_end()


@case
def too_much_is_refused(server):
    check_refused(server, b"GET / HTTP/1.1\r\n" + b"X-Filler: abcdefgh\r\n" * 2000, 431)
    check_refused(server, b"GET / HTTP/1.1\r\nX-Filler: " + b"a" * 200000, 431)
    check_refused(server, b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n\r\n", 414)
    check_refused(server, b"POST /upload HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 100000, 413)
    chunks = b"10000\r\n" + b"z" * 65536 + b"\r\n"
    check_refused(server, b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks * 20, 413)
    with server.connect() as c:  # just below the limit
        c.send(b"GET / HTTP/1.1\r\n" + b"X-Filler: abcdefgh\r\n" * 700 + b"\r\n")
        check_hello(c.answer())
        c.hello()


@case
def a_slow_request_within_the_limit_is_answered(server):
    with server.connect() as c:
        for _ in range(2):  # each request has a time of its own
            started = time.monotonic()
            for i in range(len(GET)):
                c.send(GET[i:i + 1])
                time.sleep(max(0.0, started + (i + 1) * 0.6 * HEADER_MS / 1000 / len(GET) - time.monotonic()))
            check_hello(c.answer())


def check_408(server, first, drip):
    with server.connect() as c:
        started = time.monotonic()
        c.send(first)
        c.s.settimeout(0.1)
        data = b""
        while not data:
            try:
                data = c.more()
            except socket.timeout:
                assert time.monotonic() - started < LATE, "no answer to %r" % first
                c.send(drip)
        elapsed = time.monotonic() - started
        c.s.settimeout(LATE)
        a = c.answer()
        assert a.status == 408 and a.headers["Connection"] == "close", (a.status, a.headers)
        assert c.is_at_end()
        assert elapsed >= HEADER_MS / 1000 - 0.05, elapsed


@case
def a_request_that_takes_too_long_gets_408(server):
    check_408(server, b"GET / HTTP/1.1\r\nX: ", b"y")


@case
def a_body_that_takes_too_long_gets_408(server):
    check_408(server, b"POST /upload HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", b"y")


@case
def an_idle_connection_is_closed_silently(server):
    started = time.monotonic()
    with server.connect() as fresh, server.connect() as used, server.connect() as blank:
        used.hello()
        blank.send(b"\r\n")  # allowed before a request, but not one
        assert fresh.is_at_end() and used.is_at_end() and blank.is_at_end()
    assert time.monotonic() - started >= IDLE_MS / 1000 - 0.05


@case
def a_cold_connection_is_served_again(server):
    with server.connect() as c:
        for _ in range(3):
            c.hello()
            time.sleep(0.7 * IDLE_MS / 1000)  # long enough to lose its buffers, too short to be closed


@case
def a_client_that_does_not_read_is_cut_off(server):
    with server.connect() as c:
        c.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.s.settimeout(0.2)
        end = time.monotonic() + LATE
        try:
            while time.monotonic() < end:
                try:
                    c.s.send(GET * 100)
                except socket.timeout:
                    pass
            raise AssertionError("it was never cut off")
        except (BrokenPipeError, ConnectionResetError):
            pass


@case
def a_reset_inside_a_request_harms_nobody(server):
    for request in (b"GET / HT", GET, b"GET /sleep?ms=50 HTTP/1.1\r\n\r\n",
                    b"POST /upload HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"):
        for _ in range(10):
            c = server.connect()
            c.send(request)
            c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.s.close()
    server.ask(GET)


# ---- Cases with a server of their own -------------------------------------------------------------------------------


@case
def descriptors_come_back_after_500_connections_dropped_at_random(_):
    with Server("--idle-ms", 30000) as server:
        server.ask(GET)
        wait_for(lambda: server.stats()["connections"] == 1, lambda: "a connection is left")
        before = server.files()
        chosen = random.Random(2)
        stream = (GET * 3 + b"GET /sleep?ms=20 HTTP/1.1\r\n\r\n" +
                  b"POST /upload HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd")

        def drop(clients):
            for c in clients:
                try:
                    c.send(stream[:chosen.randint(0, len(stream))])
                    if chosen.random() < 0.5:
                        time.sleep(chosen.random() * 0.01)
                    if chosen.random() < 0.3:
                        c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                finally:
                    c.s.close()

        for _ in range(5):
            clients = [server.connect() for _ in range(100)]
            chosen.shuffle(clients)
            threads = [threading.Thread(target=drop, args=(clients[i::4],)) for i in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        wait_for(lambda: server.files() <= before, lambda: "%d descriptors, before %d" % (server.files(), before))
        wait_for(lambda: server.stats()["connections"] == 1, lambda: "connections are left: %r" % server.stats())
        assert server.stats()["accepted"] >= 502


@case
def it_goes_on_when_descriptors_run_out(_):
    with Server("--idle-ms", 30000, files_max=64) as server:
        crowd = [server.connect() for _ in range(100)]  # the kernel completes them; the server cannot accept all
        for c in crowd[:20]:
            c.hello()
        time.sleep(0.2)
        for c in crowd[:60]:
            c.s.close()
        for c in crowd[60:]:
            c.hello()
        for c in crowd[60:]:
            c.s.close()
        server.ask(GET)


@case
def it_takes_no_more_connections_than_it_may(_):
    with Server("--max-conns", 4, "--idle-ms", 30000) as server:
        few = [server.connect() for _ in range(4)]
        for c in few:
            c.hello()
        fifth = server.connect()
        fifth.send(GET)
        fifth.s.settimeout(0.3)
        try:
            fifth.more()
            raise AssertionError("a fifth connection was served")
        except socket.timeout:
            pass
        few[0].s.close()
        fifth.s.settimeout(LATE)
        check_hello(fifth.answer())
        for c in few + [fifth]:
            c.s.close()


@case
def it_stops_in_order_under_load(_):
    for sig in (signal.SIGTERM, signal.SIGINT):
        with Server() as server:
            idle = [server.connect() for _ in range(20)]
            for c in idle[:10]:
                c.hello()
            slow = [server.connect() for _ in range(20)]
            for c in slow:
                c.send(b"GET /sleep?ms=800 HTTP/1.1\r\n\r\n")
            half = server.connect()
            half.send(GET[:10])
            time.sleep(0.3)
            started = time.monotonic()
            server.process.send_signal(sig)
            for c in idle:
                assert c.is_at_end()
            half.send(GET[10:])  # it had begun, so it may be completed
            a = half.answer()
            check_hello(a)
            assert a.headers["Connection"] == "close"
            wait_for(lambda: is_refused(server.port), lambda: "it still listens")
            for c in slow:
                a = c.answer()
                assert a.body == b"slept 800 ms\n" and a.headers.get("Connection") == "close", a.headers
                assert c.is_at_end()
            err = server.ended()
            assert time.monotonic() - started < GRACE_MS / 1000, "stopping took the whole time of grace"
            for c in idle + slow + [half]:
                c.s.close()
            stats = json.loads(err[err.index("{"):])
            assert stats["requests"] == 31 and stats["connections"] == 0 and stats["fibers_live"] == 1, stats
            assert "cut off" not in err, err


@case
def grace_is_bounded(_):
    with Server("--grace-ms", 300) as server:
        c = server.connect()
        c.send(b"GET /sleep?ms=60000 HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
        started = time.monotonic()
        err = server.stop()
        assert time.monotonic() - started < 10, "a request of 60 s held it up"
        assert "1 connections are cut off" in err, err
        assert c.is_at_end()
        c.s.close()


@case
def it_stops_while_clients_hammer(_):
    """Whatever was answered was answered completely; afterwards there are only refusals."""
    with Server() as server:
        wrong, served = [], [0] * 4

        def hammer(number):
            while True:
                try:
                    with server.connect() as c:
                        while True:
                            c.send(GET * 4)
                            for _ in range(4):
                                a = c.answer()
                                check_hello(a)
                                served[number] += 1
                                if a.headers.get("Connection") == "close":
                                    return
                except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
                    return
                except AssertionError as error:
                    if "closed before a whole answer: b''" not in str(error):
                        wrong.append(str(error))
                    return

        threads = [threading.Thread(target=hammer, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        time.sleep(0.5)
        err = server.stop()
        for t in threads:
            t.join()
        assert not wrong and min(served) > 0, (wrong, served)
        assert json.loads(err[err.index("{"):])["requests"] >= sum(served)


@case
def the_command_line_is_checked(_):
    def run(*arguments):
        return subprocess.run(COMMAND + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LATE)

    usage = run("--help")
    assert usage.returncode == 0 and b"--grace-ms" in usage.stdout, usage
    for wrong in (["--port", "x"], ["--port", "70000"], ["--nonsense"], ["--workers", "-1"], ["stray"]):
        got = run(*wrong)
        assert got.returncode == 2 and got.stderr, (wrong, got)
    with Server() as server:
        taken = run("--port", str(server.port))
        assert taken.returncode == 1 and b"in use" in taken.stderr, taken


# ---- Running the cases ----------------------------------------------------------------------------------------------


def run_case(function, server, failures):
    started = time.monotonic()
    try:
        function(server)
        verdict = "ok"
    except Exception:  # whatever it is, the case failed and the others go on
        failures.append(function.__name__)
        verdict = "FAILED\n" + traceback.format_exc()
    print("%-66s %5.2f s  %s" % (function.__name__, time.monotonic() - started, verdict), flush=True)


def main():
    if not COMMAND:
        print(__doc__)
        return 2
    picked = [name for name in os.environ.get("CASES", "").split(",") if name]
    chosen = [f for f in cases if not picked or f.__name__ in picked]
    failures = []
    try:
        with Server() as server:
            # Most of their time the cases wait: so they run side by side, which is a test in itself.
            waiting = list(reversed(chosen))

            def work():
                while waiting:
                    run_case(waiting.pop(), server, failures)

            threads = [threading.Thread(target=work) for _ in range(6)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            wait_for(lambda: server.stats()["connections"] == 1, lambda: "connections are left: %r" % server.stats())
    except Exception:
        failures.append("the common server")
        traceback.print_exc()
    print("%d cases, %d failed%s" % (len(chosen), len(failures), ": " + ", ".join(failures) if failures else ""))
    return 1 if failures else 0


sys.exit(main())
