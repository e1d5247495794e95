#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/array.h"
#include "base/log.h"
#include "node/head.h"
#include "node/remote.h"
#include "node/routes.h"
#include "sched/lane/repair.h"

/*
 * Actors on this node, and the way to those on others.
 *
 *     route   one for each actor that a process of this node has a handle of: who holds, where it is
 *     entry   one for each actor whose process is here (node/actors.h), seen by all processes
 *
 * A call to an actor here goes straight into its mailbox (client/call.c). Calls to others, and to those
 * whose place is not known yet, come by here in order and are carried on in order.
 * A death: repair gives back what ran (fails, or runs again if the actor has method retries) and what
 * waited (posted again to the next process, which sorts by sequence).
 */

enum {
    STORY_BYTES = 1024,
    FAR_WAITS = UINT32_MAX, /* as incarnation: the call lies among its route's waiting ones */
};

static uint32_t entries_end;
static uint32_t next_generation;

static uint64_t id_of(const moray_actor *actor)
{
    return (uint64_t)actor->generation << 32 | actor->index;
}

static struct node_actor *entry_of(uint32_t index)
{
    return (struct node_actor *)(agent.lane.control->node + sizeof(struct node_shared)) + index;
}

/* ---- Starting one here ---- */

static struct { /* of an entry, for the agent alone */
    uint32_t incarnation;
    bool told_ready;
    bool granted;   /* its resources, if it asked for some, are its own */
    bool has_asked; /* it is known to the local scheduler */
    struct resources need;
    char *reason; /* why it is gone */
    struct takings
        takings; /* what its constructor takes: inside of values, and if it may run again */
    bool has_taken, may_restart;
} inside[NODE_ACTORS_MAX];

static uint32_t next_reused;

/* The dead stay to tell why, until their places are needed. */
static uint32_t free_entry(void)
{
    if (entries_end < NODE_ACTORS_MAX)
        return entries_end++;
    for (uint32_t i = 0; i < NODE_ACTORS_MAX; i++) {
        uint32_t index = next_reused++ % NODE_ACTORS_MAX;
        if (atomic_load(&entry_of(index)->ready) != ACTOR_GONE)
            continue;
        route_of(entry_of(index)->id)->entry = 0;
        return index;
    }
    return NODE_ACTORS_MAX;
}

static void word_to_head(const struct node_actor *entry, uint32_t incarnation, uint32_t kind,
                         uint32_t detail, enum moray_code code, const char *story)
{
    char bytes[sizeof(struct actor_word) + STORY_BYTES];
    struct actor_word word = {.id = entry->id,
                              .incarnation = incarnation,
                              .detail = detail,
                              .code = (uint32_t)code,
                              .node = agent.rank};

    memcpy(bytes, &word, sizeof(word));
    snprintf(bytes + sizeof(word), STORY_BYTES, "%s", story);
    head_tell(kind, bytes, (uint32_t)(sizeof(word) + strlen(bytes + sizeof(word)) + 1));
}

/* There is no cell for what it waits for, or for the word that it waits no more. */
static uint32_t creation_undo(uint32_t index)
{
    lane_publish(&agent.lane, index, RECORD_RUNNING);
    agent_end_failed(index, MORAY_FULL, "no cell");
    lane_drop(&agent.lane, index);
    return RECORD_NONE;
}

