#include "gcs/liveness.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

struct rank {
    uint64_t heard_ns; /* when it last gave a sign, or was excused */
    enum liveness_state state;
};

struct liveness {
    struct liveness_options options;
    uint64_t now_ns;    /* of the last event */
    uint64_t ticked_ns; /* of the last tick */
    struct rank ranks[];
};

static_assert(sizeof(struct rank) == 16, "the header names this cost");

static void advance(struct liveness *liveness, uint64_t now_ns)
{
    assert(now_ns >= liveness->now_ns);
    liveness->now_ns = now_ns;
}

/* Moves a rank to a state; returns how many actions that is: 0 or 1. */
static size_t move(struct liveness *liveness, uint32_t rank, enum liveness_state next,
                   struct liveness_action *action)
{
    struct rank *line = &liveness->ranks[rank];

    if (line->state == LIVENESS_GONE || line->state == next)
        return 0;
    line->state = next;
    *action = (struct liveness_action){rank, next};
    return 1;
}

size_t liveness_heard(struct liveness *liveness, uint32_t rank, uint64_t now_ns,
                      struct liveness_action *actions)
{
    advance(liveness, now_ns);
    if (rank >= liveness->options.rank_count)
        return 0;
    liveness->ranks[rank].heard_ns = now_ns;
    return move(liveness, rank, LIVENESS_PRESENT, actions);
}

size_t liveness_cut(struct liveness *liveness, uint32_t rank, uint64_t now_ns,
                    struct liveness_action *actions)
{
    advance(liveness, now_ns);
    if (rank >= liveness->options.rank_count)
        return 0;
    return move(liveness, rank, LIVENESS_GONE, actions);
}

/* What a rank's silence says of it now. */
static enum liveness_state judge(const struct liveness_options *options, uint64_t quiet_ns)
{
    if (quiet_ns >= options->give_up_ns)
        return LIVENESS_GONE;
    return quiet_ns >= options->doubt_ns ? LIVENESS_DOUBTED : LIVENESS_PRESENT;
}

size_t liveness_tick(struct liveness *liveness, uint64_t now_ns, struct liveness_action *actions)
{
    bool slept = now_ns - liveness->ticked_ns > liveness->options.doubt_ns;
    size_t count = 0;

    advance(liveness, now_ns);
    liveness->ticked_ns = now_ns;
    for (uint32_t rank = 0; rank < liveness->options.rank_count; rank++) {
        struct rank *line = &liveness->ranks[rank];
        assert(line->heard_ns <= now_ns);
        if (slept)
            line->heard_ns = now_ns; /* the pause was ours; their signs may lie unread */
        else if (judge(&liveness->options, now_ns - line->heard_ns) > line->state)
            count += move(liveness, rank, judge(&liveness->options, now_ns - line->heard_ns),
                          &actions[count]);
    }
    return count;
}

enum liveness_state liveness_state(const struct liveness *liveness, uint32_t rank)
{
    return rank < liveness->options.rank_count ? liveness->ranks[rank].state : LIVENESS_GONE;
}

enum moray_code liveness_create(const struct liveness_options *options, uint64_t now_ns,
                                struct liveness **out, struct moray_error *error)
{
    struct liveness *liveness;

    *out = NULL;
    if (options->rank_count == 0)
        return error_set(error, MORAY_INVALID, "rank_count is 0; a job has at least one rank");
    if (options->doubt_ns == 0 || options->give_up_ns <= options->doubt_ns)
        return error_set(error, MORAY_INVALID,
                         "doubt_ns is %" PRIu64 " and give_up_ns %" PRIu64
                         "; the first must not be 0, and the second must be more",
                         options->doubt_ns, options->give_up_ns);
    liveness = calloc(1, sizeof(*liveness) + options->rank_count * sizeof(struct rank));
    if (!liveness)
        return error_set(error, MORAY_NO_MEMORY, "no memory for %u ranks", options->rank_count);
    liveness->options = *options;
    liveness->now_ns = liveness->ticked_ns = now_ns;
    for (uint32_t rank = 0; rank < options->rank_count; rank++)
        liveness->ranks[rank].heard_ns = now_ns;
    *out = liveness;
    return MORAY_OK;
}

void liveness_destroy(struct liveness *liveness)
{
    free(liveness);
}
