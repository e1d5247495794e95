#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/map.h"
#include "client/process.h"
#include "client/requests.h"
#include "node/zygote.h"
#include "store/arena/window.h"

/* Put, get, and who holds what. buffers.c: memory filled in place; many.c: several at once. */

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

    if (USUALLY(record_value_fits(record, bytes))) {
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

void refs_done(const moray_ref *refs, size_t count, uint32_t *indices, bool later)
{
    for (size_t i = 0; i < count; i++)
        ref_done(refs[i], indices[i], later);
    free(indices);
}

/* `*indices` is to be given to refs_done(); NULL after an error. */
enum moray_code refs_find(const moray_ref *refs, size_t count, uint32_t **indices)
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
            refs_done(refs, i, *indices, false);
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

/* Whether a value is a reference or a handle, by the hash of its type's text. */
static uint8_t kind_of(uint32_t type, size_t size)
{
    static const uint32_t future = MORAY_HASH("moray_future"), ref = MORAY_HASH("moray_ref");

    if (size != sizeof(moray_ref))
        return MORAY_KIND_VALUE;
    for (uint32_t i = 0; i < class_count; i++)
        if (classes[i]->type_hash == type)
            return MORAY_KIND_ACTOR;
    return type == future || type == ref ? MORAY_KIND_FUTURE : MORAY_KIND_VALUE;
}

static moray_ref put(const void *data, size_t size, const moray_ref *refs, size_t count,
                     uint32_t type)
{
    moray_ref ref = {0, 0, 0, 0};
    uint32_t index;

    if (enter() != MORAY_OK) {
        null_given(NULL);
        return ref;
    }
    if ((!data && size) || (!refs && count)) {
        last_set(MORAY_INVALID, "put of a null pointer with size %zu, %zu references", size, count);
    } else if ((index = lane_make(&me.lane, RECORD_OBJECT)) == RECORD_NONE) {
        last_set(MORAY_BUSY, "the node's table of objects is full; release references or raise "
                             "MORAY_QUEUE_MAX");
    } else {
        enum moray_code code = MORAY_OK;
        uint32_t *insides = NULL;
        if (count)
            code = refs_find(refs, count, &insides);
        if (code == MORAY_OK)
            code = result_store(index, data, size);
        if (code == MORAY_OK && count)
            code = contains(index, refs, count);
        if (code == MORAY_OK && type && (insides_count || size == sizeof(moray_ref)))
            code = insides_tell(index,
                                &(struct moray_parameter){.type_hash = type,
                                                          .size = (uint32_t)size,
                                                          .kind = kind_of(type, size)},
                                data, false);
        if (insides)
            refs_done(refs, count, insides, false);
        if (code == MORAY_OK) {
            lane_record(&me.lane, index)->function = type;
            lane_publish(&me.lane, index, RECORD_DONE);
            ref = ref_of(index, type);
            frame_note(index, ref.generation, false);
        } else
            lane_abandon(&me.lane, index);
    }
    if (!ref.owner)
        null_given(NULL);
    leave();
    return ref;
}

moray_ref moray_put_refs(const void *data, size_t size, const moray_ref *refs, size_t count)
{
    return put(data, size, refs, count, 0);
}

moray_ref moray_put(const void *data, size_t size)
{
    return put(data, size, NULL, 0, 0);
}

moray_ref moray_put_typed(const void *data, size_t size, uint32_t type)
{
    return put(data, size, NULL, 0, type);
}

/* ---- Reading ---- */

/* The agent brings the bytes here, now or at the object's end. A hint: without a cell they come when they
 * are got. */
void fetch_begin(uint32_t index)
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
    if (RARELY(flags & RECORD_RESULT_FAR)) {
        enum moray_code code = fetch(index, until_ns);
        if (code != MORAY_OK)
            return code;
        flags = atomic_load_explicit(&record->flags, memory_order_acquire);
    }
    if (RARELY(flags & RECORD_RESULT_SHARED)) {
        uint32_t window = record->result.block.window & 0xff;
        struct moray_error error;
        if (!window_bytes(window) && process_attach(window, 2000, &error) != MORAY_OK)
            return last_take(&error);
        *data = window_ro(window, (uint64_t)record->result.block.place * ARENA_PLACE_BYTES +
                                      (uint64_t)(record->result.block.window >> 8) * 64);
    } else if (RARELY(flags & RECORD_RESULT_BLOCK))
        *data = window_ro(me.window, (uint64_t)record->result.block.place * ARENA_PLACE_BYTES +
                                         (uint64_t)(record->result.block.window >> 8) * 64);
    else
        *data = window_ro_of(record_value(record, *bytes));
    return MORAY_OK;
}