/* The constructor's run, as a record of the agent's: its arguments, copied; its references held. */
static uint32_t creation_make(uint32_t entry_index, const struct request_actor *request)
{
    const struct node_actor *entry = entry_of(entry_index);
    bool first = request->restarts && !inside[entry_index].has_taken;
    const struct moray_class *type = classes[entry->class_id];
    const char *blob = (const char *)(request + 1) + (request->name_bytes + 7) / 8 * 8;
    uint32_t index = lane_make(&agent.lane, RECORD_TASK);
    struct record *record;

    if (index == RECORD_NONE)
        return RECORD_NONE;
    record = lane_record(&agent.lane, index);
    record->function = type->constructor->id;
    record->site = request->site;
    record->attempts_max = 1;
    atomic_store(&record->flags, RECORD_GENERAL);
    uint32_t bytes = request->argument_bytes,
             place = arena_alloc(&agent.lane.arena, bytes + 8, index);
    if (!place) {
        lane_abandon(&agent.lane, index);
        return RECORD_NONE;
    }
    char *at = arena_at(&agent.lane.arena, place);
    memcpy(at, blob, bytes);
    *(struct record_block *)record->arguments = (struct record_block){place, bytes};
    record->reference_mask = (uint16_t)request->reference_mask;
    atomic_store(&record->flags, RECORD_GENERAL | RECORD_BLOCK);
    moray_ref *refs = (moray_ref *)at;
    int count = __builtin_popcount(record->reference_mask), number = 0;
    for (int i = 0; i < count; i++) {
        if (refs[i].owner != agent.rank + 1) {
            uint32_t local = remote_stand_in(refs[i]);
            if (local == RECORD_NONE) {
                while (i-- > 0)
                    drop_own(refs[i].index);
                lane_abandon(&agent.lane, index);
                return RECORD_NONE;
            }
            refs[i] = (moray_ref){agent.rank + 1, local,
                                  life_generation(record_life(lane_record(&agent.lane, local))),
                                  refs[i].type};
        }
        lane_hold(&agent.lane, refs[i].index);
        if (first)
            takings_input(&inside[entry_index].takings, refs[i].index);
    }
    if (count)
        atomic_fetch_or(&record->flags, RECORD_HOLDS_INPUTS);
    for (unsigned i = 0; i < type->constructor->parameter_count; i++)
        if (record->reference_mask >> i & 1) {
            uint32_t input = refs[number++].index;
            if (type->constructor->parameters[i].kind != MORAY_KIND_FUTURE &&
                lane_depends(&agent.lane, index, input, i) != MORAY_OK)
                return creation_undo(index);
        }
    return index;
}

/* Starts the process once the constructor's arguments are there, and the resources. */
static void spawn(uint32_t index)
{
    struct node_actor *entry = entry_of(index);
    uint16_t slot = (uint16_t)atomic_load(&entry->slot);
    uint32_t creation = atomic_load(&entry->creation);

    /* One that was stopped before is started again by another order, or never. */
    if (atomic_load(&entry->ready) != ACTOR_STARTING || agent.slots[slot].use != SLOT_RESERVED ||
        atomic_load(&entry->killed) || !inside[index].granted ||
        (creation != RECORD_NONE &&
         life_state(record_life(lane_record(&agent.lane, creation))) != RECORD_QUEUED))
        return;
    if (!workers_spawn(slot, PROCESS_ACTOR, -1, -1, index)) {
        agent.slots[slot].use = SLOT_RESERVED;
        word_to_head(entry, inside[index].incarnation, HEAD_ACTOR_EXITED, 0, MORAY_DIED,
                     "its process could not be started");
    }
}

bool actors_creation_ready(uint32_t record, uint32_t generation)
{
    (void)generation;
    for (uint32_t i = 0; i < entries_end; i++)
        if (atomic_load(&entry_of(i)->ready) == ACTOR_STARTING &&
            atomic_load(&entry_of(i)->creation) == record) {
            spawn(i);
            return true;
        }
    return false;
}

void actors_granted(uint32_t index)
{
    inside[index].granted = true;
    spawn(index);
}

/* What it asked for by name is its own for life: the local scheduler counts it as a task that lasts. */
static bool ask_resources(uint32_t index, struct moray_error *error)
{
    if (inside[index].has_asked || inside[index].granted)
        return true;
    if (!inside[index].need.core_parts && !inside[index].need.memory_bytes) {
        inside[index].granted = true;
        return true;
    }
    inside[index].has_asked = general_hold(index, inside[index].need, error);
    return inside[index].has_asked;
}

/* ---- The end of one here ---- */

