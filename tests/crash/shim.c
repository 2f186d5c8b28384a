/* Stands between a process and the C library, for the files of one folder.
 *
 * It writes down every change of the disk in order, fails the calls it is told to fail, and
 * steps the time of day. Orders come through a small memory-mapped file of integers, so that
 * they can be given to a process that runs already. tests/crash/shim.py builds and steers it.
 *
 *   BATCHQ_SHIM_FOLDER   whose files are looked at; all others pass
 *   BATCHQ_SHIM_ORDERS   the memory-mapped file: struct orders
 *   BATCHQ_SHIM_TRACE    where changes are written down; none if unset
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE, SYNC, CREATE, READ, REMOVE, KINDS };
enum change { MADE = 1, WROTE, CUT, SYNCED, SYNCED_FOLDER, LINKED, UNLINKED, RENAMED };

struct orders {
    int64_t calls[KINDS];    /* how many there were */
    int64_t kind, first, last; /* calls first..last of this kind fail */
    int64_t error;           /* with this errno */
    int64_t half;            /* the first of them writes half of its bytes instead */
    int64_t failed;          /* how many did */
    int64_t repeated;        /* fsyncs of a file whose last one failed */
    int64_t wall_step;       /* added to the time of day [ns] */
    int64_t broken[16];      /* inodes whose last fsync failed, unwritten since */
};

struct record {
    uint32_t change, name_size;
    uint64_t inode, offset, size;
};

#define MOST 4096
static char *names[MOST];            /* by descriptor: the name in the folder, or NULL */
static char folder[PATH_MAX];
static size_t folder_size;
static struct orders none, *orders = &none;
static int trace = -1, trace_lock = -1;
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int depth;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BATCHQ_SHIM_FOLDER");
    if (path) {
        strncpy(folder, path, sizeof folder - 1);
        folder_size = strlen(folder);
    }
    if ((path = getenv("BATCHQ_SHIM_ORDERS"))) {
        int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
        void *memory = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (memory != MAP_FAILED) orders = memory;
        syscall(SYS_close, file);
    }
    if ((path = getenv("BATCHQ_SHIM_TRACE"))) {
        int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC;
        trace = syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
        trace_lock = syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
    }
}

/* One call at a time, in this process and in all that share the trace: so what is written
 * down is in the order in which it happened. */
static void enter(void) {
    pthread_mutex_lock(&mutex);
    if (!depth++ && trace_lock >= 0) syscall(SYS_flock, trace_lock, LOCK_EX);
}

static void leave(void) {
    int kept = errno;
    if (!--depth && trace_lock >= 0) syscall(SYS_flock, trace_lock, LOCK_UN);
    pthread_mutex_unlock(&mutex);
    errno = kept;
}

static const char *inside(const char *path) {
    if (!folder_size || strncmp(path, folder, folder_size)) return NULL;
    if (!path[folder_size]) return "";
    return path[folder_size] == '/' ? path + folder_size + 1 : NULL;
}

static const char *name_of(int file) { return file >= 0 && file < MOST ? names[file] : NULL; }

static uint64_t inode_of(int file) {
    struct stat found;
    return fstat(file, &found) ? 0 : found.st_ino;
}

static void note(enum change change, const char *name, uint64_t inode, uint64_t offset,
                 const void *data, uint64_t size) {
    if (trace < 0) return;
    struct record record = {change, strlen(name), inode, offset, size};
    struct iovec parts[3] = {
        {&record, sizeof record}, {(void *)name, record.name_size}, {(void *)data, data ? size : 0}};
    syscall(SYS_writev, trace, parts, 3);
}

/* Returns 0 to go on, 1 to fail with errno, 2 to do half of it. */
static int fault(enum kind kind) {
    int64_t call = __atomic_add_fetch(&orders->calls[kind], 1, __ATOMIC_SEQ_CST);
    if (orders->kind != kind || call < orders->first || call > orders->last) return 0;
    __atomic_add_fetch(&orders->failed, 1, __ATOMIC_SEQ_CST);
    if (orders->half && call == orders->first) return 2;
    errno = orders->error;
    return 1;
}

/* Looks for a file whose last fsync failed; lets `in_place` take its place. */
static int was_broken(int64_t inode, int64_t in_place) {
    int found = 0;
    for (unsigned each = 0; inode && each < 16; each++)
        if (orders->broken[each] == inode) {
            found = 1;
            orders->broken[each] = in_place;
        }
    return found;
}

static void now_broken(int64_t inode) {
    was_broken(inode, 0);
    for (unsigned each = 0; each < 16; each++)
        if (!orders->broken[each]) {
            orders->broken[each] = inode;
            return;
        }
}

/* ---- Opening and closing */

