#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bytes.h"
#include "client/process.h"
#include "client/requests.h"
#include "node/zygote.h"
#include "store/arena/window.h"

/* Put, get, wait, and who holds what. */

/* ---- Storing ---- */

enum { ROOM_LOOKS = 20 };

struct big {
    uint64_t bytes;
    uint32_t index;
};

enum moray_code store_full(uint64_t bytes)
{
    struct arena_usage usage;
    struct big top[3] = {{0, 0}};
    char holders[256] = "";
    uint32_t end = atomic_load(&me.lane.control->records_claimed) * POOL_SLAB_ITEMS;

    arena_usage(&me.lane.arena, &usage);
    for (uint32_t index = 0; index < end; index++) {
        const struct record *record = lane_record(&me.lane, index);
        if (!life_ended(record_life(record)) || !(record_flags(record) & RECORD_RESULT_BLOCK))
            continue;
        struct big one = {record_result_bytes(record), index};
        for (int i = 0; i < 3; i++)
            if (one.bytes > top[i].bytes) {
                struct big swap = top[i];
                top[i] = one;
                one = swap;
            }
    }
    for (int i = 0; i < 3 && top[i].bytes; i++) {
        char what[128];
        record_describe(&me.lane, lane_record(&me.lane, top[i].index), what, sizeof(what));
        size_t used = strlen(holders);
        snprintf(holders + used, sizeof(holders) - used, "%s%llu bytes of %.60s", i ? ", " : "",
                 (unsigned long long)top[i].bytes, what);
    }
    return last_set(MORAY_FULL,
                    "no room for %llu bytes in the store of rank %u: %llu of %llu bytes are free, "
                    "the largest piece has %llu; the largest objects: %s. Release some, or raise "
                    "MORAY_STORE_BYTES",
                    (unsigned long long)bytes, me.owner - 1,
                    (unsigned long long)usage.free_page_bytes, (unsigned long long)usage.data_bytes,
                    (unsigned long long)usage.largest_free_run_bytes, *holders ? holders : "none");
}

/* Blocks that others are done with, but whose homes have not looked yet: they are woken for it. */
static bool some_to_come(void)
{
    bool some = false;

    for (uint32_t slot = 0; slot < me.lane.control->layout.slot_count; slot++)
        if (slot != me.slot && atomic_load(&me.lane.slots[slot].freed)) {
            lane_wake(&me.lane, (uint16_t)slot);
            some = true;
        }
    lane_tick(&me.lane);
    return some;
}

uint32_t room_find(uint64_t bytes, uint32_t index)
{
    uint32_t place = arena_alloc(&me.lane.arena, bytes, index);

    for (int look = 0; !place && look < ROOM_LOOKS && some_to_come(); look++) {
        struct timespec pause = {0, 1000000};
        leave();
        nanosleep(&pause, NULL);
        (void)!enter();
        place = arena_alloc(&me.lane.arena, bytes, index);
    }
    return place;
}

ON_TRIP enum moray_code result_store(uint32_t index, const void *data, uint64_t bytes)
{
    struct record *record = lane_record(&me.lane, index);

    if (record_value_fits(record, bytes)) {
        if (bytes)
            bytes_copy_small(record_value(record, bytes), data, bytes);
        record_set_result_bytes(record, bytes);
        return MORAY_OK;
    }
    uint32_t place = room_find(bytes, index);
    if (!place)
        return store_full(bytes);
    memcpy(arena_at(&me.lane.arena, place), data, bytes);
    record->result.block.place = place;
    record->result.block.window = me.window;
    record_set_result_bytes(record, bytes);
    atomic_fetch_or_explicit(&record->flags, RECORD_RESULT_BLOCK, memory_order_relaxed);
    return MORAY_OK;
}

/* ---- Lists of references ---- */

static void done_all(const moray_ref *refs, size_t count, uint32_t *indices, bool later)
{
    for (size_t i = 0; i < count; i++)
        ref_done(refs[i], indices[i], later);
    free(indices);
}