static void fail_call_of(uint32_t index, uint32_t generation, enum moray_code code,
                         const char *story)
{
    struct record *record = lane_record(&agent.lane, index);
    uint64_t life = record_life(record);
    char what[300];

    record_describe(&agent.lane, record, what, sizeof(what));
    /* WAITING as well as QUEUED. */
    while (life_generation(life) == generation &&
           (life_state(life) == RECORD_WAITING || life_state(life) == RECORD_QUEUED)) {
        uint64_t next =
            life_of(RECORD_RUNNING, LANE_AGENT, life_attempt(life), life_generation(life)) |
            (life & LIFE_WAITED);
        if (!atomic_compare_exchange_weak(&record->life, &life, next))
            continue;
        agent_end_failed(index, code, "%s: %s", what, story);
        return;
    }
}

static void fail_call(uint32_t index, enum moray_code code, const char *story)
{
    fail_call_of(index, life_generation(record_life(lane_record(&agent.lane, index))), code, story);
}

static void post_call(uint32_t index, uint16_t slot)
{
    uint32_t generation = life_generation(record_life(lane_record(&agent.lane, index)));

    if (lane_post(&agent.lane, slot, index, generation, CELL_CALL, 0) != MORAY_OK)
        fail_call(index, MORAY_FULL,
                  "the actor's node has too much that waits for something; raise "
                  "MORAY_QUEUE_MAX there");
}

/* A constructor that has not begun never will: queued still, an ordinary worker would run it. */
static void creation_end(uint32_t index, enum moray_code code, const char *story)
{
    uint32_t creation = atomic_exchange(&entry_of(index)->creation, RECORD_NONE);

    if (creation == RECORD_NONE)
        return;
    fail_call(creation, code, story);
    lane_drop(&agent.lane, creation);
}

static const char *reason_of(uint32_t index)
{
    return inside[index].reason ? inside[index].reason : "the actor is dead";
}

static void gone(uint32_t index, enum moray_code code, const char *story)
{
    struct node_actor *entry = entry_of(index);
    uint32_t slot = atomic_load(&entry->slot);
    uint32_t end = atomic_load(&agent.lane.control->records_claimed) * POOL_SLAB_ITEMS;

    char *reason = strdup(story);

    free(inside[index].reason);
    inside[index].reason = reason;
    entry->restarts_left = (int32_t)code;
    atomic_store(&entry->ready, ACTOR_GONE);
    creation_end(index, code, story);
    takings_drop(&inside[index].takings);
    if (inside[index].has_asked)
        general_let_go(index);
    inside[index].has_asked = inside[index].granted = false;
    /* Whoever posts from now on sees that it is gone, and asks us to fail the call. */
    for (uint32_t i = 0; i < end; i++) {
        struct record *record = lane_record(&agent.lane, i);
        enum record_state state = life_state(record_life(record));
        if ((state == RECORD_WAITING || state == RECORD_QUEUED) && record->kind == RECORD_METHOD &&
            !(record_flags(record) & RECORD_FAR_CALL) &&
            lane_call(&agent.lane, record)->actor == slot &&
            lane_call(&agent.lane, record)->incarnation == entry->generation)
            fail_call(i, code, story);
    }
    if (agent.slots[slot].use == SLOT_RESERVED)
        agent.slots[slot].use = SLOT_UNUSED;
}

