#include "node/remote_inside.h"

#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "base/time.h"
#include "client/requests.h"
#include "node/words.h"

/*
 * Tasks and calls that run on another node, and their results.
 *
 * At the owner the record is RUNNING by slot 0 from the sending until the RESULT. At the node it is a
 * record of home 0 with the same function and arguments, queued like any other; its end comes to the
 * agent as mail. A result of up to 4 KiB travels in the message; a longer one stays in the node's
 * record, which the agent holds until the owner's FREE.
 */

/* A task after so long a silence is one that somebody waits for, more than the first of many. */
static const uint64_t ALONE_NS = 1000000;

/* Besides its arguments a task has its inputs' names and values, or what their failures say. */
static_assert(ITEM_BYTES_MAX >
                  BY_VALUE_BYTES_MAX + MORAY_PARAMETERS_MAX * (2 * INLINE_BYTES_MAX - 64),
              "a call that was not refused fits in a message");

struct executing { /* of a record of home 0: whose it is */
    uint32_t rank, index, generation, record;
    uint32_t submitter; /* a call's, + 1 */
};

/* Submitters of other ranks with calls under way here. All their calls are of home 0, so each has a
 * number here, for as long as it has one pending. */
struct submitter {
    uint64_t key; /* rank, slot, number there */
    uint32_t pending, next_free;
};

static struct executing *entries;
static uint32_t entry_count, entry_capacity, entry_free = UINT32_MAX;

static struct executing *entry_add(uint32_t record)
{
    uint32_t number;

    if (entry_free != UINT32_MAX) {
        number = entry_free;
        entry_free = entries[number].index;
    } else {
        entries = array_grown(entries, entry_count, &entry_capacity, sizeof(*entries));
        number = entry_count++;
    }
    map_set(&agent.remote->executing, record, number);
    return &entries[number];
}

static struct submitter *submitters;
static uint32_t submitter_count, submitter_capacity, submitter_free = UINT32_MAX;
static struct map submitter_numbers; /* key -> number */

static uint32_t submitter_take(uint32_t rank, const struct item_task *task)
{
    uint64_t key = (uint64_t)rank << 44 | (uint64_t)(task->home & 0xfff) << 32 | task->submitter;
    uint64_t *known = map_get(&submitter_numbers, key);
    uint32_t number = known ? (uint32_t)*known : submitter_free;

    if (!known) {
        if (number != UINT32_MAX)
            submitter_free = submitters[number].next_free;
        else {
            submitters =
                array_grown(submitters, submitter_count, &submitter_capacity, sizeof(*submitters));
            number = submitter_count++;
        }
        submitters[number] = (struct submitter){.key = key};
        map_set(&submitter_numbers, key, number);
    }
    submitters[number].pending++;
    return number + 1;
}

static void submitter_drop(uint32_t taken)
{
    struct submitter *one = taken ? &submitters[taken - 1] : NULL;

    if (!one || --one->pending)
        return;
    map_remove(&submitter_numbers, one->key, NULL);
    one->next_free = submitter_free;
    submitter_free = taken - 1;
}

static void early_drop(void);

void tasks_end(void)
{
    early_drop();
    map_clear(&submitter_numbers);
    free(submitters);
    submitters = NULL;
    submitter_count = submitter_capacity = 0;
    submitter_free = UINT32_MAX;
}

/* ---- Out ---- */

struct input {
    struct name name;
    struct value value;
    const void *bytes;
};

static uint32_t inputs_describe(uint32_t rank, const struct record *record, const moray_ref *refs,
                                struct input *inputs, uint32_t *bytes)
{
    const struct moray_function *function = functions[record->function];
    uint32_t count = 0;

