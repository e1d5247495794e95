#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "client/process.h"
#include "client/requests.h"
#include "node/zygote.h"

/*
 * One record from its claim to its end: find the inputs, run the user's function, seal the results.
 * Per task without references: no allocation, no lock, no system call; small results stay in the
 * record.
 */

enum { RESULT_ROOM = 1024 };

struct running { /* one task's run on this stack */
    struct frame frame;
    struct running *outer;
    void *gave_up[5]; /* moray_take_as of a failed object leaves the body here */
    bool used_up;     /* it, or one inside of it, was the last that this process may run */
};

static _Thread_local struct running *running_top;

_Noreturn void caller_fail(enum moray_code code, const struct moray_site *site, const char *story)
{
    struct running *running = running_top;
    size_t room = strlen(story) + 512;
    char *text = malloc(room);

    if (text)
        snprintf(text, room, "uncaught error in %s (%s:%d): %s: %s", site->function, site->file,
                 site->line, error_name(code), story);
    if (!running) { /* a thread of the user's, or a set-up function */
        fprintf(stderr, "moray: %s\n", text ? text : story);
        process_end(1);
    }
    scopes_end(&running->frame);
    if (running->frame.failed == MORAY_OK) {
        running->frame.failed = code;
        running->frame.story = text;
        running->frame.has_more = true;
    } else /* by moray_fail before: the first cause is the one to tell */
        free(text);
    __builtin_longjmp(running->gave_up, 1);
}

void setups_under(void)
{
    struct running *running = running_top;
    struct frame *frame = frame_top;
    const char *stack = thread_stack;

    running_top = NULL;
    frame_top = NULL;
    run_setups();
    running_top = running;
    frame_top = frame;
    thread_stack = stack;
}

struct inputs {
    const void *arguments[MORAY_PARAMETERS_MAX + 1];
    moray_view views[MORAY_PARAMETERS_MAX];
};

static uint32_t align8(uint32_t bytes)
{
    return (bytes + 7) & ~7u;
}

/* An input that is not there as a value. False: it is, all the same, for whoever looks closer. */
OFF_TRIP static bool input_is_none(uint32_t index, const struct moray_parameter *parameter,
                                   unsigned number, const moray_ref *ref)
{
    const struct record *record = lane_record(&me.lane, ref->index);
    uint64_t life = record_life(record);
    const char *story;

    if (life_generation(life) != ref->generation) {
        fail_record(index, MORAY_STALE,
                    "argument %u (%s) is gone: a release too many let the task's hold on it go",
                    number + 1, parameter->name);
        return true;
    }
    if (life_state(life) != RECORD_FAILED)
        return false;
    enum moray_code code = failure_of(record, &story);
    fail_record(index, MORAY_UPSTREAM, "argument %u (%s) failed: %s: %s", number + 1,
                parameter->name, error_name(code), story);
    return true;
}

/* The end of a task that cannot begin: an input failed, or is not what the function takes. */
static bool input_fails(uint32_t index, const struct moray_function *function, unsigned number,
                        const moray_ref *ref)
{
    const uint64_t which = (uint64_t)UINT32_MAX << 32 | 0xf; /* generation and state */
    struct record *record = lane_record(&me.lane, ref->index);
    const struct moray_parameter *parameter = &function->parameters[number];
    uint64_t other = record_life(record) ^ life_of(RECORD_DONE, 0, 0, ref->generation);

    if (RARELY((other & which) != 0) && input_is_none(index, parameter, number, ref))
        return true;
    if (parameter->kind == MORAY_KIND_VIEW || record_result_bytes(record) == parameter->size)
        return false;
    char what[300];
    record_describe(&me.lane, record, what, sizeof(what));
    fail_record(index, MORAY_WRONG_TYPE,
                "argument %u (%s) takes %s of %u bytes, but the object has %llu bytes; it was made "
                "by %s",
                number + 1, parameter->name, parameter->type, parameter->size,
                (unsigned long long)record_result_bytes(record), what);
    return true;
}

