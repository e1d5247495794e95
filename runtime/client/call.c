#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "client/process.h"
#include "client/requests.h"

/*
 * A call becomes a record. Its arguments are one blob: first the references (16 bytes each), then the
 * values, each at a multiple of 8, both in the order of the parameters; reference_mask says which are
 * references. Up to 64 bytes (a method: 48) lie in the record itself.
 * Per call without references: no allocation, no lock, one line (two with arguments), one fence.
 */

enum {
    CORES_ONE = 10000,
    CORES_MAX = 100000 * CORES_ONE,
    LONG_ARGUMENT_BYTES = 1 << 30,
    CELL_WAIT_NS = 2000000000,
    ATTEMPTS_MAX = UINT8_MAX
};

static bool wrong_state_for_call(const struct moray_function *function, unsigned count,
                                 enum record_kind kind)
{
    if (RARELY(!function || function->id >= function_count ||
               functions[function->id] != function)) {
        last_set(MORAY_INVALID,
                 "%s is not a registered function of this program; define it with "
                 "MORAY_TASK or MORAY_METHOD in a file that is linked into it",
                 function && function->name ? function->name : "a null function");
        return true;
    }
    if (RARELY(function->kind != (kind == RECORD_METHOD ? MORAY_IS_METHOD : MORAY_IS_TASK))) {
        last_set(MORAY_INVALID, "%s (defined at %s:%d) is not a %s", function->name, function->file,
                 function->line, kind == RECORD_METHOD ? "method" : "task");
        return true;
    }
    if (RARELY(count != function->parameter_count)) {
        last_set(MORAY_INVALID, "%s takes %u arguments, not %u (defined at %s:%d)", function->name,
                 function->parameter_count, count, function->file, function->line);
        return true;
    }
    return false;
}

static uint32_t align8(uint32_t bytes)
{
    return (bytes + 7) & ~7u;
}

/* The reference given, or handed on as it is: moray_future begins with it. */
static moray_ref given_ref(const struct moray_argument *argument)
{
    moray_ref ref = argument->ref;

    if (argument->kind != MORAY_ARGUMENT_REF)
        memcpy(&ref, argument->data, sizeof(ref));
    return ref;
}

void arguments_done(const struct moray_argument *arguments, const uint32_t *inputs, uint16_t mask)
{
    for (unsigned i = 0; !me.alone && mask >> i; i++)
        if (mask >> i & 1)
            ref_done(given_ref(&arguments[i]), *inputs++, false);
}

OFF_TRIP static enum moray_code size_check(const struct moray_function *function,
                                           const struct moray_argument *arguments, unsigned i)
{
    const struct moray_parameter *parameter = &function->parameters[i];

    return arguments[i].size == parameter->size
               ? MORAY_OK
               : last_set(MORAY_INVALID, "argument %u of %s has %u bytes, but %s has %u", i + 1,
                          function->name, arguments[i].size, parameter->type, parameter->size);
}

static enum moray_code arguments_find(const struct moray_function *function,
                                      const struct moray_argument *arguments, unsigned count,
                                      uint32_t *inputs, uint16_t *mask, uint32_t *bytes)
{
    uint32_t inputs_count = 0;
    uint64_t sum = 0;

    *mask = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct moray_parameter *parameter = &function->parameters[i];
        bool reference = arguments[i].kind == MORAY_ARGUMENT_REF;
        if (RARELY(reference || parameter->kind == MORAY_KIND_FUTURE)) {
            moray_ref ref;
            enum moray_code code;
            if (!reference && (code = size_check(function, arguments, i)) != MORAY_OK)
                return code;
            ref = given_ref(&arguments[i]);
            code = ref_find(ref, &inputs[inputs_count]);
            if (code != MORAY_OK)
                return code;
            *mask |= (uint16_t)(1 << i);
            if (reference &&
                (parameter->kind == MORAY_KIND_VALUE || parameter->kind == MORAY_KIND_ACTOR) &&
                ref.type && parameter->type_hash && ref.type != parameter->type_hash)
                return last_set(MORAY_WRONG_TYPE,
                                "argument %u of %s is %s, but the reference is to an object of "
                                "another type",
                                i + 1, function->name, parameter->type);
            inputs_count++;
            sum += sizeof(moray_ref);
            continue;
        }
        if (RARELY(arguments[i].size != parameter->size))
            return size_check(function, arguments, i);
        sum += align8(parameter->size);
    }
    if (RARELY(sum > BY_VALUE_BYTES_MAX && (!me.alone || sum > LONG_ARGUMENT_BYTES)))
        return last_set(MORAY_INVALID,
                        "the arguments of %s take %llu bytes; at most %d go by value: put what is "
                        "large, and pass the reference",
                        function->name, (unsigned long long)sum,
                        me.alone ? LONG_ARGUMENT_BYTES : BY_VALUE_BYTES_MAX);
    *bytes = (uint32_t)sum;
    return MORAY_OK;
}