static void start_here(const struct actor_word *word, const struct request_actor *request,
                       uint32_t bytes)
{
    struct route *route = route_of(word->id);
    struct node_actor *entry;
    struct moray_error error;
    uint32_t index, slot;

    if (bytes < sizeof(*request) || request->class_id >= class_count ||
        (uint64_t)sizeof(*request) + (request->name_bytes + 7) / 8 * 8 + request->argument_bytes >
            bytes) {
        log_error("an order to start an actor is malformed");
        return;
    }
    if (route->entry) {
        index = route->entry - 1;
        entry = entry_of(index);
        creation_end(index, MORAY_ACTOR_DIED, "its process was never started");
    } else {
        slot = workers_free_actor_slot();
        index = slot ? free_entry() : NODE_ACTORS_MAX;
        if (index == NODE_ACTORS_MAX) {
            struct node_actor none = {.id = word->id};
            word_to_head(&none, word->incarnation, HEAD_ACTOR_REFUSED, 0, MORAY_BUSY,
                         "the node has no room for a further process");
            return;
        }
        entry = entry_of(index);
        memset(entry, 0, sizeof(*entry));
        atomic_store(&entry->creation, RECORD_NONE);
        free(inside[index].reason);
        memset(&inside[index], 0, sizeof(inside[index]));
        inside[index].need =
            (struct resources){.core_parts = request->cores, .memory_bytes = request->memory_bytes};
        entry->id = word->id;
        entry->class_id = request->class_id;
        entry->generation = ++next_generation;
        entry->pending_max = request->pending_max;
        entry->method_retries = request->method_retries;
        snprintf(entry->name, sizeof(entry->name), "%.*s",
                 (int)(request->name_bytes < 63 ? request->name_bytes : 63),
                 (const char *)(request + 1));
        atomic_store(&entry->slot, slot);
        agent.slots[slot].use = SLOT_RESERVED;
        route->entry = index + 1;
        route->node = agent.rank;
    }
    inside[index].incarnation = word->incarnation;
    inside[index].told_ready = false;
    atomic_store(&entry->killed, 0);
    atomic_store(&entry->ready, ACTOR_STARTING);
    if (!ask_resources(index, &error)) {
        gone(index, MORAY_INVALID, error.text);
        word_to_head(entry, word->incarnation, HEAD_ACTOR_FAILED, 0, MORAY_INVALID, error.text);
        return;
    }
    if (!classes[entry->class_id]->constructor) {
        spawn(index);
        return;
    }
    uint32_t record = creation_make(index, request);
    if (record != RECORD_NONE && lane_submit(&agent.lane, record) != MORAY_OK)
        record = creation_undo(record);
    if (record == RECORD_NONE) {
        static const char story[] = "no room for its constructor's arguments; raise "
                                    "MORAY_STORE_BYTES or MORAY_QUEUE_MAX";
        gone(index, MORAY_FULL, story);
        word_to_head(entry, word->incarnation, HEAD_ACTOR_FAILED, 0, MORAY_FULL, story);
        return;
    }
    if (!inside[index].has_taken)
        takings_insides(&inside[index].takings, request, bytes);
    inside[index].has_taken = true;
    inside[index].may_restart = request->restarts != 0;
    atomic_store(&entry->creation, record);
    if (request->is_lent)
        route_tell_inputs_held(word->id);
}

/* Whether the actor lives on; if not, the call fails. */
static bool call_lives(uint32_t index, uint32_t generation, const struct record_call *call)
{
    for (uint32_t i = 0; i < entries_end; i++) {
        struct node_actor *entry = entry_of(i);
        if (entry->generation != call->incarnation || atomic_load(&entry->slot) != call->actor)
            continue;
        if (atomic_load(&entry->ready) != ACTOR_GONE)
            return true;
        fail_call_of(index, generation, (enum moray_code)entry->restarts_left, reason_of(i));
        return false;
    }
    fail_call_of(index, generation, MORAY_ACTOR_DIED, "the actor is dead");
    return false;
}

void actors_call_dead(uint32_t index)
{
    const struct record *record = lane_record(&agent.lane, index);
    const struct record_call *call = lane_call(&agent.lane, record);

    /* Its next process sorts by sequence; twice in the mailbox is harmless. */
    if (call && call_lives(index, life_generation(record_life(record)), call))
        post_call(index, (uint16_t)call->actor);
}

void actors_call_untold(uint32_t index)
{
    const struct record *record = lane_record(&agent.lane, index);
    uint64_t life =
        record_life(record); /* in this state of this generation the call stays as it is */
    const struct record_call *call = lane_call(&agent.lane, record);

    if (call && (life_state(life) == RECORD_WAITING || life_state(life) == RECORD_QUEUED))
        (void)call_lives(index, life_generation(life), call);
}