/* Points each argument at its bytes. False: the record has ended as failed. */
static bool inputs_find(uint32_t index, const struct moray_function *function,
                        struct inputs *inputs)
{
    struct record *record = lane_record(&me.lane, index);
    uint32_t bytes;
    const char *blob = lane_arguments(&me.lane, record, &bytes);
    const moray_ref *refs = (const moray_ref *)blob;
    const char *values = blob + 16 * record_reference_count(record);

    for (unsigned i = 0; i < function->parameter_count; i++) {
        if (USUALLY(!(record->reference_mask >> i & 1))) {
            inputs->arguments[i] = values;
            values += align8(function->parameters[i].size);
            continue;
        }
        const moray_ref *ref = refs++;
        if (function->parameters[i].kind == MORAY_KIND_FUTURE) {
            inputs->arguments[i] = ref;
            hold_take(ref->index); /* the body has it until its end, or keeps it */
            continue;
        }
        if (input_fails(index, function, i, ref))
            return false;
        const void *data;
        uint64_t size;
        if (result_bytes(ref->index, 0, &data, &size) != MORAY_OK) {
            const char *story;
            enum moray_code code = moray_last(&story);
            fail_record(index, code, "argument %u (%s): %s", i + 1, function->parameters[i].name,
                        story);
            return false;
        }
        if (function->parameters[i].kind == MORAY_KIND_VIEW) {
            inputs->views[i] = (moray_view){data, size, *ref};
            inputs->arguments[i] = &inputs->views[i];
        } else
            inputs->arguments[i] = data;
    }
    return true;
}

/* ---- References inside values ---- */

enum { INSIDES_MAX = 64 };

static const struct moray_insides *insides[256];
TRIP_DATA uint32_t insides_count;

/* A header's MORAY_REFS comes once for each file that includes it. */
static bool same_insides(const struct moray_insides *a, const struct moray_insides *b)
{
    return a->type_hash == b->type_hash && a->size == b->size && a->count == b->count &&
           !memcmp(a->members, b->members, a->count * sizeof(*a->members));
}

void moray_register_refs(const struct moray_insides *one)
{
    for (uint32_t i = 0; i < insides_count; i++)
        if (same_insides(insides[i], one))
            return;
    if (insides_count < sizeof(insides) / sizeof(*insides))
        insides[insides_count++] = one;
}

void insides_walk(const struct moray_parameter *type, const void *data, inside_take *take,
                  void *context)
{
    if (type->kind == MORAY_KIND_FUTURE || type->kind == MORAY_KIND_ACTOR)
        take(context, type->kind, data);
    for (uint32_t i = 0; i < insides_count && type->kind == MORAY_KIND_VALUE; i++) {
        if (insides[i]->type_hash != type->type_hash || insides[i]->size != type->size)
            continue;
        for (uint32_t k = 0; k < insides[i]->count; k++)
            take(context, insides[i]->members[k].kind,
                 (const char *)data + insides[i]->members[k].offset);
    }
}

struct insides_list {
    struct request_contains head;
    moray_ref refs[INSIDES_MAX];
    enum moray_code code;
};

static void inside_tell(void *context, uint32_t kind, const void *at)
{
    struct insides_list *list = context;
    moray_actor actor;
    moray_ref ref;

    if (kind == MORAY_KIND_ACTOR) {
        memcpy(&actor, at, sizeof(actor));
        if (actor.node && list->code == MORAY_OK)
            list->code = actor_lend(actor, list->head.index, !list->head.until_ended);
        return;
    }
    memcpy(&ref, at, sizeof(ref));
    if (ref.owner && list->head.count < INSIDES_MAX)
        list->refs[list->head.count++] = ref;
}

