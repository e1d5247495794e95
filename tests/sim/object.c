/* Objects: the owner's directory, and the ranks that read, keep and lose copies. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

/* An object's name in its owner's directory is its task's number + 1; a transfer's name carries the
 * reading task in its low half. */
static uint64_t name_of(uint64_t task)
{
    return task + 1;
}

static struct directory *directory_of(struct sim *sim, uint64_t task)
{
    return sim->nodes[sim->tasks[task].owner].directory;
}

void object_add(struct sim *sim, uint32_t id)
{
    struct task *task = &sim->tasks[id];

    task->object_known = true;
    task->attempt = 1;
    task->consumers_left = task->consumer_count;
    task->references[task->owner] = 1;
    task->span[task->owner] = 1;
    if (directory_add(directory_of(sim, id), name_of(id), 1, 1, NULL) != MORAY_OK)
        sim_fail(sim, "object %u cannot be added", id);
}

void object_want(struct sim *sim, uint32_t rank, uint32_t id)
{
    uint32_t input = sim->tasks[id].input;

    sim_send(sim, 0, MSG_WANT, rank, sim->tasks[input].owner, input, ++sim->transfer << 32 | id, 0);
}

static void check_code(struct sim *sim, const char *what, enum moray_code code,
                       enum moray_code allowed)
{
    if (code != MORAY_OK && code != allowed)
        sim_fail(sim, "%s: %s", what, error_name(code));
}

uint64_t object_keep(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *object = &sim->tasks[id];

    if (object->references[rank]++ > 0)
        return object->span[rank];
    object->span[rank] = ++sim->nodes[rank].epoch;
    if (world_chance(sim->world, 500)) /* the task's owner passes it on; twice does no harm */
        sim_send(sim, 0, MSG_HOLD, rank, object->owner, id, object->span[rank], true);
    return object->span[rank];
}

void object_let_go(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *object = &sim->tasks[id];

    if (--object->references[rank] == 0)
        sim_send(sim, 0, MSG_HOLD, rank, object->owner, id, object->span[rank], false);
}

void object_done(struct sim *sim, const struct event *event)
{
    uint32_t id = (uint32_t)event->a, rank = (uint32_t)event->b;
    struct task *task = &sim->tasks[id];

    if (task->object_known) {
        check_code(sim, "a seal",
                   directory_sealed(directory_of(sim, id), name_of(id), rank, task->attempt,
                                    task->bytes, NULL),
                   task->object_free ? MORAY_STALE : MORAY_OK);
        if (!task->consumers_sent) {
            task->consumers_sent = true;
            for (uint32_t i = 0; i < task->consumer_count; i++) {
                sim->tasks[task->first_consumer + i].owner = task->owner;
                node_submit(sim, task->owner, task->first_consumer + i);
            }
            if (task->consumer_count == 0)
                object_let_go(sim, task->owner, id);
        }
        return;
    }
    if (event->c) /* the reader keeps a reference; this comes before the owner may let go */
        check_code(sim, "a reference passed on",
                   directory_hold(directory_of(sim, task->input), name_of(task->input), rank,
                                  event->c, true, NULL),
                   MORAY_OK);
    if (--sim->tasks[task->input].consumers_left == 0)
        object_let_go(sim, event->to, task->input);
}

void object_used(struct sim *sim, uint32_t rank, uint32_t id)
{
    uint32_t input = sim->tasks[id].input;
    struct task *object = &sim->tasks[input];

    object->users[rank]--;
    if (object->users[rank] == 0 && world_chance(sim->world, sim->options.evict_per_mille)) {
        object->copies &= ~(1ull << rank);
        sim_send(sim, 0, MSG_GONE, rank, object->owner, input, 0, 0);
    }
}

static void drop(struct sim *sim, uint32_t rank, uint32_t id, uint64_t attempt)
{
    struct task *object = &sim->tasks[id];

    if (attempt != 0 && attempt != object->attempt)
        return; /* that copy was replaced by the present one */
    if (object->users[rank])
        sim_fail(sim, "object %u is dropped on rank %u under its reader", id, rank);
    object->copies &= ~(1ull << rank);
}

static void granted(struct sim *sim, const struct event *event)
{
    struct task *object = &sim->tasks[event->a];
    bool here = object->copies >> event->to & 1;

    sim_send(sim, here ? object->bytes : 0, here ? MSG_DATA : MSG_NO_COPY, event->to,
             (uint32_t)event->c, event->a, event->b, 0);
}

