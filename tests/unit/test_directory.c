#include <string.h>

#include "store/directory/directory.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

enum { OWNER = 0, RANKS = 6, BYTES = 4096 };

static struct directory *directory;
static struct directory_action action;
static struct moray_error error;

static enum moray_code add(uint64_t object, uint32_t attempt)
{
    return directory_add(directory, object, attempt, 1, &error);
}

static enum moray_code sealed(uint64_t object, uint32_t rank, uint32_t attempt)
{
    return directory_sealed(directory, object, rank, attempt, BYTES, &error);
}

static enum moray_code want(uint64_t object, uint32_t reader, uint64_t transfer)
{
    return directory_want(directory, object, reader, transfer, &error);
}

static enum moray_code fetched(uint64_t object, uint32_t reader, uint64_t transfer, uint32_t source,
                               enum directory_end end)
{
    return directory_fetched(directory, object, reader, transfer, source, end, &error);
}

static enum moray_code hold(uint64_t object, uint32_t rank, uint64_t epoch, bool set)
{
    return directory_hold(directory, object, rank, epoch, set, &error);
}

static bool grants(uint64_t object, uint32_t source, uint32_t reader, uint64_t transfer)
{
    return directory_next(directory, &action) && action.kind == DIRECTORY_GRANT &&
           action.object == object && action.source == source && action.reader == reader &&
           action.transfer == transfer && action.bytes == BYTES;
}

static bool acts(int kind, uint64_t object, uint32_t source)
{
    return directory_next(directory, &action) && (int)action.kind == kind &&
           action.object == object && action.source == source;
}

static bool quiet(void)
{
    return !directory_next(directory, &action);
}

static void setup(void)
{
    ck_assert_int_eq(directory_create(&(struct directory_options){.rank_count = RANKS,
                                                                  .rank = OWNER,
                                                                  .object_max = 50,
                                                                  .reads_per_copy_max = 2},
                                      &directory, NULL),
                     MORAY_OK);
}

static void teardown(void)
{
    directory_destroy(directory);
}

START_TEST(a_want_waits_for_the_seal_and_is_granted_from_there)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(add(7, 1), MORAY_EXISTS);
    ck_assert_int_eq(want(7, 3, 100), MORAY_OK);
    ck_assert(quiet());
    ck_assert_int_eq(sealed(7, 2, 1), MORAY_OK);
    ck_assert(grants(7, 2, 3, 100) && action.attempt == 1 && quiet());
    ck_assert_int_eq(want(7, 3, 100), MORAY_EXISTS);
    ck_assert_int_eq(fetched(7, 3, 100, 2, DIRECTORY_KEPT), MORAY_OK);
    ck_assert_int_eq(fetched(7, 3, 100, 2, DIRECTORY_READ), MORAY_STALE);
    ck_assert_int_eq(want(7, 3, 101), MORAY_OK);
    ck_assert(grants(7, 3, 3, 101) && quiet()); /* it has a copy of its own */
    uint32_t ranks[4];
    ck_assert_uint_eq(directory_copies(directory, 7, ranks, 4), 2);
    ck_assert_int_eq(hold(7, OWNER, 1, false), MORAY_OK);
    ck_assert(acts(DIRECTORY_DROP_COPY, 7, 3) && acts(DIRECTORY_DROP_COPY, 7, 2));
    ck_assert(acts(DIRECTORY_FREE, 7, OWNER) && quiet());
    ck_assert_uint_eq(directory_count(directory), 0);
    ck_assert_int_eq(want(7, 3, 102), MORAY_STALE);
}
END_TEST

START_TEST(a_hot_object_spreads_along_its_copies)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, 1, 1), MORAY_OK);
    for (uint32_t reader = 2; reader < RANKS; reader++)
        ck_assert_int_eq(want(7, reader, reader), MORAY_OK);
    ck_assert(grants(7, 1, 2, 2) && grants(7, 1, 3, 3) && quiet()); /* two turns a copy */
    ck_assert_int_eq(fetched(7, 2, 2, 1, DIRECTORY_KEPT), MORAY_OK);
    ck_assert(grants(7, 2, 4, 4)); /* the new copy has the fewest readers */
    ck_assert(directory_next(directory, &action) && action.reader == 5 && quiet());
}
END_TEST

