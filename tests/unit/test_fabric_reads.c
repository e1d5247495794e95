/** The laws of runtime/fabric/reads and address: each read ends once; all ranks choose alike. */
#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/address.h"
#include "fabric/reads.h"

enum { PIECES_MAX = 4, PIECE_BYTES = 1000, SEEDS = 100, READS = 40, RANKS = 4 };

static struct reads *reads;
static struct {
    int times;
    enum moray_code code;
    bool posted;
} told[READS];
static bool ready[RANKS];

static void on_read(void *context, uint64_t cookie, enum moray_code code, bool posted)
{
    (void)context;
    told[cookie].times++;
    told[cookie].code = code;
    told[cookie].posted = posted;
}

static const struct fabric_handler handler = {.read_done = on_read};

static bool is_ready(void *context, uint32_t rank)
{
    (void)context;
    return ready[rank];
}

static void setup(void)
{
    ck_assert_int_eq(reads_create(PIECES_MAX, PIECE_BYTES, &reads, NULL), MORAY_OK);
    memset(told, 0, sizeof(told));
    memset(ready, true, sizeof(ready));
}

static void teardown(void)
{
    reads_destroy(reads);
}

static void add(uint32_t rank, uint8_t *local, uint64_t bytes, uint64_t cookie)
{
    struct fabric_window window = {.address = 5000, .key = 77, .bytes = 1 << 20};

    ck_assert_int_eq(reads_add(reads, rank, &window, 100, local, bytes, cookie), MORAY_OK);
}

static struct reads_piece *next(void)
{
    return reads_next(reads, is_ready, NULL);
}

START_TEST(pieces_cover_the_read_and_no_more_are_in_flight)
{
    static uint8_t local[4500];
    struct reads_piece *pieces[PIECES_MAX];

    add(1, local, sizeof(local), 0);
    for (int i = 0; i < PIECES_MAX; i++) {
        pieces[i] = next();
        ck_assert_ptr_nonnull(pieces[i]);
        ck_assert_ptr_eq(pieces[i]->local, local + i * PIECE_BYTES);
        ck_assert_uint_eq(pieces[i]->offset, 100 + (unsigned)i * PIECE_BYTES);
        ck_assert_uint_eq(pieces[i]->bytes, PIECE_BYTES);
        ck_assert_uint_eq(pieces[i]->address, 5000);
        ck_assert_uint_eq(pieces[i]->key, 77);
    }
    ck_assert_ptr_null(next());
    reads_done(reads, pieces[2], true);
    struct reads_piece *last = next();
    ck_assert_uint_eq(last->bytes, 500);
    ck_assert_ptr_null(next());
    reads_done(reads, last, true);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1), 0);
    reads_done(reads, pieces[0], true);
    reads_done(reads, pieces[1], true);
    reads_done(reads, pieces[3], true);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1), 1);
    ck_assert_int_eq(told[0].code, MORAY_OK);
    ck_assert_uint_eq(reads_count(reads), 0);
}
END_TEST

START_TEST(a_small_read_is_not_kept_behind_a_large_one)
{
    static uint8_t local[1 << 16];

    add(1, local, sizeof(local), 0);
    add(2, local, 8, 1);
    struct reads_piece *first = next(), *second = next();
    ck_assert_uint_eq(first->rank, 1);
    ck_assert_uint_eq(second->rank, 2);
    reads_done(reads, second, true);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1), 1);
    ck_assert_int_eq(told[1].times, 1);
    reads_done(reads, first, true);
}
END_TEST

START_TEST(a_refused_piece_comes_again)
{
    static uint8_t local[1500];

    add(1, local, sizeof(local), 0);
    struct reads_piece *piece = next();
    reads_back(reads, piece);
    ck_assert_uint_eq(reads_in_flight(reads), 0);
    piece = next();
    ck_assert_ptr_eq(piece->local, local);
    struct reads_piece *last = next();
    ck_assert_uint_eq(last->bytes, 500);
    reads_back(reads, last);
    last = next();
    ck_assert_ptr_eq(last->local, local + PIECE_BYTES);
    ck_assert_ptr_null(next());
    reads_done(reads, piece, true);
    reads_done(reads, last, true);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1), 1);
}
END_TEST

START_TEST(a_rank_that_is_not_ready_holds_up_nobody)
{
    static uint8_t local[100];

    ready[1] = false;
    add(1, local, sizeof(local), 0);
    add(2, local, sizeof(local), 1);
    struct reads_piece *piece = next();
    ck_assert_uint_eq(piece->rank, 2);
    ck_assert_ptr_null(next());
    ck_assert(reads_any_of(reads, 1));
    reads_done(reads, piece, true);
    ready[1] = true;
    ck_assert_uint_eq(next()->rank, 1);
}
END_TEST

