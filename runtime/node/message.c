#include "node/message.h"

#include <stdio.h>

#include "client/requests.h"
#include "node/head.h"
#include "sched/lane/record.h"
#include "sched/policy/resources.h"

/* Every text says what is wrong with an item; NULL: nothing is. */

static uint32_t align8(uint32_t bytes)
{
    return (bytes + 7) & ~7u;
}

/* What is left of an item behind its fields is its rounding, 7 bytes at most. */
static bool is_over(const struct bytes_reader *in)
{
    return !in->bad && bytes_left(in) < 8;
}

static bool has_fields(struct bytes_reader *in, size_t bytes)
{
    return bytes_take(in, bytes) && is_over(in);
}

/* ---- Values ---- */

static const char *value_wrong(struct bytes_reader *in, const struct message_world *world,
                               const struct value **out)
{
    const struct value *value = bytes_take(in, sizeof(*value));

    *out = value;
    if (!value)
        return "a value is cut off";
    /* Not more than the row has, before it is rounded: rounding may wrap. */
    if (value->follow > bytes_left(in) || !bytes_take(in, align8(value->follow)))
        return "the bytes of a value are cut off";
    switch (value->shape) {
    case SHAPE_PENDING:
    case SHAPE_STALE:
    case SHAPE_FAILED:
        return NULL;
    case SHAPE_INLINE:
        if (value->follow != value->bytes)
            return "a value has another length than its bytes";
        if (value->rank > world->rank_count)
            return "a value is kept by a rank that does not exist";
        return NULL;
    case SHAPE_FAR:
        if (value->rank >= world->rank_count)
            return "a value lies at a rank that does not exist";
        if (value->rank == world->rank && value->index >= world->record_count)
            return "a value lies in a record that does not exist";
        if (value->bytes == 0 || value->bytes > MESSAGE_VALUE_BYTES_MAX)
            return "a value lies elsewhere and has no bytes, or more than any memory";
        return NULL;
    default:
        return "a value has no shape that there is";
    }
}

/* ---- Tasks and calls ---- */

/* Bytes of the arguments that travel as values; UINT32_MAX: the mask does not fit the function. */
static uint32_t values_bytes(const struct moray_function *function, uint32_t mask)
{
    uint32_t bytes = 0;

    if (mask >> function->parameter_count)
        return UINT32_MAX;
    for (unsigned i = 0; i < function->parameter_count; i++)
        if (!(mask >> i & 1)) {
            if (function->parameters[i].kind == MORAY_KIND_FUTURE)
                return UINT32_MAX;
            bytes += align8(function->parameters[i].size);
        }
    return bytes;
}

static const char *details_wrong(const struct record_long *details,
                                 const struct moray_function *function,
                                 const struct item_task *task)
{
    if (!memchr(details->name, '\0', sizeof(details->name)))
        return "the name of a task has no end";
    if (task->extra_count != (function->result_count > 1 ? function->result_count - 1 : 0))
        return "a task has another number of results than its function";
    return NULL;
}

static const char *input_wrong(struct bytes_reader *in, const struct message_world *world)
{
    const struct name *name = bytes_take(in, sizeof(*name));
    const struct value *value;
    const char *wrong;

    if (!name)
        return "an input is cut off";
    if ((wrong = value_wrong(in, world, &value)))
        return wrong;
    if (name->owner > world->rank_count)
        return "an input belongs to a rank that does not exist";
    if (name->maker > world->function_count)
        return "an input was made by a function that does not exist";
    if (!name->owner && value->shape != SHAPE_INLINE && value->shape != SHAPE_FAILED)
        return "an input has neither a name nor bytes";
    return NULL;
}

static const char *task_wrong(struct bytes_reader *in, bool is_call,
                              const struct message_world *world)
{
    const struct item_task *task = bytes_take(in, sizeof(*task));
    const struct moray_function *function;
    const char *wrong;

    if (!task)
        return "a task is cut off";
    if (task->function >= world->function_count)
        return "a task is of a function that does not exist";
    function = world->functions[task->function];
    if (function->kind != (is_call ? MORAY_IS_METHOD : MORAY_IS_TASK))
        return is_call ? "a call is of a function that is no method"
                       : "a task is of a function that is no task";
    uint32_t values = values_bytes(function, task->reference_mask);
    uint32_t details = task->flags & RECORD_LONG ? (uint32_t)sizeof(struct record_long) : 0;
    if (values == UINT32_MAX || task->argument_bytes != (uint64_t)details + values)
        return "a task has arguments of another number or size than its function";
    if (task->flags & ~(RECORD_LONG | RECORD_GENERAL) || (task->extra_count && !details) ||
        (function->result_count > 1 && !details))
        return "a task has options that there are not";
    for (unsigned i = 0; i < function->parameter_count; i++)
        if (task->reference_mask >> i & 1 && (wrong = input_wrong(in, world)))
            return wrong;
    const struct record_long *options = details ? bytes_take(in, details) : NULL;
    if (in->bad || !bytes_take(in, values) || !is_over(in))
        return "a task has another length than its arguments";
    return options ? details_wrong(options, function, task) : NULL;
}

