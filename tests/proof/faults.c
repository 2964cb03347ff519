/* Stands between a process and the files below one folder, native libraries included: counts the
   calls that may fail there in the way asked for, and lets one of them fail. Preloaded; armed from
   Python. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static atomic_long count, fail_at;
static atomic_int failing_errno, kind, hit;
enum { ERRNO = 0, SHORT = 1, TORN = 2, LOST = 3 };

void faults_arm(const char *folder, long n, int error, int how) {
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    count = 0; hit = 0; failing_errno = error; kind = how; fail_at = n;
}
void faults_disarm(void) { root_length = 0; }
long faults_count(void) { return count; }
int faults_hit(void) { return hit; }

static int below(const char *path) {
    return root_length && path && strncmp(path, root, root_length) == 0;
}
static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!root_length) return 0;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}
/* Whether this is the call that fails. */
static int crossed(void) {
    if (atomic_fetch_add(&count, 1) + 1 != fail_at) return 0;
    hit = 1;
    return 1;
}
static ssize_t half(ssize_t done) { if (kind == TORN) _exit(137); return done; }

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define WRITE(call_all, call_half, length) \
    if (kind == LOST || !fd_below(fd) || !crossed()) return call_all; \
    if (kind == SHORT || kind == TORN) return (length) < 2 && kind == SHORT ? call_all : half(call_half); \
    errno = failing_errno; return -1

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write); WRITE(real(fd, data, n), real(fd, data, n / 2), n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite); WRITE(real(fd, data, n, at), real(fd, data, n / 2, at), n);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64); WRITE(real(fd, data, n, at), real(fd, data, n / 2, at), n);
}
ssize_t writev(int fd, const struct iovec *v, int n) {
    REAL(writev); WRITE(real(fd, v, n), write(fd, v[0].iov_base, v[0].iov_len / 2), 2);
}
#define FAIL(is_below) if (kind == ERRNO && (is_below) && crossed()) { errno = failing_errno; return -1; }
#define SYNC(name) int name(int fd) { \
    REAL(name); \
    if (kind != SHORT && fd_below(fd) && crossed()) { \
        if (kind == LOST) return 0; \
        if (kind == TORN) _exit(137); \
        if (kind == ERRNO) { errno = failing_errno; return -1; } } \
    return real(fd); }
SYNC(fsync)
SYNC(fdatasync)
int ftruncate(int fd, off_t n) { REAL(ftruncate); FAIL(fd_below(fd)) return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); FAIL(fd_below(fd)) return real(fd, n); }

static int writes(int flags) { return (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY; }
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE REAL(open);
    FAIL(below(path) && writes(flags)) return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE REAL(open64);
    FAIL(below(path) && writes(flags)) return real(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE REAL(openat);
    FAIL(below(path) && writes(flags)) return real(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE REAL(openat64);
    FAIL(below(path) && writes(flags)) return real(at, path, flags, mode); }
int rename(const char *a, const char *b) { REAL(rename); FAIL(below(b)) return real(a, b); }
int renameat(int f, const char *a, int t, const char *b) { REAL(renameat); FAIL(below(b)) return real(f, a, t, b); }
int renameat2(int f, const char *a, int t, const char *b, unsigned int g) {
    REAL(renameat2); FAIL(below(b)) return real(f, a, t, b, g); }
int link(const char *a, const char *b) { REAL(link); FAIL(below(b)) return real(a, b); }
int linkat(int f, const char *a, int t, const char *b, int g) { REAL(linkat); FAIL(below(b)) return real(f, a, t, b, g); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); FAIL(below(path)) return real(path, mode); }
int unlink(const char *path) { REAL(unlink); FAIL(below(path)) return real(path); }
int unlinkat(int f, const char *path, int g) { REAL(unlinkat); FAIL(below(path)) return real(f, path, g); }
