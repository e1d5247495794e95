#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/process.h"
#include "node/zygote.h"
#include "sched/lane/queue.h"

/*
 * The life of a worker:
 *
 *     mail ─▶ a general task that the agent gave it
 *     core? ─▶ own queue, then others' ─▶ run ─▶ give the core back if somebody waits for it
 *     nothing: look round for a while, then sleep; the driver's core is left alone (parked)
 *
 * A worker with an index has a core of its own to begin with. A spare (index -1) takes one that a
 * blocked process gave up, and gives it to whoever wants it back after the task it runs. Who has nothing
 * to do sleeps on its core: given away, it would wake one after the other, in a ring that never ends.
 */

enum { PARK_TICK_NS = 5000000, PARK_PROGRESS = 50 };

static struct lane_mail inbox[64];
static uint32_t inbox_count;

static void (*exit_hooks[32])(void);
static uint32_t exit_hook_count;

enum moray_code moray_at_worker_exit(void (*fn)(void))
{
    if (!fn || exit_hook_count == sizeof(exit_hooks) / sizeof(*exit_hooks))
        return last_set(MORAY_INVALID, "moray_at_worker_exit takes at most 32 functions");
    exit_hooks[exit_hook_count++] = fn;
    return MORAY_OK;
}

void run_exit_hooks(void)
{
    while (exit_hook_count)
        exit_hooks[--exit_hook_count]();
}

ON_TRIP bool should_end(void)
{
    return atomic_load_explicit(&me.node->ending, memory_order_relaxed) != 0;
}

_Noreturn void process_leave(void)
{
    run_exit_hooks();
    process_end(0);
}

ON_TRIP void run_setups(void)
{
    uint32_t count = atomic_load_explicit(&me.node->setup_count, memory_order_acquire);

    for (; RARELY(me.setups_done < count); me.setups_done++) {
        uint32_t record = me.node->setups[me.setups_done].record;
        void (*fn)(const void *, size_t) =
            (void (*)(const void *, size_t))(uintptr_t)me.node->setups[me.setups_done].function;
        const void *data;
        uint64_t bytes;
        if (enter() != MORAY_OK)
            return;
        enum moray_code code = result_bytes(record, 0, &data, &bytes);
        leave();
        if (code == MORAY_OK)
            fn(data, bytes);
    }
}

TRIP_DATA static bool
    stays; /* it left the driver's core for work that lay there, and stays for all of it */

static bool is_parked(void)
{
    return !stays && atomic_load_explicit(&me.node->driver_busy, memory_order_relaxed) &&
           atomic_load_explicit(&me.node->parked_slot, memory_order_relaxed) == me.slot;
}

static bool may_take(void)
{
    return me.worker_index < 0 || (uint32_t)me.worker_index < atomic_load(&me.node->lane_workers);
}

static void take_mail(void *context, const struct lane_mail *mail)
{
    (void)context;
    if (mail->kind == CELL_CALL && inbox_count < sizeof(inbox) / sizeof(*inbox))
        inbox[inbox_count++] = *mail;
}

/* Tried again (retry_errors) it is in no queue: it goes on here, with the cores that it has. Leaves the
 * door before and enters after. */
OFF_TRIP static void run_given(const struct lane_mail *mail)
{
    do {
        leave();
        run_record(mail->index);
        (void)!enter();
    } while (!should_end() && lane_claim(&me.lane, mail->index, mail->generation));
}

/* A task that the agent gave to this process: its cores are the agent's to account for. */
OFF_TRIP static bool run_mail(void)
{
    bool any = false;

    if (enter() != MORAY_OK)
        return false;
    lane_mail(&me.lane, take_mail, NULL);
    while (inbox_count) {
        struct lane_mail mail = inbox[--inbox_count];
        if (!lane_claim(&me.lane, mail.index, mail.generation))
            continue;
        core_give(); /* the agent has counted the cores of this one elsewhere */
        me.general = true;
        run_given(&mail);
        me.general = false;
        any = true;
    }
    leave();
    return any;
}

static uint32_t take_work(void)
{
    uint32_t index = RECORD_NONE;

    if (enter() != MORAY_OK)
        return RECORD_NONE;
    if (!may_take())
        core_give();
    else if (core_has() || (!core_is_wanted() && core_take())) /* who was blocked comes first */
        index = lane_next(&me.lane);
    leave();
    return index;
}

static uint64_t heads_sum(void)
{
    uint64_t sum = 0;
    for (uint32_t slot = 0; slot < me.node->slot_first_actor; slot++)
        sum += atomic_load_explicit(&me.lane.slots[slot].head, memory_order_relaxed);
    return sum;
}

/* Whether a task lies there that was ready when it was submitted: submits look after the parked one. What
 * an edge made ready may wait for the parked one's own look. Reads what may be another record by now. */
__attribute__((no_sanitize("thread"))) OFF_TRIP static bool submitted_lies(void)
{
    for (uint32_t slot = 1; slot < me.node->slot_first_actor; slot++) {
        const struct lane_slot *queue = &me.lane.slots[slot];
        uint64_t head = atomic_load(&queue->head);
        if (head >= atomic_load(&queue->tail))
            continue;
        uint64_t entry = atomic_load(&queue_ring(&me.lane, slot)[head & me.lane.ring_mask]);
        const struct record *record = lane_find(&me.lane, (uint32_t)entry, (uint32_t)(entry >> 32));
        if (record && lane_may_take(&me.lane, (uint32_t)entry) && !record->reference_mask &&
            !life_attempt(record_life(record)))
            return true;
    }
    return false;
}

