#include "store/arena/window.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"

/* The one place that knows addresses. The first group suits every tool (ASan's and TSan's shadows,
 * valgrind) and lies below what the kernel gives to libraries; the last holds arenas that do not fit
 * there, and suits all but TSan. Each is tried in turn: the kernel may have put something in it. */
static const struct {
    uintptr_t from, to;
} regions[] = {
    {0x7e8100000000, 0x7f0000000000}, {0x7e9000000000, 0x7f0000000000},
    {0x7ea000000000, 0x7f0000000000}, {0x7ec000000000, 0x7f0000000000},
    {0x400000000000, 0x500000000000},
};

enum { SHIFT_MIN = 28, EXTENT_BYTES = 2 << 20 };

_Static_assert(sizeof(uintptr_t) == 8, "windows need 64-bit addresses");

struct window_map window_map;

static const struct window_options *options; /* those of window_open(); NULL: not open */
static struct window_options options_copy;
static enum window_pages pages;

/* ---- Reservation ---- */

/* `address` only, or nothing. */
static void *map_at(uintptr_t address, size_t bytes, int protection, int flags, int fd)
{
    void *got = mmap((void *)address, bytes, protection, flags | MAP_FIXED_NOREPLACE, fd, 0);

    if (got != MAP_FAILED &&
        got != (void *)address) { /* a kernel before 4.17 takes it for a hint */
        munmap(got, bytes);
        errno = EEXIST;
        return MAP_FAILED;
    }
    return got;
}

static bool reserve_half(uintptr_t base, size_t span)
{
    return map_at(base, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1) !=
           MAP_FAILED;
}

static bool reserve_at(uintptr_t from, uintptr_t to, uint32_t count, uint32_t shift)
{
    size_t span = (size_t)count << shift;

    if (shift >= 46 || span >> shift != count || span > (to - from) / 2 ||
        !reserve_half(from, span))
        return false;
    if (!reserve_half(from + span, span)) {
        munmap((void *)from, span);
        return false;
    }
    window_map.rw_base = from;
    window_map.ro_base = from + span;
    window_map.shift = shift;
    window_map.count = count;
    return true;
}

/* With room to spare first: a peer's arena may be somewhat larger than ours (another cgroup). */
static enum moray_code reserve(uint32_t count, size_t bytes, struct moray_error *error)
{
    uint32_t shift = SHIFT_MIN;

    while (shift < 46 && (size_t)1 << shift < bytes)
        shift++;
    for (int spare = 1; spare >= 0; spare--)
        for (size_t i = 0; i < sizeof(regions) / sizeof(*regions); i++)
            if (reserve_at(regions[i].from, regions[i].to, count, shift + spare))
                return MORAY_OK;
    return error_set(error, MORAY_SYSTEM,
                     "no room in the address space for %" PRIu32 " windows of "
                     "%zu MiB (%s); raise the limit on address space (ulimit -v), or lower "
                     "MORAY_STORE_BYTES or MORAY_QUEUE_MAX",
                     count, ((size_t)1 << shift) >> 20, strerror(errno));
}

/* ---- The own arena ---- */

static bool text_has(const char *path, const char *word)
{
    char text[256] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    return got > 0 && strstr(text, word);
}