/* A record that has ended: its bytes, or its failure as the caller's error. */
enum moray_code record_outcome(uint32_t index, uint64_t until_ns, const void **data,
                               uint64_t *bytes)
{
    struct record *record = lane_record(&me.lane, index);

    if (RARELY(life_state(record_life(record)) == RECORD_FAILED)) {
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
    return code == MORAY_OK ? record_outcome(index, until_ns, data, bytes) : code;
}

ON_TRIP enum moray_code moray_get_bytes(moray_ref ref, void *value, size_t size, int64_t limit_ms)
{
    enum moray_code code = enter();
    uint32_t index;
    const void *data;
    uint64_t bytes;

    if (RARELY(code != MORAY_OK))
        return code;
    code = ref_find(ref, &index);
    if (RARELY(code != MORAY_OK)) {
        leave();
        return code;
    }
    code = outcome_wait(index, limit_ms, &data, &bytes);
    if (code == MORAY_OK && value) {
        if (RARELY(bytes != size)) {
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

/* Views of this process that are open: which object's, and how many. One that is not among them is that of
 * a parameter, which was only lent. Without memory for it a view lasts as long as the process. */
static struct map views;

static uint64_t view_key(moray_ref ref)
{
    return (uint64_t)ref.generation << 32 | ref.index;
}

void view_open(uint32_t index, moray_ref ref, const void *data, uint64_t bytes, moray_view *view)
{
    *view = (moray_view){data, bytes, ref_of(index, ref.type)};
    uint64_t *open = map_get(&views, view_key(view->ref));

    lane_hold_input(&me.lane, index); /* no reference of the caller's: moray_release leaves it */
    if (open)
        ++*open;
    else
        (void)!map_set(&views, view_key(view->ref), 1);
}

void view_close(moray_view *view)
{
    uint64_t *open = view->ref.owner == me.owner ? map_get(&views, view_key(view->ref)) : NULL;

    if (open) {
        if (--*open == 0)
            map_remove(&views, view_key(view->ref), NULL);
        lane_drop_input(&me.lane, view->ref.index);
    }
    *view = (moray_view){NULL, 0, {0, 0, 0, 0}};
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
    view_close(view);
    leave();
}

/* ---- Holds ---- */

ON_TRIP enum moray_code moray_release(moray_ref ref)
{
    enum moray_code code = enter();
    uint32_t index, held;
    if (RARELY(code != MORAY_OK))
        return code;
    code = ref_find(ref, &index);
    if (RARELY(code != MORAY_OK)) {
        leave();
        return code;
    }
    if (RARELY(ref.owner != me.owner))
        far_back(index);
    held = lane_held(&me.lane, index) - (ref.owner != me.owner); /* the finding has one, too */
    if (RARELY(!held))
        code = last_set(MORAY_STALE,
                        "this process holds no reference to the object {rank %u, object "
                        "%u}: it was released before, or only borrowed",
                        ref.owner - 1, ref.index);
    else {
        uint32_t generation = life_generation(record_life(lane_record(&me.lane, index)));
        lane_drop(&me.lane, index);
        frame_gone(index, generation);
    }
    ref_done(ref, index, false);
    leave();
    return code;
}

/* A task that nobody waits for goes on to its end, and then its record is gone: it can be found still, but
 * it was released. */
static enum moray_code hold_check(moray_ref ref, uint32_t index)
{
    const struct record *record = lane_record(&me.lane, index);

    if (ref.owner != me.owner || atomic_load(&record->home_count) || !lane_unheld(&me.lane, record))
        return MORAY_OK;
    return last_set(
        MORAY_STALE,
        "a stale reference {rank %u, object %u, generation %u}: it was released before, "
        "and nobody holds the object",
        ref.owner - 1, ref.index, ref.generation);
}

/* Whoever lent it, elsewhere, may let it go once the caller says that it is held. */
static void hold_heard(moray_ref ref)
{
    uint32_t record;
    const void *answer;
    uint64_t bytes;

    if (ref.owner != me.owner &&
        request_call(REQUEST_HEARD, &ref, 0, &record, &answer, &bytes) == MORAY_OK)
        request_done(record);
}

enum moray_code moray_hold(moray_ref ref)
{
    enum moray_code code = enter();
    uint32_t index;

    if (code != MORAY_OK)
        return code;
    code = ref_find(ref, &index);
    if (code == MORAY_OK)
        code = hold_check(ref, index);
    if (code == MORAY_OK) {
        hold_take(index);
        ref_done(ref, index, false);
        hold_heard(ref);
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
    if (code == MORAY_OK)
        code = hold_check(ref, index);
    if (code == MORAY_OK) {
        /* One more for the process, which the frame does not know of. */
        lane_hold(&me.lane, index);
        ref_done(ref, index, false);
        hold_heard(ref);
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