/* Resolves references and adds the blob up. `inputs` gets the records of the references. */
ON_TRIP enum moray_code arguments_check(const struct moray_function *function,
                                        const struct moray_argument *arguments, unsigned count,
                                        uint32_t *inputs, uint16_t *mask, uint32_t *bytes)
{
    enum moray_code code = arguments_find(function, arguments, count, inputs, mask, bytes);

    if (RARELY(code != MORAY_OK)) {
        arguments_done(arguments, inputs, *mask);
        *mask = 0;
    }
    return code;
}

ON_TRIP void arguments_pack(const struct moray_function *function,
                            const struct moray_argument *arguments, unsigned count,
                            const uint32_t *inputs, uint16_t mask, char *blob)
{
    moray_ref *refs = (moray_ref *)blob;

    for (unsigned i = 0; i < count; i++)
        if (RARELY(mask >> i & 1)) /* its type goes with it */
            *refs++ = ref_of(*inputs++, given_ref(&arguments[i]).type);
    blob = (char *)refs;
    for (unsigned i = 0; i < count; i++)
        if (!(mask >> i & 1)) {
            bytes_copy_small(blob, arguments[i].data, function->parameters[i].size);
            blob += align8(function->parameters[i].size);
        }
}

/* ---- Options ---- */

static enum moray_code cores_check(double cores, uint32_t *out)
{
    bool is_number = cores >= 0 && cores <= CORES_MAX / CORES_ONE;

    *out = is_number ? (uint32_t)llround(cores * CORES_ONE) : 0;
    if (!is_number || (cores > 0 && *out == 0))
        return last_set(MORAY_INVALID, "cores = %g: takes 0.0001 to %d, in steps of 0.0001", cores,
                        CORES_MAX / CORES_ONE);
    return MORAY_OK;
}

static enum moray_code need_check(uint32_t cores, uint64_t memory, int32_t on_rank)
{
    struct request_need need = {.cores = cores, .memory_bytes = memory, .on_rank = on_rank};
    uint32_t record;
    const void *answer;
    uint64_t bytes;
    enum moray_code code =
        request_call(REQUEST_POSSIBLE, &need, sizeof(need), &record, &answer, &bytes);

    if (code == MORAY_OK)
        request_done(record);
    return code;
}

/* An actor has its cores and its place, and says itself how often its calls are tried. */
static enum moray_code method_options_check(const struct moray_task_options *options)
{
    const char *option = options->cores != 0          ? "cores"
                         : options->memory            ? "memory"
                         : options->on_rank           ? "on_rank"
                         : options->spread            ? "spread"
                         : options->calls_per_process ? "calls_per_process"
                         : options->retry_errors      ? "retry_errors"
                         : options->attempts & ~1     ? "attempts"
                                                      : NULL;

    return option ? last_set(MORAY_INVALID,
                             ".%s of a call of a method: it is its actor's, where there is such an "
                             "option (.method_retries for attempts); give it to moray_new_with",
                             option)
                  : MORAY_OK;
}

