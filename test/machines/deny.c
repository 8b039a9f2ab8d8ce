/* Runs a program with system calls that fail, as in a container.
 * usage: deny ENOSYS|EPERM CALL... -- PROGRAM [ARGUMENT...]     calls: io_uring membarrier aio */
#define _GNU_SOURCE 1
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
  const char *name;
  int numbers[3];
} groups[] = {
    {"io_uring", {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}},
    {"membarrier", {SYS_membarrier, -1, -1}},
    {"aio", {SYS_io_setup, SYS_io_submit, SYS_io_getevents}},
};

static struct sock_filter filter[64] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
static unsigned short length = 1;

static int deny(const char *name, int error) {
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
    if (strcmp(groups[i].name, name) != 0) continue;
    for (int k = 0; k < 3 && groups[i].numbers[k] >= 0; k++) {
      filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)groups[i].numbers[k], 0, 1);
      filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error);
    }
    return 0;
  }
  fprintf(stderr, "deny: no calls '%s'\n", name);
  return -1;
}

int main(int argc, char **argv) {
  int error = argc > 1 && strcmp(argv[1], "EPERM") == 0 ? EPERM : ENOSYS, i = 2;
  for (; i < argc && strcmp(argv[i], "--") != 0; i++)
    if (deny(argv[i], error)) return 2;
  if (i + 1 >= argc) return 2;
  filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {.len = length, .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
    perror("deny: seccomp");
    return 77;
  }
  execvp(argv[i + 1], &argv[i + 1]);
  perror(argv[i + 1]);
  return 127;
}