START_TEST(an_object_lives_while_someone_holds_it_or_reads)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, OWNER, 1), MORAY_OK);
    ck_assert_int_eq(hold(7, 4, 1, true), MORAY_OK);
    ck_assert_int_eq(hold(7, OWNER, 1, false), MORAY_OK);
    ck_assert(quiet());
    ck_assert_int_eq(want(7, 4, 9), MORAY_OK);
    ck_assert_int_eq(hold(7, 4, 1, false), MORAY_OK); /* it reads still */
    ck_assert(grants(7, OWNER, 4, 9) && quiet());
    ck_assert_int_eq(fetched(7, 4, 9, OWNER, DIRECTORY_READ), MORAY_OK);
    ck_assert(acts(DIRECTORY_FREE, 7, OWNER) && quiet()); /* the owner's copy goes with it */
}
END_TEST

START_TEST(a_late_word_frees_nothing_and_revives_nothing)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, OWNER, 1), MORAY_OK);
    ck_assert_int_eq(hold(7, 4, 5, false), MORAY_OK); /* 4's end overtook the word of its begin, */
    ck_assert_int_eq(hold(7, 4, 5, true), MORAY_OK);  /* which another rank passed on */
    ck_assert_int_eq(hold(7, 3, 2, true), MORAY_OK);
    ck_assert_int_eq(hold(7, 3, 2, true), MORAY_OK);
    ck_assert_int_eq(hold(7, 3, 1, false), MORAY_OK); /* of an older span */
    ck_assert_int_eq(hold(7, OWNER, 1, false), MORAY_OK);
    ck_assert(quiet());
    struct directory_line line;
    ck_assert(directory_get(directory, 7, &line) && line.holder_count == 1);
    ck_assert_int_eq(hold(7, 3, 2, false), MORAY_OK);
    ck_assert(acts(DIRECTORY_FREE, 7, OWNER) && quiet());
    ck_assert_int_eq(hold(7, 3, 2, false), MORAY_STALE);
}
END_TEST

START_TEST(copies_of_another_attempt_are_refused)
{
    ck_assert_int_eq(add(7, 2), MORAY_OK);
    ck_assert_int_eq(sealed(7, 3, 1), MORAY_STALE);
    ck_assert(acts(DIRECTORY_DROP_COPY, 7, 3) && action.attempt == 1 && quiet());
    ck_assert_int_eq(sealed(7, 4, 2), MORAY_OK);
    ck_assert_int_eq(sealed(7, 4, 2), MORAY_OK); /* said twice */
    ck_assert(!directory_attempt(directory, 7, 3));
    ck_assert_int_eq(directory_sealed(directory, 7, 5, 2, BYTES + 1, &error), MORAY_INVALID);
    ck_assert(acts(DIRECTORY_DROP_COPY, 7, 5) && quiet());
    ck_assert_int_eq(sealed(8, 3, 1), MORAY_STALE); /* of nothing that is here */
    ck_assert(acts(DIRECTORY_DROP_COPY, 8, 3) && quiet());
}
END_TEST

START_TEST(the_loss_of_the_last_copy_is_told_once_and_can_be_mended)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, 2, 1), MORAY_OK);
    ck_assert_int_eq(want(7, 3, 1), MORAY_OK);
    ck_assert(grants(7, 2, 3, 1) && quiet());
    directory_rank_lost(directory, 2);
    ck_assert(directory_next(directory, &action) && action.kind == DIRECTORY_LOST && quiet());
    ck_assert(!directory_copy_gone(directory, 7, 2));
    ck_assert(directory_attempt(directory, 7, 2) && quiet());
    ck_assert_int_eq(sealed(7, 4, 1), MORAY_STALE);
    ck_assert(acts(DIRECTORY_DROP_COPY, 7, 4));
    ck_assert_int_eq(sealed(7, 4, 2), MORAY_OK);
    ck_assert(grants(7, 4, 3, 1) && action.attempt == 2 && quiet()); /* the same read goes on */
    ck_assert_int_eq(fetched(7, 3, 1, 2, DIRECTORY_NO_SOURCE), MORAY_OK); /* late: about rank 2 */
    ck_assert(quiet());
    ck_assert_int_eq(fetched(7, 3, 1, 4, DIRECTORY_READ), MORAY_OK);
}
END_TEST

