#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "node/agent.h"
#include "node/remote.h"
#include "node/words.h"

/*
 * What processes of the node ask of their agent. A request is a record, claimed here (RUNNING by slot
 * 0) and ended with its answer. What concerns this node is answered here; what concerns the job goes
 * to rank 0 (head.c) and is answered when its word comes back.
 * The bytes come from a process that may have scribbled on them: they are checked.
 */

/* ---- References inside the bytes of objects ---- */

struct contained {
    uint32_t count;
    uint32_t indices[];
};

static void list_free(struct contained *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        lane_drop(&agent.lane, list->indices[i]);
    free(list);
}

/* The object is gone: what it contained is let go. */
void requests_drop_contained(uint32_t index)
{
    uint64_t place;

    if (!map_remove(&agent.contained, index, &place))
        return;
    list_free((struct contained *)(uintptr_t)place);
}

/* The record, of any home, keeps what is on the list until it is freed; an earlier attempt's no more. */
static void list_keep(uint32_t index, struct contained *list)
{
    requests_drop_contained(index);
    if (!map_set(&agent.contained, index, (uint64_t)(uintptr_t)list))
        abort();
    atomic_fetch_or(&lane_record(&agent.lane, index)->flags, RECORD_CONTAINS);
}

/* What calls were given inside of values, until they end. */
static struct lent_list {
    uint32_t index, generation;
    struct contained *list;
} * lent;
static uint32_t lent_count, lent_capacity;

static void list_lend(uint32_t index, uint32_t generation, struct contained *list)
{
    lent = array_grown(lent, lent_count, &lent_capacity, sizeof(*lent));
    lent[lent_count++] = (struct lent_list){index, generation, list};
    lane_await(&agent.lane, index); /* its end wakes the agent */
}

void requests_look(void)
{
    for (uint32_t i = 0; i < lent_count;) {
        const struct record *record = lane_find(&agent.lane, lent[i].index, lent[i].generation);
        if (record && !life_ended(record_life(record))) {
            i++;
            continue;
        }
        struct contained *list = lent[i].list;
        lent[i] = lent[--lent_count];
        list_free(list);
    }
}

void requests_end(void)
{
    for (uint32_t i = 0; i < lent_count; i++)
        free(lent[i].list);
    free(lent);
    lent = NULL;
    lent_count = lent_capacity = 0;
}

static void answer_act(const struct word_act *act)
{
    agent_answer(act->with[0], NULL, 0);
}

void requests_answer_heard(uint32_t index)
{
    words_then((struct word_act){answer_act, {index}});
}

/* The agent holds what an object's bytes refer to, for as long as the object lives. */
static void contains(uint32_t index, const void *bytes, uint32_t count)
{
    const struct request_contains *request = bytes;
    const moray_ref *refs = (const moray_ref *)(request + 1);
    struct contained *list;

    if (count < sizeof(*request) || (count - sizeof(*request)) / sizeof(*refs) < request->count ||
        !lane_find(&agent.lane, request->index, request->generation)) {
        agent_end_failed(index, MORAY_INVALID, "a list of references is malformed");
        return;
    }
    list = malloc(sizeof(*list) + request->count * sizeof(uint32_t));
    if (!list) {
        agent_end_failed(index, MORAY_NO_MEMORY, "no memory for a list of references");
        return;
    }
    list->count = 0;
    for (uint32_t i = 0; i < request->count; i++) {
        uint32_t local;
        moray_ref ref = refs[i];
        if (ref.owner == agent.rank + 1) {
            if (!lane_find(&agent.lane, ref.index, ref.generation))
                continue;
            local = ref.index;
            lane_hold(&agent.lane, local);
        } else {
            local = remote_stand_in(ref);
            if (local == RECORD_NONE)
                continue;
            lane_hold(&agent.lane, local);
        }
        list->indices[list->count++] = local;
    }
    if (request->until_ended)
        list_lend(request->index, request->generation, list);
    else
        list_keep(request->index, list);
    agent_answer(index, NULL, 0);
}

/* ---- One request ---- */

static void resolve(uint32_t index, const void *bytes, uint32_t count)
{
    moray_ref ref;
    uint32_t local;
    struct contained *list;

    if (count != sizeof(ref)) {
        agent_end_failed(index, MORAY_INVALID, "a reference of %u bytes", count);
        return;
    }
    memcpy(&ref, bytes, sizeof(ref));
    local = remote_stand_in(ref);
    if (local == RECORD_NONE) {
        agent_end_failed(index, MORAY_STALE, "a reference of rank %u that leads nowhere",
                         ref.owner - 1);
        return;
    }
    /* The asker takes its own hold when it reads this; until it drops this answer, which is long after,
     * the agent has one for it. (To set the asker's bit now would not do: another thread of it may have
     * just let its last hold go.) */
    list = malloc(sizeof(*list) + sizeof(uint32_t));
    if (!list) {
        agent_end_failed(index, MORAY_NO_MEMORY, "no memory for a reference");
        return;
    }
    list->count = 1;
    list->indices[0] = local;
    lane_hold(&agent.lane, local);
    list_keep(index, list);
    moray_ref answer = {agent.rank + 1, local,
                        life_generation(record_life(lane_record(&agent.lane, local))), ref.type};
    agent_answer(index, &answer, sizeof(answer));
}

