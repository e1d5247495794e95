#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "client/process.h"
#include "client/requests.h"
#include "node/actors.h"

/*
 * Waiting for the end of a record, in this order:
 *     it has ended                     one load
 *     run it on this stack             a worker, without a limit, and what it waits for likewise
 *     run what its runner has queued   leapfrogging: what it made, of the process that runs it (Wagner, Calder
 *                                      1993), on which its end depends
 *     look for a while                 at most MORAY_SPIN_US, where cores are free; or yield (driver.c)
 *     sleep                            the core goes to somebody else meanwhile; woken where all
 *                                      processes of the node sleep like this, it runs what it needs
 */

enum {
    STACK_LEFT = 256 * 1024,
    CHAIN_MAX = 1 << 20,
    CHAIN_FEW = 32,
    REQUEST_SOON_NS = 300000,
    IN_VAIN_NS = 2000, /* a worker that is awake needs less for a small task */
    CLOSE_TASKS = 4,   /* so few tasks since the last look, */
    CLOSE_TIMES = 4,   /* … so often in a row: it is at somebody's heels */
    FALL_NS = 2000,
    FALL_PAID = 8, /* tasks after it */
    FALL_NOT = 256 /* looks without it, where it did not pay */
};

static size_t stack_limit;
_Thread_local const char *thread_stack;

static bool stack_is_left(void)
{
    size_t used = (size_t)(thread_stack - (const char *)__builtin_frame_address(0));

    if (!stack_limit) {
        struct rlimit limit;
        stack_limit = getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
                          ? limit.rlim_cur
                          : (size_t)8 << 20;
    }
    return used + STACK_LEFT < stack_limit;
}

static bool may_run_here(void)
{
    const struct frame *frame = frame_top;

    while (frame && frame->record == RECORD_NONE) /* scopes */
        frame = frame->outer;
    return me.role == ROLE_WORKER && thread_owner && frame &&
           !(record_flags(lane_record(&me.lane, frame->record)) & RECORD_ALONE) && stack_is_left();
}

bool may_run_mine(void)
{
    return thread_owner ? may_run_here()
                        : me.role == ROLE_WORKER && (!thread_stack || stack_is_left());
}

void run_claimed(uint32_t index)
{
    leave();
    if (RARELY(setups_due()))
        setups_under();
    run_record(index);
    (void)!enter();
}

/* A task on whose end that of `index` depends, which `runner` runs; claimed. */
static uint32_t take_for(uint32_t index, uint16_t runner)
{
    uint32_t other = RECORD_NONE, generation;

    if (atomic_load(&me.lane.slots[runner].kind) == LANE_IS_WORKER)
        other = lane_steal_descendant(&me.lane, runner, index);
    if (other == RECORD_NONE) {
        other = lane_needed(&me.lane, index, &generation);
        if (other != RECORD_NONE && !lane_claim(&me.lane, other, generation))
            other = RECORD_NONE;
    }
    return other;
}

/* The usual case: it is queued still, and runs here and now. */
static bool run_queued(uint32_t index)
{
    uint64_t life = record_life(lane_record(&me.lane, index));

    if (!lane_may_take(&me.lane, index) || !lane_claim(&me.lane, index, life_generation(life)))
        return false;
    lane_unqueue(&me.lane);
    run_claimed(index);
    return true;
}

struct chain { /* of tasks of which each waits for the next: a hint, each is looked at as it is */
    uint32_t *items; /* `few`, or in the heap */
    uint32_t count, capacity;
    uint32_t few[CHAIN_FEW];
};

static bool chain_add(struct chain *chain, uint32_t index)
{
    bool few = chain->items == chain->few;

    if (chain->count == chain->capacity) {
        uint32_t *more = realloc(few ? NULL : chain->items, chain->capacity * 2 * sizeof(*more));
        if (!more)
            return false;
        if (few)
            memcpy(more, chain->few, sizeof(chain->few));
        chain->items = more;
        chain->capacity *= 2;
    }
    chain->items[chain->count++] = index;
    return true;
}

