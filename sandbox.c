/* sandbox.c - what the server gives up before it reads a byte of anybody's: root's rights, and most system calls.
 *
 * The calls are those that the server and libc make, and no others: no program can be started, no process made, nothing
 * traced, mounted or owned. One that is not allowed ends the server; but one that is newer than Linux 5.1 is answered
 * as an older kernel would, since a libc that tries one has another way. So does clone3(), whose flags a filter cannot
 * see.
 *
 * Left out: filters by file or address, which are for the system's own means (systemd, AppArmor).
 */
#include "commands.h"

#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void sandbox_user(void) {
    const char *name = config.user;
    if (!*name) return;
    errno = 0;
    const struct passwd *user = getpwnam(name);
    if (!user) die("--user %s: %s", name, errno ? strerror(errno) : "there is no such user. Make it with useradd");
    if (user->pw_uid == geteuid()) return;
    if (geteuid() != 0) die("--user %s: only root can become another user. Start it as root, or without --user.", name);
    if (initgroups(name, user->pw_gid) || setgid(user->pw_gid) || setuid(user->pw_uid))
        die("--user %s: cannot become it: %s", name, strerror(errno));
    if (access(".", R_OK | W_OK | X_OK))
        die("--user %s: it may not write in the folder %s: %s. Give it that folder, or choose another with --dir.",
            name, config.dir, strerror(errno));
}

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#define ARCH 0
#endif

#define UNIFIED 424        /* from here on the calls have one number on all architectures: Linux 5.1's and later */
#define FOREIGN 0x40000000 /* x86-64: another numbering */

#define LOAD(field)           BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define ANSWER(what)          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_##what)
#define UNLESS(test, v, skip) BPF_JUMP(BPF_JMP | BPF_##test | BPF_K, v, 0, skip) /* it holds: skips so many */
#define CALL(name)            UNLESS(JEQ, __NR_##name, 1), ANSWER(ALLOW)

static struct sock_filter filter[] = {
    LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0), ANSWER(KILL_PROCESS), LOAD(nr),
#ifdef __x86_64__ /* where libc has older ones for some of those below */
    CALL(epoll_wait), CALL(poll), CALL(open), CALL(stat), CALL(access), CALL(rename), CALL(link), CALL(unlink),
    CALL(time),
#endif
    /* sockets and events */
    CALL(io_uring_enter), CALL(io_uring_register), CALL(read), CALL(write), CALL(writev), CALL(epoll_pwait),
    CALL(epoll_ctl), CALL(accept4), CALL(close), CALL(socket), CALL(bind), CALL(connect), CALL(setsockopt),
    CALL(getsockopt), CALL(getsockname), CALL(getpeername), CALL(sendto), CALL(recvfrom), CALL(sendmmsg), CALL(recvmsg),
    CALL(sendfile), CALL(shutdown), CALL(ppoll), CALL(eventfd2), CALL(fcntl), CALL(ioctl),
    /* files */
    CALL(openat), CALL(memfd_create), CALL(lseek), CALL(pread64), CALL(pwrite64), CALL(fsync), CALL(fdatasync),
    CALL(fallocate), CALL(ftruncate), CALL(flock), CALL(fchmod), CALL(fstat), CALL(newfstatat), CALL(faccessat),
    CALL(renameat), CALL(linkat), CALL(unlinkat),
    /* memory, threads, time, the end */
    CALL(brk), CALL(mmap), CALL(munmap), CALL(mremap), CALL(mprotect), CALL(madvise), CALL(futex),
    CALL(set_robust_list), CALL(rseq), CALL(rt_sigprocmask), CALL(rt_sigaction), CALL(rt_sigreturn),
    CALL(restart_syscall), CALL(sched_getaffinity), CALL(sched_yield), CALL(clock_gettime), CALL(gettimeofday),
    CALL(clock_nanosleep), CALL(nanosleep), CALL(getrandom), CALL(getpid), CALL(gettid), CALL(geteuid), CALL(getrusage),
    CALL(prlimit64), CALL(setpriority), CALL(sysinfo), CALL(uname), CALL(tgkill), CALL(exit), CALL(exit_group),
    /* a thread may be made, a process not */
    UNLESS(JEQ, __NR_clone, 4), LOAD(args[0]), UNLESS(JSET, CLONE_THREAD, 1), ANSWER(ALLOW), ANSWER(KILL_PROCESS),
    UNLESS(JGE, UNIFIED, 2), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FOREIGN, 1, 0), ANSWER(ERRNO | ENOSYS),
    ANSWER(KILL_PROCESS)};

void sandbox_calls(void) {
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (!config.seccomp) return;
    if (!ARCH) die("--seccomp yes: the system calls of this architecture are not known here");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        die("--seccomp yes: this kernel does not filter system calls: %s", strerror(errno));
}