/* `*indices` is to be given to done_all(); NULL after an error. */
static enum moray_code find_all(const moray_ref *refs, size_t count, uint32_t **indices)
{
    *indices = NULL;
    if (count > UINT32_MAX / 2 || (!refs && count))
        return last_set(MORAY_INVALID, "a list of %zu references at %p", count, (const void *)refs);
    *indices = malloc((count ? count : 1) * sizeof(**indices));
    if (!*indices)
        return last_set(MORAY_NO_MEMORY, "no memory for a list of %zu references", count);
    for (size_t i = 0; i < count; i++) {
        enum moray_code code = ref_find(refs[i], &(*indices)[i]);
        if (code != MORAY_OK) {
            done_all(refs, i, *indices, false);
            *indices = NULL;
            return code;
        }
    }
    return MORAY_OK;
}

static enum moray_code contains(uint32_t index, const moray_ref *refs, size_t count)
{
    struct request_contains *request;
    size_t bytes = sizeof(*request) + count * sizeof(*refs);
    uint32_t answer_record;
    const void *answer;
    uint64_t answer_bytes;
    enum moray_code code;

    if (!count)
        return MORAY_OK;
    request = malloc(bytes);
    if (!request)
        return last_set(MORAY_NO_MEMORY, "no memory for a list of %zu references", count);
    *request = (struct request_contains){
        .index = index,
        .generation = life_generation(record_life(lane_record(&me.lane, index))),
        .count = (uint32_t)count};
    memcpy(request + 1, refs, count * sizeof(*refs));
    code = request_call(REQUEST_CONTAINS, request, (uint32_t)bytes, &answer_record, &answer,
                        &answer_bytes);
    if (code == MORAY_OK)
        request_done(answer_record);
    free(request);
    return code;
}

moray_ref moray_put_typed(const void *data, size_t size, uint32_t type);

moray_ref moray_put_refs(const void *data, size_t size, const moray_ref *refs, size_t count)
{
    moray_ref ref = {0, 0, 0, 0};
    uint32_t index;

    if (enter() != MORAY_OK)
        return ref;
    if ((!data && size) || (!refs && count)) {
        last_set(MORAY_INVALID, "put of a null pointer with size %zu, %zu references", size, count);
    } else if ((index = lane_make(&me.lane, RECORD_OBJECT)) == RECORD_NONE) {
        last_set(MORAY_BUSY, "the node's table of objects is full; release references or raise "
                             "MORAY_QUEUE_MAX");
    } else {
        enum moray_code code = MORAY_OK;
        uint32_t *insides = NULL;
        if (count)
            code = find_all(refs, count, &insides);
        if (code == MORAY_OK)
            code = result_store(index, data, size);
        if (code == MORAY_OK && count)
            code = contains(index, refs, count);
        if (insides)
            done_all(refs, count, insides, false);
        if (code == MORAY_OK) {
            lane_publish(&me.lane, index, RECORD_DONE);
            ref = ref_of(index, 0);
            frame_note(index, ref.generation, false);
        } else
            lane_abandon(&me.lane, index);
    }
    leave();
    return ref;
}

moray_ref moray_put(const void *data, size_t size)
{
    return moray_put_refs(data, size, NULL, 0);
}

moray_ref moray_put_typed(const void *data, size_t size, uint32_t type)
{
    moray_ref ref = moray_put_refs(data, size, NULL, 0);

    if (ref.owner) {
        lane_record(&me.lane, ref.index)->function = type;
        ref.type = type;
    }
    return ref;
}

/* ---- Buffers that are filled in place ---- */

enum { GUARDED_BYTES = 65536, GUARD_BYTES = 4096, CANARY_BYTES = 8, ALIGNED_BYTES = 64 };
static const uint64_t canary = 0xc0ffee5ea1edb10c;

/* A buffer of 64 KiB and more ends at a page that nobody can write until it is sealed; a smaller one
 * is followed by a canary. `place` of a moray_buffer: record in the high half, block in the low. */