OFF_TRIP static enum moray_code options_check(const struct moray_task_options *options,
                                              enum record_kind kind, struct record_long *out,
                                              bool *general)
{
    enum moray_code code;

    *out = (struct record_long){.on_rank = -1, .memory_bytes = options->memory};
    if (kind == RECORD_METHOD && (code = method_options_check(options)) != MORAY_OK)
        return code;
    if ((code = cores_check(options->cores, &out->cores)) != MORAY_OK)
        return code;
    if (options->attempts < MORAY_ENDLESS || options->attempts > ATTEMPTS_MAX)
        return last_set(MORAY_INVALID,
                        "attempts = %d: takes 1 to %d, 0 (the default) or MORAY_ENDLESS",
                        options->attempts, ATTEMPTS_MAX);
    if (options->resource)
        return last_set(MORAY_INVALID, "resource \"%s\": this version knows cores and memory only",
                        options->resource);
    if (options->on_rank < 0 || options->on_rank > (int32_t)me.rank_count)
        return last_set(MORAY_INVALID, "on_rank = %d: takes rank + 1, at most %u", options->on_rank,
                        me.rank_count);
    if (options->memory >> 62)
        return last_set(MORAY_INVALID, "memory = %llu bytes is more than any node has",
                        (unsigned long long)options->memory);
    out->on_rank = options->on_rank - 1;
    out->spread = options->spread;
    out->retry_errors = options->retry_errors;
    out->calls_per_process = options->calls_per_process;
    if (options->name)
        snprintf(out->name, sizeof(out->name), "%s", options->name);
    *general = (out->cores && out->cores != CORES_ONE) || out->memory_bytes ||
               (out->on_rank >= 0 && !me.alone) || (out->spread && !me.alone);
    if ((out->cores && out->cores != CORES_ONE) || out->memory_bytes || out->on_rank >= 0)
        return need_check(out->cores, out->memory_bytes, out->on_rank);
    return MORAY_OK;
}

/* ---- Making the record ---- */

struct making {
    const struct moray_function *function;
    const struct moray_site *site;
    const struct moray_task_options *options;
    const struct moray_argument *arguments;
    unsigned count;
    uint32_t inputs[MORAY_PARAMETERS_MAX];
    uint16_t mask;
    uint32_t bytes;
    struct record_long details;
    bool has_details, general, has_handles;
    uint32_t index;
};

/* All but what others were told. `inputs` are held. */
static void making_undo(struct making *making)
{
    struct record_long *details = lane_long(&me.lane, lane_record(&me.lane, making->index));

    for (unsigned i = 0; i < (unsigned)__builtin_popcount(making->mask); i++)
        lane_drop_input(&me.lane, making->inputs[i]);
    for (unsigned i = 0; details && i < details->extra_count; i++)
        lane_abandon(&me.lane, details->extra[i]);
    atomic_store(&lane_record(&me.lane, making->index)->flags,
                 record_flags(lane_record(&me.lane, making->index)) & ~RECORD_HOLDS_INPUTS);
    lane_abandon(&me.lane, making->index);
}

static enum moray_code out_of_records(void)
{
    return last_set(MORAY_BUSY, "the node's table of tasks and objects is full; release references "
                                "or raise MORAY_QUEUE_MAX");
}

/* Room for the arguments: in the record, or in a block. `call_bytes` come before them. */
static char *making_room(struct making *making, uint32_t call_bytes, struct record_call **call)
{
    struct record *record = lane_record(&me.lane, making->index);
    uint32_t before = call_bytes + (making->has_details ? (uint32_t)sizeof(struct record_long) : 0);
    uint32_t bytes = before + making->bytes;
    char *at = (char *)record->arguments;

    if (RARELY(making->has_details || bytes > RECORD_ARGUMENT_BYTES)) {
        uint32_t place = room_find(bytes ? bytes : 1, making->index);
        if (!place) {
            store_full(bytes);
            return NULL;
        }
        *(struct record_block *)record->arguments = (struct record_block){place, bytes};
        atomic_store_explicit(&record->flags,
                              record_flags(record) | RECORD_BLOCK |
                                  (making->has_details ? RECORD_LONG : 0),
                              memory_order_relaxed);
        at = arena_at(&me.lane.arena, place);
    } else
        record->argument_bytes = (uint16_t)bytes;
    if (RARELY(making->has_details)) {
        memcpy(at, &making->details, sizeof(making->details));
        at += sizeof(making->details);
    }
    if (call) {
        *call = (struct record_call *)at;
        at += sizeof(struct record_call);
    }
    return at;
}

