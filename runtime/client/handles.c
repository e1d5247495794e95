#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/map.h"
#include "client/process.h"
#include "client/requests.h"
#include "node/actors.h"

/*
 * Handles of actors. A process counts its own; the agent knows whether a process has any; rank 0 knows
 * whether a rank has any. An actor on this node is called through its mailbox, without the agent.
 * What a task takes ends with it, as its holds do: its frame has a note. What an actor takes lasts as
 * long as its process, what the driver takes until it is released.
 */

struct handle {
    uint64_t id;
    uint32_t count; /* of this process; 0: lent by a task's argument */
    bool known;     /* `where` is right */
    struct answer_actor where;
    struct lane_mail
        *pending; /* where there is a limit: calls of this process not known to have ended */
    uint32_t pending_count, pending_capacity;
};

static struct handle *handles;
static struct map by_id; /* actor -> row + 1 */
static uint32_t handle_count, handle_capacity, last_found;
static uint32_t tidy_at = 4096; /* so many rows are looked through for those of no use any more */

static uint64_t id_of(const moray_actor *actor)
{
    return (uint64_t)actor->generation << 32 | actor->index;
}

/* Calls of this process that have not ended, where they are counted. */
static uint32_t pending_look(struct handle *handle)
{
    return handle->pending_count = lane_keep_open(&me.lane, handle->pending, handle->pending_count);
}

/* Of what is held no more only the way is known, which the agent tells again. */
static void handles_tidy(void)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < handle_count; i++) {
        struct handle handle = handles[i];
        if (!handle.count && !pending_look(&handle)) {
            free(handle.pending);
            map_remove(&by_id, handle.id, NULL);
            continue;
        }
        *map_get(&by_id, handle.id) = kept + 1;
        handles[kept++] = handle;
    }
    handle_count = kept;
    tidy_at = kept * 2 > tidy_at ? kept * 2 : tidy_at;
}

/* Until the next call of this: the row of an actor, made if there is none. NULL: no memory. */
static struct handle *handle_of(const moray_actor *actor)
{
    uint64_t id = id_of(actor), *row;

    if (last_found < handle_count && handles[last_found].id == id)
        return &handles[last_found];
    if ((row = map_get(&by_id, id)))
        return &handles[last_found = (uint32_t)*row - 1];
    if (handle_count >= tidy_at)
        handles_tidy();
    struct handle *more = array_room(handles, handle_count, &handle_capacity, sizeof(*handles));
    if (!more)
        return NULL;
    handles = more;
    if (id == MAP_NO_KEY || !map_set(&by_id, id, handle_count + 1))
        return NULL;
    handles[handle_count] = (struct handle){.id = id};
    return &handles[last_found = handle_count++];
}

static enum moray_code null_handle(void)
{
    return null_told("handle");
}

/* Where the mailbox is. An actor that is still to be placed has none here: its calls go by the agent
 * until it is known. */
enum moray_code actor_resolve(moray_actor actor, struct answer_actor *out)
{
    struct handle *handle;
    uint32_t record;
    const void *answer;
    uint64_t bytes;
    enum moray_code code;

    if (!actor.node)
        return null_handle();
    handle = handle_of(&actor);
    if (!handle)
        return last_set(MORAY_NO_MEMORY, "no memory for a handle");
    if (!handle->known) {
        struct request_handle request = {.actor = actor};
        code =
            request_call(REQUEST_ACTOR_WHERE, &request, sizeof(request), &record, &answer, &bytes);
        if (code != MORAY_OK)
            return code;
        memcpy(out, answer, sizeof(*out));
        if ((handle = handle_of(&actor))) {
            handle->where = *out;
            handle->known = true;
        }
        request_done(record);
        return MORAY_OK;
    }
    *out = handle->where;
    return MORAY_OK;
}

/* With a limit, each process counts the calls that it has under way. */
enum moray_code actor_room(moray_actor actor, const struct answer_actor *where)
{
    struct handle *handle = handle_of(&actor);
    uint32_t open;

