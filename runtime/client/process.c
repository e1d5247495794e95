#include "client/process.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/array.h"
#include "base/log.h"
#include "client/requests.h"

enum { RESCUE_DOUBT_LOOKS = 20 };

TRIP_DATA struct process me = {.token = -1, .worker_index = -1};
_Thread_local struct frame *frame_top;
_Thread_local bool thread_inside, thread_owner;
static _Thread_local struct moray_error last;

ON_TRIP uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- Errors ---- */

/* The last failure that a null reference or handle was given for, and to whom. */
static _Thread_local struct {
    struct moray_error error;
    const struct moray_site *site;
    const struct frame *frame;
    uint32_t record, generation; /* tell one task at this place of the stack from the next */
} null;
static _Thread_local bool told_null; /* the last failure is the use of a null one */

enum moray_code last_set_at(enum moray_code code, const char *file, int line, const char *format,
                            ...)
{
    va_list arguments;

    told_null = false;
    last = (struct moray_error){.code = code, .file = file, .line = line};
    va_start(arguments, format);
    vsnprintf(last.text, sizeof(last.text), format, arguments);
    va_end(arguments);
    return code;
}

enum moray_code last_take(const struct moray_error *error)
{
    told_null = false;
    last = *error;
    return error->code;
}

struct frame *frame_of_task(void)
{
    struct frame *frame = frame_top;

    while (frame && frame->record == RECORD_NONE)
        frame = frame->outer;
    return frame;
}

void null_given(const struct moray_site *site)
{
    const struct frame *frame = frame_of_task();

    if (told_null)
        return; /* it was given a null one itself: what that came of stands */
    null.error = last;
    null.site = site;
    null.frame = frame;
    null.record = frame ? frame->record : RECORD_NONE;
    null.generation = frame ? frame->generation : 0;
}

static bool null_is_ours(void)
{
    const struct frame *frame = frame_of_task();

    return null.error.code != MORAY_OK && null.frame == frame &&
           (!frame || (null.record == frame->record && null.generation == frame->generation));
}

const char *null_story(void)
{
    return null_is_ours() ? null.error.text : "";
}

enum moray_code null_told(const char *what)
{
    char where[256] = "";
    enum moray_code code;

    if (!null_is_ours())
        return last_set(MORAY_INVALID, "a null %s: it was never set", what);
    if (null.site)
        snprintf(where, sizeof(where), ", in %.60s (%.120s:%d)", null.site->function,
                 null.site->file, null.site->line);
    code = last_set(null.error.code,
                    "a null %s: it was never set, or the call that was to give it failed; the last "
                    "that did%s: %s",
                    what, where, null.error.text);
    told_null = true;
    return code;
}

enum moray_code moray_last(const char **story)
{
    if (story)
        *story = last.text;
    return last.code;
}

const char *moray_code_name(enum moray_code code)
{
    return error_name(code);
}

const char *moray_code_meaning(enum moray_code code)
{
    return error_meaning(code);
}

/* ---- The door ---- */

enum moray_code enter_refused(void)
{
    if (me.role == ROLE_NONE)
        return last_set(MORAY_WRONG_STATE, "called before moray_init; call moray_init first");
    if (me.role == ROLE_ENDED)
        return last_set(MORAY_WRONG_STATE, "called after moray_finalize: the job has ended");
    if (me.role == ROLE_FORKED)
        return last_set(MORAY_WRONG_STATE,
                        "called in a child that the program made by fork: it is no process of the "
                        "job, and shares its parent's place in it; call from the parent, or make a "
                        "task of it");
    /* The story of the interrupted call must survive, so this one is short. */
    return last_set(
        MORAY_WRONG_STATE,
        "called from a signal handler that interrupted another call of this thread; set "
        "a flag in the handler and call from the program");
}

/* Drepper, "Futexes are tricky", mutex 2: 0 free, 1 held, 2 held and somebody may sleep. */
static void lock_take(void)
{
    uint32_t seen = 0;

    if (atomic_compare_exchange_strong(&me.lock, &seen, 1))
        return;
    do {
        uint32_t held = 1;
        if (seen == 2 || atomic_compare_exchange_strong(&me.lock, &held, 2) || held == 2) {
            struct timespec second = {1, 0};
            syscall(SYS_futex, &me.lock, FUTEX_WAIT_PRIVATE, 2, &second, NULL, 0);
        }
        seen = 0;
    } while (!atomic_compare_exchange_strong(&me.lock, &seen, 2));
}

