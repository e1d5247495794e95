/** The laws of runtime/fabric/doorbell: only who knows the secret comes in, and an end is seen. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fabric/auth.h"
#include "fabric/doorbell.h"

enum { RANK_COUNT = 3 };

static const uint8_t secret[AUTH_SECRET_BYTES] = "one secret of thirty-two bytes..";

struct side { /* a rank: its doorbell and what it was told */
    struct doorbell *doorbell;
    int ups, ends, records, refusals;
    uint32_t end_rank;
    enum doorbell_word word;
    size_t count;
    uint8_t bytes[DOORBELL_RECORD_MAX];
    char text[512];
    struct doorbell_handler handler;
};

static struct side sides[RANK_COUNT];

static void on_up(void *context, uint32_t rank)
{
    (void)rank;
    ((struct side *)context)->ups++;
}

static void on_record(void *context, uint32_t rank, enum doorbell_word word, const void *bytes,
                      size_t count)
{
    struct side *side = context;

    (void)rank;
    side->records++;
    side->word = word;
    side->count = count;
    memcpy(side->bytes, bytes, count);
}

static void on_end(void *context, uint32_t rank, const char *reason)
{
    struct side *side = context;

    side->ends++;
    side->end_rank = rank;
    snprintf(side->text, sizeof(side->text), "%s", reason);
}

static void on_refused(void *context, const struct moray_error *error)
{
    struct side *side = context;

    ck_assert_int_eq(error->code, MORAY_PROTOCOL);
    side->refusals++;
    snprintf(side->text, sizeof(side->text), "%s", error->text);
}

static void open_side(uint32_t rank, const uint8_t *key)
{
    struct doorbell_options options = {.rank = rank,
                                       .rank_count = RANK_COUNT,
                                       .secret = key,
                                       .ip = htonl(INADDR_LOOPBACK),
                                       .connect_limit_ms = 700};

    sides[rank] = (struct side){.handler = {&sides[rank], on_up, on_record, on_end, on_refused}};
    ck_assert_int_eq(doorbell_open(&options, &sides[rank].doorbell, NULL), MORAY_OK);
}

static void meet(void)
{
    struct doorbell_address addresses[RANK_COUNT];

    for (uint32_t rank = 0; rank < RANK_COUNT; rank++)
        addresses[rank] = doorbell_address(sides[rank].doorbell);
    for (uint32_t rank = 0; rank < RANK_COUNT; rank++)
        doorbell_meet(sides[rank].doorbell, addresses);
}

static void setup(void)
{
    ck_assert_int_eq(auth_start(NULL), MORAY_OK);
    for (uint32_t rank = 0; rank < RANK_COUNT; rank++)
        open_side(rank, secret);
    meet();
}

