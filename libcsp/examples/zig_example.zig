// zig_example.zig: a goroutine written in Zig sends a number to the main program.
//
// Not compiled by the tests: Debian has no package of a Zig compiler. It is written for Zig 0.14 and later; 0.11 to
// 0.13 want callconv(.C) below, with a capital C. Up to 0.10 casts took the type as an argument (@ptrCast(*T, p), and
// @intToPtr instead of @ptrFromInt); no later compiler accepts that.
//
// From build/libcsp, where .libs is, with $SRC the folder libcsp of the sources:
//
//   zig build-exe $SRC/examples/zig_example.zig -I$SRC/include -L.libs -lcsp -lpthread -lc -fno-stack-check
//   LD_LIBRARY_PATH=.libs ./zig_example
//
// Zig's own threadlocal variables are those of the thread: a goroutine may find others after each wait. The stack of a
// goroutine is as large as csp_proc_create was told (0: 64 KiB), which std.fmt and std.debug.print with many arguments
// may need in a debug build; so it is main that prints here.
const std = @import("std");
const c = @cImport({
    @cInclude("csp.h");
});

fn zig_worker(arg: ?*anyopaque) callconv(.c) void {
    const ch: *c.csp_gochan_t = @ptrCast(arg.?);
    _ = c.csp_gochan_send(ch, @ptrFromInt(1234));
}

pub fn main() !void {
    const ch = c.csp_gochan_new(0) orelse return error.OutOfMemory;
    defer c.csp_gochan_free(ch);
    if (c.csp_proc_create(0, zig_worker, ch) == null) return error.NoGoroutine;
    var ok = false;
    const value = c.csp_gochan_recv(ch, &ok);
    std.debug.print("received {d}, ok: {}\n", .{ @intFromPtr(value), ok });
}
