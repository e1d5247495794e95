#include <stdlib.h>
#include <string.h>

#include "client/process.h"

/* Several references at once: get of many, and wait. They are looked at together, and none is waited for
 * alone; what fails is told before the slow ones end. */

struct pending { /* what is waited for, in the caller's order */
    uint32_t *indices;
    uint32_t count;
};

static bool any_failed(const struct pending *all, uint32_t *which)
{
    for (uint32_t i = 0; i < all->count; i++)
        if (life_state(record_life(lane_record(&me.lane, all->indices[i]))) == RECORD_FAILED) {
            *which = all->indices[i];
            return true;
        }
    return false;
}

static uint32_t ended_count(const uint32_t *indices, uint32_t count, uint32_t want)
{
    uint32_t ended = 0;
    for (uint32_t i = 0; i < count && ended < want; i++)
        ended += life_ended(record_life(lane_record(&me.lane, indices[i])));
    return ended;
}

/* What several records have come to; those that have ended need not be looked at again. */
struct look {
    uint32_t *open, *generations;
    uint32_t open_count, ended;
    bool failed, gone;
};

static void look_again(struct look *look, bool ask)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < look->open_count; i++) {
        uint32_t index = look->open[i];
        const struct record *record = lane_record(&me.lane, index);
        if (life_is_gone(record_life(record), look->generations[i])) {
            look->gone = true;
            return;
        }
        bool over = ask ? lane_await(&me.lane, index) : life_ended(record_life(record));
        if (!over) {
            look->generations[kept] = look->generations[i];
            look->open[kept++] = index;
            continue;
        }
        look->ended++;
        look->failed |= life_state(record_life(record)) == RECORD_FAILED;
    }
    look->open_count = kept;
}

/* Of those that are still open, one by which others can tell whom this process waits for; with `helps`,
 * and which the agent may have it run itself. */
static void waits_set(const struct look *look, bool helps)
{
    uint32_t waits = look->open_count ? (look->open[0] + 1) | (helps ? LANE_HELPS : 0) : 0;

    if (atomic_load_explicit(&me.lane.self->waits, memory_order_relaxed) != waits)
        atomic_store(&me.lane.self->waits, waits);
}

/* Sleeps until `want` of the records have ended, or one has failed (if asked), or the limit passed.
 * The core is somebody else's from before the first sleep until it goes on. `helps` (where all are
 * wanted): goes on also to run what the first of those needs, and says so there. */
static enum moray_code wait_for(const uint32_t *indices, uint32_t count, uint32_t want,
                                bool failure, uint64_t until_ns, bool *helps)
{
    struct look look = {.open = malloc((count ? count : 1) * 2 * sizeof(*look.open)),
                        .open_count = count};
    enum moray_code code = MORAY_OK;
    bool alone = false, woken = false, may = helps && *helps && !me.general;
    bool tells = failure && thread_owner && !until_ns;
    uint32_t generation;

    if (helps)
        *helps = false;
    if (!look.open)
        return last_set(MORAY_NO_MEMORY, "no memory to wait for %u objects", count);
    memcpy(look.open, indices, count * sizeof(*look.open));
    look.generations = look.open + count;
    for (uint32_t i = 0; i < count; i++)
        look.generations[i] = life_generation(record_life(lane_record(&me.lane, indices[i])));
    look_again(&look, true);
    if (look.gone || look.ended >= want || (failure && look.failed))
        want = 0;
    else if (until_ns && now_ns() >= until_ns)
        code = MORAY_TIMEOUT;
    if (want && code == MORAY_OK && !should_end()) {
        (void)!driver_waits();
        leave();
        asleep_in_call(true);
        core_leave();
        sleep_begin();
        for (;;) {
            uint32_t seen = atomic_load(&me.lane.self->wake), before = look.ended;
            look_again(&look, false);
            if (alone && look.ended > before)
                rescue_count(seen, "something that it waits for has ended");
            if (look.gone || look.ended >= want || (failure && look.failed) || should_end())
                break;
            if (until_ns && now_ns() >= until_ns) {
                code = MORAY_TIMEOUT;
                break;
            }
            if (may && woken && lane_needed(&me.lane, look.open[0], &generation) != RECORD_NONE &&
                core_take()) {
                *helps = true;
                break;
            }
            if (tells)
                waits_set(&look, may);
            lane_bump(&me.lane.self->sleeps);
            alone = process_sleep(seen, until_ns);
            woken = !alone;
            if (atomic_load(&me.lane.self->freed))
                freed_tidy();
        }
        sleep_end();
        if (tells)
            atomic_store(&me.lane.self->waits, 0);
        core_return(code == MORAY_TIMEOUT);
        asleep_in_call(false);
        (void)!enter();
    }
    free(look.open);
    if (look.gone && !(failure && look.failed))
        code = gone_while_waiting();
    if (code == MORAY_OK && look.ended < want && !(failure && look.failed) && should_end())
        code = wait_cut();
    return code;
}