static int opened(int at, const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    if (!name) {
        int other = syscall(SYS_openat, at, path, flags, mode);
        if (name_of(other)) names[other] = NULL;  /* it was closed past us */
        return other;
    }
    enter();
    struct stat before;
    int made = (flags & O_CREAT) && stat(path, &before);
    int file = -1;
    if (!made || !fault(CREATE)) file = syscall(SYS_openat, at, path, flags, mode);
    if (file >= 0 && file < MOST) {
        free(names[file]);
        names[file] = strdup(name);
        if (made) was_broken(inode_of(file), 0);  /* the number was another file's */
        if (made) note(MADE, name, inode_of(file), 0, NULL, 0);
        else if (flags & O_TRUNC) note(CUT, name, inode_of(file), 0, NULL, 0);
    }
    leave();
    return file;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags);
    return opened(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE_OF(flags);
    return opened(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE_OF(flags);
    return opened(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE_OF(flags);
    return opened(at, path, flags, mode);
}

int close(int file) {
    if (name_of(file)) {
        enter();
        free(names[file]);
        names[file] = NULL;
        leave();
    }
    return syscall(SYS_close, file);
}

/* ---- Reading and writing */

static ssize_t written(int file, const void *data, size_t size, off_t offset, int in_place) {
    enter();
    int said = fault(WRITE);
    ssize_t done = -1;
    if (said == 2 && size > 1) size /= 2;
    if (said != 1) {
        if (!in_place) {
            offset = lseek(file, 0, fcntl(file, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
            done = syscall(SYS_write, file, data, size);
        } else {
            done = syscall(SYS_pwrite64, file, data, size, offset);
        }
    }
    if (done > 0) {
        uint64_t inode = inode_of(file);
        note(WROTE, names[file], inode, offset, data, done);
        was_broken(inode, 0);
    }
    leave();
    return done;
}

ssize_t write(int file, const void *data, size_t size) {
    if (!name_of(file)) return syscall(SYS_write, file, data, size);
    return written(file, data, size, 0, 0);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
    if (!name_of(file)) return syscall(SYS_pwrite64, file, data, size, offset);
    return written(file, data, size, offset, 1);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    return pwrite(file, data, size, offset);
}

ssize_t pread(int file, void *data, size_t size, off_t offset) {
    if (name_of(file) && fault(READ)) return -1;
    return syscall(SYS_pread64, file, data, size, offset);
}
ssize_t pread64(int file, void *data, size_t size, off64_t offset) {
    return pread(file, data, size, offset);
}

int ftruncate(int file, off_t size) {
    if (!name_of(file)) return syscall(SYS_ftruncate, file, size);
    enter();
    /* A disk without space still gives a file another size: nothing need be written. */
    int failed = orders->error != ENOSPC && fault(WRITE) ? -1 : syscall(SYS_ftruncate, file, size);
    if (!failed) {
        was_broken(inode_of(file), 0);
        note(CUT, names[file], inode_of(file), size, NULL, 0);
    }
    leave();
    return failed;
}
int ftruncate64(int file, off64_t size) { return ftruncate(file, size); }

static int synced(int file, long call) {
    const char *name = name_of(file);
    if (!name) return syscall(call, file);
    enter();
    uint64_t inode = inode_of(file);
    if (was_broken(inode, inode)) orders->repeated++;
    /* Of a folder SQLite does not ask whether it worked, so those are no faults. */
    int failed = *name && fault(SYNC) ? -1 : syscall(call, file);
    if (failed) now_broken(inode);
    else note(*name ? SYNCED : SYNCED_FOLDER, name, inode, 0, NULL, 0);
    leave();
    return failed;
}
int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

/* ---- Names */

int unlink(const char *path) {
    const char *name = inside(path);
    if (!name) return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    enter();
    int failed = fault(REMOVE) ? -1 : syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!failed) note(UNLINKED, name, 0, 0, NULL, 0);
    leave();
    return failed;
}
int unlinkat(int at, const char *path, int flags) {
    return flags || at != AT_FDCWD ? syscall(SYS_unlinkat, at, path, flags) : unlink(path);
}

/* The second name travels as the data of the record. */
static int named(const char *from, const char *to, enum change change) {
    const char *old = inside(from), *new = inside(to);
    int seen = old && new, failed = -1;
    enter();
    if (!seen || !fault(CREATE))
        failed = change == LINKED ? syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)
                                  : syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (seen && !failed) note(change, old, 0, 0, new, strlen(new));
    leave();
    return failed;
}
int link(const char *from, const char *to) { return named(from, to, LINKED); }
int rename(const char *from, const char *to) { return named(from, to, RENAMED); }
int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    if (at != AT_FDCWD || to_at != AT_FDCWD) return syscall(SYS_linkat, at, from, to_at, to, flags);
    return link(from, to);
}
int renameat(int at, const char *from, int to_at, const char *to) {
    if (at != AT_FDCWD || to_at != AT_FDCWD)
        return syscall(SYS_renameat2, at, from, to_at, to, 0);
    return rename(from, to);
}

/* ---- The time of day; the steady clocks stay as they are */

static void step(struct timespec *when) {
    int64_t now = when->tv_sec * INT64_C(1000000000) + when->tv_nsec + orders->wall_step;
    when->tv_sec = now / INT64_C(1000000000);
    when->tv_nsec = now % INT64_C(1000000000);
}

int clock_gettime(clockid_t clock, struct timespec *when) {
    REAL(clock_gettime);
    int failed = real(clock, when);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) step(when);
    return failed;
}
int gettimeofday(struct timeval *restrict when, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *when = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}
time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