static moray_buffer buffer_make(uint32_t index, size_t size)
{
    moray_buffer buffer = {NULL, size, 0};
    uint64_t room =
        size >= GUARDED_BYTES ? (size + 63) / 64 * 64 + 2 * GUARD_BYTES : size + CANARY_BYTES;
    /* Blocks of 64 bytes and more are aligned to 64, as moray.h promises of buffers. */
    uint32_t place = room_find(room < ALIGNED_BYTES ? ALIGNED_BYTES : room, index);
    char *start;

    if (!place) {
        store_full(size);
        return buffer;
    }
    start = arena_at(&me.lane.arena, place);
    if (size >= GUARDED_BYTES) {
        uint64_t whole = (size + 63) / 64 * 64;
        char *end = start + (whole + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
        mprotect(end, GUARD_BYTES, PROT_NONE);
        start = end - whole;
    } else
        memcpy(start + size, &canary, CANARY_BYTES);
    buffer.data = start;
    buffer.place = (uint64_t)index << 32 | place;
    return buffer;
}

static void buffer_unguard(const moray_buffer *buffer)
{
    if (buffer->size >= GUARDED_BYTES) {
        uintptr_t end = ((uintptr_t)buffer->data + buffer->size + 63) & ~(uintptr_t)63;
        mprotect((void *)end, GUARD_BYTES, PROT_READ | PROT_WRITE);
    }
}

/* Sets the record's result to the buffer. Errors: the canary is gone; the block is still the caller's. */
static enum moray_code buffer_seal(const moray_buffer *buffer, uint32_t index)
{
    struct record *record = lane_record(&me.lane, index);
    uint32_t place = (uint32_t)buffer->place;

    buffer_unguard(buffer);
    if (buffer->size < GUARDED_BYTES &&
        memcmp((char *)buffer->data + buffer->size, &canary, CANARY_BYTES))
        return last_set(MORAY_INVALID, "bytes were written past the end of a buffer of %zu bytes",
                        buffer->size);
    record->result.block.place = place;
    /* Where a guarded buffer begins inside its block, in units of 64 bytes. */
    record->result.block.window =
        (uint32_t)(((char *)buffer->data - (char *)arena_at(&me.lane.arena, place)) / 64) << 8 |
        me.window;
    record_set_result_bytes(record, buffer->size);
    atomic_fetch_or_explicit(&record->flags, RECORD_RESULT_BLOCK, memory_order_relaxed);
    return MORAY_OK;
}

moray_buffer moray_create(size_t size)
{
    moray_buffer buffer = {NULL, size, 0};
    uint32_t index;

    if (enter() != MORAY_OK)
        return buffer;
    index = lane_make(&me.lane, RECORD_OBJECT);
    if (index == RECORD_NONE)
        last_set(MORAY_BUSY, "the node's table of objects is full; release references or raise "
                             "MORAY_QUEUE_MAX");
    else {
        buffer = buffer_make(index, size);
        if (!buffer.data)
            lane_abandon(&me.lane, index);
        else { /* so that giving it back frees the block */
            struct record *record = lane_record(&me.lane, index);
            record->result.block.place = (uint32_t)buffer.place;
            atomic_store(&record->flags, RECORD_RESULT_BLOCK);
        }
    }
    leave();
    return buffer;
}

static bool in_making(moray_buffer buffer)
{
    uint32_t index = (uint32_t)(buffer.place >> 32);
    uint64_t life;

    if (!buffer.data || index >= me.lane.control->layout.record_count)
        return false;
    life = record_life(lane_record(&me.lane, index));
    return life_state(life) == RECORD_MAKING && life_slot(life) == me.slot;
}

moray_ref moray_seal(moray_buffer buffer)
{
    moray_ref ref = {0, 0, 0, 0};
    uint32_t index = (uint32_t)(buffer.place >> 32);

    if (enter() != MORAY_OK)
        return ref;
    if (!in_making(buffer))
        last_set(MORAY_STALE, "seal of a buffer that was sealed, dropped or never made");
    else if (buffer_seal(&buffer, index) != MORAY_OK)
        lane_abandon(&me.lane, index);
    else {
        lane_publish(&me.lane, index, RECORD_DONE);
        ref = ref_of(index, 0);
        frame_note(index, ref.generation, false);
    }
    leave();
    return ref;
}

void moray_drop(moray_buffer buffer)
{
    if (!buffer.data || enter() != MORAY_OK)
        return;
    if (in_making(buffer)) {
        buffer_unguard(&buffer);
        lane_abandon(&me.lane, (uint32_t)(buffer.place >> 32));
    }
    leave();
}

/* ---- Results that are filled in place ---- */

/* Buffers of tasks that run in this process: of each one the function returns, the others go with its
 * end. (Those of a process that dies are found by repair.) */
static moray_buffer *given;
static uint32_t given_count, given_capacity;

static bool given_add(const moray_buffer *buffer)
{
    if (given_count == given_capacity) {
        uint32_t capacity = given_capacity ? given_capacity * 2 : 8;
        moray_buffer *more = realloc(given, capacity * sizeof(*more));
        if (!more)
            return false;
        given = more;
        given_capacity = capacity;
    }
    given[given_count++] = *buffer;
    return true;
}

static void result_drop(const moray_buffer *buffer)
{
    buffer_unguard(buffer);
    arena_free(&me.lane.arena, (uint32_t)buffer->place, (uint32_t)(buffer->place >> 32));
}

void results_drop(uint32_t index)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < given_count; i++)
        if (given[i].place >> 32 == index)
            result_drop(&given[i]);
        else
            given[kept++] = given[i];
    given_count = kept;
}