/* From `index` down to one that waits for nothing that is missing, which is not part of the chain. */
static uint32_t chain_down(struct chain *chain, uint32_t index)
{
    uint32_t input;

    while (chain->count < CHAIN_MAX &&
           (input = lane_missing_input(&me.lane, index)) != RECORD_NONE && chain_add(chain, index))
        index = input;
    return index;
}

/* Runs one task on whose end that of `index` depends, and then those of the chain that became ready by
 * it. False: there is none that we may run. */
OFF_TRIP static bool run_towards(uint32_t index)
{
    struct chain chain;
    bool ran = false;

    chain.items = chain.few;
    chain.count = 0;
    chain.capacity = CHAIN_FEW;
    for (uint32_t at = chain_down(&chain, index);;) {
        uint64_t life = record_life(lane_record(&me.lane, at));
        if (lane_may_take(&me.lane, at) && lane_claim(&me.lane, at, life_generation(life))) {
            lane_unqueue(&me.lane);
            run_claimed(at);
            ran = true;
        } else if (life_state(life) == RECORD_RUNNING && life_slot(life) != me.slot) {
            uint32_t other = take_for(at, (uint16_t)life_slot(life));
            if (other == RECORD_NONE)
                break;
            run_claimed(other);
            ran = true;
            continue;
        }
        if (!life_ended(record_life(lane_record(&me.lane, at))) || chain.count == 0)
            break;
        at = chain.items[--chain.count];
    }
    if (chain.items != chain.few)
        free(chain.items);
    return ran;
}

bool record_help(uint32_t index)
{
    if (!may_run_here())
        return false;
    while (!life_ended(record_life(lane_record(&me.lane, index))) && run_towards(index))
        ;
    return true;
}

ON_TRIP enum moray_code limit_until(int64_t limit_ms, uint64_t *until_ns)
{
    *until_ns = 0;
    if (limit_ms == 0)
        return MORAY_OK;
    if (limit_ms == MORAY_NOW) {
        *until_ns = LIMIT_NOW_NS;
        return MORAY_OK;
    }
    if (limit_ms < 0)
        return last_set(MORAY_INVALID,
                        "a time limit of %lld ms: takes milliseconds, 0 (no limit) or "
                        "MORAY_NOW",
                        (long long)limit_ms);
    if (limit_ms > INT64_MAX / 1000000)
        return MORAY_OK; /* longer than any machine runs */
    *until_ns = now_ns() + (uint64_t)limit_ms * 1000000;
    return MORAY_OK;
}

ON_TRIP bool spin_allowed(void)
{
    uint32_t awake = 0, end = me.node->slot_first_actor;

    if (!me.node->spin_ns)
        return false;
    if (end > me.lane.control->layout.slot_count)
        end = me.lane.control->layout.slot_count;
    for (uint32_t slot = 1; slot < end; slot++)
        awake +=
            atomic_load_explicit(&me.lane.slots[slot].kind, memory_order_relaxed) != LANE_NOBODY &&
            !atomic_load_explicit(&me.lane.slots[slot].asleep, memory_order_relaxed);
    return awake <= me.node->core_count;
}

/*
 * At the heels of one that submits, a worker or actor takes each task as soon as it is there: the lines
 * that the one is about to write, the other has just read, and tasks of both take up to three times as
 * long. So who finds only a few tasks at each look stays away for a moment. If many have come meanwhile it
 * does so from then on; if not, the caller waits for each, and it does not for a while.
 */
OFF_TRIP void fall_back(void)
{
    static uint64_t ran_before;
    static uint32_t close, looks;
    static bool falls;
    uint64_t ran = atomic_load_explicit(&me.lane.self->ran, memory_order_relaxed),
             between = ran - ran_before, until;

    ran_before = ran;
    if (falls && between < FALL_PAID) {
        falls = false;
        looks = FALL_NOT;
    } else if (!falls && looks) {
        looks--;
    } else if (!falls) {
        close = between <= CLOSE_TASKS ? close + 1 : 0;
        falls = close == CLOSE_TIMES;
    }
    if (!falls)
        return;
    close = 0;
    until = now_ns() + FALL_NS;
    do
        for (int i = 0; i < 8; i++)
            __builtin_ia32_pause();
    while (now_ns() < until);
}