static const char *result_wrong(struct bytes_reader *in, const struct message_world *world)
{
    const struct item_result *item = bytes_take(in, sizeof(*item));
    const struct value *value;
    const char *wrong;

    if (!item || item->count == 0 || item->count > MORAY_PARAMETERS_MAX)
        return "a result of no task";
    for (uint32_t i = 0; i < item->count; i++) {
        if ((wrong = value_wrong(in, world, &value)))
            return wrong;
        if (value->shape == SHAPE_PENDING)
            return "a result that is still to be made";
    }
    return is_over(in) ? NULL : "a result is longer than its values";
}

static const char *object_wrong(struct bytes_reader *in, const struct message_world *world)
{
    const struct value *value;
    const char *wrong;

    const struct item_told *item = bytes_take(in, sizeof(*item));

    if (!item)
        return "an object is cut off";
    if (item->maker > world->function_count)
        return "an object was made by a function that does not exist";
    if ((wrong = value_wrong(in, world, &value)))
        return wrong;
    return is_over(in) ? NULL : "an object is longer than its value";
}

/* ---- Words ---- */

static const char *start_wrong(struct bytes_reader *in, const struct message_world *world)
{
    const struct request_actor *request = bytes_take(in, sizeof(*request));
    const struct moray_function *constructor;
    uint64_t arguments;

    if (!request || request->class_id >= world->class_count)
        return "an actor is of no class that there is";
    constructor = world->classes[request->class_id]->constructor;
    arguments = constructor ? values_bytes(constructor, request->reference_mask) : 0;
    if (arguments == UINT32_MAX || (!constructor && request->reference_mask))
        return "an actor has arguments of another number than its constructor";
    arguments += sizeof(moray_ref) * (uint64_t)__builtin_popcount(request->reference_mask);
    if (request->argument_bytes != arguments)
        return "an actor has arguments of another size than its constructor";
    if (request->name_bytes > bytes_left(in) || !bytes_take(in, align8(request->name_bytes)) ||
        bytes_left(in) < arguments)
        return "an actor's name or arguments are cut off";
    return NULL;
}

static const char *word_wrong(const struct item_ask *item, const void *bytes,
                              const struct message_world *world)
{
    struct bytes_reader in = bytes_read(bytes, item->count);
    const struct actor_word *word = bytes_take(&in, sizeof(*word));

    if (!word || item->kind < NODE_ACTOR_START || item->kind > NODE_ACTOR_IS)
        return "a word about an actor that there is not";
    if (item->kind == NODE_ACTOR_START)
        return start_wrong(&in, world);
    if (item->kind == NODE_ACTOR_IS && word->node >= world->rank_count && word->node != UINT32_MAX)
        return "an actor is at a rank that does not exist";
    return NULL;
}

static const char *ask_wrong(struct bytes_reader *in, enum item_kind kind,
                             const struct message_world *world)
{
    const struct item_ask *item = bytes_take(in, sizeof(*item));
    const void *bytes = item ? bytes_take(in, item->count) : NULL;

    if (!bytes || !is_over(in))
        return "a request or an answer has another length than its bytes";
    return kind == ITEM_WORD ? word_wrong(item, bytes, world) : NULL;
}

static const char *setup_wrong(struct bytes_reader *in, const struct message_world *world)
{
    const struct item_setup *item = bytes_take(in, sizeof(*item));

    if (!item || !bytes_take(in, item->count) || !is_over(in))
        return "a set-up has another length than its bytes";
    return item->function < world->program_bytes ? NULL : "a set-up function outside the program";
}