static void teardown(void)
{
    for (uint32_t rank = 0; rank < RANK_COUNT; rank++)
        doorbell_close(sides[rank].doorbell);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Polls all sides until `value` reaches `wanted`, or for `limit_ms`; returns whether it did. */
static bool reach(const int *value, int wanted, uint64_t limit_ms)
{
    uint64_t end = now_ms() + limit_ms;

    do {
        for (uint32_t rank = 0; rank < RANK_COUNT; rank++)
            if (sides[rank].doorbell)
                doorbell_poll(sides[rank].doorbell, &sides[rank].handler);
        if (*value >= wanted)
            return true;
        usleep(200);
    } while (now_ms() < end);
    return false;
}

static void join(uint32_t from, uint32_t to)
{
    doorbell_dial(sides[from].doorbell, to);
    ck_assert(reach(&sides[from].ups, 1, 3000));
    ck_assert(reach(&sides[to].ups, 1, 3000));
}

static int connect_to(uint32_t rank)
{
    struct doorbell_address at = doorbell_address(sides[rank].doorbell);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = at.ip, .sin_port = at.port};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

START_TEST(records_pass_both_ways)
{
    join(1, 0);
    for (int i = 0; i <= DOORBELL_RECORD_MAX; i += 64) {
        uint8_t bytes[DOORBELL_RECORD_MAX];
        memset(bytes, i, sizeof(bytes));
        int at0 = sides[0].records, at1 = sides[1].records;
        ck_assert_int_eq(doorbell_tell(sides[1].doorbell, 0, DOORBELL_BELL, bytes, (size_t)i),
                         MORAY_OK);
        ck_assert_int_eq(doorbell_tell(sides[0].doorbell, 1, DOORBELL_ADDRESS, bytes, (size_t)i),
                         MORAY_OK);
        ck_assert(reach(&sides[0].records, at0 + 1, 2000));
        ck_assert(reach(&sides[1].records, at1 + 1, 2000));
        ck_assert_int_eq(sides[0].word, DOORBELL_BELL);
        ck_assert_int_eq(sides[1].word, DOORBELL_ADDRESS);
        ck_assert_uint_eq(sides[1].count, (size_t)i);
        ck_assert_int_eq(memcmp(sides[1].bytes, bytes, (size_t)i), 0);
    }
}
END_TEST

START_TEST(both_dial_at_once)
{
    doorbell_dial(sides[1].doorbell, 2);
    doorbell_dial(sides[2].doorbell, 1);
    ck_assert(reach(&sides[1].ups, 2, 3000));
    ck_assert(reach(&sides[2].ups, 2, 3000));
    ck_assert_int_eq(doorbell_tell(sides[1].doorbell, 2, DOORBELL_BELL, NULL, 0), MORAY_OK);
    ck_assert(reach(&sides[2].records, 1, 2000));
    doorbell_close(sides[2].doorbell);
    sides[2].doorbell = NULL;
    ck_assert(reach(&sides[1].ends, 1, 2000));
    ck_assert_uint_eq(sides[1].end_rank, 2);
    ck_assert(!reach(&sides[1].ends, 2, 100));
}
END_TEST

START_TEST(an_end_is_told_at_once)
{
    join(1, 0);
    doorbell_close(sides[1].doorbell);
    sides[1].doorbell = NULL;
    ck_assert(reach(&sides[0].ends, 1, 1000));
    ck_assert_uint_eq(sides[0].end_rank, 1);
    ck_assert_int_eq(doorbell_tell(sides[0].doorbell, 1, DOORBELL_BELL, NULL, 0),
                     MORAY_UNAVAILABLE);
}
END_TEST

/* A killed process closes nothing itself; its kernel does. */
START_TEST(a_killed_process_ends_its_connections)
{
    pid_t child = fork();

    if (child == 0) {
        doorbell_close(sides[0].doorbell); /* the child is rank 1 alone */
        doorbell_close(sides[2].doorbell);
        sides[0].doorbell = sides[2].doorbell = NULL;
        doorbell_dial(sides[1].doorbell, 0);
        int never = 0;
        reach(&never, 1, 20000);
        _exit(0);
    }
    doorbell_close(sides[1].doorbell);
    sides[1].doorbell = NULL;
    /* The listening sockets are the child's as well, and its epoll; so is nothing of the link. */
    ck_assert(reach(&sides[0].ups, 1, 5000));
    uint64_t start = now_ms();
    kill(child, SIGKILL);
    ck_assert(reach(&sides[0].ends, 1, 1000));
    ck_assert_uint_lt(now_ms() - start, 500);
    waitpid(child, NULL, 0);
}
END_TEST

START_TEST(another_secret_does_not_come_in)
{
    uint8_t other[AUTH_SECRET_BYTES];

    memcpy(other, secret, sizeof(other));
    other[0] ^= 1;
    doorbell_close(sides[1].doorbell);
    struct doorbell_address zero = doorbell_address(sides[0].doorbell);
    struct doorbell_address addresses[RANK_COUNT] = {zero, zero, zero};
    open_side(1, other);
    doorbell_meet(sides[1].doorbell, addresses);
    doorbell_dial(sides[1].doorbell, 0);
    ck_assert(reach(&sides[1].ends, 1, 3000)); /* it finds out first: the listener proves first */
    ck_assert_int_ge(sides[1].refusals, 1);
    ck_assert_int_eq(sides[0].ups + sides[1].ups, 0);
}
END_TEST

START_TEST(garbage_is_dropped)
{
    int fd = connect_to(0);
    char garbage[4096];

    memset(garbage, 'x', sizeof(garbage));
    ck_assert_int_gt(send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL), 0);
    ck_assert(reach(&sides[0].refusals, 1, 1000));
    ck_assert_uint_eq(doorbell_strangers(sides[0].doorbell), 0);
    ck_assert_int_eq(sides[0].ups, 0);
    close(fd);
}
END_TEST

