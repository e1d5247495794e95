#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/process.h"
#include "client/requests.h"
#include "node/actors.h"
#include "node/zygote.h"

/*
 * The life of an actor: one process, its state in private memory, its calls one at a time.
 *
 *     mailbox ─▶ in order of arrival ─▶ ready? run it
 *                                  └─▶ an argument is missing: held back, and with it all later calls
 *                                      of the same submitter, not those of others
 * What lies in private memory here is lost with the process; the records are not: after a death the
 * agent posts them again, by submitter and sequence, to the next process or fails them.
 */

struct waiting {
    uint32_t index, generation, sequence;
    uint64_t submitter; /* home slot and submitter: who is promised an order */
};

static struct waiting *queue;
static uint32_t queue_first, queue_end, queue_capacity;

static void enqueue(void *context, const struct lane_mail *mail)
{
    (void)context;
    if (mail->kind != CELL_CALL)
        return;
    if (queue_end == queue_capacity) {
        if (queue_first > queue_capacity / 2) {
            memmove(queue, queue + queue_first, (queue_end - queue_first) * sizeof(*queue));
            queue_end -= queue_first;
            queue_first = 0;
        } else {
            queue_capacity = queue_capacity ? queue_capacity * 2 : 256;
            queue = realloc(queue, queue_capacity * sizeof(*queue));
            if (!queue)
                abort(); /* the agent posts the calls again to the next process */
        }
    }
    struct record *record = lane_find(&me.lane, mail->index, mail->generation);
    if (!record || record->kind != RECORD_METHOD)
        return;
    const struct record_call *call = lane_call(&me.lane, record);
    if (call->incarnation != node_actor(me.actor)->generation) {
        /* Meant for an actor that had this slot before: the agent fails it. */
        (void)!lane_post(&me.lane, LANE_AGENT, mail->index, mail->generation, CELL_CALL, 0);
        return;
    }
    queue[queue_end++] =
        (struct waiting){mail->index, mail->generation, call->sequence,
                         (uint64_t)lane_home(&me.lane, mail->index) << 32 | call->submitter};
}

static bool is_held(const struct waiting *held, uint32_t count, uint64_t submitter)
{
    for (uint32_t i = 0; i < count; i++)
        if (held[i].submitter == submitter)
            return true;
    return false;
}

/* The next call that may run, claimed and taken out; RECORD_NONE: none. */
static uint32_t next_call(void)
{
    uint32_t held = 0, found = RECORD_NONE, at;

    for (at = queue_first; at < queue_end && found == RECORD_NONE; at++) {
        struct waiting call = queue[at];
        struct record *record = lane_find(&me.lane, call.index, call.generation);
        uint64_t life = record ? record_life(record) : 0;
        if (!record || life_state(life) > RECORD_QUEUED)
            continue; /* cancelled, or ended before a death and posted again */
        if (!is_held(queue + queue_first, held, call.submitter) &&
            life_state(life) == RECORD_QUEUED &&
            lane_claim(&me.lane, call.index, call.generation)) {
            found = call.index;
            continue;
        }
        queue[queue_first + held++] = call; /* they move to the front, in order */
    }
    /* [first, first + held) is held back, [at, end) not yet looked at. */
    if (at > queue_first + held) {
        for (uint32_t i = held; i-- > 0;)
            queue[at - held + i] = queue[queue_first + i];
        queue_first = at - held;
    }
    if (queue_first == queue_end)
        queue_first = queue_end = 0;
    return found;
}

static bool mail_waits(void)
{
    return atomic_load(&me.lane.self->mailbox) != 0;
}

static void actor_rest(const struct node_actor *actor, bool held_back)
{
    struct lane_slot *self = me.lane.self;

    if (!held_back && spin_allowed()) {
        uint64_t until = now_ns() + me.node->spin_ns;
        do
            for (int i = 0; i < 32; i++) {
                if (mail_waits()) {
                    fall_back();
                    return;
                }
                __builtin_ia32_pause();
            }
        while (now_ns() < until);
    }
    uint32_t seen = atomic_load(&self->wake);
    sleep_begin();
    if (!mail_waits() && !should_end() && !atomic_load(&actor->finish)) {
        /* Held back: a call that became ready wakes us, but may have done so before `asleep`. */
        lane_bump(&self->sleeps);
        if (process_sleep(seen, held_back ? now_ns() + 1000000 : 0) && mail_waits())
            rescue_count(seen, "a call lies in its mailbox");
    }
    sleep_end();
    if (atomic_load(&self->wake) == seen && process_is_orphan())
        process_end(1);
}

static enum moray_code construct(const struct node_actor *actor, const struct moray_class *type)
{
    const struct moray_function *constructor = type->constructor;

    if (!constructor)
        return MORAY_OK;
    if (enter() != MORAY_OK)
        return MORAY_WRONG_STATE;
    uint32_t record = atomic_load(&actor->creation);
    bool mine =
        lane_claim(&me.lane, record, life_generation(record_life(lane_record(&me.lane, record))));
    leave();
    if (!mine)
        return MORAY_CANCELLED;
    /* The creation is a record like a task's; its end says whether the actor lives. */
    run_record(record);
    struct record *creation = lane_record(&me.lane, record);
    return life_state(record_life(creation)) == RECORD_FAILED ? MORAY_FAILED : MORAY_OK;
}

/* What a dead process had taken out of the mailbox was posted again behind what lay there: the order
 * of each home is that of its sequence. Twice the same call is claimed once. */
static int by_sequence(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;
    uint32_t home_x = (uint32_t)(x->submitter >> 32), home_y = (uint32_t)(y->submitter >> 32);

    if (home_x != home_y)
        return home_x < home_y ? -1 : 1;
    return (int32_t)(x->sequence - y->sequence) < 0 ? -1 : x->sequence != y->sequence;
}

static void destruct(const struct moray_class *type)
{
    if (type->destructor)
        type->destructor->run(me.self, NULL, NULL);
}

void actor_main(uint32_t index)
{
    struct node_actor *actor = node_actor(index);
    const struct moray_class *type = classes[actor->class_id];
    size_t bytes = type->state_size ? type->state_size : 1;
    bool failed;

    me.actor = index;
    me.self = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!me.self)
        process_end(1);
    memset(me.self, 0, bytes);
    run_setups();
    failed = construct(actor, type) != MORAY_OK;
    atomic_store(&actor->ready, failed ? ACTOR_UNBUILT : ACTOR_READY);
    if (enter() == MORAY_OK) {
        lane_wake(&me.lane, LANE_AGENT);
        leave();
    }
    if (failed)
        process_leave();
    if (enter() == MORAY_OK) {
        lane_mail(&me.lane, enqueue, NULL);
        if (queue_end > queue_first)
            qsort(queue + queue_first, queue_end - queue_first, sizeof(*queue), by_sequence);
        leave();
    }
    while (!should_end()) {
        uint32_t call;
        run_setups();
        if (enter() != MORAY_OK)
            break;
        if (mail_waits())
            lane_mail(&me.lane, enqueue, NULL);
        call = atomic_load(&actor->killed) ? RECORD_NONE : next_call();
        leave();
        if (call != RECORD_NONE) {
            run_record(call);
            if (__builtin_expect(atomic_load(&me.node->parked_deep) != 0, 0))
                parked_rouse(&me.lane, me.node);
            continue;
        }
        if (atomic_load(&actor->finish) && queue_first == queue_end && !mail_waits())
            break;
        actor_rest(actor, queue_first != queue_end);
    }
    destruct(type);
    process_leave();
}
