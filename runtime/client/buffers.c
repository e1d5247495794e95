#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/array.h"
#include "client/process.h"
#include "store/arena/window.h"

/*
 * Memory of the arena that the caller fills in place, before anybody else sees it:
 *
 *     moray_create ─▶ fill ─▶ moray_seal: an object        or moray_drop
 *     moray_result ─▶ fill ─▶ the task returns it          or its end drops it
 */

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
    /* Blocks of 64 bytes and more are aligned to 64, as moray.h promises of buffers. `room` of a size
     * near the largest has wrapped. */
    uint32_t place =
        room > size ? room_find(room < ALIGNED_BYTES ? ALIGNED_BYTES : room, index) : 0;
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

    if (enter() != MORAY_OK) {
        null_given(NULL);
        return ref;
    }
    if (!in_making(buffer))
        last_set(MORAY_STALE, "seal of a buffer that was sealed, dropped or never made");
    else if (buffer_seal(&buffer, index) != MORAY_OK)
        lane_abandon(&me.lane, index);
    else {
        lane_publish(&me.lane, index, RECORD_DONE);
        ref = ref_of(index, 0);
        frame_note(index, ref.generation, false);
    }
    if (!ref.owner)
        null_given(NULL);
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
    moray_buffer *more = array_room(given, given_count, &given_capacity, sizeof(*given));
    if (!more)
        return false;
    given = more;
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
            frame->has_more = true;
        }
    }
    leave();
    return buffer;
}
