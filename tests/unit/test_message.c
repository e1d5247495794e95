/** Rows of items from the wire: what is not to the letter what its kind says is refused, and nothing
 *  past a row's end is read. Each row lies right before a page that cannot be read. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/requests.h"
#include "node/head.h"
#include "node/message.h"
#include "sched/lane/record.h"
#include "sched/policy/resources.h"

enum { ROW_BYTES_MAX = 4096, MUTATIONS = 20000, SEEDS = 16 };

/* ---- A program, and rank 1 of 3 that runs it ---- */

static const struct moray_parameter number = {"int64_t", "a", 8, 1, MORAY_KIND_VALUE},
                                    numbers[] = {{"int64_t", "a", 8, 1, MORAY_KIND_VALUE},
                                                 {"int32_t", "b", 4, 2, MORAY_KIND_VALUE}},
                                    future = {"moray_future", "f", 16, 3, MORAY_KIND_FUTURE};
static const struct moray_function add = {.name = "add",
                                          .parameters = numbers,
                                          .parameter_count = 2,
                                          .results = &number,
                                          .result_count = 1},
                                   wait_for = {.name = "wait_for",
                                               .parameters = &future,
                                               .parameter_count = 1},
                                   divide = {.name = "divide",
                                             .parameters = numbers,
                                             .parameter_count = 2,
                                             .results = numbers,
                                             .result_count = 2},
                                   increment = {.name = "increment",
                                                .kind = MORAY_IS_METHOD,
                                                .parameters = &number,
                                                .parameter_count = 1},
                                   construct = {.name = "construct",
                                                .kind = MORAY_IS_CONSTRUCTOR,
                                                .parameters = &number,
                                                .parameter_count = 1};
enum { ADD, WAIT_FOR, DIVIDE, INCREMENT, CONSTRUCT, FUNCTIONS };
static const struct moray_function *const program_functions[] = {&add, &wait_for, &divide,
                                                                 &increment, &construct};
static const struct moray_class counter = {.name = "counter", .constructor = &construct};
static const struct moray_class *const program_classes[] = {&counter};
static struct message_world world = {.rank = 1,
                                     .rank_count = 3,
                                     .record_count = 1000,
                                     .function_count = FUNCTIONS,
                                     .class_count = 1,
                                     .functions = program_functions,
                                     .classes = program_classes,
                                     .program_bytes = 4096};

/* ---- Rows ---- */

struct row {
    char bytes[ROW_BYTES_MAX] __attribute__((aligned(8)));
    uint32_t used, item; /* item: where the last one begins */
};

static void *append(struct row *row, const void *bytes, uint32_t count)
{
    void *at = row->bytes + row->used;

    ck_assert_uint_le(row->used + (count + 7) / 8 * 8, sizeof(row->bytes));
    memset(at, 0, (count + 7) / 8 * 8);
    if (bytes)
        memcpy(at, bytes, count);
    row->used += (count + 7) / 8 * 8;
    return at;
}

static void begin(struct row *row, enum item_kind kind)
{
    row->item = row->used;
    append(row, &(struct item){.kind = kind}, sizeof(struct item));
}

static void end(struct row *row)
{
    struct item *item = (struct item *)(row->bytes + row->item);

    item->bytes = row->used - row->item - (uint32_t)sizeof(*item);
}

static void append_value(struct row *row, struct value value, const void *bytes)
{
    append(row, &value, sizeof(value));
    if (value.follow)
        append(row, bytes, value.follow);
}

#define INLINE(count) ((struct value){.shape = SHAPE_INLINE, .bytes = (count), .follow = (count)})

static struct item_task *append_task(struct row *row, enum item_kind kind, uint32_t function,
                                     uint16_t mask, uint32_t argument_bytes)
{
    begin(row, kind);
    return append(row,
                  &(struct item_task){.function = function,
                                      .reference_mask = mask,
                                      .attempts_max = 4,
                                      .argument_bytes = argument_bytes},
                  sizeof(struct item_task));
}