/* Until all have ended, or one has failed. Without a limit a worker runs what it waits for, one after the
 * other; what it may not run it does not wait for alone. */
static enum moray_code wait_for_all(const struct pending *all, uint64_t until_ns)
{
    enum moray_code code;
    uint32_t which;
    bool helps;

    do {
        helps = me.role == ROLE_WORKER && !until_ns;
        for (uint32_t i = 0; helps && i < all->count && !any_failed(all, &which); i++)
            helps = record_help(all->indices[i]);
        code = wait_for(all->indices, all->count, all->count, true, until_ns, &helps);
    } while (helps);
    return code;
}

enum moray_code moray_get_many(const moray_ref *refs, size_t count, moray_view *views,
                               int64_t limit_ms)
{
    enum moray_code code = enter();
    uint32_t *indices = NULL, which;
    uint64_t until_ns, bytes;
    const void *data;
    size_t open = 0;

    if (code != MORAY_OK)
        return code;
    if (!views && count)
        code = last_set(MORAY_INVALID, "moray_get_many into a null pointer");
    if (code == MORAY_OK)
        code = limit_until(limit_ms, &until_ns);
    if (code == MORAY_OK)
        code = refs_find(refs, count, &indices);
    if (code == MORAY_OK) {
        struct pending all = {indices, (uint32_t)count};
        if (count)
            memset(views, 0, count * sizeof(*views));
        code = wait_for_all(&all, until_ns);
        if (any_failed(&all, &which))
            code = record_outcome(which, 0, &data, &bytes);
        /* All at once, not in turn. */
        for (size_t i = 0; code == MORAY_OK && count > 1 && i < count; i++)
            if (record_flags(lane_record(&me.lane, indices[i])) & RECORD_RESULT_FAR)
                fetch_begin(indices[i]);
        for (; code == MORAY_OK && open < count; open++) {
            code = record_outcome(indices[open], until_ns, &data, &bytes);
            if (code == MORAY_OK)
                view_open(indices[open], refs[open], data, bytes, &views[open]);
        }
        if (code != MORAY_OK)
            for (size_t i = 0; i < open; i++)
                view_close(&views[i]);
        refs_done(refs, count, indices, code == MORAY_TIMEOUT);
    }
    leave();
    return code;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static bool has_twins(const uint32_t *indices, size_t count)
{
    uint32_t *sorted = malloc((count ? count : 1) * sizeof(*sorted));
    bool twins = false;

    if (!sorted)
        return false;
    memcpy(sorted, indices, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), by_value);
    for (size_t i = 1; i < count; i++)
        twins |= sorted[i] == sorted[i - 1];
    free(sorted);
    return twins;
}

enum moray_code moray_wait(const moray_ref *refs, size_t count, size_t want, moray_ref *ready,
                           size_t *ready_count, moray_ref *rest, size_t *rest_count,
                           int64_t limit_ms, unsigned flags)
{
    enum moray_code code = enter();
    uint32_t *indices = NULL;
    uint64_t until_ns;
    size_t is_ready = 0, is_rest = 0;

    if (code != MORAY_OK)
        return code;
    if (count && (want < 1 || want > count))
        code = last_set(MORAY_INVALID, "wait for %zu of %zu references: takes 1 to all of them",
                        want, count);
    else if (flags & ~MORAY_FETCH)
        code = last_set(MORAY_INVALID, "unknown flags %x; moray_wait knows MORAY_FETCH", flags);
    if (code == MORAY_OK)
        code = limit_until(limit_ms, &until_ns);
    if (code == MORAY_OK)
        code = refs_find(refs, count, &indices);
    if (code == MORAY_OK && has_twins(indices, count))
        code = last_set(MORAY_INVALID, "a reference is listed twice");
    if (code == MORAY_OK) {
        if (flags & MORAY_FETCH)
            for (size_t i = 0; i < count; i++)
                fetch_begin(indices[i]);
        if (count && ended_count(indices, (uint32_t)count, (uint32_t)want) < want)
            code = wait_for(indices, (uint32_t)count, (uint32_t)want, false, until_ns, NULL);
        if (code == MORAY_TIMEOUT)
            code = MORAY_OK;
        for (size_t i = 0; i < count; i++) {
            bool over =
                is_ready < want && life_ended(record_life(lane_record(&me.lane, indices[i])));
            if (over && ready)
                ready[is_ready] = refs[i];
            if (!over && rest)
                rest[is_rest] = refs[i];
            is_ready += over;
            is_rest += !over;
        }
        if (ready_count)
            *ready_count = is_ready;
        if (rest_count)
            *rest_count = is_rest;
    }
    if (indices)
        refs_done(refs, count, indices, is_rest > 0 || (flags & MORAY_FETCH));
    leave();
    return code;
}