OFF_TRIP static bool spin_for(uint32_t index)
{
    struct record *record = lane_record(&me.lane, index);
    uint64_t begin, now;
    bool moves = me.role == ROLE_DRIVER && thread_owner;

    if (!spin_allowed())
        return false;
    begin = now = now_ns();
    do {
        if (moves && now - begin >= IN_VAIN_NS) {
            driver_moves();
            moves = false;
        }
        for (int i = 0; i < 64; i++) {
            if (life_ended(record_life(record)))
                return true;
            __builtin_ia32_pause();
        }
    } while ((now = now_ns()) - begin < me.node->spin_ns);
    return false;
}

/* Before it sleeps. Who shares its core with the worker of the task gives way to it; not with a limit,
 * which may pass while the worker runs. */
ON_TRIP static bool look_for_end(uint32_t index, uint64_t until_ns)
{
    if (!driver_waits())
        return spin_for(index);
    return !until_ns && driver_yields(index);
}

void freed_tidy(void)
{
    asleep_in_call(false);
    if (enter() == MORAY_OK)
        leave();
    asleep_in_call(true);
}

/* Most requests are answered in microseconds: the core is kept so long. */
OFF_TRIP static bool answered_soon(struct record *record)
{
    uint32_t seen = atomic_load(&me.lane.self->wake);

    asleep_in_call(true);
    sleep_begin();
    if (!life_ended(record_life(record)))
        process_sleep(seen, now_ns() + REQUEST_SOON_NS);
    sleep_end();
    asleep_in_call(false);
    return life_ended(record_life(record));
}

ON_TRIP enum moray_code record_wait(uint32_t index, int64_t limit_ms)
{
    uint64_t until_ns;
    enum moray_code code;

    if (__builtin_expect(life_ended(record_life(lane_record(&me.lane, index))), 1))
        return limit_ms < 0 && limit_ms != MORAY_NOW ? limit_until(limit_ms, &until_ns) : MORAY_OK;
    code = limit_until(limit_ms, &until_ns);
    return code == MORAY_OK ? record_wait_until(index, until_ns) : code;
}

ON_TRIP static inline bool is_over(const struct record *record, uint32_t generation)
{
    uint64_t life = record_life(record);

    return life_ended(life) || life_is_gone(life, generation);
}

OFF_TRIP enum moray_code gone_while_waiting(void)
{
    return last_set(MORAY_STALE,
                    "a stale reference: it was released before its task had ended, and "
                    "while this call waited for it the object went; release it after "
                    "the last use, or use moray_hold");
}

/* Whether an actor waits, in a method, for a call of its own, which can begin only after that method. */
OFF_TRIP static bool is_own_call(const struct record *record)
{
    if (me.role != ROLE_ACTOR || !thread_owner || record->kind != RECORD_METHOD ||
        record_flags(record) & RECORD_FAR_CALL || life_state(record_life(record)) > RECORD_QUEUED)
        return false;
    const struct record_call *call = lane_call(&me.lane, record);
    return call->actor == me.lane.slot && call->incarnation == node_actor(me.actor)->generation;
}

OFF_TRIP static enum moray_code own_call_waited_for(void)
{
    return last_set(MORAY_WRONG_STATE,
                    "the actor waits for a call of its own, which cannot begin before the one that "
                    "waits has ended; call the function itself, or return and let the caller wait");
}

/* Sleeps, without a core, for the end of a record. Returns whether it has a core again, to run a task
 * that the end depends on. */