START_TEST(a_guessed_proof_is_dropped)
{
    struct {
        uint32_t magic, version, from, to;
        uint8_t nonce[16];
    } hello = {0x79726f6d, 1, 1, 0, {0}};
    uint8_t answer[48], proof[32] = {0};
    int fd = connect_to(0), unused = 0;

    ck_assert_int_eq(send(fd, &hello, sizeof(hello), 0), sizeof(hello));
    reach(&unused, 1, 50);
    ck_assert_int_eq(recv(fd, answer, sizeof(answer), MSG_DONTWAIT), sizeof(answer));
    memcpy(proof, answer + 16, 32); /* the listener's own proof, sent back */
    ck_assert_int_eq(send(fd, proof, sizeof(proof), 0), sizeof(proof));
    ck_assert(reach(&sides[0].refusals, 1, 1000));
    ck_assert_int_eq(sides[0].ups, 0);
    ck_assert_ptr_nonnull(strstr(sides[0].text, "secret"));
    close(fd);
}
END_TEST

START_TEST(a_silent_stranger_is_dropped_after_two_seconds)
{
    int fd = connect_to(0);
    uint64_t start = now_ms();

    ck_assert(reach(&sides[0].refusals, 1, 4000));
    ck_assert_uint_ge(now_ms() - start, DOORBELL_STRANGER_MS - 100);
    ck_assert_uint_lt(now_ms() - start, DOORBELL_STRANGER_MS + 1000);
    ck_assert_uint_eq(doorbell_strangers(sides[0].doorbell), 0);
    close(fd);
}
END_TEST

START_TEST(strangers_are_bounded_and_keep_nobody_out)
{
    int fds[DOORBELL_STRANGERS_MAX + 20], unused = 0;

    for (int i = 0; i < DOORBELL_STRANGERS_MAX + 20; i++)
        fds[i] = connect_to(0);
    reach(&unused, 1, 100);
    ck_assert_uint_le(doorbell_strangers(sides[0].doorbell), DOORBELL_STRANGERS_MAX + RANK_COUNT);
    for (int i = 0; i < DOORBELL_STRANGERS_MAX + 20; i++)
        close(fds[i]);
    join(1, 0);
}
END_TEST

START_TEST(a_rank_that_is_not_there_is_told)
{
    doorbell_close(sides[2].doorbell); /* nobody listens there now */
    sides[2].doorbell = NULL;
    doorbell_dial(sides[1].doorbell, 2);
    ck_assert(reach(&sides[1].ends, 1, 2000));
    ck_assert_uint_eq(sides[1].end_rank, 2);
    ck_assert_ptr_nonnull(strstr(sides[1].text, "refused"));
}
END_TEST

/* A listener that never answers (a stopped process) does not hold the dialler past its limit. */
START_TEST(a_mute_rank_is_told_in_time)
{
    struct side mute = sides[2];
    uint64_t start = now_ms();

    sides[2].doorbell = NULL; /* nobody polls it */
    doorbell_dial(sides[1].doorbell, 2);
    ck_assert(reach(&sides[1].ends, 1, 3000));
    ck_assert_uint_ge(now_ms() - start, 600);
    sides[2] = mute;
}
END_TEST

/* Both are stopped for longer than the limit (a suspended job), and the dialler goes on first. */
START_TEST(a_dialler_that_was_stopped_waits_on)
{
    struct side stopped = sides[2];
    int unused = 0;

    sides[2].doorbell = NULL;
    doorbell_dial(sides[1].doorbell, 2);
    reach(&unused, 1, 100);
    usleep(4500000);
    reach(&unused, 1, 100);
    ck_assert_int_eq(sides[1].ends, 0);
    sides[2] = stopped;
    ck_assert(reach(&sides[1].ups, 1, 2000));
}
END_TEST