    if (!where->pending_max)
        return MORAY_OK;
    if (!handle)
        return last_set(MORAY_NO_MEMORY, "no memory for a handle");
    if (handle->pending_count < handle->pending_capacity &&
        handle->pending_count < where->pending_max)
        return MORAY_OK;
    open = pending_look(handle);
    if (open < where->pending_max) {
        struct lane_mail *more =
            array_room(handle->pending, open, &handle->pending_capacity, sizeof(*more));
        if (!more)
            return last_set(MORAY_NO_MEMORY, "no memory to count an actor's calls");
        handle->pending = more;
    }
    return open < where->pending_max
               ? MORAY_OK
               : last_set(MORAY_BUSY,
                          "%u calls of this process to the actor have not ended, as many as its "
                          ".pending_max allows; wait for some, or raise it",
                          open);
}

void actor_counts(moray_actor actor, const struct answer_actor *where, uint32_t index)
{
    struct handle *handle = where->pending_max ? handle_of(&actor) : NULL;

    if (handle && handle->pending_count < handle->pending_capacity)
        handle->pending[handle->pending_count++] = (struct lane_mail){
            .index = index,
            .generation = life_generation(record_life(lane_record(&me.lane, index)))};
}

/* A call that was posted to an actor that was just then gone is failed by the agent. */
void actor_posted(const struct answer_actor *where, uint32_t index)
{
    struct node_actor *entry = node_actor(where->table);

    if (atomic_load(&entry->ready) != ACTOR_GONE && entry->generation == where->generation)
        return;
    (void)!lane_post(&me.lane, LANE_AGENT, index,
                     life_generation(record_life(lane_record(&me.lane, index))), CELL_CALL, 0);
}

static enum moray_code tell_until(uint32_t kind, moray_actor actor, int32_t detail, uint32_t until,
                                  bool while_there)
{
    struct request_handle request = {.actor = actor, .detail = detail, .while_there = while_there};
    uint32_t record;
    const void *answer;
    uint64_t bytes;

    if (until != RECORD_NONE) {
        request.until = until + 1;
        request.until_generation = life_generation(record_life(lane_record(&me.lane, until)));
    }
    enum moray_code code = request_call(kind, &request, sizeof(request), &record, &answer, &bytes);
    if (code == MORAY_OK)
        request_done(record);
    return code;
}

static enum moray_code tell(uint32_t kind, moray_actor actor, int32_t detail, uint32_t until)
{
    return tell_until(kind, actor, detail, until, false);
}

/* A task that has the handle as an argument keeps the actor alive until it has ended, an object that
 * contains it as long as it is there. */
enum moray_code actor_lend(moray_actor actor, uint32_t record, bool while_there)
{
    return actor.node ? tell_until(REQUEST_ACTOR_HOLD, actor, 1, record, while_there)
                      : null_handle();
}

/* Handles that tasks of this process have taken, the newest last. */
static struct note {
    const struct frame *frame;
    moray_actor actor;
} * notes;
static uint32_t note_count, note_capacity;

/* Without memory for the note it lasts as long as the process. */
static void note_add(moray_actor actor)
{
    struct frame *frame = me.role == ROLE_WORKER ? frame_of_task() : NULL;
    struct note *more =
        frame ? array_room(notes, note_count, &note_capacity, sizeof(*notes)) : NULL;

    if (!more)
        return;
    notes = more;
    notes[note_count++] = (struct note){frame, actor};
    frame->has_more = true;
}

/* The newest of the actor, if there is one. */
static void note_remove(moray_actor actor)
{
    for (uint32_t i = note_count; i-- > 0;)
        if (id_of(&notes[i].actor) == id_of(&actor)) {
            note_count--;
            memmove(notes + i, notes + i + 1, (note_count - i) * sizeof(*notes));
            return;
        }
}

static enum moray_code count_down(struct handle *handle, moray_actor actor)
{
    return --handle->count == 0 ? tell(REQUEST_ACTOR_HOLD, actor, -1, RECORD_NONE) : MORAY_OK;
}

void handles_let_go(const struct frame *frame)
{
    for (uint32_t i = note_count; i-- > 0;) {
        if (i >= note_count || notes[i].frame != frame)
            continue; /* the last was let go on this stack, while the one before it was told */
        moray_actor actor = notes[i].actor;
        note_count--;
        memmove(notes + i, notes + i + 1, (note_count - i) * sizeof(*notes));
        struct handle *handle = handle_of(&actor);
        if (handle && handle->count)
            (void)!count_down(handle, actor);
    }
}