/* Further results are objects of their own, ended together with the task. */
OFF_TRIP static enum moray_code making_extras(struct making *making)
{
    for (unsigned i = 1; i < making->function->result_count; i++) {
        uint32_t extra = lane_make(&me.lane, RECORD_OBJECT);
        if (extra == RECORD_NONE) {
            for (unsigned k = 0; k < making->details.extra_count; k++)
                lane_abandon(&me.lane, making->details.extra[k]);
            making->details.extra_count = 0;
            return out_of_records();
        }
        lane_record(&me.lane, extra)->function = making->function->results[i].type_hash;
        record_set_maker(lane_record(&me.lane, extra), making->function->id + 1,
                         site_pack(making->site));
        making->details.extra[making->details.extra_count++] = extra;
        making->has_details = true;
    }
    return MORAY_OK;
}

static uint8_t attempts_of(const struct making *making, bool method)
{
    int32_t attempts = making->options ? making->options->attempts : 0;

    if (method)
        return 1;
    if (attempts == 0)
        attempts = (int32_t)me.node->attempts_default;
    return attempts == MORAY_ENDLESS || attempts > ATTEMPTS_MAX ? 0 : (uint8_t)attempts;
}

/* Everything up to the submission. */
ON_TRIP static enum moray_code make(struct making *making, enum record_kind kind,
                                    struct record_call **call)
{
    enum moray_code code;
    struct record *record;
    char *blob;

    if (wrong_state_for_call(making->function, making->count, kind))
        return MORAY_INVALID;
    code = arguments_check(making->function, making->arguments, making->count, making->inputs,
                           &making->mask, &making->bytes);
    for (unsigned i = 0; i < making->count; i++)
        making->has_handles |= making->function->parameters[i].kind == MORAY_KIND_ACTOR;
    if (RARELY(code == MORAY_OK && making->options)) {
        code = options_check(making->options, kind, &making->details, &making->general);
        making->has_details = making->options->name || making->options->retry_errors ||
                              making->options->calls_per_process || making->general;
    }
    if (RARELY(code != MORAY_OK))
        return code;
    if (RARELY(making->function->result_count > 1)) {
        if (!making->has_details)
            making->details = (struct record_long){.on_rank = -1};
        if ((code = making_extras(making)) != MORAY_OK)
            return code;
    }
    making->index = lane_make(&me.lane, kind);
    if (RARELY(making->index == RECORD_NONE)) {
        for (unsigned i = 0; i < making->details.extra_count; i++)
            lane_abandon(&me.lane, making->details.extra[i]);
        return out_of_records();
    }
    record = lane_record(&me.lane, making->index);
    record->function = making->function->id;
    record->site = site_pack(making->site);
    record->attempts_max = attempts_of(making, kind == RECORD_METHOD);
    if (making->general)
        atomic_store_explicit(&record->flags, RECORD_GENERAL, memory_order_relaxed);
    blob = making_room(making, call ? sizeof(struct record_call) : 0, call);
    if (RARELY(!blob)) {
        for (unsigned i = 0; i < making->details.extra_count; i++)
            lane_abandon(&me.lane, making->details.extra[i]);
        lane_abandon(&me.lane, making->index);
        return MORAY_FULL;
    }
    arguments_pack(making->function, making->arguments, making->count, making->inputs, making->mask,
                   blob);
    if (RARELY(making->mask)) {
        unsigned number = 0;
        record->reference_mask = making->mask;
        for (unsigned i = 0; i < making->count; i++)
            if (making->mask >> i & 1)
                lane_hold_input(&me.lane, making->inputs[number++]);
        atomic_store_explicit(&record->flags, record_flags(record) | RECORD_HOLDS_INPUTS,
                              memory_order_relaxed);
        number = 0;
        for (unsigned i = 0; i < making->count; i++) {
            if (!(making->mask >> i & 1))
                continue;
            uint32_t input = making->inputs[number++];
            if (making->function->parameters[i].kind == MORAY_KIND_FUTURE)
                continue; /* handed on as it is: nothing to wait for */
            if (lane_depends(&me.lane, making->index, input, i) != MORAY_OK) {
                making_undo(making);
                return out_of_records();
            }
        }
    }
    return MORAY_OK;
}

