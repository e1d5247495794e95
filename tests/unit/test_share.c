/** Ranks of one host find each other, prove themselves, and nobody else gets a descriptor. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/share.h"
#include "node/wire.h"

enum { ARENA_BYTES = 1 << 20 };

static struct moray_error error;
static unsigned char secret[LAUNCH_SECRET_BYTES] = "the secret of this test's job";

static struct launch launch_of(uint32_t rank, uint32_t count)
{
    struct launch launch = {.rank = rank,
                            .rank_count = count,
                            .local_rank = rank,
                            .local_count = count,
                            .node = "n1",
                            .node_key = "n1.0"};

    /* tests run side by side: each has a job of its own */
    snprintf(launch.job, sizeof(launch.job), "test-%d", (int)getpid());
    return launch;
}

static int arena_of(uint32_t rank)
{
    char name[16];
    int fd = memfd_create("arena", MFD_CLOEXEC);

    snprintf(name, sizeof(name), "arena %u", rank);
    ck_assert_int_eq(ftruncate(fd, ARENA_BYTES), 0);
    ck_assert_int_eq(pwrite(fd, name, sizeof(name), 0), sizeof(name));
    return fd;
}

static struct share *open_share(const struct launch *launch, int arena_fd, uint32_t writable_to,
                                unsigned limit_ms)
{
    struct share_options options = {.launch = launch,
                                    .secret = secret,
                                    .arena_fd = arena_fd,
                                    .writable_to = writable_to,
                                    .limit_ms = limit_ms};
    struct share *share;

    snprintf((char *)options.note, sizeof(options.note), "note of %u", launch->local_rank);
    ck_assert_msg(!share_open(&options, &share, &error), "%s", error.text);
    return share;
}

/* Steps all until none has anything to do, or all are over. */
static void run(struct share **shares, int count)
{
    for (int round = 0; round < 3000; round++) {
        int over = 0;
        for (int i = 0; i < count; i++)
            over += share_step(shares[i], wire_now_ns());
        if (over == count)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    ck_abort_msg("the exchange has no end");
}

static void drop_peer(const struct share_peer *peer)
{
    if (peer->arena_fd >= 0)
        close(peer->arena_fd);
    for (uint32_t i = 0; i < peer->extra_count; i++)
        close(peer->extra[i]);
    close(peer->link_fd);
}

static bool can_write(int fd)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (page != MAP_FAILED)
        munmap(page, 4096);
    return page != MAP_FAILED;
}

static int count_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