bool actors_running_dead(uint32_t index)
{
    struct record *record = lane_record(&agent.lane, index);
    char what[300];

    record_describe(&agent.lane, record, what, sizeof(what));
    if (record->kind == RECORD_METHOD) {
        const struct record_call *call = lane_call(&agent.lane, record);
        for (uint32_t i = 0; i < entries_end; i++) {
            struct node_actor *entry = entry_of(i);
            int32_t retries = entry->method_retries;
            if (entry->generation == call->incarnation &&
                (retries < 0 || life_attempt(record_life(record)) < (uint32_t)retries)) {
                lane_requeue_dead(&agent.lane, index, 1);
                return true; /* the third pass of the repair posts it again, if it lives on */
            }
        }
        lane_adopt_dead(&agent.lane, index);
        agent_end_failed(
            index, MORAY_ACTOR_DIED,
            "%s: the actor's process died while it ran, and a call is run at most once "
            "unless .method_retries says otherwise",
            what);
        return true;
    }
    if (lane_home(&agent.lane, index) == LANE_AGENT && (record_flags(record) & RECORD_GENERAL)) {
        lane_adopt_dead(&agent.lane, index);
        agent_end_failed(index, MORAY_DIED, "%s: its process died", what);
        return true;
    }
    return false;
}

void actors_process_died(uint16_t slot, uint32_t index, int status)
{
    struct node_actor *entry = entry_of(index);
    uint32_t ready = atomic_load(&entry->ready), creation = atomic_load(&entry->creation);
    struct route *route = route_of(entry->id);
    char how[64], story[STORY_BYTES];
    bool clean = wait_story(status, how, sizeof(how));

    agent.slots[slot].use = SLOT_RESERVED;
    if (ready == ACTOR_UNBUILT) {
        const char *cause = "its constructor failed";
        enum moray_code code = MORAY_ACTOR_DIED;
        if (creation != RECORD_NONE &&
            life_state(record_life(lane_record(&agent.lane, creation))) == RECORD_FAILED) {
            struct record *record = lane_record(&agent.lane, creation);
            if (record_flags(record) & RECORD_RESULT_BLOCK) {
                const struct record_story *told =
                    arena_at(&agent.lane.arena, record->result.block.place);
                code = (enum moray_code)told->code;
                cause = told->text;
            }
        }
        snprintf(story, sizeof(story), "the actor's constructor failed: %s", cause);
        gone(index, code, story);
        word_to_head(entry, inside[index].incarnation, HEAD_ACTOR_FAILED, 0, code, story);
    } else {
        snprintf(story, sizeof(story),
                 "the actor %s%s%s (process in slot %u, rank %u, host %s) %s %s",
                 classes[entry->class_id]->name, entry->name[0] ? " " : "", entry->name, slot,
                 agent.rank, agent.node->host, clean ? "has" : "was", how);
        creation_end(index, MORAY_ACTOR_DIED, story);
        if (route->state == STATE_DEAD) /* it was killed for good: the head has said so before */
            gone(index, route->code, route->story ? route->story : story);
        word_to_head(entry, inside[index].incarnation, HEAD_ACTOR_EXITED, clean, MORAY_ACTOR_DIED,
                     story);
    }
}

void actors_process_ready(void)
{
    for (uint32_t i = 0; i < entries_end; i++) {
        struct node_actor *entry = entry_of(i);
        if (inside[i].told_ready || atomic_load(&entry->ready) != ACTOR_READY)
            continue;
        inside[i].told_ready = true;
        if (atomic_load(&entry->creation) != RECORD_NONE) {
            lane_drop(&agent.lane, atomic_load(&entry->creation));
            atomic_store(&entry->creation, RECORD_NONE);
        }
        if (!inside[i].may_restart)
            takings_drop(&inside[i].takings);
        word_to_head(entry, inside[i].incarnation, HEAD_ACTOR_STARTED, atomic_load(&entry->slot),
                     MORAY_OK, "");
    }
}

/* ---- Words of the head ---- */

