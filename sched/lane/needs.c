#include "sched/lane/lane.h"

/*
 * Who waits for whom, as far as slots tell: which task must run, for an awaited record to end?
 *
 *     QUEUED    this one: whoever waits may run it on the waiter's own stack, no edge is new
 *     WAITING   one of its inputs that is missing, and what that needs
 *     RUNNING   by a slot that sleeps for the end of another record (`waits`): what that one needs
 *     else      it is under way, or it is not for us to see (another rank's, an actor's mailbox)
 *
 * All that is read may change meanwhile: a step counts only if what led to it stands after it as before.
 */

enum { NEEDS_STEPS_MAX = 1 << 17 };

bool lane_may_take(const struct lane *lane, uint32_t index)
{
    const struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);

    return life_state(life) == RECORD_QUEUED && record->kind == RECORD_TASK &&
           !(record_flags(record) & (RECORD_GENERAL | RECORD_PROXY)) &&
           (record->attempts_max == 0 || life_attempt(life) < record->attempts_max);
}

uint32_t lane_missing_input(const struct lane *lane, uint32_t index)
{
    const struct record *record = lane_record(lane, index);
    uint32_t bytes, place = 0;
    uint64_t life = record_life(record);

    if (life_state(life) != RECORD_WAITING || record->kind != RECORD_TASK)
        return RECORD_NONE;
    const uint32_t *words = lane_arguments(lane, record, &bytes);
    for (uint32_t argument = 0; argument < RECORD_INPUTS_MAX; argument++) {
        if (!(record->reference_mask >> argument & 1))
            continue;
        uint32_t input = words[place++ * 4 + 1]; /* struct moray_ref */
        if (life_pending(life, argument) && input < lane->control->layout.record_count)
            return input;
    }
    return RECORD_NONE;
}

/* What the slot that runs `index` sleeps for. */
static uint32_t waited_for(const struct lane *lane, uint32_t index, uint64_t life)
{
    const struct lane_slot *slot = &lane->slots[life_slot(life)];
    uint32_t waits = atomic_load(&slot->waits) & ~LANE_HELPS;

    if (life_slot(life) == lane->slot || !waits || waits > lane->control->layout.record_count)
        return RECORD_NONE;
    /* It may have been woken, ended that task and sleep in another one by now. */
    if ((record_life(lane_record(lane, index)) ^ life) & ~(uint64_t)LIFE_WAITED)
        return RECORD_NONE;
    return waits - 1;
}

uint32_t lane_needed(const struct lane *lane, uint32_t index, uint32_t *generation)
{
    for (int step = 0; step < NEEDS_STEPS_MAX && index != RECORD_NONE; step++) {
        uint64_t life = record_life(lane_record(lane, index));
        *generation = life_generation(life);
        switch (life_state(life)) {
        case RECORD_QUEUED:
            return lane_may_take(lane, index) ? index : RECORD_NONE;
        case RECORD_WAITING:
            index = lane_missing_input(lane, index);
            break;
        case RECORD_RUNNING: {
            uint32_t next = waited_for(lane, index, life);
            if (next == RECORD_NONE || life_slot(life) >= lane->control->layout.slot_count)
                return RECORD_NONE;
            uint64_t next_life = record_life(lane_record(lane, next));
            if (waited_for(lane, index, life) !=
                next) /* it was held, and so the same, until here */
                return RECORD_NONE;
            if (life_state(next_life) == RECORD_QUEUED) {
                *generation = life_generation(next_life);
                return lane_may_take(lane, next) ? next : RECORD_NONE;
            }
            index = next;
            break;
        }
        default:
            return RECORD_NONE;
        }
    }
    return RECORD_NONE;
}