ON_TRIP static bool sleep_for(uint32_t index, uint32_t is, uint64_t until_ns, bool helps,
                              enum moray_code *code)
{
    struct record *record = lane_record(&me.lane, index);
    bool alone = false, woken = false;
    uint32_t generation;

    if (thread_owner && !until_ns)
        atomic_store(&me.lane.self->waits, (index + 1) | (helps ? LANE_HELPS : 0));
    asleep_in_call(true);
    sleep_begin(); /* whom core_leave() wakes may have this core before we sleep, and counts who is awake */
    core_leave();
    for (;;) {
        uint32_t seen = atomic_load(&me.lane.self->wake);
        if (is_over(record, is) || should_end())
            break;
        if (RARELY(until_ns && now_ns() >= until_ns)) {
            *code = MORAY_TIMEOUT;
            break;
        }
        if (helps && woken && lane_needed(&me.lane, index, &generation) != RECORD_NONE &&
            core_take())
            break;
        lane_bump(&me.lane.self->sleeps);
        alone = process_sleep(seen, until_ns);
        woken = !alone;
        if (RARELY(atomic_load(&me.lane.self->freed)))
            freed_tidy();
        if (RARELY(alone | (me.role == ROLE_ACTOR))) {
            if (alone && life_ended(record_life(record)))
                rescue_count(seen, "what it waits for has ended");
            if (!until_ns && !is_over(record, is) && is_own_call(record)) {
                *code = MORAY_WRONG_STATE;
                break;
            }
        }
    }
    sleep_end();
    if (thread_owner)
        atomic_store(&me.lane.self->waits, 0);
    core_return(*code == MORAY_TIMEOUT);
    asleep_in_call(false);
    return *code == MORAY_OK && !is_over(record, is) && !should_end();
}

OFF_TRIP enum moray_code wait_cut(void)
{
    if (me.role > ROLE_DRIVER) { /* the driver's threads go on; moray_finalize may have begun */
        leave();
        process_leave();
    }
    return last_set(MORAY_LOST, "the job is ending");
}

/* The long way: what it waits for is not here to be run, or has waits of its own. */
ON_TRIP static __attribute__((noinline)) enum moray_code wait_on(uint32_t index, uint32_t is,
                                                                 uint64_t until_ns)
{
    struct record *record = lane_record(&me.lane, index);
    enum moray_code code = MORAY_OK;

    if (RARELY(until_ns == LIMIT_NOW_NS)) {
        if (me.role == ROLE_DRIVER)
            driver_polls(); /* its core is somebody else's until it sleeps */
        return MORAY_TIMEOUT;
    }
    for (;;) {
        bool helps = until_ns == 0 && may_run_here();
        while (helps && !is_over(record, is) && run_towards(index))
            ;
        if (RARELY(life_is_gone(record_life(record), is)))
            return gone_while_waiting();
        if (life_ended(record_life(record)) || look_for_end(index, until_ns) ||
            lane_await(&me.lane, index))
            return MORAY_OK;
        leave();
        if (record->kind == RECORD_REQUEST && answered_soon(record))
            return enter() == MORAY_OK ? MORAY_OK : MORAY_WRONG_STATE;
        if (!sleep_for(index, is, until_ns, helps && !me.general, &code))
            break;
        (void)!enter();
    }
    (void)!enter();
    if (life_is_gone(record_life(record), is))
        return gone_while_waiting();
    if (should_end() && !life_ended(record_life(record)))
        code = wait_cut();
    else if (RARELY(code == MORAY_WRONG_STATE) && !life_ended(record_life(record)))
        code = own_call_waited_for();
    return life_ended(record_life(record)) ? MORAY_OK : code;
}

ON_TRIP enum moray_code record_wait_until(uint32_t index, uint64_t until_ns)
{
    struct record *record = lane_record(&me.lane, index);
    uint64_t life = record_life(record);

    if (life_ended(life) ||
        (until_ns == 0 && may_run_here() && run_queued(index) && life_ended(record_life(record))))
        return MORAY_OK;
    return wait_on(index, life_generation(life), until_ns);
}