/* Calls that waited until it was known where the actor is go on, in order. */
static void flush_waiting(uint64_t id)
{
    struct route *route = route_of(id);
    struct lane_mail *waiting = route->waiting;
    uint32_t count = route->waiting_count;

    route->waiting = NULL;
    route->waiting_count = route->waiting_capacity = 0;
    for (uint32_t i = 0; i < count; i++)
        actors_call_far(waiting[i].index, waiting[i].generation);
    free(waiting);
}

static void is_now(const struct actor_word *word, const char *story)
{
    struct route *route = route_of(word->id);

    if (route->state == STATE_DEAD && word->code == MORAY_STALE)
        return; /* what it died of is known here, if not at rank 0 any more */
    route->state = word->detail;
    if (word->node != UINT32_MAX)
        route->node = word->node;
    route->code = word->code ? (enum moray_code)word->code : MORAY_ACTOR_DIED;
    route->pending_max = word->pending_max;
    if (route->state == STATE_DEAD) {
        free(route->story);
        route->story = strdup(story);
        free(route->sent);
        route->sent = NULL;
        route->sent_count = route->sent_capacity = route->sent_tidy_at = 0;
        actors_inputs_held(word->id);
        route = route_of(word->id);
    }
    if (route->state == STATE_DEAD && route->entry &&
        atomic_load(&entry_of(route->entry - 1)->ready) != ACTOR_GONE &&
        agent.slots[atomic_load(&entry_of(route->entry - 1)->slot)].use == SLOT_RESERVED)
        gone(route->entry - 1, MORAY_ACTOR_DIED, story);
    if (route->node != UINT32_MAX || route->state == STATE_DEAD)
        flush_waiting(word->id);
}

static void stop_here(uint32_t index)
{
    struct node_actor *entry = entry_of(index);
    uint32_t slot = atomic_load(&entry->slot);

    if (atomic_load(&entry->ready) == ACTOR_GONE)
        return; /* it crossed the word of that; the slot may be another one's by now */
    if (agent.slots[slot].use != SLOT_RESERVED)
        workers_kill((uint16_t)slot, SIGKILL);
    else /* its constructor has not begun */
        word_to_head(entry, inside[index].incarnation, HEAD_ACTOR_EXITED, 0, MORAY_ACTOR_DIED,
                     "it was stopped before its constructor began");
}

void actors_word(uint32_t kind, const void *bytes, uint32_t count)
{
    struct actor_word word;
    const char *more = (const char *)bytes + sizeof(word);
    uint32_t more_bytes = count - (uint32_t)sizeof(word);
    struct route *route;

    if (count < sizeof(word))
        return;
    memcpy(&word, bytes, sizeof(word));
    switch ((enum head_word)kind) {
    case NODE_ACTOR_START:
        start_here(&word, (const struct request_actor *)more, more_bytes);
        if (!route_of(word.id)->entry)
            break; /* refused */
        route_of(word.id)->ordered = true;
        flush_waiting(word.id);
        tasks_expected(word.id);
        break;
    case NODE_ACTOR_FINISH:
        route = route_of(word.id);
        if (route->entry) {
            atomic_store(&entry_of(route->entry - 1)->finish, 1);
            lane_wake(&agent.lane, (uint16_t)atomic_load(&entry_of(route->entry - 1)->slot));
        }
        break;
    case NODE_ACTOR_STOP:
        route = route_of(word.id);
        if (route->entry) {
            atomic_store(&entry_of(route->entry - 1)->killed, 1);
            stop_here(route->entry - 1);
        }
        break;
    case NODE_ACTOR_IS:
        if (more_bytes && more[more_bytes - 1] == '\0')
            is_now(&word, more);
        if (word.detail == STATE_DEAD)
            tasks_expected(word.id);
        break;
    default:
        break;
    }
}

/* ---- Calls that pass by here ---- */