enum moray_code result_take(uint32_t index, const moray_buffer *buffer)
{
    uint32_t at = 0;

    while (at < given_count &&
           (given[at].place != buffer->place || given[at].data != buffer->data || !buffer->data))
        at++;
    if (at == given_count || buffer->place >> 32 != index)
        return last_set(MORAY_INVALID, "the function returned a buffer that moray_result did not "
                                       "make for this task");
    enum moray_code code = buffer_seal(&given[at], index);
    if (code == MORAY_OK)
        given[at] = given[--given_count];
    results_drop(index);
    return code;
}

/* The task whose result it is to be: the innermost, through its scopes. */
static struct frame *frame_of_task(void)
{
    struct frame *frame = frame_top;

    while (frame && frame->record == RECORD_NONE)
        frame = frame->outer;
    return frame;
}

static bool gives_a_buffer(const struct frame *frame)
{
    const struct moray_function *function =
        functions[lane_record(&me.lane, frame->record)->function];
    return function->result_count && function->results[0].kind == MORAY_KIND_BUFFER;
}

moray_buffer moray_result(size_t size)
{
    moray_buffer buffer = {NULL, size, 0};
    struct frame *frame;

    if (enter() != MORAY_OK)
        return buffer;
    if (!(frame = frame_of_task()) || !gives_a_buffer(frame))
        last_set(MORAY_WRONG_STATE, "moray_result outside of a task whose result is a "
                                    "moray_buffer; use moray_create");
    else {
        buffer = buffer_make(frame->record, size);
        if (buffer.data && !given_add(&buffer)) {
            result_drop(&buffer);
            buffer.data = NULL;
            last_set(MORAY_NO_MEMORY, "no memory to note a buffer");
        }
        if (!buffer.data && frame->failed == MORAY_OK) {
            const char *story;
            frame->failed = moray_last(&story);
            frame->story = strdup(story);
        }
    }
    leave();
    return buffer;
}

/* ---- Reading ---- */

/* The agent brings the bytes here, now or at the object's end. A hint: without a cell they come when they
 * are got. */
static void fetch_begin(uint32_t index)
{
    const struct record *record = lane_record(&me.lane, index);

    if (!me.alone &&
        (!life_ended(record_life(record)) || (record_flags(record) & RECORD_RESULT_FAR)))
        (void)!lane_post(&me.lane, LANE_AGENT, index, life_generation(record_life(record)),
                         CELL_RESOLVE, 0);
}

static enum moray_code fetch(uint32_t index, uint64_t until_ns)
{
    struct request_record request = {index,
                                     life_generation(record_life(lane_record(&me.lane, index)))};
    uint32_t answer_record;
    const void *answer;
    uint64_t answer_bytes;
    enum moray_code code;