/* The references to the results, each with a hold for the caller. */
ON_TRIP static moray_ref results_give(const struct making *making, moray_ref *results)
{
    const struct moray_function *function = making->function;
    moray_ref first =
        ref_of(making->index, function->result_count ? function->results[0].type_hash : 0);

    if (results && function->result_count)
        results[0] = first;
    frame_note(making->index, first.generation, false);
    for (unsigned i = 0; RARELY(i < making->details.extra_count); i++) {
        uint32_t extra = making->details.extra[i];
        moray_ref ref = ref_of(extra, function->results[i + 1].type_hash);
        lane_publish(&me.lane, extra, RECORD_QUEUED);
        if (results) {
            results[i + 1] = ref;
            frame_note(extra, ref.generation, false);
        } else
            lane_drop(&me.lane, extra); /* none wanted */
    }
    return first;
}

/* What values lead to is kept until the call has ended: handles, and what is inside of them. */
OFF_TRIP static void lend(struct making *making)
{
    for (unsigned i = 0; i < making->count; i++) {
        const struct moray_parameter *parameter = &making->function->parameters[i];
        if (!(making->mask >> i & 1))
            (void)!insides_tell(making->index, parameter, making->arguments[i].data, true);
    }
}

/* There is no cell, and may be none for long: the caller has the reference, so the task or call ends. */
OFF_TRIP static void call_ends_busy(uint32_t index)
{
    lane_publish(&me.lane, index, RECORD_RUNNING);
    fail_record(index, MORAY_BUSY,
                "the node's table of tasks and objects is full; release references "
                "or raise MORAY_QUEUE_MAX");
}

/* At the bound of the queue the driver waits for room; a task runs something of its own meanwhile. A cell,
 * by which a task goes to the agent, is waited for no longer than the agent may need to read its mail: all
 * may be taken by tasks that wait for what this process does after the call. */
OFF_TRIP static void wait_for_room(uint32_t index)
{
    bool to_agent = record_flags(lane_record(&me.lane, index)) & RECORD_GENERAL;
    uint64_t until_ns = now_ns() + CELL_WAIT_NS;

    do {
        if (should_end()) {
            (void)wait_cut();
            return;
        }
        if (to_agent && now_ns() >= until_ns) {
            call_ends_busy(index);
            return;
        }
        uint32_t mine = may_run_mine() ? lane_next(&me.lane) : RECORD_NONE;
        if (mine != RECORD_NONE) {
            run_claimed(mine);
            continue;
        }
        leave();
        asleep_in_call(true);
        core_leave();
        process_sleep(atomic_load(&me.lane.self->wake), now_ns() + 200000);
        core_return(false);
        asleep_in_call(false);
        if (enter() != MORAY_OK)
            return;
    } while (lane_submit(&me.lane, index) == MORAY_BUSY);
}

static inline void submit_when_room(uint32_t index)
{
    if (RARELY(lane_submit(&me.lane, index) == MORAY_BUSY))
        wait_for_room(index);
}

static inline uint32_t parked_deep(void)
{
    return atomic_load_explicit(&me.node->parked_deep, memory_order_seq_cst); /* worker.c, park() */
}

/* Before a submit: who is to be woken for it besides the idle worker that the lane rouses? */
static inline uint32_t sleeper_due(uint32_t deep)
{
    struct lane_control *control = me.lane.control;
    uint32_t parked;

    if (RARELY(atomic_load_explicit(&me.node->agent_deep, memory_order_relaxed))) {
        atomic_store(&me.node->agent_deep, 0);
        lane_wake(&me.lane, LANE_AGENT);
    }
    if (__builtin_expect(!deep, 1))
        return 0;
    parked = atomic_load(&me.node->parked_slot);
    if (lane_any(&me.lane, control->searching))
        return 0;
    if (lane_any(&me.lane, control->idle)) {
        if (me.role == ROLE_DRIVER && thread_owner && parked)
            driver_submits(parked);
        return 0;
    }
    if (me.role == ROLE_DRIVER && thread_owner)
        return driver_submits_more(parked);
    driver_lent_submits();
    return parked;
}

/* Nobody was idle: the parked worker looks after the queue from now on, every few milliseconds. */
static void wake_parked(uint32_t parked)
{
    atomic_store(&me.node->parked_deep, 0);
    lane_wake(&me.lane, (uint16_t)parked);
}