START_TEST(a_lost_rank_ends_its_reads_once_their_pieces_are_back)
{
    static uint8_t local[1 << 16];

    add(1, local, sizeof(local), 0);
    struct reads_piece *piece = next();
    add(1, local, 8, 1);
    add(2, local, 8, 2);
    reads_lose(reads, 1, 1000);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1000), 1); /* the one that had posted nothing */
    ck_assert_int_eq(told[1].code, MORAY_LOST);
    ck_assert_int_eq(told[0].times, 0);
    reads_done(reads, piece, false);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1001), 1);
    ck_assert_int_eq(told[0].code, MORAY_LOST);
    ck_assert(!told[0].posted);
    ck_assert_uint_eq(next()->rank, 2);
}
END_TEST

START_TEST(pieces_that_never_come_back_are_waited_for_two_seconds)
{
    static uint8_t local[PIECES_MAX * PIECE_BYTES];
    struct reads_piece *pieces[PIECES_MAX];

    add(1, local, sizeof(local), 0);
    for (int i = 0; i < PIECES_MAX; i++)
        pieces[i] = next();
    reads_lose(reads, 1, 1000);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1000 + READS_QUARANTINE_NS - 1), 0);
    ck_assert_uint_eq(reads_tell(reads, &handler, 1000 + READS_QUARANTINE_NS), 1);
    ck_assert(told[0].posted);
    add(2, local, 8, 1); /* they hold up nobody else */
    struct reads_piece *other = next();
    ck_assert_ptr_nonnull(other);
    for (int i = 0; i < PIECES_MAX; i++) /* and may come back all the same */
        reads_done(reads, pieces[i], true);
    reads_done(reads, other, true);
    ck_assert_uint_eq(reads_tell(reads, &handler, 5000 + READS_QUARANTINE_NS), 1);
    ck_assert_int_eq(told[0].times, 1);
    ck_assert_int_eq(told[1].times, 1);
}
END_TEST

/* One random history a seed (_i): pieces end in any order, well or badly, are refused, ranks are
 * lost. Every byte is asked for at most once at a time, and each read is told once. */
START_TEST(whatever_happens_a_read_is_told_once)
{
    static uint8_t local[READS][6000];
    struct reads_piece *out[PIECES_MAX];
    unsigned seed = (unsigned)_i + 1;
    int count = 0, added = 0;
    uint64_t now = 1, sum = 0, bytes[READS], asked[READS] = {0};
    bool lost[RANKS] = {false};

    while (added < READS || reads_count(reads)) {
        int what = rand_r(&seed) % 100;
        now += 1000000;
        if (what < 20 && added < READS) {
            uint32_t rank = (uint32_t)rand_r(&seed) % RANKS;
            bytes[added] = 1 + (uint64_t)rand_r(&seed) % 5999;
            if (!lost[rank])
                add(rank, local[added], bytes[added], (uint64_t)added);
            else
                told[added].times = 1;
            added++;
        } else if (what < 60) {
            struct reads_piece *piece = next();
            if (!piece)
                continue;
            int index = (int)((piece->local - local[0]) / 6000);
            if (rand_r(&seed) % 8 == 0) {
                reads_back(reads, piece);
                continue;
            }
            ck_assert_int_lt(count, PIECES_MAX);
            asked[index] += piece->bytes;
            out[count++] = piece;
        } else if (what < 98 && count) {
            int pick = rand_r(&seed) % count;
            bool ok = rand_r(&seed) % 30 != 0;
            reads_done(reads, out[pick], ok);
            out[pick] = out[--count];
        } else if (what == 99 && added > READS / 2) {
            uint32_t rank = (uint32_t)rand_r(&seed) % RANKS;
            if (!lost[rank])
                reads_lose(reads, rank, now);
            lost[rank] = true;
            ready[rank] = false;
        }
        reads_tell(reads, &handler, now);
    }
    for (int i = 0; i < READS; i++) {
        ck_assert_msg(told[i].times == 1, "seed %d, read %d: told %d times", _i, i, told[i].times);
        ck_assert_msg(told[i].code != MORAY_OK || !asked[i] || asked[i] == bytes[i],
                      "seed %d, read %d", _i, i);
        sum += asked[i];
    }
    ck_assert_uint_gt(sum, 0);
    while (count)
        reads_done(reads, out[--count], true);
}
END_TEST

/* ---- Addresses ---- */

static struct address_list host(uint64_t name, const char *const *ips)
{
    struct address_list list = {.host = name};

    for (; *ips; ips++) {
        inet_pton(AF_INET, *ips, &list.networks[list.count].ip);
        list.networks[list.count++].mask = htonl(0xffffff00);
    }
    return list;
}

static const char *chosen(const struct address_list *lists, uint32_t rank)
{
    static char text[INET_ADDRSTRLEN];
    uint32_t ip = address_choose(lists, 3, rank);

    return inet_ntop(AF_INET, &ip, text, sizeof(text));
}