/* Sleeps while the driver computes. Returns true when it must take a task all the same: work lies
 * there and hardly moves. */
OFF_TRIP static bool park(void)
{
    struct lane_slot *self = me.lane.self;
    bool must = false;

    while (is_parked() && !should_end() && !must &&
           !atomic_load_explicit(&self->mailbox, memory_order_relaxed)) {
        uint32_t seen = atomic_load(&self->wake);
        uint64_t heads = heads_sum();
        bool work = lane_has_work(&me.lane);
        sleep_begin();
        if (!work) {
            atomic_store(&me.node->parked_deep, me.slot); /* call.c, parked_deep() */
            work = lane_has_work(&me.lane);
        }
        if (is_parked() && !should_end()) {
            if (process_sleep(seen, work ? now_ns() + PARK_TICK_NS : 0) && heads == heads_sum() &&
                submitted_lies() && is_parked())
                rescue_count(seen, "it is parked and there is work that nobody takes");
            if (atomic_load(&self->freed) &&
                enter() == MORAY_OK) /* lets go what others are done with */
                leave();
            must = work && lane_has_work(&me.lane) && heads_sum() - heads < PARK_PROGRESS &&
                   atomic_load(&self->wake) == seen;
        }
        sleep_end();
    }
    uint32_t own = me.slot; /* by now somebody else may be the parked one */
    atomic_compare_exchange_strong(&me.node->parked_deep, &own, 0);
    lane_bit_clear(me.lane.control->idle, me.slot);
    return must;
}

static bool mail_waits(void)
{
    return atomic_load_explicit(&me.lane.self->mailbox, memory_order_relaxed) != 0;
}

/* Polls for a while where cores are free. */
OFF_TRIP static bool look_round(void)
{
    uint64_t until;

    if (!spin_allowed())
        return lane_has_work(&me.lane) || mail_waits();
    until = now_ns() + me.node->spin_ns;
    do {
        for (int i = 0; i < 32; i++) {
            if (lane_has_work(&me.lane) || mail_waits()) {
                fall_back();
                return true;
            }
            __builtin_ia32_pause();
        }
        if (is_parked() || should_end())
            return false;
    } while (now_ns() < until);
    return false;
}

/* There is work that this one does not take, or more than it can take: another one is woken. */
ON_TRIP static void pass_on(void)
{
    if (enter() != MORAY_OK)
        return;
    if (lane_has_work(&me.lane)) {
        /* A submit may have left all of it to us who searched, and the parked one asleep. */
        parked_rouse(&me.lane, me.node);
        lane_rouse(&me.lane);
    }
    leave();
}

static void rest(void)
{
    struct lane_control *control = me.lane.control;
    struct lane_slot *self = me.lane.self;
    bool can = may_take() && core_has(), parks = is_parked();

    if (can && !driver_lent()) {
        lane_bit_set(control->searching, me.slot);
        if (look_round()) {
            lane_bit_clear(control->searching, me.slot);
            return;
        }
    }
    cores_tidy();
    uint32_t seen = atomic_load(&self->wake);
    sleep_begin();
    if (may_take() && !core_has()) {
        lane_bit_set(me.node->coreless, me.slot);
        can = core_is_free();
    }
    if (can)
        lane_bit_set(control->idle, me.slot);
    lane_bit_clear(control->searching, me.slot);
    /* seq_cst all: whoever pushed before sees us idle, or we see the work; and whoever wants a core
     * back sees us idle, and takes ours, or we see that it does. */
    if (core_has() && core_is_wanted() && !is_parked())
        core_give();
    else if (!(can && lane_has_work(&me.lane)) && !mail_waits() && !should_end() && !is_parked()) {
        lane_bump(&self->sleeps);
        uint64_t heads = heads_sum();
        bool whole = process_sleep(seen, 0);
        if (whole && lane_has_work(&me.lane) && may_take() && core_has() && !parks &&
            !is_parked() && heads == heads_sum())
            rescue_count(seen, "there is work that nobody takes");
    }
    sleep_end(); /* before the bits: cores.c, left_coreless() */
    lane_bit_clear(control->idle, me.slot);
    if (lane_bit(me.node->coreless, me.slot))
        lane_bit_clear(me.node->coreless, me.slot);
    if (atomic_load(&self->wake) == seen && process_is_orphan())
        process_end(1);
}

ON_TRIP void worker_main(int worker_index, bool spare)
{
    bool rested = false;

    me.worker_index = spare ? -1 : worker_index;
    if (!spare) {
        me.token = worker_index < (int)me.node->core_count ? worker_index : -1;
        uint64_t nobody = 0;
        if (me.token >= 0)
            atomic_compare_exchange_strong(&me.node->tokens[me.token], &nobody, me.slot + 1u);
    }
    while (!should_end()) {
        uint32_t index;
        run_setups();
        if (RARELY(atomic_load_explicit(&me.lane.self->mailbox, memory_order_relaxed)) &&
            run_mail())
            continue;
        if (is_parked()) {
            if (rested)
                pass_on(); /* it may have been woken for work just before the driver came back */
            stays = park();
            rested = true;
            if (core_is_wanted()) /* who was blocked comes first */
                core_give();
            if (!stays)
                continue;
        }
        index = take_work();
        if (index == RECORD_NONE) {
            stays = false;
            if (rested && !core_has())
                pass_on();
            rest();
            rested = true;
            continue;
        }
        if (rested)
            pass_on(); /* what a push left to us because we searched may be more than one task */
        run_record(index);
        if (rested)
            driver_lent_yields();
        rested = false;
        if (__builtin_expect(core_is_wanted(), 0))
            core_give();
    }
}