void actors_call_far(uint32_t index, uint32_t generation)
{
    struct record *record = lane_find(&agent.lane, index, generation);
    struct record_call *call = record ? lane_call(&agent.lane, record) : NULL;
    struct route *route;

    if (!call || life_ended(record_life(record)) || !(record_flags(record) & RECORD_FAR_CALL))
        return; /* each death has it posted again: it may be where it belongs by now */
    if (call->actor >= agent.route_count) {
        fail_call(index, MORAY_STALE, "a handle that leads nowhere");
        return;
    }
    route = &agent.routes[call->actor];
    if (route->state == STATE_DEAD) {
        fail_call(index, route->code, route->story ? route->story : "the actor is dead");
        return;
    }
    if (route->node == UINT32_MAX && call->incarnation == FAR_WAITS)
        return;
    if (route->node == UINT32_MAX) {
        /* A handle that came with a task, or in a value: rank 0 tells where the actor is to who holds
         * it, and a call on its way holds it. */
        bool tells = !route->told;
        if (tells)
            route_lend(route, index, generation);
        route->waiting = array_grown(route->waiting, route->waiting_count, &route->waiting_capacity,
                                     sizeof(*route->waiting));
        route->waiting[route->waiting_count++] =
            (struct lane_mail){.index = index, .generation = generation};
        call->incarnation = FAR_WAITS;
        if (tells)
            route_tell_hold(route); /* on rank 0 the answer is here before it returns */
        return;
    }
    if (route->node != agent.rank) {
        route_sent(route, index, generation);
        remote_send_call(route->node, route->id, index, generation);
        return;
    }
    if (!route->entry) {
        fail_call(index, MORAY_ACTOR_DIED, "the actor is dead");
        return;
    }
    /* It is here after all: into its mailbox, in the order in which calls come by. */
    struct node_actor *entry = entry_of(route->entry - 1);
    uint32_t slot = atomic_load(&entry->slot);
    call->actor = slot;
    call->incarnation = entry->generation;
    atomic_fetch_and(&record->flags, (uint16_t)~RECORD_FAR_CALL);
    if (atomic_load(&entry->ready) == ACTOR_GONE)
        fail_call(index, (enum moray_code)entry->restarts_left, reason_of(route->entry - 1));
    else
        post_call(index, (uint16_t)slot);
}

struct node_actor *actors_here(uint64_t id, uint32_t *route_index)
{
    struct route *route = route_of(id);

    *route_index = (uint32_t)(route - agent.routes);
    return route->entry ? entry_of(route->entry - 1) : NULL;
}

bool actors_expected(uint64_t id)
{
    const struct route *route = route_of(id);
    return !route->ordered && route->state != STATE_DEAD;
}

enum moray_code actors_gone(uint64_t id, const char **story)
{
    const struct route *route = route_of(id);

    if (route->entry) {
        *story = reason_of(route->entry - 1);
        return (enum moray_code)entry_of(route->entry - 1)->restarts_left;
    }
    *story = route->story ? route->story : "the actor is dead";
    return route->state == STATE_DEAD ? route->code : MORAY_ACTOR_DIED;
}

uint32_t actors_route(uint64_t id)
{
    return (uint32_t)(route_of(id) - agent.routes);
}

/* ---- Requests ---- */

static void answer_where(uint32_t index, const moray_actor *actor)
{
    struct route *route = route_of(id_of(actor));
    struct answer_actor answer = {.actor = *actor,
                                  .table = (uint32_t)(route - agent.routes),
                                  .pending_max = route->pending_max};

    if (route->entry) {
        struct node_actor *entry = entry_of(route->entry - 1);
        answer.slot = atomic_load(&entry->slot);
        answer.table = route->entry - 1;
        answer.class_id = entry->class_id;
        answer.pending_max = entry->pending_max;
        answer.generation = entry->generation;
    }
    agent_answer(index, &answer, sizeof(answer));
}

/* Requests for a new actor that rank 0 has not answered: record -> the id that was chosen for it. */
static struct map making;

/* It is the one with this id; 0: there is none. */
static void made(uint32_t index, uint64_t id)
{
    uint64_t asked;

    if (map_remove(&making, index, &asked) && asked != id)
        route_never(asked);
}