    if (until_ns == LIMIT_NOW_NS) {
        fetch_begin(index);
        return MORAY_TIMEOUT;
    }
    code = request_until(REQUEST_FETCH, &request, sizeof(request), until_ns, &answer_record,
                         &answer, &answer_bytes);
    if (code == MORAY_OK)
        request_done(answer_record);
    return code;
}

ON_TRIP enum moray_code result_bytes(uint32_t index, uint64_t until_ns, const void **data,
                                     uint64_t *bytes)
{
    struct record *record = lane_record(&me.lane, index);
    uint16_t flags = atomic_load_explicit(&record->flags, memory_order_acquire);

    *bytes = record_result_bytes(record);
    if (__builtin_expect(flags & RECORD_RESULT_FAR, 0)) {
        enum moray_code code = fetch(index, until_ns);
        if (code != MORAY_OK)
            return code;
        flags = atomic_load_explicit(&record->flags, memory_order_acquire);
    }
    if (flags & RECORD_RESULT_SHARED) {
        uint32_t window = record->result.block.window & 0xff;
        struct moray_error error;
        if (!window_bytes(window) && process_attach(window, 2000, &error) != MORAY_OK)
            return last_take(&error);
        *data = window_ro(window, (uint64_t)record->result.block.place * ARENA_PLACE_BYTES +
                                      (uint64_t)(record->result.block.window >> 8) * 64);
    } else if (flags & RECORD_RESULT_BLOCK)
        *data = window_ro(me.window, (uint64_t)record->result.block.place * ARENA_PLACE_BYTES +
                                         (uint64_t)(record->result.block.window >> 8) * 64);
    else
        *data = window_ro_of(record_value(record, *bytes));
    return MORAY_OK;
}

/* A record that has ended: its bytes, or its failure as the caller's error. */
static enum moray_code outcome(uint32_t index, uint64_t until_ns, const void **data,
                               uint64_t *bytes)
{
    struct record *record = lane_record(&me.lane, index);

    if (__builtin_expect(life_state(record_life(record)) == RECORD_FAILED, 0)) {
        const char *text;
        enum moray_code code = failure_of(record, &text);
        return last_set(code, "%s", text);
    }
    return result_bytes(index, until_ns, data, bytes);
}

/* Waits for the end of a record, and for its bytes, within one limit. */
ON_TRIP static enum moray_code outcome_wait(uint32_t index, int64_t limit_ms, const void **data,
                                            uint64_t *bytes)
{
    const struct record *record = lane_record(&me.lane, index);
    uint64_t until_ns = 0;
    enum moray_code code = MORAY_OK;

    if (!life_ended(record_life(record)) || (record_flags(record) & RECORD_RESULT_FAR) ||
        __builtin_expect(limit_ms < 0, 0)) {
        code = limit_until(limit_ms, &until_ns);
        if (code == MORAY_OK)
            code = record_wait_until(index, until_ns);
    }
    return code == MORAY_OK ? outcome(index, until_ns, data, bytes) : code;
}

ON_TRIP enum moray_code moray_get_bytes(moray_ref ref, void *value, size_t size, int64_t limit_ms)
{
    enum moray_code code = enter();
    uint32_t index;
    const void *data;
    uint64_t bytes;

    if (code != MORAY_OK)
        return code;
    code = ref_find(ref, &index);
    if (code != MORAY_OK) {
        leave();
        return code;
    }
    code = outcome_wait(index, limit_ms, &data, &bytes);
    if (code == MORAY_OK && value) {
        if (__builtin_expect(bytes != size, 0)) {
            char what[160];
            record_describe(&me.lane, lane_record(&me.lane, index), what, sizeof(what));
            code =
                last_set(MORAY_WRONG_TYPE, "the object has %llu bytes, not %zu; it was made by %s",
                         (unsigned long long)bytes, size, what);
        } else if (size) {
            struct record *record = lane_record(&me.lane, index);
            if (!(record_flags(record) & (RECORD_RESULT_SHARED | RECORD_RESULT_BLOCK)))
                data = record_value(record, bytes); /* on a page that is in use already */
            bytes_copy_small(value, data, size);
        }
    }
    ref_done(ref, index, code == MORAY_TIMEOUT);
    leave();
    return code;
}

