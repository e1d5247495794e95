#include <string.h>

#include "client/process.h"
#include "client/requests.h"

/* A request to the agent is a record like a task's: made here, posted to its mailbox, ended by it. */

enum moray_code request_call(uint32_t kind, const void *bytes, uint32_t count, uint32_t *out,
                             const void **answer, uint64_t *answer_bytes)
{
    return request_until(kind, bytes, count, 0, out, answer, answer_bytes);
}

enum moray_code request_until(uint32_t kind, const void *bytes, uint32_t count, uint64_t until_ns,
                              uint32_t *out, const void **answer, uint64_t *answer_bytes)
{
    uint32_t index = lane_make(&me.lane, RECORD_REQUEST);
    struct record *record;
    enum moray_code code;

    *out = RECORD_NONE;
    if (index == RECORD_NONE)
        return last_set(MORAY_BUSY, "the node's table of tasks and objects is full; release "
                                    "references or raise MORAY_QUEUE_MAX");
    record = lane_record(&me.lane, index);
    record->function = kind;
    if (count <= RECORD_ARGUMENT_BYTES) {
        record->argument_bytes = (uint16_t)count;
        memcpy(record->arguments, bytes, count);
    } else {
        uint32_t place = room_find(count, index);
        if (!place) {
            code = store_full(count);
            lane_abandon(&me.lane, index);
            return code;
        }
        memcpy(arena_at(&me.lane.arena, place), bytes, count);
        *(struct record_block *)record->arguments = (struct record_block){place, count};
        atomic_store(&record->flags, RECORD_BLOCK);
    }
    code = lane_submit(&me.lane, index);
    if (code != MORAY_OK) {
        lane_abandon(&me.lane, index);
        return last_set(code,
                        "the node's table of tasks and objects is full, so nothing can be asked "
                        "of the agent; release references or raise MORAY_QUEUE_MAX");
    }
    code = record_wait_until(index, until_ns);
    if (code == MORAY_OK && life_state(record_life(record)) == RECORD_FAILED) {
        const char *text;
        code = failure_of(record, &text);
        last_set(code, "%s", text);
    }
    if (code == MORAY_OK)
        code = result_bytes(index, 0, answer, answer_bytes);
    if (code != MORAY_OK) {
        lane_drop(&me.lane, index);
        return code;
    }
    *out = index;
    return MORAY_OK;
}

void request_done(uint32_t index)
{
    lane_drop(&me.lane, index);
}