static void append_tasks(struct row *row)
{
    struct record_long details = {.on_rank = -1, .name = "named"};
    const struct name name = {.owner = 1, .index = 7, .generation = 3};

    append_task(row, ITEM_TASK, ADD, 0, 16);
    append(row, "0123456789abcdef", 16);
    end(row);
    append_task(row, ITEM_TASK, ADD, 1, 8); /* a far input, and a value */
    append(row, &name, sizeof(name));
    append_value(
        row, (struct value){.shape = SHAPE_FAR, .rank = 2, .index = 5000, .bytes = 1 << 20}, NULL);
    append(row, "01234567", 8);
    end(row);
    append_task(row, ITEM_TASK, ADD, 3, 0); /* inputs without a name, one of them failed */
    append(row, &(struct name){0}, sizeof(name));
    append_value(row, INLINE(8), "01234567");
    append(row, &(struct name){0}, sizeof(name));
    append_value(row, (struct value){.shape = SHAPE_FAILED, .index = 3, .follow = 5}, "oops");
    end(row);
    append_task(row, ITEM_TASK, WAIT_FOR, 1, 0);
    append(row, &name, sizeof(name));
    append_value(row, (struct value){.shape = SHAPE_PENDING}, NULL);
    end(row);
    struct item_task *task = append_task(row, ITEM_TASK, DIVIDE, 0, sizeof(details) + 16);
    task->flags = RECORD_LONG;
    task->extra_count = 1;
    append(row, &details, sizeof(details));
    append(row, NULL, 16);
    end(row);
    append_task(row, ITEM_CALL, INCREMENT, 0, 8)->actor = 5;
    append(row, NULL, 8);
    end(row);
}

static void append_fields(struct row *row, enum item_kind kind, uint32_t count)
{
    begin(row, kind);
    append(row, NULL, count);
    end(row);
}

static void append_ask(struct row *row, enum item_kind kind, uint32_t word, const void *bytes,
                       uint32_t count)
{
    begin(row, kind);
    append(row, &(struct item_ask){.kind = word, .count = count}, sizeof(struct item_ask));
    append(row, bytes, count);
    end(row);
}

/* All that rank 0 says to a node. */
static void append_words(struct row *row)
{
    struct {
        struct actor_word word;
        struct request_actor request;
        char name[8], argument[8];
    } start = {.request = {.name_bytes = 5, .argument_bytes = 8}, .name = "fred"};
    struct {
        struct actor_word word;
        char story[8];
    } is = {.word = {.node = 2}, .story = "well"};

    append_fields(row, ITEM_NODES, 3 * sizeof(struct item_hello));
    append_ask(row, ITEM_REPLY, MORAY_OK, "answer", 6);
    append_ask(row, ITEM_WORD, NODE_ACTOR_START, &start, sizeof(start));
    append_ask(row, ITEM_WORD, NODE_ACTOR_IS, &is, sizeof(is));
    append_ask(row, ITEM_WORD, NODE_ACTOR_STOP, &is.word, sizeof(is.word));
    begin(row, ITEM_MOVE);
    append(row, &(struct item_move){1, 2, 10, 0}, sizeof(struct item_move));
    end(row);
    append_fields(row, ITEM_FUNCTIONS, 0);
    append_fields(row, ITEM_END, sizeof(struct item_end));
    begin(row, ITEM_SETUP);
    append(row, &(struct item_setup){.function = 100, .count = 3}, sizeof(struct item_setup));
    append(row, "abc", 3);
    end(row);
}

static void append_objects(struct row *row)
{
    begin(row, ITEM_RESULT);
    append(row, &(struct item_result){7, 3, 2, 0}, sizeof(struct item_result));
    append_value(row, INLINE(8), "01234567");
    append_value(row, INLINE(3), "abc");
    end(row);
    begin(row, ITEM_OBJECT);
    append(row, &(struct item_told){.index = 7, .generation = 3}, sizeof(struct item_told));
    append_value(row, (struct value){.shape = SHAPE_FAR, .rank = 1, .index = 999, .bytes = 4097},
                 NULL);
    end(row);
    append_fields(row, ITEM_BORROW, sizeof(struct item_borrow));
    append_fields(row, ITEM_HEARD, sizeof(struct item_heard));
    append_fields(row, ITEM_FREE, sizeof(struct item_object));
    append_fields(row, ITEM_RELEASE, sizeof(struct item_release));
    append_fields(row, ITEM_PULL, sizeof(struct item_pull));
    append_fields(row, ITEM_GRANT, sizeof(struct item_grant));
    append_fields(row, ITEM_PULLED, sizeof(struct item_pull));
    append_fields(row, ITEM_STARTS, sizeof(struct item_starts));
}

/* All that a node says to rank 0. */
static void append_reports(struct row *row)
{
    append_fields(row, ITEM_HELLO, sizeof(struct item_hello));
    append_fields(row, ITEM_LOAD, sizeof(struct load));
    append_ask(row, ITEM_ASK, REQUEST_KV, "a request", 9);
    begin(row, ITEM_MOVED);
    append(row, &(struct item_move){2, 1, 10, 9}, sizeof(struct item_move));
    end(row);
    begin(row, ITEM_FUNCTIONS);
    append(row, "add() at a.c:1\n", 16);
    end(row);
}