static enum window_pages pages_of_shmem(void)
{
    static const char setting[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

    return text_has(setting, "[advise]") || text_has(setting, "[always]") ||
                   text_has(setting, "[within_size]") || text_has(setting, "[force]")
               ? WINDOW_TRANSPARENT
               : WINDOW_SMALL;
}

/* What is not control data stays out of core dumps and asks for huge pages. Advice: it may fail. */
static void advise(char *start, size_t control_bytes, size_t bytes)
{
    if (control_bytes >= bytes)
        return;
    madvise(start + control_bytes, bytes - control_bytes, MADV_DONTDUMP);
    madvise(start + control_bytes, bytes - control_bytes, MADV_HUGEPAGE);
}

/* Maps one half of a window over its reservation. Of hugetlb pages the kernel must promise enough now
 * (so no MAP_NORESERVE), or a first touch would be a SIGBUS. */
static bool map_half(uintptr_t address, size_t bytes, int protection, int fd, size_t control_bytes)
{
    int reserve_flag = pages == WINDOW_HUGETLB ? 0 : MAP_NORESERVE;

    if (mmap((void *)address, bytes, protection, MAP_SHARED | MAP_FIXED | reserve_flag, fd, 0) ==
        MAP_FAILED)
        return false;
    advise((char *)address, control_bytes, bytes);
    return true;
}

/* Puts the reservation back. MAP_FIXED replaces in one step: no moment with a hole in it. */
static void unmap_half(uintptr_t address)
{
    mmap((void *)address, (size_t)1 << window_map.shift, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static bool map_window(uint32_t index, int fd, size_t bytes, bool writable, size_t control_bytes)
{
    uintptr_t rw = (uintptr_t)window_rw(index, 0), ro = (uintptr_t)window_ro(index, 0);

    if (!map_half(ro, bytes, PROT_READ, fd, control_bytes) ||
        (writable && !map_half(rw, bytes, PROT_READ | PROT_WRITE, fd, control_bytes))) {
        int saved = errno;
        unmap_half(ro);
        unmap_half(rw);
        errno = saved;
        return false;
    }
    return true;
}

static void publish(uint32_t index, int fd, size_t bytes, bool writable)
{
    struct window *window = &window_map.windows[index];

    window->fd = fd;
    window->writable = writable;
    /* pairs with the acquire in window_bytes(): who sees the size may read the mapping */
    atomic_store_explicit(&window->bytes, bytes, memory_order_release);
}

static int make_memfd(size_t bytes, unsigned flags)
{
    int fd = memfd_create("moray-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

    if (fd < 0)
        return -1;
    /* Owner may open it again only for reading: what peers get stays read-only. */
    if (ftruncate(fd, (off_t)bytes) || fchmod(fd, 0400) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static bool make_own_with(size_t bytes, unsigned flags)
{
    int fd = make_memfd(bytes, flags);

    if (fd < 0)
        return false;
    if (!map_window(options->local_rank, fd, bytes, true, options->control_bytes)) {
        int saved = errno;
        close(fd);
        errno = saved;
        return false;
    }
    publish(options->local_rank, fd, bytes, true);
    return true;
}

static enum moray_code make_own(size_t bytes, struct moray_error *error)
{
    struct rlimit file;

    if (!getrlimit(RLIMIT_FSIZE, &file) && bytes > file.rlim_cur) /* else SIGXFSZ would end us */
        return error_set(error, MORAY_SYSTEM,
                         "cannot make an arena of %zu MiB: the limit on the size of a file is "
                         "%zu MiB; raise it (ulimit -f), or lower MORAY_STORE_BYTES or "
                         "MORAY_QUEUE_MAX",
                         bytes >> 20, (size_t)file.rlim_cur >> 20);
    pages = WINDOW_HUGETLB;
    if (options->hugetlb && make_own_with(bytes, MFD_HUGETLB))
        return MORAY_OK;
    pages = pages_of_shmem();
    if (make_own_with(bytes, 0))
        return MORAY_OK;
    return error_set(error, MORAY_SYSTEM,
                     "cannot make an arena of %zu MiB: %s; lower MORAY_STORE_BYTES or "
                     "MORAY_QUEUE_MAX",
                     bytes >> 20, strerror(errno));
}

static void forget_all(void)
{
    window_map = (struct window_map){0};
    for (uint32_t i = 0; i < WINDOW_COUNT_MAX; i++)
        window_map.windows[i].fd = -1;
    options = NULL;
}

static enum moray_code check_options(const struct window_options *asked, size_t *bytes,
                                     struct moray_error *error)
{
    const char *whose;
    uint64_t limit = window_memory_limit(&whose);

    if (options)
        return error_set(error, MORAY_WRONG_STATE, "the arena is already made");
    if (!asked->local_count || asked->local_count > WINDOW_COUNT_MAX ||
        asked->local_rank >= asked->local_count)
        return error_set(error, MORAY_INVALID,
                         "local rank %" PRIu32 " of %" PRIu32 ": at most %d "
                         "ranks a host",
                         asked->local_rank, asked->local_count, WINDOW_COUNT_MAX);
    *bytes = asked->bytes ? asked->bytes : window_default_bytes(asked->local_count);
    if (*bytes > limit || *bytes > SIZE_MAX - EXTENT_BYTES)
        return error_set(error, MORAY_INVALID,
                         "an arena of %zu MiB does not fit: %s is %" PRIu64
                         " MiB; lower MORAY_STORE_BYTES or MORAY_QUEUE_MAX",
                         *bytes >> 20, whose, limit >> 20);
    *bytes = (*bytes + EXTENT_BYTES - 1) / EXTENT_BYTES * EXTENT_BYTES;
    return MORAY_OK;
}

enum moray_code window_open(const struct window_options *asked, struct moray_error *error)
{
    enum moray_code code;
    size_t bytes = 0;

    if ((code = check_options(asked, &bytes, error)))
        return code;
    forget_all();
    if ((code = reserve(asked->local_count, bytes, error)))
        return code;
    window_map.own = asked->local_rank;
    for (uint32_t i = 0; i < window_map.count; i++) {
        window_map.windows[i].rw = window_rw(i, 0);
        window_map.windows[i].ro = window_ro(i, 0);
    }
    options_copy = *asked;
    options = &options_copy;
    if (!asked->no_arena && (code = make_own(bytes, error)))
        window_close();
    return code;
}

/* ---- Peers ---- */

static enum moray_code check_peer(uint32_t local_rank, int fd, size_t *bytes,
                                  struct moray_error *error)
{
    struct stat file;
    int seals = fcntl(fd, F_GET_SEALS);

    if (!options || local_rank >= window_map.count || local_rank == window_map.own)
        return error_set(error, MORAY_INVALID, "no window for the arena of local rank %" PRIu32,
                         local_rank);
    if (window_bytes(local_rank))
        return error_set(error, MORAY_EXISTS,
                         "the arena of local rank %" PRIu32 " is mapped already", local_rank);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &file) || file.st_size <= 0)
        return error_set(error, MORAY_INVALID,
                         "what local rank %" PRIu32 " handed over is no sealed "
                         "memfd",
                         local_rank);
    if ((uint64_t)file.st_size > (uint64_t)1 << window_map.shift)
        return error_set(error, MORAY_INVALID,
                         "the arena of local rank %" PRIu32 " has %" PRIu64
                         " MiB, but windows here hold %" PRIu64 " MiB; give "
                         "MORAY_STORE_BYTES and MORAY_QUEUE_MAX the same values on all ranks of a "
                         "host",
                         local_rank, (uint64_t)file.st_size >> 20,
                         ((uint64_t)1 << window_map.shift) >> 20);
    *bytes = (size_t)file.st_size;
    return MORAY_OK;
}

enum moray_code window_map_peer(uint32_t local_rank, int fd, bool writable,
                                struct moray_error *error)
{
    size_t bytes = 0;
    enum moray_code code = check_peer(local_rank, fd, &bytes, error);

    if (!code && !map_window(local_rank, fd, bytes, writable, 0))
        code = error_set(error, MORAY_SYSTEM,
                         "cannot map the arena of local rank %" PRIu32 " (%s): "
                         "%s",
                         local_rank, writable ? "writable" : "read-only", strerror(errno));
    if (code) {
        if (fd >= 0)
            close(fd);
        return code;
    }
    publish(local_rank, fd, bytes, writable);
    return MORAY_OK;
}

int window_read_only_fd(void)
{
    char path[40];

    if (!window_map.count || window_map.windows[window_map.own].fd < 0) {
        errno = EBADF;
        return -1;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", window_map.windows[window_map.own].fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

void window_close(void)
{
    size_t span = (size_t)window_map.count << window_map.shift;

    for (uint32_t i = 0; i < window_map.count; i++)
        if (window_map.windows[i].fd >= 0)
            close(window_map.windows[i].fd);
    if (span) {
        munmap((void *)window_map.rw_base, span);
        munmap((void *)window_map.ro_base, span);
    }
    forget_all();
}

/* ---- Sizes ---- */

uint64_t window_memory_limit(const char **whose)
{
    return limits_memory_at("", whose);
}

size_t window_default_bytes(uint32_t local_count)
{
    uint64_t share = window_memory_limit(NULL) / 10 * 3 / (local_count ? local_count : 1);
    uint64_t least = 16 << 20;

    share = share / EXTENT_BYTES * EXTENT_BYTES;
    return (size_t)(share < least ? least : share);
}

enum window_pages window_pages(void)
{
    return pages;
}