    for (unsigned i = 0; i < function->parameter_count; i++) {
        if (!(record->reference_mask >> i & 1))
            continue;
        struct input *input = &inputs[count];
        const moray_ref *ref = &refs[count++];
        bool future = function->parameters[i].kind == MORAY_KIND_FUTURE;
        input->value = value_of(ref->index, rank, &input->bytes);
        if (future && input->value.shape == SHAPE_INLINE)
            input->value = (struct value){.shape = SHAPE_PENDING};
        if (future)
            input->value.follow = 0;
        const struct record *object = lane_record(&agent.lane, ref->index);
        input->name =
            (struct name){.type = ref->type, .maker = record_maker(object), .site = object->site};
        if (future || input->value.rank ||
            (input->value.shape != SHAPE_INLINE && input->value.shape != SHAPE_FAILED)) {
            input->name.owner = agent.rank + 1;
            input->name.index = ref->index;
            input->name.generation = ref->generation;
            lane_hold(&agent.lane, ref->index); /* for that rank, until its RELEASE */
        }
        *bytes +=
            (uint32_t)(sizeof(struct name) + sizeof(struct value)) + rounded(input->value.follow);
    }
    return count;
}

static void send(uint32_t rank, enum item_kind kind, uint32_t index, uint64_t actor)
{
    struct record *record = lane_record(&agent.lane, index);
    const struct record_long *details = lane_long(&agent.lane, record);
    const struct record_call *call = lane_call(&agent.lane, record);
    struct input inputs[MORAY_PARAMETERS_MAX];
    uint32_t bytes, input_bytes = 0;
    const char *blob = lane_arguments(&agent.lane, record, &bytes);
    const moray_ref *refs = (const moray_ref *)blob;
    uint32_t count =
        record->reference_mask ? inputs_describe(rank, record, refs, inputs, &input_bytes) : 0;
    uint32_t value_bytes = bytes - count * (uint32_t)sizeof(moray_ref);
    uint32_t details_bytes = details ? (uint32_t)sizeof(*details) : 0;
    uint64_t item_bytes =
        sizeof(struct item_task) + (uint64_t)input_bytes + details_bytes + value_bytes;
    /* It was no longer than BY_VALUE_BYTES_MAX when it was made. */
    if (item_bytes > ITEM_BYTES_MAX) {
        for (uint32_t i = 0; i < count; i++)
            if (inputs[i].name.owner)
                drop_own(refs[i].index);
        agent_end_failed(index, MORAY_INVALID,
                         "its arguments take %llu bytes; at most %d go to another rank by value: "
                         "put what is large, and pass the reference",
                         (unsigned long long)item_bytes, BY_VALUE_BYTES_MAX);
        return;
    }
    struct item_task *item = out_item(rank, kind, (uint32_t)item_bytes);

    *item = (struct item_task){.index = index,
                               .generation = life_generation(record_life(record)),
                               .function = record->function,
                               .site = record->site,
                               .reference_mask = record->reference_mask,
                               .flags = record_flags(record) & (RECORD_LONG | RECORD_GENERAL),
                               .attempts_max = record->attempts_max,
                               .extra_count = details ? (uint8_t)details->extra_count : 0,
                               .argument_bytes = details_bytes + value_bytes,
                               .home = lane_home(&agent.lane, index),
                               .submitter = call ? call->submitter : 0,
                               .actor = actor};
    char *at = (char *)(item + 1);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(at, &inputs[i].name, sizeof(struct name));
        memcpy(at + sizeof(struct name), &inputs[i].value, sizeof(struct value));
        at += sizeof(struct name) + sizeof(struct value);
        if (inputs[i].value.follow)
            memcpy(at, inputs[i].bytes, inputs[i].value.follow);
        at += rounded(inputs[i].value.follow);
    }
    if (details_bytes)
        memcpy(at, details, details_bytes);
    memcpy(at + details_bytes, blob + count * sizeof(moray_ref), value_bytes);
    remote_peers[rank].outstanding += kind == ITEM_TASK;
    for (uint32_t i = 0; i < count; i++) /* behind the task: its stand-ins are there then */
        if (inputs[i].value.shape == SHAPE_PENDING)
            objects_want(refs[i].index, rank);
}

bool tasks_send(uint32_t rank, uint32_t index)
{
    send(rank, ITEM_TASK, index, 0);
    return true;
}