OFF_TRIP enum moray_code insides_tell(uint32_t index, const struct moray_parameter *type,
                                      const void *data, bool until_ended)
{
    struct insides_list list = {
        .head = {.index = index,
                 .generation = life_generation(record_life(lane_record(&me.lane, index))),
                 .until_ended = until_ended}};
    uint32_t answer_record;
    const void *answer;
    uint64_t answer_bytes;

    insides_walk(type, data, inside_tell, &list);
    if (list.code != MORAY_OK || !list.head.count)
        return list.code;
    enum moray_code code =
        request_call(REQUEST_CONTAINS, &list,
                     (uint32_t)(sizeof(list.head) + list.head.count * sizeof(moray_ref)),
                     &answer_record, &answer, &answer_bytes);
    if (code == MORAY_OK)
        request_done(answer_record);
    return code;
}

/* ---- Results ---- */

static enum moray_code result_seal(uint32_t index, const struct moray_parameter *result,
                                   const void *data)
{
    if (result->kind == MORAY_KIND_VOID)
        return MORAY_OK;
    if (RARELY(result->kind == MORAY_KIND_BUFFER))
        return result_take(index, data);
    if (RARELY(insides_count || result->kind != MORAY_KIND_VALUE)) {
        enum moray_code code = insides_tell(index, result, data, false);
        if (code != MORAY_OK)
            return code;
    }
    return result_store(index, data, result->size);
}

static enum moray_code extras_seal(uint32_t index, const struct moray_function *function,
                                   void *const *results)
{
    struct record_long *details = lane_long(&me.lane, lane_record(&me.lane, index));

    for (unsigned i = 0; details && i < details->extra_count; i++) {
        uint32_t extra = details->extra[i];
        uint64_t life = record_life(lane_record(&me.lane, extra));
        if (!lane_claim(&me.lane, extra, life_generation(life)))
            continue; /* an earlier attempt got so far: what it sealed stands */
        enum moray_code code = result_seal(extra, &function->results[i + 1], results[i + 1]);
        if (code != MORAY_OK) {
            const char *story;
            moray_last(&story);
            fail_fill(extra, code, story);
        }
        lane_finish(&me.lane, extra, code == MORAY_OK ? RECORD_DONE : RECORD_FAILED);
    }
    return MORAY_OK;
}

static void end_failed(uint32_t index, struct frame *frame)
{
    struct record *record = lane_record(&me.lane, index);
    const struct record_long *details = lane_long(&me.lane, record);
    uint32_t attempt = life_attempt(record_life(record)) + 1;

    results_drop(index);
    if (details && details->retry_errors &&
        (record->attempts_max == 0 || attempt < record->attempts_max)) {
        lane_requeue(&me.lane, index, 1);
        return;
    }
    fail_record(index, frame->failed, "%s", frame->story ? frame->story : "");
}

static void end_well(uint32_t index, const struct moray_function *function, void *const *results)
{
    enum moray_code code = MORAY_OK;

    if (RARELY(function->result_count > 1))
        code = extras_seal(index, function, results);
    if (code == MORAY_OK && function->result_count)
        code = result_seal(index, &function->results[0], results[0]);
    if (RARELY(code != MORAY_OK)) {
        const char *story;
        moray_last(&story);
        results_drop(index);
        fail_record(index, code, "%s", story);
        return;
    }
    lane_finish(&me.lane, index, RECORD_DONE);
}

/* Results lie side by side on the stack, or in the heap if they are large. */
static void *results_room(const struct moray_function *function, char *room, void **results)
{
    uint32_t bytes = 0;
    char *at = room, *heap = NULL;

    results[0] = room;
    if (USUALLY(function->result_count == 0 ||
                (function->result_count == 1 && function->results[0].size <= RESULT_ROOM)))
        return NULL;
    for (unsigned i = 0; i < function->result_count; i++)
        bytes += (function->results[i].size + 15) & ~15u;
    if (bytes > RESULT_ROOM)
        at = heap = aligned_alloc(64, (bytes + 63) & ~63u);
    for (unsigned i = 0; i < function->result_count; i++) {
        results[i] = at;
        at += (function->results[i].size + 15) & ~15u;
    }
    return heap;
}

