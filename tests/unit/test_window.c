/** The windows: two mappings of one memory, references, limits, peers. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limits.h"
#include "store/arena/window.h"

enum { MIB = 1 << 20 };

static struct moray_error error;

static void open_window(uint32_t rank, uint32_t count, size_t bytes)
{
    struct window_options options = {
        .local_rank = rank, .local_count = count, .bytes = bytes, .control_bytes = 2 * MIB};

    ck_assert_msg(!window_open(&options, &error), "%s", error.text);
}

static int memfd(size_t bytes, int seals)
{
    int fd = memfd_create("peer", MFD_ALLOW_SEALING | MFD_CLOEXEC);

    ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
    ck_assert_int_eq(pwrite(fd, "peer", 4, 0), 4);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

/* Runs `touch` in a child and returns the signal that ended it; 0: none. */
static int signal_of(void (*touch)(void))
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        signal(SIGSEGV, SIG_DFL);
        touch();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

START_TEST(what_is_written_is_seen_read_only)
{
    open_window(1, 3, 8 * MIB);
    const struct window *own = window_of(1);

    ck_assert_uint_eq(window_bytes(1), 8 * MIB);
    ck_assert(own->writable);
    strcpy(own->rw + 5 * MIB, "seen");
    ck_assert_str_eq(own->ro + 5 * MIB, "seen");
    ck_assert_uint_eq(window_bytes(0), 0);
    ck_assert_uint_eq(window_bytes(2), 0);
    ck_assert_uint_eq(window_bytes(77), 0);
    window_close();
}
END_TEST

static void write_rw(void)
{
    *(volatile char *)window_rw(0, 100) = 1;
}
static void write_ro(void)
{
    *(volatile char *)window_ro(0, 100) = 1;
}
static void write_behind(void)
{
    *(volatile char *)window_rw(0, 4 * MIB) = 1;
}
static void write_peer(void)
{
    *(volatile char *)window_rw(1, 0) = 1;
}
static void read_peer(void)
{
    (void)*(volatile const char *)window_ro(1, 0);
}

START_TEST(a_stray_write_stops_the_writer)
{
    open_window(0, 2, 4 * MIB);
    ck_assert_int_eq(signal_of(write_rw), 0);
    ck_assert_int_eq(window_of(0)->ro[100], 1); /* by the child: the memory is shared */
    ck_assert_int_eq(signal_of(write_ro), SIGSEGV);
    ck_assert_int_eq(signal_of(write_behind), SIGSEGV);
    ck_assert_int_eq(signal_of(read_peer), SIGSEGV);
    ck_assert_int_eq(window_map_peer(1, memfd(MIB, F_SEAL_SHRINK), false, &error), MORAY_OK);
    ck_assert_int_eq(signal_of(read_peer), 0);
    ck_assert_int_eq(signal_of(write_peer), SIGSEGV);
    window_close();
}
END_TEST

START_TEST(addresses_and_references_are_one_to_one)
{
    static const uint64_t offsets[] = {0, 1, 4096, 3 * MIB + 17, 4 * MIB - 1};
    uint32_t window;
    uint64_t offset;

    open_window(2, 5, 4 * MIB);
    for (uint32_t i = 0; i < 5; i++)
        for (size_t k = 0; k < sizeof(offsets) / sizeof(*offsets); k++) {
            void *rw = window_rw(i, offsets[k]);
            const void *ro = window_ro(i, offsets[k]);
            ck_assert(window_find(rw, &window, &offset));
            ck_assert(window == i && offset == offsets[k]);
            ck_assert(window_find(ro, &window, &offset));
            ck_assert(window == i && offset == offsets[k]);
            ck_assert(window_is_ro(ro) && !window_is_ro(rw));
            ck_assert_ptr_eq(window_ro_of(rw), ro);
            ck_assert_ptr_eq(window_rw_of(ro), rw);
            ck_assert_ptr_eq(window_of(i)->rw + offsets[k], rw);
            ck_assert_ptr_eq(window_of(i)->ro + offsets[k], ro);
        }
    ck_assert(!window_find(&window, &window, &offset));
    ck_assert(!window_find(NULL, &window, &offset));
    ck_assert(!window_find((char *)window_rw(0, 0) - 1, &window, &offset));
    window_close();
    ck_assert(!window_find(NULL, &window, &offset));
}
END_TEST

START_TEST(bases_suit_every_tool)
{
    open_window(0, 64, 64 * MIB);
    ck_assert_uint_ge(window_map.rw_base, 0x7e8000000000);
    ck_assert_uint_le(window_map.ro_base + ((uint64_t)64 << window_map.shift), 0x7f0000000000);
    window_close();
}
END_TEST