/* One more, of the process's or of the task's that runs. */
static enum moray_code count_up(moray_actor actor, bool noted)
{
    struct handle *handle = handle_of(&actor);

    if (!handle)
        return last_set(MORAY_NO_MEMORY, "no memory for a handle");
    if (noted)
        note_add(actor);
    return handle->count++ == 0 ? tell(REQUEST_ACTOR_HOLD, actor, 1, RECORD_NONE) : MORAY_OK;
}

enum moray_code moray_actor_stay(moray_actor actor)
{
    enum moray_code code = enter();

    if (code != MORAY_OK)
        return code;
    if (!actor.node)
        code = null_handle();
    else if (!frame_of_task())
        code = last_set(MORAY_WRONG_STATE, "moray_actor_keep outside of a task or method: handles "
                                           "of the driver last until released");
    else
        code = count_up(actor, false);
    leave();
    return code;
}

enum moray_code moray_actor_add(moray_actor actor)
{
    enum moray_code code = enter();

    if (code != MORAY_OK)
        return code;
    code = actor.node ? count_up(actor, true) : null_handle();
    leave();
    return code;
}

enum moray_code moray_actor_drop(moray_actor actor)
{
    enum moray_code code = enter();
    struct handle *handle;

    if (code != MORAY_OK)
        return code;
    if (!actor.node)
        code = null_handle();
    else if (!(handle = handle_of(&actor)) || handle->count == 0)
        code = last_set(MORAY_STALE, "this process has no handle of the actor: it was released "
                                     "before, or only lent by an argument");
    else {
        note_remove(actor);
        code = count_down(handle, actor);
    }
    leave();
    return code;
}

enum moray_code moray_actor_kill(moray_actor actor, int restart)
{
    enum moray_code code = enter();

    if (code != MORAY_OK)
        return code;
    code = actor.node ? tell(REQUEST_ACTOR_KILL, actor, restart, RECORD_NONE) : null_handle();
    leave();
    return code;
}

/* ---- Making ---- */

static moray_actor adopt(const struct moray_class *type, uint32_t record, const void *answer)
{
    moray_actor actor;

    memcpy(&actor, answer, sizeof(actor));
    actor.node = me.owner;
    actor.type = type->type_hash;
    request_done(record);
    (void)!count_up(actor, true);
    return actor;
}

static enum moray_code options_check(const struct moray_actor_options *options,
                                     struct request_actor *request)
{
    if (!(options->cores >= 0) || options->cores > 100000)
        return last_set(MORAY_INVALID, "cores = %g: takes fractions from 0.0001 up",
                        options->cores);
    if (options->cores > 0 && options->cores < 0.00005)
        return last_set(MORAY_INVALID, "cores = %g: the least fraction is 0.0001", options->cores);
    if (options->restarts < MORAY_ENDLESS || options->method_retries < MORAY_ENDLESS)
        return last_set(MORAY_INVALID,
                        "restarts = %d, method_retries = %d: take 0 and more, or "
                        "MORAY_ENDLESS",
                        options->restarts, options->method_retries);
    if (options->resource)
        return last_set(MORAY_INVALID, "resource \"%s\": this version knows cores and memory only",
                        options->resource);
    if (options->on_rank < 0 || options->on_rank > (int32_t)me.rank_count)
        return last_set(MORAY_INVALID, "on_rank = %d: takes rank + 1, at most %u", options->on_rank,
                        me.rank_count);
    if (options->name && strlen(options->name) > 255)
        return last_set(MORAY_INVALID, "the name of an actor has at most 255 bytes");
    if (options->get_if_exists && !(options->name && *options->name))
        return last_set(MORAY_INVALID, "get_if_exists without a name");
    request->cores = (uint32_t)llround(options->cores * 10000);
    request->memory_bytes = options->memory;
    request->restarts = options->restarts;
    request->method_retries = options->method_retries;
    request->pending_max = options->pending_max;
    request->on_rank = options->on_rank - 1;
    request->get_if_exists = options->get_if_exists;
    if (options->cores > 0 || options->memory || options->on_rank) {
        struct request_need need = {.cores = request->cores,
                                    .memory_bytes = request->memory_bytes,
                                    .on_rank = request->on_rank};
        uint32_t record;
        const void *answer;
        uint64_t bytes;
        enum moray_code code =
            request_call(REQUEST_POSSIBLE, &need, sizeof(need), &record, &answer, &bytes);
        if (code != MORAY_OK)
            return code;
        request_done(record);
    }
    return MORAY_OK;
}