/* WAITING or QUEUED: it is ours from here on; edges that come later find another state. */
static bool take_over(uint32_t index, uint32_t generation)
{
    struct record *record = lane_record(&agent.lane, index);
    uint64_t life = record_life(record);

    while ((life_state(life) == RECORD_WAITING || life_state(life) == RECORD_QUEUED) &&
           life_generation(life) == generation) {
        uint64_t next = life_of(RECORD_RUNNING, LANE_AGENT, life_attempt(life), generation) |
                        (life & LIFE_WAITED);
        if (atomic_compare_exchange_weak(&record->life, &life, next))
            return true;
    }
    return false;
}

void remote_send_call(uint32_t rank, uint64_t actor, uint32_t index, uint32_t generation)
{
    if (take_over(index, generation))
        send(rank, ITEM_CALL, index, actor);
}

/* ---- In ---- */

struct taken_input {
    uint32_t index;
    bool borrowed_only; /* a stand-in made here for this input alone */
};

static uint32_t input_take(struct bytes_reader *in, bool eager, uint32_t *type)
{
    const struct name *name = bytes_take(in, sizeof(*name));
    const struct value *value = name ? bytes_take(in, sizeof(*value)) : NULL;
    const void *bytes = value ? bytes_take(in, rounded(value->follow)) : NULL;
    uint32_t index;

    if (!bytes)
        return RECORD_NONE;
    *type = name->type;
    if (!name->owner) {
        index = agent_make_pending(RECORD_OBJECT);
        if (index == RECORD_NONE)
            return RECORD_NONE;
        lane_record(&agent.lane, index)->function = name->type;
        record_set_maker(lane_record(&agent.lane, index), name->maker, name->site);
        value_take(index, value, bytes, eager);
        return index;
    }
    index = stand_in_make(name, true);
    if (index == RECORD_NONE)
        return RECORD_NONE;
    lane_hold(&agent.lane, index); /* until the task below holds it */
    if (value->shape != SHAPE_PENDING &&
        !life_ended(record_life(lane_record(&agent.lane, index))) &&
        !map_get(&agent.remote->pulls, index)) /* else it ends with the bytes on their way */
        value_take(index, value, bytes, eager);
    return index;
}

static void answer_failed(uint32_t rank, const struct item_task *task, enum moray_code code,
                          const char *story)
{
    uint32_t length = (uint32_t)strlen(story) + 1;
    struct item_result *item = out_item(
        rank, ITEM_RESULT, (uint32_t)(sizeof(*item) + sizeof(struct value)) + rounded(length));
    struct value *value = (struct value *)(item + 1);

    *item = (struct item_result){task->index, task->generation, 1, 0};
    *value = (struct value){.shape = SHAPE_FAILED, .index = code, .follow = length};
    memcpy(value + 1, story, length);
}

/* A task that will not run here. The first `taken` of its inputs are `inputs`; what was held for us of
 * the others is let go. */
static void task_refuse(uint32_t rank, const struct item_task *task, const uint32_t *inputs,
                        uint32_t taken, enum moray_code code, const char *story)
{
    uint32_t count = (uint32_t)__builtin_popcount(task->reference_mask);
    const char *at = (const char *)(task + 1);

    for (uint32_t i = 0; i < count; i++) {
        const struct name *name = (const struct name *)at;
        const struct value *value = (const struct value *)(name + 1);
        at = (const char *)(value + 1) + rounded(value->follow);
        if (i < taken)
            drop_own(inputs[i]);
        else if (name->owner && name->owner != agent.rank + 1)
            objects_release(name, 1);
    }
    answer_failed(rank, task, code, story);
}

enum { EXTRAS_MAX = sizeof(((struct record_long *)0)->extra) / sizeof(uint32_t) };

/* The extra results of a task that runs here for another rank are objects of home 0. False: no room. */
static bool extras_make(const struct item_task *task, uint32_t extras[EXTRAS_MAX])
{
    for (uint32_t i = 0; i < task->extra_count; i++) {
        extras[i] = lane_make(&agent.lane, RECORD_OBJECT);
        if (extras[i] == RECORD_NONE) {
            while (i-- > 0)
                lane_abandon(&agent.lane, extras[i]);
            return false;
        }
        record_set_maker(lane_record(&agent.lane, extras[i]), task->function + 1, task->site);
    }
    return true;
}