/* Counts a call of a function that ends its process after so many. */
static bool process_is_used_up(const struct record *record)
{
    static uint32_t *calls; /* of each function, in this process */
    const struct record_long *details = lane_long(&me.lane, record);

    if (!details || !details->calls_per_process)
        return false;
    if (!calls && !(calls = calloc(function_count, sizeof(*calls))))
        return true; /* it cannot be counted: an earlier end than asked for harms nobody */
    return ++calls[record->function] >= details->calls_per_process;
}

/* The body runs outside of the door, with everything it needs on this stack. The compiler's own setjmp
 * keeps but what is needed, and takes no call to a page of libc's. */
ON_TRIP static __attribute__((noinline)) void body(struct running *running,
                                                   const struct moray_function *function,
                                                   const struct inputs *inputs,
                                                   void *const *results)
{
    if (__builtin_setjmp(running->gave_up) == 0)
        function->run(me.self, inputs->arguments, results);
}

/* A child that the body made by fork returned from it, as if it were the process of the job. */
OFF_TRIP static _Noreturn void forked_end(const char *name)
{
    log_error("a child that %s made by fork returned from it, and ends here with status 1; a child "
              "ends by _exit or exec",
              name);
    _exit(1);
}

/* An actor is one submitter: what one method calls comes after what another has called before. */
static void frame_of_actor(struct frame *frame)
{
    static uint32_t submitter;

    if (!submitter)
        submitter = frame->submitter;
    frame->submitter = submitter;
    frame->actor = true;
}

ON_TRIP void run_record(uint32_t index)
{
    struct record *record = lane_record(&me.lane, index);
    const struct moray_function *function;
    struct running running;
    struct inputs inputs;
    _Alignas(16) char room[RESULT_ROOM];
    void *results[MORAY_PARAMETERS_MAX + 1], *heap = NULL;
    uint32_t top = atomic_load_explicit(&me.lane.self->top, memory_order_relaxed);

    if (RARELY(enter() != MORAY_OK))
        return;
    assert(record->function < function_count);
    function = functions[record->function];
    atomic_store_explicit(&me.lane.self->top, index + 1, memory_order_relaxed);
    running.outer = running_top;
    running.used_up = false;
    running_top = &running;
    frame_push(&running.frame, index);
    if (RARELY(me.role == ROLE_ACTOR))
        frame_of_actor(&running.frame);
    if (inputs_find(index, function, &inputs)) {
        if (RARELY(record_flags(record) & RECORD_LONG))
            running.used_up = process_is_used_up(record);
        heap = results_room(function, room, results);
        leave();
        body(&running, function, &inputs, results);
        if (RARELY(enter() != MORAY_OK) && me.role == ROLE_FORKED)
            forked_end(function->name); /* else the task would end here and in its parent */
        if (RARELY(running.frame.failed != MORAY_OK))
            end_failed(index, &running.frame);
        else
            end_well(index, function, results);
        if (RARELY(heap != NULL))
            free(heap);
    }
    lane_bump(&me.lane.self->ran);
    frame_pop(&running.frame);
    running_top = running.outer;
    atomic_store_explicit(&me.lane.self->top, top, memory_order_relaxed);
    leave();
    if (RARELY(running.used_up)) {
        if (running_top) /* on a waiter's stack: the process ends with that task */
            running_top->used_up = true;
        else if (me.role == ROLE_WORKER)
            process_leave();
    }
}

const char *run_name(void)
{
    uint32_t top = me.role ? atomic_load_explicit(&me.lane.self->top, memory_order_relaxed) : 0;

    if (!top)
        return NULL;
    uint32_t function = lane_record(&me.lane, top - 1)->function;
    return function < function_count ? functions[function]->name : NULL;
}

int moray_cancelled(void)
{
    return 0; /* running tasks are not told in this version: a queued one never runs */
}

uint32_t moray_attempt(void)
{
    if (!frame_top || frame_top->record == RECORD_NONE)
        return 0;
    return life_attempt(record_life(lane_record(&me.lane, frame_top->record))) + 1;
}