static void view_open(uint32_t index, moray_ref ref, const void *data, uint64_t bytes,
                      moray_view *view)
{
    lane_hold(&me.lane, index);
    *view = (moray_view){data, bytes, ref_of(index, ref.type)};
}

enum moray_code moray_get_view(moray_ref ref, moray_view *view, int64_t limit_ms)
{
    enum moray_code code = enter();
    uint32_t index;
    const void *data;
    uint64_t bytes;

    if (code != MORAY_OK)
        return code;
    if (!view) {
        leave();
        return last_set(MORAY_INVALID, "moray_get_view into a null pointer");
    }
    *view = (moray_view){NULL, 0, {0, 0, 0, 0}};
    code = ref_find(ref, &index);
    if (code == MORAY_OK) {
        code = outcome_wait(index, limit_ms, &data, &bytes);
        if (code == MORAY_OK)
            view_open(index, ref, data, bytes, view);
        ref_done(ref, index, code == MORAY_TIMEOUT);
    }
    leave();
    return code;
}

void moray_view_release(moray_view *view)
{
    if (!view || !view->ref.owner || enter() != MORAY_OK)
        return;
    if (view->ref.owner == me.owner && lane_find(&me.lane, view->ref.index, view->ref.generation) &&
        lane_held(&me.lane, view->ref.index))
        lane_drop(&me.lane, view->ref.index);
    *view = (moray_view){NULL, 0, {0, 0, 0, 0}};
    leave();
}

/* ---- Several at once ---- */

struct pending { /* those that have not ended yet, in the caller's order */
    uint32_t *indices;
    uint32_t count;
};

static bool any_failed(const struct pending *all, uint32_t *which)
{
    for (uint32_t i = 0; i < all->count; i++)
        if (life_state(record_life(lane_record(&me.lane, all->indices[i]))) == RECORD_FAILED) {
            *which = all->indices[i];
            return true;
        }
    return false;
}

static uint32_t ended_count(const uint32_t *indices, uint32_t count, uint32_t want)
{
    uint32_t ended = 0;
    for (uint32_t i = 0; i < count && ended < want; i++)
        ended += life_ended(record_life(lane_record(&me.lane, indices[i])));
    return ended;
}

/* What several records have come to; those that have ended need not be looked at again. */
struct look {
    uint32_t *open;
    uint32_t open_count, ended;
    bool failed;
};

static void look_again(struct look *look, bool ask)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < look->open_count; i++) {
        uint32_t index = look->open[i];
        const struct record *record = lane_record(&me.lane, index);
        bool over = ask ? lane_await(&me.lane, index) : life_ended(record_life(record));
        if (!over) {
            look->open[kept++] = index;
            continue;
        }
        look->ended++;
        look->failed |= life_state(record_life(record)) == RECORD_FAILED;
    }
    look->open_count = kept;
}

/* Sleeps until `want` of the records have ended, or one has failed (if asked), or the limit passed.
 * The core is somebody else's from before the first sleep until it goes on. */