static void extras_set(struct record_long *details, const uint32_t *extras, uint32_t count)
{
    details->extra_count = (uint16_t)count;
    for (uint32_t i = 0; i < count; i++) {
        lane_publish(&agent.lane, extras[i], RECORD_QUEUED);
        details->extra[i] = extras[i];
    }
}

/* Returns how many a task has: no more than there can be, whatever stands in the arena. */
static uint32_t extras_get(uint32_t index, uint32_t extras[EXTRAS_MAX])
{
    const struct record_long *details = lane_long(&agent.lane, lane_record(&agent.lane, index));
    uint32_t count = details && details->extra_count <= EXTRAS_MAX ? details->extra_count : 0;

    for (uint32_t i = 0; i < count; i++)
        extras[i] = details->extra[i];
    return count;
}

static struct node_actor *actor_of(const struct item_task *task)
{
    uint32_t route;
    struct node_actor *entry = actors_here(task->actor, &route);
    return entry && atomic_load(&entry->ready) != ACTOR_GONE ? entry : NULL;
}

/* Calls that were here before rank 0's order to start their actor: a caller that was told where it is
 * may be faster. They wait for the order, or for the word that there will be none. */
static struct early {
    struct early *next;
    uint64_t actor;
    uint32_t rank;
    size_t count;
    _Alignas(8) char bytes[];
} * early_first;

static void early_keep(uint32_t rank, const struct item_task *task, size_t count)
{
    struct early **at = &early_first, *early = malloc(sizeof(*early) + count);

    if (!early)
        abort();
    early->next = NULL;
    early->actor = task->actor;
    early->rank = rank;
    early->count = count;
    memcpy(early->bytes, task, count);
    while (*at)
        at = &(*at)->next;
    *at = early;
}

static void early_drop(void)
{
    while (early_first) {
        struct early *early = early_first;
        early_first = early->next;
        free(early);
    }
}

void tasks_expected(uint64_t actor)
{
    for (struct early **at = &early_first; *at;) {
        struct early *early = *at;
        if (early->actor != actor) {
            at = &early->next;
            continue;
        }
        *at = early->next;
        struct bytes_reader in = bytes_read(early->bytes, early->count);
        tasks_take_task(early->rank, ITEM_CALL, &in);
        free(early);
    }
}

/* It waits for its inputs. False: there is no cell to tell of the end of one. */
static bool depends(uint32_t index, const struct item_task *task, const uint32_t *inputs,
                    uint32_t count)
{
    const struct moray_parameter *parameters = functions[task->function]->parameters;

    for (uint32_t i = 0, argument = 0; i < count; i++, argument++) {
        while (!(task->reference_mask >> argument & 1))
            argument++;
        if (parameters[argument].kind != MORAY_KIND_FUTURE &&
            lane_depends(&agent.lane, index, inputs[i], argument) != MORAY_OK)
            return false;
    }
    return true;
}

/* False: nothing happened, for want of a cell, or of room in the agent's queue for one that waits. */
static bool submits(uint32_t index, enum item_kind kind, const struct node_actor *actor)
{
    if (kind == ITEM_CALL)
        return lane_submit_call(&agent.lane, index, (uint16_t)atomic_load(&actor->slot)) ==
               MORAY_OK;
    if (lane_submit(&agent.lane, index) == MORAY_OK)
        return true;
    if (record_life(lane_record(&agent.lane, index)) & LIFE_PENDING)
        return false;
    lane_publish(&agent.lane, index, RECORD_QUEUED);
    workers_push_ready(index);
    return true;
}