void actors_not_made(uint32_t index)
{
    made(index, 0);
}

static void forward_new(uint32_t index, const void *bytes, uint32_t count)
{
    char *whole = malloc(count + sizeof(moray_actor));
    uint64_t id = (uint64_t)(agent.rank + 1) << ACTOR_ID_RANK_SHIFT | ++agent.next_actor_id;
    moray_actor handle = {.index = (uint32_t)id, .generation = (uint32_t)(id >> 32)};
    uint16_t home = lane_home(&agent.lane, index);
    struct route *route = route_of(id);

    if (!whole) {
        agent_end_failed(index, MORAY_NO_MEMORY, "no memory for an actor's arguments");
        return;
    }
    memcpy(whole, bytes, count);
    memcpy(whole + count, &handle, sizeof(handle));
    route->holders[home / 64] |= (uint64_t)1 << home % 64;
    route->told = true;
    route->pending_max = ((const struct request_actor *)bytes)->pending_max;
    ((struct request_actor *)whole)->is_lent = route_inputs_hold(id, bytes, count);
    if (!map_set(&making, index, id))
        abort();
    head_ask(index, REQUEST_ACTOR_NEW, whole, count + (uint32_t)sizeof(handle));
    free(whole);
}

void actors_answered(uint32_t index, const void *answer)
{
    bool waits = atomic_load(&lane_record(&agent.lane, index)->home_count) != 0;
    moray_actor actor;

    memcpy(&actor, answer, sizeof(actor));
    if (lane_record(&agent.lane, index)->function == REQUEST_ACTOR_NEW)
        made(index, id_of(&actor));
    route_counted(route_of(id_of(&actor)), waits ? lane_home(&agent.lane, index) : 0);
}

void actors_request(uint32_t index, enum request_kind kind, const void *bytes, uint32_t count)
{
    const struct request_handle *request = bytes;
    uint16_t home = lane_home(&agent.lane, index);

    if (kind != REQUEST_ACTOR_KILL && !atomic_load(&lane_record(&agent.lane, index)->home_count)) {
        agent_end_failed(index, MORAY_DIED,
                         "the process that asked has ended"); /* and is repaired */
        return;
    }
    if (kind == REQUEST_ACTOR_NEW) {
        if (count < sizeof(struct request_actor))
            agent_end_failed(index, MORAY_INVALID, "a request of %u bytes", count);
        else
            forward_new(index, bytes, count);
        return;
    }
    if (kind == REQUEST_ACTOR_NAMED) {
        head_ask(index, kind, bytes, count);
        return;
    }
    if (count != sizeof(*request)) {
        agent_end_failed(index, MORAY_INVALID, "a request of %u bytes", count);
        return;
    }
    if (kind == REQUEST_ACTOR_WHERE) {
        answer_where(index, &request->actor);
        return;
    }
    if (kind == REQUEST_ACTOR_KILL) {
        head_ask(index, kind, bytes, count);
        return;
    }
    struct route *route = route_of(id_of(&request->actor));
    if (request->until) {
        uint32_t record = request->until - 1;
        if (!lane_find(&agent.lane, record, request->until_generation))
            ; /* it is gone, and its process with it */
        else if (request->while_there)
            route_keep(route, record);
        else
            route_lend(route, record, request->until_generation);
    } else if (request->detail > 0)
        route->holders[home / 64] |= (uint64_t)1 << home % 64;
    else
        route->holders[home / 64] &= ~((uint64_t)1 << home % 64);
    route_tell_word(route);
    if (request->detail > 0 && !request->until)
        requests_answer_heard(index);
    else
        agent_answer(index, NULL, 0);
}

void node_actors_tick(void)
{
    if (agent.lent_count || routes_wait())
        routes_look();
}

void node_actors_end(void)
{
    for (uint32_t i = 0; i < entries_end; i++) {
        free(inside[i].reason);
        inside[i].reason = NULL;
        takings_free(&inside[i].takings);
    }
    map_clear(&making);
    routes_end();
}