moray_actor moray_new_actor(const struct moray_class *type, const struct moray_site *site,
                            const struct moray_actor_options *options,
                            const struct moray_argument *arguments, unsigned count)
{
    static const struct moray_actor_options no_options;
    moray_actor actor = {0, 0, 0, 0};
    struct request_actor head = {.site = site_pack(site), .on_rank = -1};
    const char *name = options && options->name ? options->name : "";
    uint32_t inputs[MORAY_PARAMETERS_MAX], bytes = 0, record;
    uint16_t mask = 0;
    const void *answer;
    uint64_t answer_bytes;
    enum moray_code code;

    if (enter() != MORAY_OK) {
        null_given(site);
        return actor;
    }
    if (!type || type->id >= class_count || classes[type->id] != type) {
        last_set(MORAY_INVALID,
                 "not a registered actor of this program; define it with MORAY_ACTOR");
        null_given(site);
        leave();
        return actor;
    }
    const struct moray_function *constructor = type->constructor;
    if (count != (constructor ? constructor->parameter_count : 0u)) {
        last_set(MORAY_INVALID, "the constructor of %s takes %u arguments, not %u (%s:%d)",
                 type->name, constructor ? constructor->parameter_count : 0, count, type->file,
                 type->line);
        null_given(site);
        leave();
        return actor;
    }
    code = options_check(options ? options : &no_options, &head);
    if (code == MORAY_OK && constructor)
        code = arguments_check(constructor, arguments, count, inputs, &mask, &bytes);
    if (code == MORAY_OK) {
        head.class_id = type->id;
        head.name_bytes = (uint32_t)strlen(name);
        head.argument_bytes = bytes;
        head.reference_mask = mask;
        uint32_t name_room = (head.name_bytes + 7) / 8 * 8;
        char *whole = calloc(1, sizeof(head) + name_room + bytes + 8);
        if (!whole)
            code = last_set(MORAY_NO_MEMORY, "no memory for an actor's arguments");
        else {
            memcpy(whole, &head, sizeof(head));
            memcpy(whole + sizeof(head), name, head.name_bytes);
            if (constructor)
                arguments_pack(constructor, arguments, count, inputs, mask,
                               whole + sizeof(head) + name_room);
            code =
                request_call(REQUEST_ACTOR_NEW, whole, (uint32_t)sizeof(head) + name_room + bytes,
                             &record, &answer, &answer_bytes);
            if (code == MORAY_OK)
                actor = adopt(type, record, answer);
            free(whole);
        }
    }
    arguments_done(arguments, inputs, mask);
    if (code != MORAY_OK)
        null_given(site);
    leave();
    return actor;
}

moray_actor moray_find_actor(const struct moray_class *type, const struct moray_site *site,
                             const char *name)
{
    moray_actor actor = {0, 0, 0, 0};
    uint32_t record;
    const void *answer;
    uint64_t answer_bytes;

    if (enter() != MORAY_OK) {
        null_given(site);
        return actor;
    }
    if (!type || type->id >= class_count || classes[type->id] != type || !name ||
        strlen(name) > 255 || !*name)
        last_set(MORAY_INVALID, "moray_actor_named takes a registered class and a name of 1 to 255 "
                                "bytes");
    else {
        struct request_name *request = calloc(1, sizeof(*request) + strlen(name));
        if (request) {
            request->class_id = type->id;
            request->name_bytes = (uint32_t)strlen(name);
            memcpy(request + 1, name, strlen(name));
            if (request_call(REQUEST_ACTOR_NAMED, request,
                             (uint32_t)(sizeof(*request) + strlen(name)), &record, &answer,
                             &answer_bytes) == MORAY_OK)
                actor = adopt(type, record, answer);
            free(request);
        } else
            last_set(MORAY_NO_MEMORY, "no memory for the name of an actor");
    }
    if (!actor.node)
        null_given(site);
    leave();
    return actor;
}