void tasks_take_task(uint32_t rank, enum item_kind kind, struct bytes_reader *in)
{
    const struct item_task *task = bytes_take(in, sizeof(*task));
    uint32_t inputs[16], types[16], extras[EXTRAS_MAX], count, index;
    struct node_actor *actor = NULL;
    struct record *record;

    if (!task || task->function >= function_count ||
        task->reference_mask >> functions[task->function]->parameter_count ||
        task->extra_count > EXTRAS_MAX) {
        agent_fail("a task of rank %u is malformed", rank);
        return;
    }
    if (kind == ITEM_CALL && !(actor = actor_of(task))) {
        const char *story;
        if (actors_expected(task->actor)) {
            early_keep(rank, task, (size_t)((const char *)in->end - (const char *)task));
            return;
        }
        enum moray_code code = actors_gone(task->actor, &story);
        task_refuse(rank, task, NULL, 0, code, story);
        return;
    }
    count = (uint32_t)__builtin_popcount(task->reference_mask);
    for (uint32_t i = 0, argument = 0; i < count; i++, argument++) {
        while (!(task->reference_mask >> argument & 1))
            argument++;
        inputs[i] = input_take(
            in, functions[task->function]->parameters[argument].kind != MORAY_KIND_FUTURE,
            &types[i]);
        if (inputs[i] == RECORD_NONE) {
            task_refuse(rank, task, inputs, i, MORAY_FULL,
                        "the node that was to run it has no room for its "
                        "inputs; raise MORAY_STORE_BYTES there");
            return;
        }
    }
    const char *arguments = bytes_take(in, task->argument_bytes);
    index = arguments ? lane_make(&agent.lane, kind == ITEM_CALL ? RECORD_METHOD : RECORD_TASK)
                      : RECORD_NONE;
    uint32_t details_bytes = task->flags & RECORD_LONG ? (uint32_t)sizeof(struct record_long) : 0;
    uint32_t call_bytes = kind == ITEM_CALL ? (uint32_t)sizeof(struct record_call) : 0;
    uint32_t value_bytes = task->argument_bytes - details_bytes;
    uint32_t bytes = details_bytes + call_bytes + count * 16 + value_bytes, place = 0;
    if (index == RECORD_NONE || task->argument_bytes < details_bytes ||
        ((details_bytes || bytes > RECORD_ARGUMENT_BYTES) &&
         !(place = arena_alloc(&agent.lane.arena, bytes ? bytes : 1, index))) ||
        !extras_make(task, extras)) {
        if (place)
            arena_free(&agent.lane.arena, place, index);
        if (index != RECORD_NONE)
            lane_abandon(&agent.lane, index);
        task_refuse(rank, task, inputs, count, MORAY_FULL,
                    "the node that was to run it has no room for it; raise "
                    "MORAY_STORE_BYTES or MORAY_QUEUE_MAX there");
        return;
    }
    record = lane_record(&agent.lane, index);
    record->function = task->function;
    record->site = task->site;
    record->attempts_max = task->attempts_max;
    record->reference_mask = task->reference_mask;
    char *at = place ? arena_at(&agent.lane.arena, place) : (char *)record->arguments;
    uint16_t flags = (uint16_t)(task->flags & (RECORD_LONG | RECORD_GENERAL)) |
                     (place ? RECORD_BLOCK : 0) | (count ? RECORD_HOLDS_INPUTS : 0);
    if (place)
        *(struct record_block *)record->arguments = (struct record_block){place, bytes};
    else
        record->argument_bytes = (uint16_t)bytes;
    if (details_bytes) {
        memcpy(at, arguments, details_bytes);
        ((struct record_long *)at)->on_rank = (int32_t)agent.rank;
        extras_set((struct record_long *)at, extras, task->extra_count);
        at += details_bytes;
    }
    uint32_t submitter = call_bytes ? submitter_take(rank, task) : 0;
    if (call_bytes) {
        uint32_t sequence = atomic_load(&agent.lane.self->sequence) + 1;
        atomic_store(&agent.lane.self->sequence, sequence);
        *(struct record_call *)at = (struct record_call){.actor = atomic_load(&actor->slot),
                                                         .submitter = submitter,
                                                         .sequence = sequence,
                                                         .incarnation = actor->generation};
        at += call_bytes;
    }
    moray_ref *refs = (moray_ref *)at;
    for (uint32_t i = 0; i < count; i++)
        refs[i] = (moray_ref){agent.rank + 1, inputs[i],
                              life_generation(record_life(lane_record(&agent.lane, inputs[i]))),
                              types[i]};
    memcpy(at + count * 16, arguments + details_bytes, value_bytes);
    atomic_store_explicit(&record->flags, flags, memory_order_relaxed);
    /* The holds that input_take() took are the task's from here on. */
    struct executing *entry = entry_add(index);
    *entry = (struct executing){rank, task->index, task->generation, index, submitter};
    agent.remote->arrived++;
    agent.lane.rouse_first = 0;
    if (agent.now_ns - agent.remote->arrived_ns > ALONE_NS) /* soon this agent sleeps */
        agent.lane.rouse_first = lend_core(&agent.lane, agent.node);
    agent.remote->arrived_ns = agent.now_ns;
    if (!depends(index, task, inputs, count) || !submits(index, kind, actor)) {
        lane_publish(&agent.lane, index, RECORD_RUNNING);
        agent_end_failed(index, MORAY_FULL,
                         "the node that was to run it has too much that waits for something; "
                         "raise MORAY_QUEUE_MAX there");
    }
    if (lane_await(&agent.lane, index))
        remote_ended(index, life_generation(record_life(record)));
}