ON_TRIP moray_ref moray_submit(const struct moray_function *function, const struct moray_site *site,
                               const struct moray_task_options *options,
                               const struct moray_argument *arguments, unsigned count,
                               moray_ref *results)
{
    struct making making;
    moray_ref ref = {0, 0, 0, 0};

    if (RARELY(enter() != MORAY_OK)) {
        null_given(site);
        return ref;
    }
    making.function = function;
    making.site = site;
    making.options = options;
    making.arguments = arguments;
    making.count = count;
    making.mask = 0;
    making.details.extra_count = 0;
    making.has_details = making.general = making.has_handles = false;
    if (RARELY(make(&making, RECORD_TASK, NULL) != MORAY_OK)) {
        null_given(site);
    } else {
        ref = results_give(&making, results);
        if (RARELY(making.has_handles | (insides_count != 0)))
            lend(&making);
        uint32_t deep = parked_deep(), due = sleeper_due(deep);
        submit_when_room(making.index);
        /* It may have lain down between our look and the push; the push has its fence, and so has the
         * parked one, between `parked_deep` and its last look for work: one of the two sees the other. */
        if (__builtin_expect(!deep && (deep = parked_deep()), 0))
            due = deep;
        if (__builtin_expect(due, 0))
            wake_parked(due);
    }
    if (RARELY(making.mask))
        arguments_done(arguments, making.inputs, making.mask);
    leave();
    return ref;
}

/* ---- Methods ---- */

/* The driver's threads are submitters each: its first is 0. */
static uint32_t thread_submitter(void)
{
    static _Thread_local uint32_t submitter;

    if (!thread_owner && !submitter)
        submitter = submitter_next();
    return submitter;
}

/* A call goes by a cell: one that finds none is refused before anybody has heard of it. */
static enum moray_code make_call(struct making *making, struct record_call **call)
{
    enum moray_code code = make(making, RECORD_METHOD, call);

    if (code != MORAY_OK || lane_has_cell(&me.lane))
        return code;
    making_undo(making);
    return out_of_records();
}

moray_ref moray_submit_method(moray_actor actor, const struct moray_function *function,
                              const struct moray_site *site,
                              const struct moray_task_options *options,
                              const struct moray_argument *arguments, unsigned count,
                              moray_ref *results)
{
    struct making making = {.function = function,
                            .site = site,
                            .options = options,
                            .arguments = arguments,
                            .count = count};
    struct answer_actor where;
    struct record_call *call;
    moray_ref ref = {0, 0, 0, 0};

    if (enter() != MORAY_OK) {
        null_given(site);
        return ref;
    }
    if (function && function->of && actor.type && actor.type != function->of->type_hash) {
        last_set(MORAY_WRONG_TYPE, "%s is a method of %s, but the handle is of another class",
                 function->name, function->of->name);
        null_given(site);
    } else if (actor_resolve(actor, &where) == MORAY_OK &&
               (!where.pending_max || actor_room(actor, &where) == MORAY_OK) &&
               make_call(&making, &call) == MORAY_OK) {
        struct record *record = lane_record(&me.lane, making.index);
        uint32_t sequence = atomic_load_explicit(&me.lane.self->sequence, memory_order_relaxed) + 1;
        atomic_store_explicit(&me.lane.self->sequence, sequence, memory_order_relaxed);
        *call =
            (struct record_call){.incarnation = where.slot ? where.generation : 0,
                                 .actor = where.slot ? where.slot : where.table,
                                 .submitter = frame_top ? frame_top->submitter : thread_submitter(),
                                 .sequence = sequence};
        if (!where.slot)
            atomic_store(&record->flags, record_flags(record) | RECORD_FAR_CALL);
        ref = results_give(&making, results);
        if (__builtin_expect(making.has_handles | (insides_count != 0), 0))
            lend(&making);
        if (where.pending_max)
            actor_counts(actor, &where, making.index);
        enum moray_code code = where.slot
                                   ? lane_submit_call(&me.lane, making.index, (uint16_t)where.slot)
                                   : lane_submit(&me.lane, making.index);
        if (code !=
            MORAY_OK) /* the cell went for the handles among its arguments, or to a thread */
            call_ends_busy(making.index);
        else if (where.slot)
            actor_posted(&where, making.index);
    } else
        null_given(site);
    if (making.mask)
        arguments_done(arguments, making.inputs, making.mask);
    leave();
    return ref;
}