static _Thread_local bool has_lock;

/* What the owner wrote before it looked at `threaded` is seen after this, or it sees what we wrote. Kernels
 * that refuse the quick way know the slow one; where both are forbidden, a store that has not been seen
 * for so long does not exist. Once a process. */
static void owner_fence(void)
{
    struct timespec long_enough = {0, 2000000};

    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0)
        return;
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0)
        return;
    nanosleep(&long_enough, NULL);
}

/* An owner that entered before it could see `threaded` has no lock. Under the lock, so that whoever comes
 * next waits too. */
static void owner_await(void)
{
    static bool owner_was_out;

    if (owner_was_out)
        return;
    owner_fence();
    while (atomic_load(&me.inside)) {
        struct timespec pause = {0, 20000};
        nanosleep(&pause, NULL);
    }
    owner_was_out = true;
}

void enter_slow(void)
{
    if (thread_owner)
        atomic_store(&me.inside, 0); /* the lock speaks for it from now on */
    else if (!atomic_load(&me.threaded))
        atomic_store(&me.threaded, 1);
    lock_take();
    has_lock = true;
    if (!thread_owner)
        owner_await();
}

void leave_slow(void)
{
    if (!has_lock)
        return;
    has_lock = false;
    if (atomic_exchange(&me.lock, 0) == 2)
        syscall(SYS_futex, &me.lock, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- Frames ---- */

enum { HOLD_GONE = 1u << 31 };

/* Counted in the slot: calls of a process that died may still be pending. */
uint32_t submitter_next(void)
{
    uint32_t next = atomic_load_explicit(&me.lane.self->submitters, memory_order_relaxed) + 1;

    atomic_store_explicit(&me.lane.self->submitters, next, memory_order_relaxed);
    return next;
}

ON_TRIP void frame_push(struct frame *frame, uint32_t record)
{
    frame->outer = frame_top;
    frame->record = record;
    frame->generation = frame->submitter = 0;
    frame->holds = frame->few;
    frame->hold_count = 0;
    frame->hold_capacity = FRAME_FEW;
    frame->failed = MORAY_OK;
    frame->story = NULL;
    frame->has_more = frame->actor = false;
    if (!frame->outer)
        thread_stack = __builtin_frame_address(0);
    if (record != RECORD_NONE) {
        frame->generation = life_generation(record_life(lane_record(&me.lane, record)));
        frame->submitter = submitter_next();
    } else if (frame->outer)
        frame->submitter = frame->outer->submitter;
    frame_top = frame;
}

static int by_index_in_order(const void *a, const void *b)
{
    const struct hold *x = a, *y = b;
    uint32_t one = x->index & ~HOLD_GONE, other = y->index & ~HOLD_GONE;

    if (one != other)
        return one < other ? -1 : 1;
    return x->generation < y->generation ? -1 : x->generation > y->generation;
}

/* What the notes about one record come to, the oldest first; returns how many it takes. A hold let go is
 * the newest that was taken; where there is none, it was taken in a frame around this scope, or, in a
 * task, is one that the process was to keep. */
static uint32_t frame_sum(const struct frame *frame, struct hold *out, const struct hold *notes,
                          uint32_t count)
{
    uint32_t index = notes->index & ~HOLD_GONE, held = 0, gone = 0;
    uint32_t generation = life_generation(record_life(lane_record(&me.lane, index)));
    uint32_t most = lane_held(&me.lane, index); /* a task on this stack may have let go too many */

    for (uint32_t i = 0; i < count; i++) {
        if (!(notes[i].index & HOLD_GONE))
            held++;
        else if (held)
            held--;
        else
            gone++;
    }
    if (held > most)
        held = most;
    if (frame->record != RECORD_NONE)
        gone = 0;
    for (uint32_t i = 0; i < gone + held; i++)
        out[i] = (struct hold){index | (i < gone ? HOLD_GONE : 0), generation};
    return gone + held;
}

/* Drops what is about objects that are no more, and lets each hold given back cancel one taken. */
static void frame_compact(struct frame *frame)
{
    struct hold *notes = frame->holds;
    uint32_t kept = 0, out = 0;

    for (uint32_t i = 0; i < frame->hold_count; i++) {
        uint32_t index = notes[i].index & ~HOLD_GONE;
        if (life_generation(record_life(lane_record(&me.lane, index))) != notes[i].generation)
            continue;
        notes[kept] = (struct hold){notes[i].index, kept}; /* all of one generation: their order */
        kept++;
    }
    if (kept > 1)
        qsort(notes, kept, sizeof(*notes), by_index_in_order);
    for (uint32_t i = 0, next; i < kept; i = next) {
        for (next = i + 1; next < kept && !((notes[next].index ^ notes[i].index) & ~HOLD_GONE);)
            next++;
        out += frame_sum(frame, notes + out, notes + i, next - i);
    }
    frame->hold_count = out;
}

ON_TRIP void frame_note(uint32_t index, uint32_t generation, bool gone)
{
    struct frame *frame = frame_top;

    if (!frame)
        return; /* the driver outside of any scope lets its holds go itself */
    if (RARELY(frame->hold_count == frame->hold_capacity)) {
        if (frame->hold_count >= 1024)
            frame_compact(frame);
        if (frame->hold_count * 2 >= frame->hold_capacity) {
            uint32_t capacity = frame->hold_capacity * 2;
            bool few = frame->holds == frame->few;
            struct hold *more = realloc(few ? NULL : frame->holds, capacity * sizeof(*more));
            if (!more)
                return; /* this hold then lasts as long as the process */
            if (few)
                memcpy(more, frame->few, sizeof(frame->few));
            frame->holds = more;
            frame->hold_capacity = capacity;
        }
    }
    frame->holds[frame->hold_count++] = (struct hold){index | (gone ? HOLD_GONE : 0), generation};
}

ON_TRIP void frame_gone(uint32_t index, uint32_t generation)
{
    struct frame *frame = frame_top;

    if (!frame)
        return;
    if (frame->hold_count) { /* the usual way: nothing was noted since */
        const struct hold *last = &frame->holds[frame->hold_count - 1];
        if (last->index == index && last->generation == generation) {
            frame->hold_count--;
            return;
        }
    }
    frame_note(index, generation, true);
}

OFF_TRIP void scopes_end(struct frame *frame)
{
    while (frame_top != frame) {
        struct frame *scope = frame_top;
        assert(scope && scope->record == RECORD_NONE);
        frame_pop(scope);
        free(scope);
    }
}

ON_TRIP void frame_pop(struct frame *frame)
{
    if (frame_top != frame)
        scopes_end(frame);
    if (RARELY(frame->hold_count))
        frame_compact(frame);
    frame_top = frame->outer;
    for (uint32_t i = 0; RARELY(i < frame->hold_count); i++)
        if (frame->holds[i].index & HOLD_GONE)
            frame_gone(frame->holds[i].index & ~HOLD_GONE, frame->holds[i].generation);
        else
            lane_drop(&me.lane, frame->holds[i].index);
    if (RARELY(frame->holds != frame->few))
        free(frame->holds);
    if (RARELY(frame->has_more)) {
        free(frame->story);
        handles_let_go(frame);
    }
}

/* ---- References ---- */

static enum moray_code far_find(moray_ref ref, uint32_t *index)
{
    uint32_t record;
    const void *answer;
    uint64_t bytes;
    enum moray_code code =
        request_call(REQUEST_RESOLVE, &ref, sizeof(ref), &record, &answer, &bytes);

    if (code != MORAY_OK)
        return code;
    const moray_ref *local = answer;
    *index = local->index;
    lane_hold(&me.lane, *index);
    request_done(record);
    return MORAY_OK;
}

/* Stand-ins that the driver holds, outside of any scope, because it will come back to them. */
static struct hold *kept;
static uint32_t kept_count, kept_capacity;

static bool kept_add(uint32_t index)
{
    struct hold *more = array_room(kept, kept_count, &kept_capacity, sizeof(*kept));
    if (!more)
        return false;
    kept = more;
    kept[kept_count++] = (struct hold){.index = index};
    return true;
}

void far_back(uint32_t index)
{
    for (uint32_t i = 0; i < kept_count; i++)
        if (kept[i].index == index) {
            kept[i] = kept[--kept_count];
            lane_drop(&me.lane, index);
            return;
        }
}

void far_done(uint32_t index, bool later)
{
    if (later && lane_held(&me.lane, index) == 1) {
        if (frame_top) {
            frame_note(index, life_generation(record_life(lane_record(&me.lane, index))), false);
            return;
        }
        if (kept_add(index))
            return;
    }
    if (!later)
        far_back(index);
    lane_drop(&me.lane, index);
}

void far_forget(void)
{
    while (kept_count > 0)
        far_back(kept[kept_count - 1].index);
    free(kept);
    kept = NULL;
    kept_capacity = 0;
}

ON_TRIP enum moray_code ref_find(moray_ref ref, uint32_t *index)
{
    if (RARELY(ref.owner == 0))
        return null_told("reference");
    if (RARELY(ref.owner != me.owner)) {
        if (ref.owner > me.rank_count)
            return last_set(MORAY_STALE,
                            "a reference of rank %u, but the job has %u ranks: the "
                            "bytes are no reference",
                            ref.owner - 1, me.rank_count);
        return far_find(ref, index);
    }
    if (RARELY(!lane_find(&me.lane, ref.index, ref.generation)))
        return last_set(MORAY_STALE,
                        "a stale reference {rank %u, object %u, generation %u}: it was "
                        "released before, or its task has ended; use moray_hold or "
                        "moray_keep to keep it",
                        ref.owner - 1, ref.index, ref.generation);
    *index = ref.index;
    return MORAY_OK;
}

void hold_take(uint32_t index)
{
    lane_hold(&me.lane, index);
    frame_note(index, life_generation(record_life(lane_record(&me.lane, index))), false);
}

/* ---- Sleeping and waking ---- */

/* syscall(2), here and not on a page of the C library, without errno. */
static inline long futex(const _Atomic uint32_t *word, int operation, uint32_t value,
                         const struct timespec *limit)
{
    register const struct timespec *fourth __asm__("r10") = limit;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(SYS_futex), "D"(word), "S"(operation), "d"(value), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

ON_TRIP void process_wake(void *context, uint16_t slot)
{
    (void)context;
    if (RARELY(slot == LANE_AGENT)) {
        uint64_t one = 1;
        if (write(me.doorbell, &one, sizeof(one)) < 0 && errno != EAGAIN)
            return; /* the agent looks again within a second */
        return;
    }
    (void)futex(&me.lane.slots[slot].wake, FUTEX_WAKE, INT_MAX, NULL);
}

ON_TRIP bool process_sleep(uint32_t seen, uint64_t until_ns)
{
    uint64_t longest = (uint64_t)SLEEP_RESCUE_MS * 1000000;
    struct timespec limit;
    bool whole = true;

    if (RARELY(until_ns)) {
        uint64_t now = now_ns();
        if (until_ns <= now)
            return false;
        if (until_ns - now < longest) {
            longest = until_ns - now;
            whole = false;
        }
    }
    limit.tv_sec = (time_t)(longest / 1000000000);
    limit.tv_nsec = (long)(longest % 1000000000);
    return futex(&me.lane.self->wake, FUTEX_WAIT, seen, &limit) == -ETIMEDOUT && whole;
}

/* Whoever ends what is waited for writes that first and wakes then: it may stand between the two. */
void rescue_count(uint32_t seen, const char *found)
{
    struct timespec pause = {0, 1000000};

    for (int look = 0; look < RESCUE_DOUBT_LOOKS; look++) {
        if (atomic_load(&me.lane.self->wake) != seen)
            return;
        nanosleep(&pause, NULL);
    }
    lane_bump(&me.lane.self->rescues);
    log_debug("slot %u slept a second though %s", me.slot, found);
}

void process_wake_in(struct lane *lane, uint16_t slot)
{
    (void)futex(&lane->slots[slot].wake, FUTEX_WAKE, INT_MAX, NULL);
}