static enum moray_code wait_for(const uint32_t *indices, uint32_t count, uint32_t want,
                                bool failure, uint64_t until_ns)
{
    struct look look = {.open = malloc((count ? count : 1) * sizeof(*look.open)),
                        .open_count = count};
    enum moray_code code = MORAY_OK;
    bool alone = false;

    if (!look.open)
        return last_set(MORAY_NO_MEMORY, "no memory to wait for %u objects", count);
    memcpy(look.open, indices, count * sizeof(*look.open));
    look_again(&look, true);
    if (look.ended >= want || (failure && look.failed))
        want = 0;
    else if (until_ns && now_ns() >= until_ns)
        code = MORAY_TIMEOUT;
    if (want && code == MORAY_OK && !should_end()) {
        (void)!driver_waits();
        leave();
        core_leave();
        sleep_begin();
        for (;;) {
            uint32_t seen = atomic_load(&me.lane.self->wake), before = look.ended;
            look_again(&look, false);
            if (alone && look.ended > before)
                rescue_count(seen, "something that it waits for has ended");
            if (look.ended >= want || (failure && look.failed) || should_end())
                break;
            if (until_ns && now_ns() >= until_ns) {
                code = MORAY_TIMEOUT;
                break;
            }
            lane_bump(&me.lane.self->sleeps);
            alone = process_sleep(seen, until_ns);
            if (atomic_load(&me.lane.self->freed) && enter() == MORAY_OK)
                leave(); /* lets go what others are done with */
        }
        sleep_end();
        core_return(code == MORAY_TIMEOUT);
        (void)!enter();
    }
    free(look.open);
    return code;
}

enum moray_code moray_get_many(const moray_ref *refs, size_t count, moray_view *views,
                               int64_t limit_ms)
{
    enum moray_code code = enter();
    uint32_t *indices = NULL, which;
    uint64_t until_ns, bytes;
    const void *data;
    size_t open = 0;

    if (code != MORAY_OK)
        return code;
    if (!views && count)
        code = last_set(MORAY_INVALID, "moray_get_many into a null pointer");
    if (code == MORAY_OK)
        code = limit_until(limit_ms, &until_ns);
    if (code == MORAY_OK)
        code = find_all(refs, count, &indices);
    if (code == MORAY_OK) {
        struct pending all = {indices, (uint32_t)count};
        if (count)
            memset(views, 0, count * sizeof(*views));
        /* Without a limit a worker runs what it waits for, one after the other. */
        for (size_t i = 0; me.role == ROLE_WORKER && !until_ns && i < count; i++) {
            if (any_failed(&all, &which))
                break;
            record_wait(indices[i], limit_ms);
        }
        code = wait_for(indices, (uint32_t)count, (uint32_t)count, true, until_ns);
        if (any_failed(&all, &which))
            code = outcome(which, 0, &data, &bytes);
        for (size_t i = 0; code == MORAY_OK && count > 1 && i < count;
             i++) /* all at once, not in turn */
            if (record_flags(lane_record(&me.lane, indices[i])) & RECORD_RESULT_FAR)
                fetch_begin(indices[i]);
        for (; code == MORAY_OK && open < count; open++) {
            code = outcome(indices[open], until_ns, &data, &bytes);
            if (code == MORAY_OK)
                view_open(indices[open], refs[open], data, bytes, &views[open]);
        }
        if (code != MORAY_OK)
            for (size_t i = 0; i < open; i++)
                if (views[i].ref.owner) {
                    lane_drop(&me.lane, indices[i]);
                    views[i] = (moray_view){NULL, 0, {0, 0, 0, 0}};
                }
        done_all(refs, count, indices, code == MORAY_TIMEOUT);
    }
    leave();
    return code;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static bool has_twins(const uint32_t *indices, size_t count)
{
    uint32_t *sorted = malloc((count ? count : 1) * sizeof(*sorted));
    bool twins = false;

    if (!sorted)
        return false;
    memcpy(sorted, indices, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), by_value);
    for (size_t i = 1; i < count; i++)
        twins |= sorted[i] == sorted[i - 1];
    free(sorted);
    return twins;
}