/* ---- Ends ---- */

static uint32_t append_value(char *at, uint32_t index, uint32_t rank, bool *kept)
{
    const void *bytes;
    struct value value = value_of(index, rank, &bytes);

    memcpy(at, &value, sizeof(value));
    if (value.follow)
        memcpy(at + sizeof(value), bytes, value.follow);
    /* In the record's own hands: else it came from elsewhere, perhaps from another record of this rank. */
    *kept = value.index == index && ((value.shape == SHAPE_FAR && value.rank == agent.rank) ||
                                     (value.shape == SHAPE_INLINE && value.rank == agent.rank + 1));
    if (!*kept && (value.shape == SHAPE_FAR || (value.shape == SHAPE_INLINE && value.rank))) {
        /* It went on from here, and what is kept lies where it ended: it is the owner's to let go. */
        map_remove(&agent.remote->far, index, NULL);
        atomic_fetch_and(
            &lane_record(&agent.lane, index)->flags,
            (uint16_t) ~(RECORD_RESULT_FAR | RECORD_RESULT_SHARED | RECORD_RESULT_KEPT));
    }
    return (uint32_t)sizeof(value) + rounded(value.follow);
}

static uint32_t value_room(uint32_t index, uint32_t rank)
{
    const void *bytes;
    return (uint32_t)sizeof(struct value) + rounded(value_of(index, rank, &bytes).follow);
}

static void result_say(const struct word_act *act)
{
    uint32_t index = act->with[0];
    const uint64_t *known = map_get(&agent.remote->executing, index);

    if (!known || !lane_find(&agent.lane, index, act->with[1]))
        return; /* it was told twice that the task has ended */
    uint32_t number = (uint32_t)*known;
    struct executing entry = entries[number];
    uint32_t extras[EXTRAS_MAX], extra_count = extras_get(index, extras), bytes;
    bool kept;

    map_remove(&agent.remote->executing, index, NULL);
    submitter_drop(entry.submitter);
    entries[number].index = entry_free;
    entry_free = number;
    bytes = (uint32_t)sizeof(struct item_result) + value_room(index, entry.rank);
    for (uint32_t i = 0; i < extra_count; i++)
        bytes += value_room(extras[i], entry.rank);
    struct item_result *item = out_item(entry.rank, ITEM_RESULT, bytes);
    *item = (struct item_result){entry.index, entry.generation, 1 + extra_count, 0};
    char *at = (char *)(item + 1);
    at += append_value(at, index, entry.rank, &kept);
    if (!kept)
        drop_own(index);
    for (uint32_t i = 0; i < extra_count; i++) {
        at += append_value(at, extras[i], entry.rank, &kept);
        if (!kept)
            drop_own(extras[i]);
    }
}

/* The owner then lets go what it lent to the task. */
void tasks_ended(uint32_t index, uint32_t generation)
{
    words_then((struct word_act){result_say, {index, generation}});
}