START_TEST(a_taken_base_is_passed_by)
{
    uintptr_t base;

    open_window(0, 2, 4 * MIB);
    base = window_map.rw_base;
    window_close();
    void *thief = mmap((void *)(base + 4096), 4096, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    ck_assert_uint_eq((uintptr_t)thief, base + 4096);
    open_window(0, 2, 4 * MIB);
    ck_assert_uint_ne(window_map.rw_base, base);
    window_of(0)->rw[0] = 1;
    window_close();
    munmap(thief, 4096);
}
END_TEST

START_TEST(many_ranks_find_room)
{
    open_window(255, WINDOW_COUNT_MAX, 256 * (size_t)MIB);
    ck_assert_uint_ge(window_map.rw_base, 0x7e8000000000);
    window_of(255)->rw[0] = 1;
    window_close();
#ifndef __SANITIZE_THREAD__ /* it forbids the region for what does not fit the first one */
    open_window(255, WINDOW_COUNT_MAX, 4096 * (size_t)MIB);
    ck_assert_uint_lt(window_map.rw_base, 0x7e8000000000);
    window_of(255)->rw[0] = 1;
    window_close();
#endif
}
END_TEST

START_TEST(a_head_alone_has_no_arena)
{
    struct window_options options = {
        .local_rank = 0, .local_count = 2, .bytes = 4 * MIB, .no_arena = true};

    ck_assert_int_eq(window_open(&options, &error), MORAY_OK);
    ck_assert_uint_eq(window_bytes(0), 0);
    ck_assert_int_eq(window_read_only_fd(), -1);
    ck_assert_int_eq(window_map_peer(1, memfd(4 * MIB, F_SEAL_SHRINK), true, &error), MORAY_OK);
    ck_assert(window_of(1)->writable);
    strcpy(window_of(1)->rw + 4, " writes");
    ck_assert_str_eq(window_of(1)->ro, "peer writes");
    window_close();
}
END_TEST

START_TEST(bad_peers_are_refused)
{
    int pipes[2];

    open_window(0, 3, 4 * MIB);
    ck_assert_int_eq(window_map_peer(1, memfd(MIB, 0), false, &error), MORAY_INVALID);
    ck_assert(strstr(error.text, "sealed"));
    ck_assert_int_eq(window_map_peer(1, memfd(0x4000 * (size_t)MIB, F_SEAL_SHRINK), false, &error),
                     MORAY_INVALID);
    ck_assert(strstr(error.text, "MORAY_STORE_BYTES"));
    ck_assert_int_eq(pipe(pipes), 0);
    ck_assert_int_eq(window_map_peer(1, pipes[0], false, &error), MORAY_INVALID);
    ck_assert_int_eq(window_map_peer(1, -1, false, &error), MORAY_INVALID);
    ck_assert_int_eq(window_map_peer(0, memfd(MIB, F_SEAL_SHRINK), false, &error), MORAY_INVALID);
    ck_assert_int_eq(window_map_peer(3, memfd(MIB, F_SEAL_SHRINK), false, &error), MORAY_INVALID);
    ck_assert_int_eq(window_map_peer(2, memfd(MIB, F_SEAL_SHRINK), false, &error), MORAY_OK);
    ck_assert_int_eq(window_map_peer(2, memfd(MIB, F_SEAL_SHRINK), false, &error), MORAY_EXISTS);
    ck_assert_uint_eq(window_bytes(1), 0);
    window_close();
}
END_TEST

START_TEST(a_read_only_descriptor_stays_read_only)
{
    open_window(0, 1, 4 * MIB);
    int fd = window_read_only_fd();
    ck_assert_int_ge(fd, 0);
    ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    ck_assert_ptr_ne(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
    ck_assert_int_eq(ftruncate(window_of(0)->fd, MIB), -1); /* sealed */
    close(fd);
    window_close();
}
END_TEST

START_TEST(absurd_sizes_are_errors)
{
    const char *whose;
    struct window_options options = {.local_rank = 0, .local_count = 1};

    options.bytes = window_memory_limit(&whose) + MIB;
    ck_assert_int_eq(window_open(&options, &error), MORAY_INVALID);
    ck_assert(strstr(error.text, whose) && strstr(error.text, "MORAY_STORE_BYTES"));
    options.bytes = SIZE_MAX;
    ck_assert_int_eq(window_open(&options, &error), MORAY_INVALID);
    options = (struct window_options){.local_rank = 1, .local_count = 1};
    ck_assert_int_eq(window_open(&options, &error), MORAY_INVALID);
    options = (struct window_options){.local_rank = 0, .local_count = 1000};
    ck_assert_int_eq(window_open(&options, &error), MORAY_INVALID);
    open_window(0, 1, 5 * MIB + 1);
    ck_assert_uint_eq(window_bytes(0), 6 * MIB); /* whole extents */
    options = (struct window_options){.local_rank = 0, .local_count = 1, .bytes = MIB};
    ck_assert_int_eq(window_open(&options, &error), MORAY_WRONG_STATE);
    window_close();
}
END_TEST

START_TEST(limits_of_the_process_are_errors)
{
    struct window_options options = {.local_rank = 0, .local_count = 1, .bytes = 64 * MIB};
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){MIB, limit.rlim_max}), 0);
    ck_assert_int_eq(window_open(&options, &error), MORAY_SYSTEM);
    ck_assert(strstr(error.text, "ulimit -f") && strstr(error.text, "MORAY_STORE_BYTES"));
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    options.bytes = SIZE_MAX / 2; /* no room for it, be the limit on addresses what it may */
    ck_assert_int_ne(window_open(&options, &error), MORAY_OK);
    ck_assert(strstr(error.text, "MORAY_STORE_BYTES"));
    open_window(0, 1, 4 * MIB);
    window_close();
}
END_TEST