/* ---- Reading them ---- */

static char *guarded; /* the byte behind the last one that may be read */

static void set_up(void)
{
    long page = sysconf(_SC_PAGESIZE);
    char *room = mmap(NULL, ROW_BYTES_MAX + (size_t)page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(room, MAP_FAILED);
    guarded = room + ROW_BYTES_MAX;
    ck_assert_int_eq(mprotect(guarded, (size_t)page, PROT_NONE), 0);
}

/* What is wrong with the row, as an agent sees it; NULL: nothing. Rows of odd lengths are not aligned
 * then, as no row of the fabric is; so the reader's fields are compared as they lie. */
static const char *wrong_with(const void *bytes, uint32_t count, uint32_t from)
{
    char *at = guarded - count;
    const struct item *item;
    const char *wrong;

    memcpy(at, bytes, count);
    struct bytes_reader row = bytes_read(at, count);
    while ((item = message_next(&row)))
        if ((wrong = message_wrong(item, from, &world)))
            return wrong;
    return row.bad ? "the row is cut off" : NULL;
}

static void fill(struct row *row, int group)
{
    static void (*const groups[])(struct row *) = {append_tasks, append_objects, append_words,
                                                   append_reports};

    *row = (struct row){.used = 0};
    groups[group](row);
    world.rank = group == 3 ? 0 : 1;
}

enum { GROUPS = 4 };
#define FROM(group) ((group) == 3 ? 2u : 0u)

START_TEST(what_agents_say_is_taken)
{
    struct row row;

    fill(&row, _i);
    const char *wrong = wrong_with(row.bytes, row.used, FROM(_i));
    ck_assert_msg(!wrong, "%s", wrong);
}
END_TEST

START_TEST(a_row_that_is_cut_off_is_refused)
{
    struct row row;

    fill(&row, _i);
    for (uint32_t count = 0, next = 0; count < row.used; count += 8) {
        const struct item *item = (const struct item *)(row.bytes + next);
        if (count == next) { /* between two items: a whole row */
            ck_assert_ptr_null(wrong_with(row.bytes, count, FROM(_i)));
            next += (uint32_t)sizeof(*item) + item->bytes;
        } else
            ck_assert_msg(wrong_with(row.bytes, count, FROM(_i)), "cut off at %u", count);
    }
}
END_TEST

/* The item's head goes with it: only what is inside tells. */
START_TEST(an_item_that_is_cut_off_is_refused)
{
    struct row row, one;

    fill(&row, _i);
    for (uint32_t at = 0; at < row.used;) {
        struct item item;
        memcpy(&item, row.bytes + at, sizeof(item));
        for (uint32_t less = 8; less <= item.bytes; less += 8) {
            memcpy(one.bytes, row.bytes + at, sizeof(item) + item.bytes);
            ((struct item *)one.bytes)->bytes = item.bytes - less;
            ck_assert_msg(
                wrong_with(one.bytes, (uint32_t)sizeof(item) + item.bytes - less, FROM(_i)),
                "kind %u less %u of %u bytes", item.kind, less, item.bytes);
        }
        at += (uint32_t)sizeof(item) + item.bytes;
    }
}
END_TEST

START_TEST(an_item_that_is_too_long_is_refused)
{
    struct row row, one;

    fill(&row, _i);
    for (uint32_t at = 0; at < row.used;) {
        struct item item;
        memcpy(&item, row.bytes + at, sizeof(item));
        uint32_t whole = (uint32_t)sizeof(item) + item.bytes;
        memcpy(one.bytes, row.bytes + at, whole);
        memset(one.bytes + whole, 0, 8);
        ((struct item *)one.bytes)->bytes += 8;
        /* Lists of functions and constructors' words are read up to their ends. */
        bool open = item.kind == ITEM_WORD || (item.kind == ITEM_FUNCTIONS && item.bytes);
        ck_assert_msg(open || wrong_with(one.bytes, whole + 8, FROM(_i)), "kind %u", item.kind);
        at += whole;
    }
}
END_TEST

/* Any bytes at all: an answer, and no byte past the end. One run a seed. */
START_TEST(no_mutation_is_read_past_its_end)
{
    static const uint32_t absurd[] = {0, 1, 7, 8, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
    unsigned seed = (unsigned)_i;
    unsigned refused = 0;
    struct row row;

    for (int turn = 0; turn < MUTATIONS; turn++) {
        int group = turn % GROUPS;
        fill(&row, group);
        for (int change = rand_r(&seed) % 3; change >= 0; change--) {
            uint32_t word = (uint32_t)rand_r(&seed) % (row.used / 4);
            uint32_t value = rand_r(&seed) % 2
                                 ? absurd[rand_r(&seed) % 8]
                                 : ((uint32_t *)row.bytes)[word] ^ 1u << rand_r(&seed) % 32;
            memcpy(row.bytes + 4 * word, &value, 4);
        }
        uint32_t count =
            rand_r(&seed) % 2 ? row.used : (uint32_t)rand_r(&seed) % (row.used / 8) * 8;
        refused += wrong_with(row.bytes, count, FROM(group)) != NULL;
    }
    ck_assert_uint_gt(refused, MUTATIONS / 3);
}
END_TEST

static const char *one_task(uint32_t function, uint16_t mask, uint32_t argument_bytes)
{
    struct row row = {.used = 0};

    append_task(&row, ITEM_TASK, function, mask, argument_bytes);
    append(&row, NULL, argument_bytes < 64 ? argument_bytes : 64);
    end(&row);
    return wrong_with(row.bytes, row.used, 0);
}

START_TEST(arguments_of_another_number_or_size_are_refused)
{
    world.rank = 1;
    ck_assert_ptr_null(one_task(ADD, 0, 16));
    ck_assert_ptr_nonnull(strstr(one_task(ADD, 0, 8), "another number or size"));
    ck_assert_ptr_nonnull(strstr(one_task(ADD, 0, 24), "another number or size"));
    ck_assert_ptr_nonnull(strstr(one_task(ADD, 0, 0xfffffff0), "another number or size"));
    ck_assert_ptr_nonnull(strstr(one_task(ADD, 4, 16), "another number or size"));
    ck_assert_ptr_nonnull(strstr(one_task(WAIT_FOR, 0, 16), "another number or size"));
    ck_assert_ptr_nonnull(strstr(one_task(INCREMENT, 0, 8), "no task"));
    ck_assert_ptr_nonnull(strstr(one_task(FUNCTIONS, 0, 16), "does not exist"));
}
END_TEST

/* A length that wraps to 0 when it is rounded, and one that differs from what the value says. */
START_TEST(a_value_whose_length_lies_is_refused)
{
    static const uint32_t lies[] = {0xffffffff, 0xfffffff9, 4, 16, 0x80000000};

    world.rank = 1;
    for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        struct row row = {.used = 0};
        begin(&row, ITEM_RESULT);
        append(&row, &(struct item_result){7, 3, 1, 0}, sizeof(struct item_result));
        append_value(&row, INLINE(8), "01234567");
        ((struct value *)(row.bytes + row.used - 8 - sizeof(struct value)))->follow = lies[i];
        end(&row);
        ck_assert_msg(wrong_with(row.bytes, row.used, 0), "%u bytes", lies[i]);
        row = (struct row){.used = 0}; /* a story, which has no second length: nothing follows */
        begin(&row, ITEM_RESULT);
        append(&row, &(struct item_result){7, 3, 1, 0}, sizeof(struct item_result));
        append(&row, &(struct value){.shape = SHAPE_FAILED, .follow = lies[i]},
               sizeof(struct value));
        end(&row);
        ck_assert_msg(wrong_with(row.bytes, row.used, 0), "a story of %u bytes", lies[i]);
    }
}
END_TEST

START_TEST(only_rank_0_gives_orders)
{
    struct row row;

    fill(&row, 2);
    for (uint32_t at = 0; at < row.used;) {
        const struct item *item = (const struct item *)(row.bytes + at);
        if (item->kind != ITEM_SETUP)
            ck_assert_ptr_nonnull(wrong_with(item, (uint32_t)sizeof(*item) + item->bytes, 2));
        at += (uint32_t)sizeof(*item) + item->bytes;
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("message");
    TCase *laws = tcase_create("laws");

    tcase_set_timeout(laws, 30);
    tcase_add_checked_fixture(laws, set_up, NULL);
    tcase_add_loop_test(laws, what_agents_say_is_taken, 0, GROUPS);
    tcase_add_loop_test(laws, a_row_that_is_cut_off_is_refused, 0, GROUPS);
    tcase_add_loop_test(laws, an_item_that_is_cut_off_is_refused, 0, GROUPS);
    tcase_add_loop_test(laws, an_item_that_is_too_long_is_refused, 0, GROUPS);
    tcase_add_loop_test(laws, no_mutation_is_read_past_its_end, 0, SEEDS);
    tcase_add_test(laws, arguments_of_another_number_or_size_are_refused);
    tcase_add_test(laws, a_value_whose_length_lies_is_refused);
    tcase_add_test(laws, only_rank_0_gives_orders);
    suite_add_tcase(suite, laws);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