START_TEST(the_first_network_that_all_share_is_taken)
{
    struct address_list lists[] = {
        host(1, (const char *const[]){"192.168.9.1", "10.0.0.1", "10.1.0.1", NULL}),
        host(2, (const char *const[]){"10.1.0.2", "10.0.0.2", NULL}),
        host(3, (const char *const[]){"10.1.0.3", "192.168.9.3", "10.0.0.3", NULL}),
    };

    ck_assert_str_eq(chosen(lists, 0), "10.0.0.1");
    ck_assert_str_eq(chosen(lists, 1), "10.0.0.2");
    ck_assert_str_eq(chosen(lists, 2), "10.0.0.3");
}
END_TEST

/* docker0 has the same address on every host and leads nowhere. */
START_TEST(an_address_on_two_hosts_is_no_shared_network)
{
    struct address_list lists[] = {
        host(1, (const char *const[]){"172.17.0.1", "10.0.0.1", NULL}),
        host(2, (const char *const[]){"172.17.0.1", "10.0.0.2", NULL}),
        host(1, (const char *const[]){"172.17.0.1", "10.0.0.1", NULL}),
    };

    ck_assert_str_eq(chosen(lists, 0), "10.0.0.1");
    ck_assert_str_eq(chosen(lists, 1), "10.0.0.2");
    ck_assert_str_eq(chosen(lists, 2), "10.0.0.1");
}
END_TEST

START_TEST(without_a_shared_network_each_takes_its_first)
{
    struct address_list lists[] = {
        host(1, (const char *const[]){"10.0.0.1", NULL}),
        host(2, (const char *const[]){"10.0.1.1", NULL}),
        host(3, (const char *const[]){NULL}),
    };

    ck_assert_str_eq(chosen(lists, 0), "10.0.0.1");
    ck_assert_str_eq(chosen(lists, 1), "10.0.1.1");
    ck_assert_str_eq(chosen(lists, 2), "0.0.0.0");
}
END_TEST

START_TEST(an_interface_is_taken_by_name_or_address_or_refused_by_name)
{
    struct address_list list;
    struct moray_error error;

    ck_assert_int_eq(address_list("lo", false, &list, &error), MORAY_OK);
    ck_assert_uint_eq(list.networks[0].ip, htonl(INADDR_LOOPBACK));
    ck_assert_int_eq(address_list("127.0.0.1", false, &list, &error), MORAY_OK);
    ck_assert_int_eq(address_list("127.0.0.0/8", false, &list, &error), MORAY_OK);
    ck_assert_uint_eq(list.networks[0].ip, htonl(INADDR_LOOPBACK));
    ck_assert_int_eq(address_list("127.0.0.2", false, &list, &error), MORAY_INVALID);
    ck_assert_int_eq(address_list("127.0.0.0/33", false, &list, &error), MORAY_INVALID);
    ck_assert_int_eq(address_list("127.0.0.0/8x", false, &list, &error), MORAY_INVALID);
    ck_assert_int_eq(address_list("", false, &list, &error), MORAY_INVALID);
    ck_assert_int_eq(address_list(NULL, true, &list, &error), MORAY_OK);
    ck_assert_uint_eq(list.networks[0].ip, htonl(INADDR_LOOPBACK));
    ck_assert_int_eq(address_list("nosuch0", false, &list, &error), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "nosuch0"));
    ck_assert_ptr_nonnull(strstr(error.text, "lo (127.0.0.1)"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fabric/reads");
    TCase *laws = tcase_create("reads"), *addresses = tcase_create("addresses");
    SRunner *runner = srunner_create(suite);

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, pieces_cover_the_read_and_no_more_are_in_flight);
    tcase_add_test(laws, a_small_read_is_not_kept_behind_a_large_one);
    tcase_add_test(laws, a_refused_piece_comes_again);
    tcase_add_test(laws, a_rank_that_is_not_ready_holds_up_nobody);
    tcase_add_test(laws, a_lost_rank_ends_its_reads_once_their_pieces_are_back);
    tcase_add_test(laws, pieces_that_never_come_back_are_waited_for_two_seconds);
    tcase_add_loop_test(laws, whatever_happens_a_read_is_told_once, 0, SEEDS);
    tcase_add_test(addresses, the_first_network_that_all_share_is_taken);
    tcase_add_test(addresses, an_address_on_two_hosts_is_no_shared_network);
    tcase_add_test(addresses, without_a_shared_network_each_takes_its_first);
    tcase_add_test(addresses, an_interface_is_taken_by_name_or_address_or_refused_by_name);
    tcase_set_timeout(laws, 20);
    suite_add_tcase(suite, laws);
    suite_add_tcase(suite, addresses);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