void object_event(struct sim *sim, const struct event *event)
{
    struct task *object = &sim->tasks[event->a];
    struct directory *directory = directory_of(sim, event->a);
    uint64_t name = name_of(event->a);

    switch (event->kind) {
    case TIMER_UNHOLD:
        object->held--;
        object_let_go(sim, event->to, (uint32_t)event->a);
        break;
    case MSG_HOLD:
        check_code(sim, "a word about a reference",
                   directory_hold(directory, name, event->from, event->b, event->c, NULL),
                   MORAY_STALE);
        break;
    case MSG_WANT:
        check_code(sim, "a want", directory_want(directory, name, event->from, event->b, NULL),
                   MORAY_OK);
        break;
    case MSG_GRANT:
        granted(sim, event);
        break;
    case MSG_HAVE:
        sim->paths[PATH_HERE]++;
        if (object->copies >> event->to & 1)
            node_fetched(sim, event->to, (uint32_t)event->b);
        else /* evicted meanwhile; the owner hears of it before this */
            object_want(sim, event->to, (uint32_t)event->b);
        break;
    case MSG_DATA:
        sim->paths[PATH_FETCHED]++;
        object->copies |= 1ull << event->to;
        sim_send(sim, 0, MSG_FETCHED, event->to, object->owner, event->a, event->b,
                 (uint64_t)event->from << 8 | DIRECTORY_KEPT);
        node_fetched(sim, event->to, (uint32_t)event->b);
        break;
    case MSG_NO_COPY:
        sim->paths[PATH_NO_COPY]++;
        sim_send(sim, 0, MSG_FETCHED, event->to, object->owner, event->a, event->b,
                 (uint64_t)event->from << 8 | DIRECTORY_NO_SOURCE);
        break;
    case MSG_FETCHED:
        check_code(sim, "the end of a read",
                   directory_fetched(directory, name, event->from, event->b,
                                     (uint32_t)(event->c >> 8),
                                     (enum directory_end)(event->c & 255), NULL),
                   MORAY_OK);
        break;
    case MSG_GONE:
        directory_copy_gone(directory, name, event->from);
        break;
    case MSG_DROP:
        drop(sim, event->to, (uint32_t)event->a, event->b);
        break;
    }
}

/* All copies are gone: the task runs again, if anyone is going to read. */
static void remake(struct sim *sim, uint32_t id)
{
    struct task *task = &sim->tasks[id];

    if (task->consumers_left == 0) {
        directory_fail(directory_of(sim, id), name_of(id), MORAY_LOST);
        return;
    }
    sim->paths[PATH_REMADE]++;
    task->run_max++;
    if (!directory_attempt(directory_of(sim, id), name_of(id), ++task->attempt))
        sim_fail(sim, "object %u is lost and has a copy", id);
    node_submit(sim, task->owner, id);
}

static void act(struct sim *sim, uint32_t rank, const struct directory_action *action)
{
    uint32_t id = (uint32_t)(action->object - 1);
    struct task *object = &sim->tasks[id];

    switch (action->kind) {
    case DIRECTORY_GRANT:
        if (action->source == action->reader)
            sim_send(sim, 0, MSG_HAVE, rank, action->reader, id, action->transfer, 0);
        else
            sim_send(sim, 0, MSG_GRANT, rank, action->source, id, action->transfer, action->reader);
        break;
    case DIRECTORY_REFUSE:
        sim_fail(sim, "a read of object %u is refused", id);
        break;
    case DIRECTORY_DROP_COPY:
        sim_send(sim, 0, MSG_DROP, rank, action->source, id, action->attempt, 0);
        break;
    case DIRECTORY_LOST:
        remake(sim, id);
        break;
    case DIRECTORY_FREE:
        if (object->held > 0 || object->consumers_left > 0)
            sim_fail(sim, "object %u is freed; %u ranks hold it and %u tasks read it", id,
                     object->held, object->consumers_left);
        if (object->object_free)
            sim_fail(sim, "object %u is freed twice", id);
        object->object_free = true;
        object->copies &= ~(1ull << rank);
        sim->paths[PATH_FREED]++;
    }
}

void object_settle(struct sim *sim, uint32_t rank)
{
    struct directory_action action;

    while (directory_next(sim->nodes[rank].directory, &action))
        act(sim, rank, &action);
}