static bool result_one(uint32_t index, struct bytes_reader *in)
{
    const struct value *value = bytes_take(in, sizeof(*value));
    const void *bytes = value ? bytes_take(in, rounded(value->follow)) : NULL;

    if (!bytes)
        return false;
    value_take(index, value, bytes, false);
    return true;
}

void tasks_take_result(uint32_t rank, struct bytes_reader *in)
{
    const struct item_result *item = bytes_take(in, sizeof(*item));
    struct record *record = item ? lane_find(&agent.lane, item->index, item->generation) : NULL;
    uint64_t life = record ? record_life(record) : 0;

    if (!record || record->kind > RECORD_METHOD || life_state(life) != RECORD_RUNNING ||
        life_slot(life) != LANE_AGENT) {
        log_warning("rank %u told the end of a task that this rank did not send", rank);
        return;
    }
    if (remote_peers[rank].outstanding && record->kind == RECORD_TASK)
        remote_peers[rank].outstanding--;
    moves_ended(rank);
    uint32_t extras[EXTRAS_MAX], extra_count = extras_get(item->index, extras);
    const struct value *first = bytes_take(in, sizeof(*first));
    const void *bytes = first ? bytes_take(in, rounded(first->follow)) : NULL;
    if (!bytes) {
        agent_fail("a result of rank %u is malformed", rank);
        return;
    }
    for (uint32_t i = 0; i < extra_count; i++) {
        uint64_t extra = record_life(lane_record(&agent.lane, extras[i]));
        if (!lane_claim(&agent.lane, extras[i], life_generation(extra)))
            continue;
        if (first->shape == SHAPE_FAILED && item->count == 1)
            value_take(extras[i], first, bytes, false); /* the failure of a task shows in each */
        else if (!result_one(extras[i], in))
            agent_end_failed(extras[i], MORAY_PROTOCOL, "rank %u told no such result of its task",
                             rank);
    }
    value_take(item->index, first, bytes, false);
}

/* ---- Cancelling ---- */

static void cancel_tell(uint32_t rank, uint32_t owner, uint32_t index, uint32_t generation)
{
    *(struct item_cancel *)out_item(rank, ITEM_CANCEL, sizeof(struct item_cancel)) =
        (struct item_cancel){.owner = owner, .index = index, .generation = generation};
}

/* A task of this rank. It does not note where it sent it: all nodes are told, for this is rare. */
static void cancel_own(uint32_t index, uint32_t generation)
{
    struct record *record = lane_find(&agent.lane, index, generation);
    uint64_t life;

    if (!record || (record->kind != RECORD_TASK && record->kind != RECORD_METHOD))
        return;
    record_cancel(&agent.lane, agent.window, index, generation);
    life = record_life(record);
    if (life_generation(life) != generation || life_state(life) != RECORD_RUNNING ||
        life_slot(life) != LANE_AGENT)
        return;
    for (uint32_t rank = 0; rank < agent.rank_count; rank++)
        if (rank != agent.rank && remote_is_node(rank))
            cancel_tell(rank, agent.rank + 1, index, generation);
}

void remote_cancel(uint32_t index, uint32_t generation)
{
    const struct name *name = stand_in_name(index, generation);

    if (name)
        cancel_tell(name->owner - 1, name->owner, name->index, name->generation);
    else
        cancel_own(index, generation);
}

void tasks_take_cancel(uint32_t rank, struct bytes_reader *in)
{
    const struct item_cancel *item = bytes_take(in, sizeof(*item));

    if (!item || item->owner == agent.rank + 1) {
        if (item)
            cancel_own(item->index, item->generation);
        return;
    }
    for (uint32_t i = 0; i < entry_count; i++) {
        const struct executing *entry = &entries[i];
        if (entry->rank != rank || entry->index != item->index ||
            entry->generation != item->generation)
            continue;
        const uint64_t *number = map_get(&agent.remote->executing, entry->record);
        if (!number || *number != i)
            continue;                   /* what is left of one that has ended */
        uint32_t index = entry->record; /* it may have been sent on from here */
        cancel_own(index, life_generation(record_life(lane_record(&agent.lane, index))));
        return;
    }
}