START_TEST(what_cannot_be_remade_is_refused_to_all)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(want(7, 3, 1), MORAY_OK);
    ck_assert(directory_fail(directory, 7, MORAY_LOST));
    ck_assert(directory_next(directory, &action) && action.kind == DIRECTORY_REFUSE);
    ck_assert(action.reader == 3 && action.transfer == 1 && action.code == MORAY_LOST && quiet());
    ck_assert_int_eq(want(7, 4, 2), MORAY_OK);
    ck_assert(directory_next(directory, &action) && action.kind == DIRECTORY_REFUSE && quiet());
    ck_assert_int_eq(hold(7, OWNER, 1, false), MORAY_OK);
    ck_assert(acts(DIRECTORY_FREE, 7, OWNER) && quiet());
    ck_assert(!directory_fail(directory, 7, MORAY_LOST));
}
END_TEST

START_TEST(a_source_without_the_copy_is_left_for_another)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, 1, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, 2, 1), MORAY_OK);
    ck_assert_int_eq(want(7, 3, 1), MORAY_OK);
    ck_assert(grants(7, 1, 3, 1));
    ck_assert_int_eq(fetched(7, 3, 1, 1, DIRECTORY_NO_SOURCE), MORAY_OK);
    ck_assert(grants(7, 2, 3, 1) && quiet());
    ck_assert(!directory_copy_gone(directory, 7, 1)); /* that was known by then */
    ck_assert(directory_copy_gone(directory, 7, 2));
    ck_assert(directory_next(directory, &action) && action.kind == DIRECTORY_LOST);
    ck_assert_int_eq(fetched(7, 3, 1, 2, DIRECTORY_KEPT), MORAY_OK); /* it had read all, luckily */
    ck_assert_int_eq(want(7, 4, 1), MORAY_OK);
    ck_assert(grants(7, 3, 4, 1));
    ck_assert_int_eq(fetched(7, 4, 1, 3, DIRECTORY_GAVE_UP), MORAY_OK);
    ck_assert(quiet());
}
END_TEST

START_TEST(a_copy_that_went_before_the_grant_was_told_is_not_granted)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, 1, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, 2, 1), MORAY_OK);
    ck_assert_int_eq(want(7, 3, 1), MORAY_OK);
    ck_assert(directory_copy_gone(directory, 7, 1)); /* the grant would have named this one */
    ck_assert(grants(7, 2, 3, 1) && quiet());
}
END_TEST

START_TEST(a_lost_rank_holds_reads_and_has_nothing)
{
    ck_assert_int_eq(add(7, 1), MORAY_OK);
    ck_assert_int_eq(sealed(7, OWNER, 1), MORAY_OK);
    ck_assert_int_eq(hold(7, 3, 1, true), MORAY_OK);
    ck_assert_int_eq(want(7, 3, 1), MORAY_OK);
    ck_assert_int_eq(want(7, 3, 2), MORAY_OK);
    ck_assert_int_eq(want(7, 3, 3), MORAY_OK);
    ck_assert_int_eq(hold(7, OWNER, 1, false), MORAY_OK);
    ck_assert(grants(7, OWNER, 3, 1) && grants(7, OWNER, 3, 2) && quiet());
    directory_rank_lost(directory, 3);
    ck_assert(acts(DIRECTORY_FREE, 7, OWNER) && quiet());
    ck_assert_int_eq(add(8, 1), MORAY_OK);
    ck_assert_int_eq(hold(8, 3, 9, true), MORAY_STALE); /* a late word, passed on by another */
    ck_assert_int_eq(want(8, 3, 9), MORAY_STALE);
    ck_assert_int_eq(sealed(8, 3, 1), MORAY_STALE);
    ck_assert_int_eq(want(8, RANKS, 9), MORAY_STALE);
}
END_TEST

START_TEST(the_bound_of_objects_is_named)
{
    enum moray_code code = MORAY_OK;
    uint64_t object = 0;

    while (code == MORAY_OK && object < 100)
        code = add(++object, 1);
    ck_assert_int_eq(code, MORAY_BUSY);
    ck_assert_uint_eq(object, 51);
    ck_assert_ptr_nonnull(strstr(error.text, "object_max"));
    ck_assert_int_eq(hold(3, OWNER, 1, false), MORAY_OK);
    ck_assert(acts(DIRECTORY_FREE, 3, OWNER));
    ck_assert_int_eq(add(60, 1), MORAY_OK);
}
END_TEST