enum moray_code moray_wait(const moray_ref *refs, size_t count, size_t want, moray_ref *ready,
                           size_t *ready_count, moray_ref *rest, size_t *rest_count,
                           int64_t limit_ms, unsigned flags)
{
    enum moray_code code = enter();
    uint32_t *indices = NULL;
    uint64_t until_ns;
    size_t is_ready = 0, is_rest = 0;

    if (code != MORAY_OK)
        return code;
    if (count && (want < 1 || want > count))
        code = last_set(MORAY_INVALID, "wait for %zu of %zu references: takes 1 to all of them",
                        want, count);
    else if (flags & ~MORAY_FETCH)
        code = last_set(MORAY_INVALID, "unknown flags %x; moray_wait knows MORAY_FETCH", flags);
    if (code == MORAY_OK)
        code = limit_until(limit_ms, &until_ns);
    if (code == MORAY_OK)
        code = find_all(refs, count, &indices);
    if (code == MORAY_OK && has_twins(indices, count))
        code = last_set(MORAY_INVALID, "a reference is listed twice");
    if (code == MORAY_OK) {
        if (flags & MORAY_FETCH)
            for (size_t i = 0; i < count; i++)
                fetch_begin(indices[i]);
        if (count && ended_count(indices, (uint32_t)count, (uint32_t)want) < want)
            code = wait_for(indices, (uint32_t)count, (uint32_t)want, false, until_ns);
        if (code == MORAY_TIMEOUT)
            code = MORAY_OK;
        for (size_t i = 0; i < count; i++) {
            bool over =
                is_ready < want && life_ended(record_life(lane_record(&me.lane, indices[i])));
            if (over && ready)
                ready[is_ready] = refs[i];
            if (!over && rest)
                rest[is_rest] = refs[i];
            is_ready += over;
            is_rest += !over;
        }
        if (ready_count)
            *ready_count = is_ready;
        if (rest_count)
            *rest_count = is_rest;
    }
    if (indices)
        done_all(refs, count, indices, is_rest > 0 || (flags & MORAY_FETCH));
    leave();
    return code;
}

/* ---- Holds ---- */

ON_TRIP enum moray_code moray_release(moray_ref ref)
{
    enum moray_code code = enter();
    uint32_t index, held;
    if (code != MORAY_OK)
        return code;
    code = ref_find(ref, &index);
    if (code != MORAY_OK) {
        leave();
        return code;
    }
    if (ref.owner != me.owner)
        far_back(index);
    held = lane_held(&me.lane, index) - (ref.owner != me.owner); /* the finding has one, too */
    if (!held)
        code = last_set(MORAY_STALE,
                        "this process holds no reference to the object {rank %u, object "
                        "%u}: it was released before, or only borrowed",
                        ref.owner - 1, ref.index);
    else {
        uint32_t generation = life_generation(record_life(lane_record(&me.lane, index)));
        lane_drop(&me.lane, index);
        if (held > 1)
            frame_note(index, generation, true);
    }
    ref_done(ref, index, false);
    leave();
    return code;
}

enum moray_code moray_hold(moray_ref ref)
{
    enum moray_code code = enter();
    uint32_t index;

    if (code != MORAY_OK)
        return code;
    code = ref_find(ref, &index);
    if (code == MORAY_OK) {
        hold_take(index);
        ref_done(ref, index, false);
    }
    leave();
    return code;
}

enum moray_code moray_keep(moray_ref ref)
{
    enum moray_code code = enter();
    uint32_t index;

    if (code != MORAY_OK)
        return code;
    if (!frame_top)
        code =
            last_set(MORAY_WRONG_STATE, "moray_keep outside of a task, method or scope: holds of "
                                        "the driver last until released");
    else
        code = ref_find(ref, &index);
    if (code == MORAY_OK) {
        /* One more for the process, which the frame does not know of. */
        lane_hold(&me.lane, index);
        ref_done(ref, index, false);
    }
    leave();
    return code;
}

struct scope {
    struct frame frame;
};

enum moray_code moray_scope_begin(void)
{
    enum moray_code code = enter();
    struct frame *frame;

    if (code != MORAY_OK)
        return code;
    frame = malloc(sizeof(*frame));
    if (!frame)
        code = last_set(MORAY_NO_MEMORY, "no memory for a scope");
    else
        frame_push(frame, RECORD_NONE);
    leave();
    return code;
}

enum moray_code moray_scope_end(void)
{
    enum moray_code code = enter();

    if (code != MORAY_OK)
        return code;
    if (!frame_top || frame_top->record != RECORD_NONE)
        code = last_set(MORAY_WRONG_STATE, "moray_scope_end without a moray_scope_begin");
    else {
        struct frame *frame = frame_top;
        frame_pop(frame);
        free(frame);
    }
    leave();
    return code;
}