void requests_possible(uint32_t index)
{
    struct record *record = lane_record(&agent.lane, index);
    uint32_t count;
    const void *bytes = lane_arguments(&agent.lane, record, &count);
    struct request_need need;
    struct moray_error error;

    if (remote_must_wait(index, life_generation(record_life(record))))
        return;
    if (count != sizeof(need)) {
        agent_end_failed(index, MORAY_INVALID, "a request of %u bytes", count);
        return;
    }
    memcpy(&need, bytes, sizeof(need));
    if (general_possible(&need, &error))
        agent_answer(index, NULL, 0);
    else
        agent_end_failed(index, MORAY_INVALID, "%s", error.text);
}

static void cancel(uint32_t index, const void *bytes, uint32_t count)
{
    const struct request_record *request = bytes;

    if (count != sizeof(*request) || request->index >= agent.lane.control->layout.record_count) {
        agent_end_failed(index, MORAY_INVALID, "a record to be cancelled does not exist");
        return;
    }
    remote_cancel(request->index, request->generation);
    agent_answer(index, NULL, 0);
}

static void setup(uint32_t index, const void *bytes, uint32_t count)
{
    uint32_t number = atomic_load(&agent.node->setup_count);
    struct {
        uint64_t function;
        uint32_t record, generation;
    } request;

    if (count != sizeof(request) || number == SETUPS_MAX) {
        agent_end_failed(index, MORAY_FULL, "moray_setup may be called %d times", SETUPS_MAX);
        return;
    }
    memcpy(&request, bytes, sizeof(request));
    request.function = program_address(request.function);
    /* The agent holds the value: processes that start later read it as well. */
    lane_hold(&agent.lane, request.record);
    agent.node->setups[number].function = request.function;
    agent.node->setups[number].record = request.record;
    agent.node->setups[number].generation = request.generation;
    atomic_store(&agent.node->setup_count, number + 1);
    remote_tell_setup(request.function, request.record);
    agent_answer(index, NULL, 0);
}

/* Rank 0 keeps a subscription until its process is gone; no word of the process may come after that. */
static void subscription(uint32_t index, const void *bytes, uint32_t count)
{
    const struct request_subscription *request = bytes;
    uint32_t slot = lane_home(&agent.lane, index);
    struct slot_state *state = &agent.slots[slot];

    if (count < sizeof(*request) || request->slot != slot) {
        agent_end_failed(index, MORAY_INVALID, "a request about a subscription is malformed");
        return;
    }
    if (slot > 1 && (request->id >> 32 != state->incarnation ||
                     (state->use != SLOT_STARTING && state->use != SLOT_RUNNING))) {
        agent_end_failed(index, MORAY_CANCELLED, "the process that subscribed has ended");
        return;
    }
    state->subscribed = true;
    head_ask(index, lane_record(&agent.lane, index)->function, bytes, count);
}

void requests_take(uint32_t index, uint32_t generation)
{
    struct record *record = lane_record(&agent.lane, index);
    uint32_t count;
    const void *bytes;

    if (!agent_claim(index, generation))
        return;
    bytes = lane_arguments(&agent.lane, record, &count);
    /* It may have to go to rank 0 in one message. A job of several ranks has one bound, on all of them. */
    if (agent.rank_count > 1 && count > BY_VALUE_BYTES_MAX &&
        record->function != REQUEST_CONTAINS) {
        agent_end_failed(index, MORAY_INVALID,
                         "a request of %u bytes; at most %d go to rank 0: put what is large, and "
                         "pass the reference",
                         count, BY_VALUE_BYTES_MAX);
        return;
    }
    switch ((enum request_kind)record->function) {
    case REQUEST_RESOLVE:
        resolve(index, bytes, count);
        return;
    case REQUEST_FETCH:
        remote_fetch_request(index, bytes, count);
        return;
    case REQUEST_CONTAINS:
        contains(index, bytes, count);
        return;
    case REQUEST_POSSIBLE:
        requests_possible(index);
        return;
    case REQUEST_SETUP:
        setup(index, bytes, count);
        return;
    case REQUEST_CANCEL:
        cancel(index, bytes, count);
        return;
    case REQUEST_HEARD:
        requests_answer_heard(index);
        return;
    case REQUEST_ACTOR_NEW:
    case REQUEST_ACTOR_NAMED:
    case REQUEST_ACTOR_HOLD:
    case REQUEST_ACTOR_KILL:
    case REQUEST_ACTOR_WHERE:
        actors_request(index, (enum request_kind)record->function, bytes, count);
        return;
    case REQUEST_KV:
    case REQUEST_PUBLISH:
        head_ask(index, record->function, bytes, count);
        return;
    case REQUEST_SUBSCRIBE:
    case REQUEST_NEXT:
    case REQUEST_UNSUBSCRIBE:
        subscription(index, bytes, count);
        return;
    default:
        agent_end_failed(index, MORAY_INVALID, "an unknown request %u", record->function);
    }
}