/* Ranks that hold, read, evict and die in any order, with a model of who has what. */
START_TEST(in_any_history_what_is_held_lives_and_all_else_is_freed)
{
    enum { OBJECTS = 8, READS = 64 };
    struct {
        bool known, held[RANKS], copy[RANKS];
        uint64_t epoch[RANKS];
        uint32_t copy_number[RANKS]; /* a copy made anew is another copy */
        uint32_t attempt;
    } model[OBJECTS] = {{0}};
    struct {
        uint64_t transfer;
        uint32_t object, reader, source, copy_number;
        bool open, granted;
    } reads[READS] = {{0}};
    bool lost[RANKS] = {false};
    uint64_t seed = (uint64_t)_i + 1, transfer = 0, generation = 0;
    uint64_t names[OBJECTS] = {0};

    for (int event = 0; event < 3500 || directory_count(directory) > 0; event++) {
        LAW(event < 100000, _i, event); /* else something is never freed */
        bool ending = event > 3500;
        uint32_t object = law_random(&seed, OBJECTS), rank = law_random(&seed, RANKS), at;
        if (lost[rank])
            continue;
        switch (law_random(&seed, 12)) {
        case 0:
            if (model[object].known || ending)
                break;
            memset(&model[object], 0, sizeof(model[object]));
            names[object] = ++generation * OBJECTS + object;
            model[object].known = model[object].held[OWNER] = true;
            model[object].epoch[OWNER] = 1;
            model[object].attempt = 1;
            LAW(add(names[object], 1) == MORAY_OK, _i, event);
            break;
        case 1:
        case 2: /* sealed, by the right attempt or by another */
            if (!model[object].known)
                break;
            at = model[object].attempt + (law_random(&seed, 4) == 0);
            LAW((sealed(names[object], rank, at) == MORAY_OK) == (at == model[object].attempt), _i,
                event);
            if (at == model[object].attempt) {
                model[object].copy_number[rank] += !model[object].copy[rank];
                model[object].copy[rank] = true;
            }
            break;
        case 3: /* holds and lets go, with repeated and late words */
        case 4:
            if (!model[object].known)
                break;
            if (!model[object].held[rank] && !ending) {
                model[object].held[rank] = true;
                LAW(hold(names[object], rank, ++model[object].epoch[rank], true) == MORAY_OK, _i,
                    event);
            } else if (model[object].held[rank]) {
                if (model[object].epoch[rank] > 1)
                    LAW(hold(names[object], rank, model[object].epoch[rank] - 1, false) == MORAY_OK,
                        _i, event);
                model[object].held[rank] = false;
                LAW(hold(names[object], rank, model[object].epoch[rank], false) == MORAY_OK, _i,
                    event);
            }
            break;
        case 5:
        case 6:
            for (at = 0; at < READS && reads[at].open; at++)
                ;
            if (at == READS || !model[object].known || !model[object].held[rank] || ending)
                break;
            reads[at].transfer = ++transfer;
            reads[at].object = object;
            reads[at].reader = rank;
            reads[at].open = true;
            reads[at].granted = false;
            LAW(want(names[object], rank, transfer) == MORAY_OK, _i, event);
            break;
        case 7:
        case 8:
        case 9: /* a read ends */
            at = law_random(&seed, READS);
            if (reads[at].open && reads[at].granted) {
                enum directory_end end = law_random(&seed, 4);
                object = reads[at].object;
                if (end == DIRECTORY_NO_SOURCE && !ending)
                    reads[at].granted = false;
                else
                    reads[at].open = false;
                if (ending && end == DIRECTORY_NO_SOURCE)
                    end = DIRECTORY_READ;
                if (end == DIRECTORY_NO_SOURCE &&
                    model[object].copy_number[reads[at].source] == reads[at].copy_number)
                    model[object].copy[reads[at].source] = false;
                if (end == DIRECTORY_KEPT) {
                    model[object].copy_number[reads[at].reader] +=
                        !model[object].copy[reads[at].reader];
                    model[object].copy[reads[at].reader] = true;
                }
                LAW(fetched(names[object], reads[at].reader, reads[at].transfer, reads[at].source,
                            end) == MORAY_OK,
                    _i, event);
            }
            break;
        case 10: /* evicted */
            if (model[object].known) {
                LAW(directory_copy_gone(directory, names[object], rank) == model[object].copy[rank],
                    _i, event);
                model[object].copy[rank] = false;
            }
            break;
        default:
            if (law_random(&seed, 150) == 0 && rank > 2) {
                lost[rank] = true;
                for (uint32_t i = 0; i < OBJECTS; i++)
                    model[i].held[rank] = model[i].copy[rank] = false;
                for (uint32_t i = 0; i < READS; i++) {
                    if (reads[i].reader == rank)
                        reads[i].open = false;
                    if (reads[i].source == rank)
                        reads[i].granted = false;
                }
                directory_rank_lost(directory, rank);
            }
        }
        while (directory_next(directory, &action)) {
            uint32_t of = (uint32_t)(action.object % OBJECTS);
            for (at = 0; at < READS; at++)
                if (reads[at].open && reads[at].transfer == action.transfer)
                    break;
            switch (action.kind) {
            case DIRECTORY_GRANT:
                LAW(at < READS && !reads[at].granted && !lost[action.source], _i, event);
                LAW(model[of].copy[action.source], _i, event);
                reads[at].source = action.source;
                reads[at].copy_number = model[of].copy_number[action.source];
                reads[at].granted = true;
                reads[at].open = action.source != action.reader;
                break;
            case DIRECTORY_REFUSE:
                LAW(at < READS && !reads[at].granted, _i, event);
                reads[at].open = false;
                break;
            case DIRECTORY_LOST:
                for (uint32_t i = 0; i < RANKS; i++)
                    LAW(!model[of].copy[i], _i, event);
                if (law_random(&seed, 3) == 0)
                    LAW(directory_fail(directory, action.object, MORAY_LOST), _i, event);
                else
                    LAW(directory_attempt(directory, action.object, ++model[of].attempt), _i,
                        event);
                break;
            case DIRECTORY_DROP_COPY:
                if (action.attempt == model[of].attempt)
                    model[of].copy[action.source] = false;
                break;
            case DIRECTORY_FREE:
                for (uint32_t i = 0; i < RANKS; i++) {
                    LAW(!model[of].held[i], _i, event);
                    LAW(i == OWNER || !model[of].copy[i], _i, event);
                }
                for (at = 0; at < READS; at++)
                    LAW(!reads[at].open || reads[at].object != of, _i, event);
                model[of].known = false;
                break;
            }
        }
        if (ending && law_random(&seed, 50) == 0) /* what waits for an attempt gets none */
            for (uint32_t i = 0; i < OBJECTS; i++)
                if (model[i].known)
                    (void)!directory_fail(directory, names[i], MORAY_LOST);
    }
    for (uint32_t i = 0; i < OBJECTS; i++)
        ck_assert(!model[i].known);
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{
    for (fault_first(); fault_again(); fault_next()) {
        struct directory *own;
        enum moray_code code =
            FAULTY(directory_create(&(struct directory_options){.rank_count = RANKS}, &own, NULL));
        if (code == MORAY_OK) {
            code = FAULTY(directory_add(own, 7, 1, 1, &error));
            ck_assert_uint_eq(directory_count(own), code == MORAY_OK);
            for (uint32_t rank = 1; code == MORAY_OK && rank < RANKS; rank++) {
                code = FAULTY(directory_hold(own, 7, rank, 1, true, &error));
                if (code == MORAY_OK)
                    code = FAULTY(directory_want(own, 7, rank, 1, &error));
                if (code == MORAY_OK)
                    code = FAULTY(directory_sealed(own, 7, rank, 1, 10, &error));
            }
            FAULTY((directory_destroy(own), 0));
        }
        ck_assert(code == MORAY_OK || code == MORAY_NO_MEMORY);
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_want_waits_for_the_seal_and_is_granted_from_there);
    tcase_add_test(laws, a_hot_object_spreads_along_its_copies);
    tcase_add_test(laws, an_object_lives_while_someone_holds_it_or_reads);
    tcase_add_test(laws, a_late_word_frees_nothing_and_revives_nothing);
    tcase_add_test(laws, copies_of_another_attempt_are_refused);
    tcase_add_test(laws, the_loss_of_the_last_copy_is_told_once_and_can_be_mended);
    tcase_add_test(laws, what_cannot_be_remade_is_refused_to_all);
    tcase_add_test(laws, a_source_without_the_copy_is_left_for_another);
    tcase_add_test(laws, a_copy_that_went_before_the_grant_was_told_is_not_granted);
    tcase_add_test(laws, a_lost_rank_holds_reads_and_has_nothing);
    tcase_add_test(laws, the_bound_of_objects_is_named);
    tcase_add_loop_test(laws, in_any_history_what_is_held_lives_and_all_else_is_freed, 0, 60);
    tcase_add_test(laws, a_failed_allocation_changes_nothing);
    return law_run("store/directory", laws);
}