/* As many descriptors as there are now, and no more. Returns what the limit was. */
static struct rlimit no_descriptor_more(void)
{
    struct rlimit before, now;
    int next = dup(STDERR_FILENO);

    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    now = before;
    now.rlim_cur = (rlim_t)next;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &now), 0);
    return before;
}

START_TEST(without_a_descriptor_a_dial_ends_in_time)
{
    struct rlimit before = no_descriptor_more();
    uint64_t start = now_ms();

    doorbell_dial(sides[1].doorbell, 2);
    ck_assert(reach(&sides[1].ends, 1, 3000));
    ck_assert_uint_ge(now_ms() - start, 600);
    ck_assert_uint_eq(sides[1].end_rank, 2);
    ck_assert_ptr_nonnull(strstr(sides[1].text, "ulimit -n"));
    setrlimit(RLIMIT_NOFILE, &before);
}
END_TEST

START_TEST(a_dial_waits_for_a_descriptor)
{
    struct rlimit before = no_descriptor_more();
    int unused = 0;

    doorbell_dial(sides[1].doorbell, 2);
    reach(&unused, 1, 200);
    ck_assert_int_eq(sides[1].ups + sides[1].ends, 0);
    setrlimit(RLIMIT_NOFILE, &before);
    ck_assert(reach(&sides[1].ups, 1, 2000));
    ck_assert(reach(&sides[2].ups, 1, 2000));
}
END_TEST

START_TEST(a_dropped_rank_stays_out)
{
    join(1, 0);
    doorbell_drop(sides[0].doorbell, 1);
    ck_assert(reach(&sides[1].ends, 1, 1000));
    doorbell_dial(sides[1].doorbell, 0);
    ck_assert(reach(&sides[0].refusals, 1, 2000));
    ck_assert_int_eq(sides[0].ups, 1);
    ck_assert_int_eq(sides[0].ends, 0);
}
END_TEST

/* Nobody takes the records: the bound is told, and later nothing of what was taken is missing. */
START_TEST(a_full_connection_says_busy)
{
    enum moray_code code = MORAY_OK;
    uint8_t bytes[DOORBELL_RECORD_MAX] = {0};
    int taken = 0;

    join(1, 0);
    for (int i = 0; i < 100000 && code == MORAY_OK; i++) { /* nobody polls rank 0 */
        code = doorbell_tell(sides[1].doorbell, 0, DOORBELL_BELL, bytes, sizeof(bytes));
        taken += code == MORAY_OK;
    }
    ck_assert_int_eq(code, MORAY_BUSY);
    ck_assert_int_gt(taken, 0);
    ck_assert(reach(&sides[0].records, taken, 5000)); /* and then all of it arrives */
    ck_assert_int_eq(sides[0].refusals, 0);
    ck_assert_int_eq(doorbell_tell(sides[1].doorbell, 0, DOORBELL_BELL, bytes, 8), MORAY_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fabric/doorbell");
    TCase *laws = tcase_create("laws");
    SRunner *runner = srunner_create(suite);

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, records_pass_both_ways);
    tcase_add_test(laws, both_dial_at_once);
    tcase_add_test(laws, an_end_is_told_at_once);
    tcase_add_test(laws, a_killed_process_ends_its_connections);
    tcase_add_test(laws, another_secret_does_not_come_in);
    tcase_add_test(laws, garbage_is_dropped);
    tcase_add_test(laws, a_guessed_proof_is_dropped);
    tcase_add_test(laws, a_silent_stranger_is_dropped_after_two_seconds);
    tcase_add_test(laws, strangers_are_bounded_and_keep_nobody_out);
    tcase_add_test(laws, a_rank_that_is_not_there_is_told);
    tcase_add_test(laws, a_mute_rank_is_told_in_time);
    tcase_add_test(laws, a_dialler_that_was_stopped_waits_on);
    tcase_add_test(laws, without_a_descriptor_a_dial_ends_in_time);
    tcase_add_test(laws, a_dial_waits_for_a_descriptor);
    tcase_add_test(laws, a_dropped_rank_stays_out);
    tcase_add_test(laws, a_full_connection_says_busy);
    tcase_set_timeout(laws, 30);
    suite_add_tcase(suite, laws);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