START_TEST(everyone_gets_everyones_arena)
{
    enum { COUNT = 5 };
    struct launch launches[COUNT];
    struct share *shares[COUNT];
    int arenas[COUNT], before = count_descriptors();

    for (int k = 0; k < COUNT; k++) {
        int i = (k + 2) % COUNT; /* in any order of start */
        launches[i] = launch_of((uint32_t)i, COUNT);
        arenas[i] = arena_of((uint32_t)i);
        shares[i] = open_share(&launches[i], arenas[i], 0, 0);
    }
    run(shares, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct share_peer peer;
        uint32_t seen = 0;
        while (share_next(shares[i], &peer)) {
            char name[16], expected[16];
            snprintf(expected, sizeof(expected), "arena %u", peer.local_rank);
            ck_assert_int_eq(pread(peer.arena_fd, name, sizeof(name), 0), sizeof(name));
            ck_assert_str_eq(name, expected);
            snprintf(expected, sizeof(expected), "note of %u", peer.local_rank);
            ck_assert_str_eq((char *)peer.note, expected);
            ck_assert_int_eq(peer.pid, getpid());
            ck_assert_int_eq(peer.writable, i == 0); /* only rank 0 was meant to write */
            ck_assert_int_eq(can_write(peer.arena_fd), i == 0);
            seen |= 1U << peer.local_rank;
            drop_peer(&peer);
        }
        ck_assert_uint_eq(seen, 31 & ~(1U << i));
        ck_assert_uint_eq(share_missing(shares[i], NULL, 0), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        share_close(shares[i]);
        close(arenas[i]);
    }
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

START_TEST(eventfds_come_in_order_and_a_head_has_no_arena)
{
    struct launch launches[2] = {launch_of(0, 2), launch_of(1, 2)};
    struct share *shares[2];
    struct share_peer peer;
    uint64_t value;
    struct share_options options = {.launch = &launches[0],
                                    .secret = secret,
                                    .arena_fd = -1,
                                    .writable_to = SHARE_NOBODY,
                                    .extra_count = 2};

    options.extra[0] = eventfd(5, 0);
    options.extra[1] = eventfd(6, 0);
    ck_assert_int_eq(share_open(&options, &shares[0], &error), MORAY_OK);
    int arena = arena_of(1);
    shares[1] = open_share(&launches[1], arena, SHARE_NOBODY, 0);
    run(shares, 2);
    ck_assert(share_next(shares[1], &peer));
    ck_assert_int_eq(peer.arena_fd, -1);
    ck_assert_uint_eq(peer.extra_count, 2);
    ck_assert_int_eq(read(peer.extra[1], &value, 8), 8);
    ck_assert_uint_eq(value, 6);
    ck_assert(!share_next(shares[1], &peer));
    ck_assert(share_next(shares[0], &peer));
    ck_assert(peer.arena_fd >= 0 && !peer.writable && !can_write(peer.arena_fd));
    share_close(shares[0]);
    share_close(shares[1]);
}
END_TEST

/* The ranks are processes; the link tells of the end of one. */
START_TEST(the_link_ends_with_the_peer)
{
    struct launch launches[2] = {launch_of(0, 2), launch_of(1, 2)};
    struct share_peer peer;
    pid_t pid = fork();

    if (!pid) {
        struct share *share = open_share(&launches[1], arena_of(1), SHARE_NOBODY, 0);
        if (share_exchange(share, &error))
            _exit(1);
        sleep(30);
        _exit(0);
    }
    struct share *share = open_share(&launches[0], arena_of(0), SHARE_NOBODY, 0);
    ck_assert_msg(!share_exchange(share, &error), "%s", error.text);
    ck_assert(share_next(share, &peer));
    ck_assert_int_eq(peer.pid, pid);
    struct pollfd link = {.fd = peer.link_fd, .events = POLLIN};
    ck_assert_int_eq(poll(&link, 1, 50), 0);
    share_close(share); /* the link does not depend on it */
    ck_assert_int_eq(poll(&link, 1, 50), 0);
    kill(pid, SIGKILL);
    ck_assert_int_eq(poll(&link, 1, 2000), 1);
    ck_assert(link.revents & POLLHUP);
    waitpid(pid, NULL, 0);
}
END_TEST

START_TEST(who_is_late_is_waited_for_and_who_is_missing_is_named)
{
    struct launch launches[3] = {launch_of(0, 3), launch_of(1, 3), launch_of(2, 3)};
    pid_t pid = fork();

    if (!pid) {
        usleep(150000);
        struct share *late = open_share(&launches[0], arena_of(0), SHARE_NOBODY, 1000);
        _exit(share_exchange(late, &error) == MORAY_TIMEOUT && share_missing(late, NULL, 0) == 1
                  ? 0
                  : 1);
    }
    int arena = arena_of(1), status;
    struct share_peer peer;
    struct share *share = open_share(&launches[1], arena, SHARE_NOBODY, 700);
    ck_assert_int_eq(share_exchange(share, &error), MORAY_TIMEOUT);
    ck_assert_msg(strstr(error.text, "local rank 2") && !strstr(error.text, "rank 0"), "%s",
                  error.text);
    ck_assert(share_next(share, &peer)); /* rank 0 came all the same */
    ck_assert_uint_eq(peer.local_rank, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    share_close(share);
}
END_TEST

static void expect_strangers(const struct launch *a, const struct launch *b,
                             const unsigned char *other_secret)
{
    struct share *shares[2];
    struct share_peer peer;
    struct share_options options = {.launch = b,
                                    .secret = other_secret,
                                    .arena_fd = arena_of(1),
                                    .writable_to = SHARE_NOBODY,
                                    .limit_ms = 200};

    shares[0] = open_share(a, arena_of(0), SHARE_NOBODY, 200);
    ck_assert_int_eq(share_open(&options, &shares[1], &error), MORAY_OK);
    run(shares, 2);
    for (int i = 0; i < 2; i++) {
        ck_assert(!share_next(shares[i], &peer));
        ck_assert_uint_eq(share_missing(shares[i], NULL, 0), 1);
        share_close(shares[i]);
    }
}

START_TEST(two_nodes_of_one_machine_do_not_meet)
{
    struct launch a = launch_of(0, 2), b = launch_of(1, 2);

    strcpy(b.node_key, "n2.1");
    expect_strangers(&a, &b, secret);
}
END_TEST

/* What tells two names apart may lie behind what fits into a socket's name. */
START_TEST(long_names_are_told_apart)
{
    struct launch a = launch_of(0, 2), b = launch_of(0, 2);

    memset(a.node_key, 'n', 90);
    memset(b.node_key, 'n', 89);
    struct share *first = open_share(&a, -1, SHARE_NOBODY, 0);
    struct share *second = open_share(&b, -1, SHARE_NOBODY, 0);
    share_close(first);
    share_close(second);
}
END_TEST

START_TEST(two_jobs_of_one_machine_do_not_meet)
{
    struct launch a = launch_of(0, 2), b = launch_of(1, 2);

    strcat(b.job, "x");
    expect_strangers(&a, &b, secret);
}
END_TEST

START_TEST(another_secret_does_not_meet)
{
    struct launch a = launch_of(0, 2), b = launch_of(1, 2);
    unsigned char other[LAUNCH_SECRET_BYTES] = "the secret of another job";

    expect_strangers(&a, &b, other);
}
END_TEST

START_TEST(a_name_is_taken_once)
{
    struct launch launch = launch_of(0, 2);
    struct share *share = open_share(&launch, -1, SHARE_NOBODY, 0), *second;
    struct share_options options = {.launch = &launch, .secret = secret, .arena_fd = -1};

    ck_assert_int_eq(share_open(&options, &second, &error), MORAY_EXISTS);
    ck_assert_ptr_null(second);
    share_close(share);
}
END_TEST

START_TEST(bad_options_are_refused)
{
    struct launch launch = launch_of(2, 2), big = launch_of(0, LAUNCH_LOCAL_RANKS_MAX + 1);
    struct launch good = launch_of(0, 1);
    struct share_options options = {.launch = &launch, .secret = secret, .arena_fd = -1};
    struct share *share;

    ck_assert_int_eq(share_open(&options, &share, &error), MORAY_INVALID);
    options.launch = &big;
    ck_assert_int_eq(share_open(&options, &share, &error), MORAY_INVALID);
    options.launch = &good;
    options.extra_count = SHARE_EXTRA_MAX + 1;
    ck_assert_int_eq(share_open(&options, &share, &error), MORAY_INVALID);
    options.extra_count = 0;
    options.arena_fd = 999;
    ck_assert_int_eq(share_open(&options, &share, &error), MORAY_SYSTEM);
    options.arena_fd = -1;
    ck_assert_int_eq(share_open(&options, &share, &error), MORAY_OK);
    ck_assert(share_step(share, wire_now_ns())); /* nobody to wait for */
    share_close(share);
}
END_TEST

/* ---- A stranger who found the name (the kernel lists it) but not the secret ---- */

static int connect_to_listener(void)
{
    char line[512], *at;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char wanted[64];
    int fd = -1;
    FILE *sockets = fopen("/proc/net/unix", "r");

    snprintf(wanted, sizeof(wanted), "@moray/test-%d/", (int)getpid());
    while (sockets && fd < 0 && fgets(line, sizeof(line), sockets)) {
        line[strcspn(line, "\n")] = 0;
        if (!(at = strstr(line, wanted)))
            continue;
        memcpy(address.sun_path + 1, at + 1, strlen(at + 1));
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
        ck_assert_int_eq(connect(fd, (struct sockaddr *)&address,
                                 (socklen_t)(sizeof(sa_family_t) + 1 + strlen(at + 1))),
                         0);
    }
    if (sockets)
        fclose(sockets);
    return fd;
}

struct fake_hello { /* as share.c has it */
    char magic[8];
    uint32_t from, to;
    unsigned char nonce[32];
};

/* Whether a message came, which must bring no descriptor. */
static bool is_answered(int fd)
{
    char bytes[1024], control[256];
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(fd, &header, MSG_DONTWAIT);

    ck_assert(got <= 0 || !CMSG_FIRSTHDR(&header));
    return got > 0;
}

/* The stranger says `message` and, if answered, sends rubbish as proof, with `fd_count` descriptors
 * of its own each time, which must not stay with us. It gets none of ours. */
static void expect_refused(const void *message, size_t message_bytes, uint32_t fd_count)
{
    struct launch launch = launch_of(0, 2);
    int arena = arena_of(0), before, own[2] = {0, 1};
    struct share *share = open_share(&launch, arena, 1, 150);
    char rubbish[32 + 16 + SHARE_NOTE_BYTES] = {0};
    struct share_peer peer;
    bool over = false;
    int fd = connect_to_listener();

    ck_assert_int_ge(fd, 0);
    before = count_descriptors();
    if (message_bytes)
        ck_assert_int_eq(wire_send(fd, message, message_bytes, own, fd_count, 0), 0);
    while (!over) {
        over = share_step(share, wire_now_ns());
        if (is_answered(fd))
            wire_send(fd, rubbish, sizeof(rubbish), own, fd_count, 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    ck_assert(!share_next(share, &peer));
    ck_assert_int_le(count_descriptors(), before);
    share_close(share);
    close(fd);
    close(arena);
}

START_TEST(a_stranger_gets_nothing)
{
    struct fake_hello hello = {.magic = "moray-s1", .from = 1, .to = 0};
    char much[4000] = "much";

    switch (_i) {
    case 0:
        expect_refused(&hello, sizeof(hello), 0); /* right words, no secret */
        break;
    case 1:
        expect_refused(&hello, sizeof(hello), 2);
        break;
    case 2:
        expect_refused(NULL, 0, 0); /* silent */
        break;
    case 3:
        expect_refused(much, sizeof(much), 2);
        break;
    case 4:
        expect_refused(much, 1, 0);
        break;
    case 5:
        hello.from = 7;
        expect_refused(&hello, sizeof(hello), 0);
        break;
    case 6:
        hello.to = 1;
        expect_refused(&hello, sizeof(hello), 0);
        break;
    case 7:
        hello.magic[0] = 'x';
        expect_refused(&hello, sizeof(hello), 0);
    }
}
END_TEST

/* Another user who knows the name is cut off before a byte is read. Needs root to become another. */
START_TEST(another_user_is_cut_off)
{
    struct launch launch = launch_of(0, 2);
    char byte;

    if (geteuid()) {
        printf("not tried: needs root to become another user\n");
        return;
    }
    struct share *share = open_share(&launch, -1, SHARE_NOBODY, 300);
    int channel[2];
    ck_assert_int_eq(pipe(channel), 0);
    char name[16];
    snprintf(name, sizeof(name), "%d", (int)getpid());
    pid_t parent = getpid(), pid = fork();
    if (!pid) {
        if (setgid(65534) || setuid(65534))
            _exit(2);
        /* getpid() names the job in connect_to_listener(): the parent's is wanted */
        char line[512], *at, wanted[64];
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        FILE *sockets = fopen("/proc/net/unix", "r");
        snprintf(wanted, sizeof(wanted), "@moray/test-%d/", (int)parent);
        while (sockets && fgets(line, sizeof(line), sockets)) {
            line[strcspn(line, "\n")] = 0;
            if (!(at = strstr(line, wanted)))
                continue;
            memcpy(address.sun_path + 1, at + 1, strlen(at + 1));
            int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
            if (connect(fd, (struct sockaddr *)&address,
                        (socklen_t)(sizeof(sa_family_t) + 1 + strlen(at + 1))))
                _exit(3);
            _exit(read(fd, &byte, 1) == 0 ? 0 : 4);
        }
        _exit(5);
    }
    while (!share_step(share, wire_now_ns()))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    char text[256];
    share_missing(share, text, sizeof(text));
    ck_assert_msg(strstr(text, "another user"), "%s", text);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    share_close(share);
}
END_TEST

START_TEST(a_rank_sleeps_while_it_waits)
{
    struct launch launch = launch_of(0, 2);
    struct share *share = open_share(&launch, -1, SHARE_NOBODY, 500);
    struct timespec from, to;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    ck_assert_int_eq(share_exchange(share, &error), MORAY_TIMEOUT);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    ck_assert_int_lt((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000, 100);
    share_close(share);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node/share");
    TCase *laws = tcase_create("laws");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(laws, 30);
    tcase_add_test(laws, everyone_gets_everyones_arena);
    tcase_add_test(laws, eventfds_come_in_order_and_a_head_has_no_arena);
    tcase_add_test(laws, the_link_ends_with_the_peer);
    tcase_add_test(laws, who_is_late_is_waited_for_and_who_is_missing_is_named);
    tcase_add_test(laws, two_nodes_of_one_machine_do_not_meet);
    tcase_add_test(laws, long_names_are_told_apart);
    tcase_add_test(laws, two_jobs_of_one_machine_do_not_meet);
    tcase_add_test(laws, another_secret_does_not_meet);
    tcase_add_test(laws, a_name_is_taken_once);
    tcase_add_test(laws, bad_options_are_refused);
    tcase_add_loop_test(laws, a_stranger_gets_nothing, 0, 8);
    tcase_add_test(laws, another_user_is_cut_off);
    tcase_add_test(laws, a_rank_sleeps_while_it_waits);
    suite_add_tcase(suite, laws);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