/* Where the machine has no such pages set aside, as a rule. */
START_TEST(too_few_hugetlb_pages_fall_back)
{
    struct window_options options = {
        .local_rank = 0, .local_count = 1, .bytes = 64 * MIB, .hugetlb = true};

    ck_assert_int_eq(window_open(&options, &error), MORAY_OK);
    memset(window_of(0)->rw, 1, 64 * MIB);
    ck_assert_int_eq(window_of(0)->ro[63 * MIB], 1);
    window_close();
}
END_TEST

START_TEST(the_default_is_a_share_of_the_limit)
{
    uint64_t limit = window_memory_limit(NULL);
    size_t one = window_default_bytes(1), four = window_default_bytes(4);

    ck_assert_uint_le(one, limit * 3 / 10);
    ck_assert_uint_ge(one + 4 * MIB, limit * 3 / 10);
    ck_assert_uint_le(four, one / 4);
    ck_assert_uint_eq(four % (2 * MIB), 0);
    ck_assert_uint_ge(window_default_bytes(1 << 30), 16 * MIB);
}
END_TEST

/* ---- Recorded machines ---- */

static char root[] = "/tmp/moray-test-XXXXXX";

static void put_file(const char *path, const char *text)
{
    char whole[512];

    snprintf(whole, sizeof(whole), "%s%s", root, path);
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static void make_root(void)
{
    strcpy(root + strlen(root) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    put_file("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");
}

static void remove_root(void)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", root);
    ck_assert_int_eq(system(command), 0);
}

#define GIB ((uint64_t)1 << 30)

START_TEST(a_host_without_cgroups_has_all_its_memory)
{
    const char *whose;

    ck_assert_uint_eq(limits_memory_at(root, &whose), 16 * GIB);
    ck_assert_str_eq(whose, "the host's memory");
    ck_assert_uint_eq(limits_processes_at(root), UINT64_MAX);
}
END_TEST

START_TEST(the_least_limit_of_all_levels_holds_in_version_2)
{
    const char *whose;

    put_file("/proc/self/cgroup", "0::/slurm/job_7/step_0\n");
    put_file("/proc/self/mountinfo",
             "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
    put_file("/sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n");
    put_file("/sys/fs/cgroup/slurm/job_7/memory.max", "4294967296\n");
    put_file("/sys/fs/cgroup/slurm/memory.max", "8589934592\n");
    put_file("/sys/fs/cgroup/slurm/job_7/pids.max", "500\n");
    ck_assert_uint_eq(limits_memory_at(root, &whose), 4 * GIB);
    ck_assert_str_eq(whose, "the cgroup's limit");
    ck_assert_uint_eq(limits_processes_at(root), 500);
}
END_TEST

START_TEST(version_1_has_a_hierarchy_a_controller)
{
    put_file("/proc/self/cgroup", "5:pids:/a\n4:memory:/docker/abc/inner\n3:cpuset:/\n0::/\n");
    put_file("/proc/self/mountinfo",
             "31 30 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
             "32 30 0:28 /docker/abc /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
             "33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
    put_file("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "2147483648\n");
    put_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put_file("/sys/fs/cgroup/pids/a/pids.max", "max\n");
    ck_assert_uint_eq(limits_memory_at(root, NULL), 2 * GIB);
    ck_assert_uint_eq(limits_processes_at(root), UINT64_MAX);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store/arena/window");
    TCase *laws = tcase_create("laws"), *machines = tcase_create("recorded machines");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(laws, 30);
    tcase_add_test(laws, what_is_written_is_seen_read_only);
    tcase_add_test(laws, a_stray_write_stops_the_writer);
    tcase_add_test(laws, addresses_and_references_are_one_to_one);
    tcase_add_test(laws, bases_suit_every_tool);
    tcase_add_test(laws, a_taken_base_is_passed_by);
    tcase_add_test(laws, many_ranks_find_room);
    tcase_add_test(laws, a_head_alone_has_no_arena);
    tcase_add_test(laws, bad_peers_are_refused);
    tcase_add_test(laws, a_read_only_descriptor_stays_read_only);
    tcase_add_test(laws, absurd_sizes_are_errors);
    tcase_add_test(laws, limits_of_the_process_are_errors);
    tcase_add_test(laws, too_few_hugetlb_pages_fall_back);
    tcase_add_test(laws, the_default_is_a_share_of_the_limit);
    suite_add_tcase(suite, laws);
    tcase_add_checked_fixture(machines, make_root, remove_root);
    tcase_add_test(machines, a_host_without_cgroups_has_all_its_memory);
    tcase_add_test(machines, the_least_limit_of_all_levels_holds_in_version_2);
    tcase_add_test(machines, version_1_has_a_hierarchy_a_controller);
    suite_add_tcase(suite, machines);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