static const char *move_wrong(struct bytes_reader *in, uint32_t from, enum item_kind kind,
                              const struct message_world *world)
{
    const struct item_move *item = bytes_take(in, sizeof(*item));

    if (!item || !is_over(in))
        return "a move has another length";
    if (item->from != (kind == ITEM_MOVE ? world->rank : from) || item->to >= world->rank_count ||
        item->to == item->from)
        return "a move between ranks that do not exist, or not to this rank";
    return NULL;
}

static const char *cancel_wrong(struct bytes_reader *in, uint32_t from,
                                const struct message_world *world)
{
    const struct item_cancel *item = bytes_take(in, sizeof(*item));

    if (!item || !is_over(in))
        return "a cancel has another length";
    if (item->owner == world->rank + 1)
        return item->index < world->record_count ? NULL
                                                 : "a cancel of a record that does not exist";
    return item->owner == from + 1 ? NULL : "a cancel of a third rank's task";
}

/* ---- Who may say what ---- */

static bool may_say(enum item_kind kind, uint32_t from, const struct message_world *world)
{
    switch (kind) {
    case ITEM_NODES:
    case ITEM_REPLY:
    case ITEM_WORD:
    case ITEM_MOVE:
    case ITEM_END:
        return from == 0;
    case ITEM_HELLO:
    case ITEM_ASK:
    case ITEM_LOAD:
    case ITEM_MOVED:
        return world->rank == 0;
    case ITEM_FUNCTIONS:
        return from == 0 || world->rank == 0;
    default:
        return true;
    }
}

const char *message_wrong(const struct item *item, uint32_t from, const struct message_world *world)
{
    struct bytes_reader in = bytes_read(item + 1, item->bytes);
    enum item_kind kind = (enum item_kind)item->kind;
    static const char length[] = "an item of a bad length";

    if (!may_say(kind, from, world))
        return "an item that this rank does not say to that one";
    switch (kind) {
    case ITEM_TASK:
    case ITEM_CALL:
        return task_wrong(&in, kind == ITEM_CALL, world);
    case ITEM_RESULT:
        return result_wrong(&in, world);
    case ITEM_OBJECT:
        return object_wrong(&in, world);
    case ITEM_ASK:
    case ITEM_REPLY:
    case ITEM_WORD:
        return ask_wrong(&in, kind, world);
    case ITEM_SETUP:
        return setup_wrong(&in, world);
    case ITEM_MOVE:
    case ITEM_MOVED:
        return move_wrong(&in, from, kind, world);
    case ITEM_HELLO:
        return has_fields(&in, sizeof(struct item_hello)) ? NULL : length;
    case ITEM_NODES:
        return has_fields(&in, sizeof(struct item_hello) * world->rank_count) ? NULL : length;
    case ITEM_BORROW:
        return has_fields(&in, sizeof(struct item_borrow)) ? NULL : length;
    case ITEM_HEARD:
        return has_fields(&in, sizeof(struct item_heard)) ? NULL : length;
    case ITEM_FREE:
        return has_fields(&in, sizeof(struct item_object)) ? NULL : length;
    case ITEM_CANCEL:
        return cancel_wrong(&in, from, world);
    case ITEM_RELEASE:
        return has_fields(&in, sizeof(struct item_release)) ? NULL : length;
    case ITEM_PULL:
    case ITEM_PULLED:
        return has_fields(&in, sizeof(struct item_pull)) ? NULL : length;
    case ITEM_GRANT:
        return has_fields(&in, sizeof(struct item_grant)) ? NULL : length;
    case ITEM_LOAD:
        return has_fields(&in, sizeof(struct load)) ? NULL : length;
    case ITEM_STARTS:
        return has_fields(&in, sizeof(struct item_starts)) ? NULL : length;
    case ITEM_END:
        return has_fields(&in, sizeof(struct item_end)) ? NULL : length;
    case ITEM_FUNCTIONS: /* asked for by none; told in lines that end with a NUL */
        if (world->rank == 0)
            return item->bytes && in.end[-1] == '\0' ? NULL : "a list of functions without an end";
        return item->bytes ? length : NULL;
    }
    return "an item of no kind that there is";
}

const struct item *message_next(struct bytes_reader *row)
{
    const struct item *item = bytes_left(row) ? bytes_take(row, sizeof(*item)) : NULL;

    if (!item)
        return NULL;
    if (item->bytes % 8 || !bytes_take(row, item->bytes)) {
        row->bad = true;
        return NULL;
    }
    return item;
}
