#include "node/remote_inside.h"
#include "node/routes.h"
#include "node/words.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/arena/window.h"

/*
 * Objects of other ranks, and other ranks that have references of ours.
 *
 *     stand-in    a record of home 0 (PROXY): {owner, index} here; `count` holds at its owner for us
 *     borrowed    a record of ours that another rank holds: held by slot 0, once for each of its counts
 *     far         a result whose bytes lie at another rank, which keeps them until our FREE
 *
 * How bytes come here that lie elsewhere: remote_pulls.c.
 */

struct stand_in {
    struct name name;
    uint32_t count;
    uint32_t next; /* of the same index at the owner, of another generation; RECORD_NONE: none */
};

struct want {
    uint32_t rank;
    struct want *next;
};

static struct map details; /* stand-in -> struct stand_in * */

void drop_own(uint32_t index)
{
    if (lane_held(&agent.lane, index))
        lane_drop(&agent.lane, index);
    else
        agent_fail("a hold of this rank was let go by another rank, which had none");
}

/* ---- How a record looks from outside ---- */

struct value value_of(uint32_t index, uint32_t for_rank, const void **bytes)
{
    struct record *record = record_at(index);
    uint64_t life = record_life(record), size = record_result_bytes(record);
    uint16_t flags = record_flags(record);
    uint64_t *far = map_get(&agent.remote->far, index);
    struct value value = {.bytes = size};

    (void)for_rank;
    *bytes = NULL;
    if (!life_ended(life)) {
        value.shape = SHAPE_PENDING;
        return value;
    }
    if (life_state(life) == RECORD_FAILED) {
        value.shape = SHAPE_FAILED;
        if (flags & RECORD_RESULT_BLOCK) {
            const struct record_story *story =
                arena_at(&agent.lane.arena, record->result.block.place);
            value.index = story->code;
            value.follow = story->bytes + 1;
            *bytes = story->text;
        } else {
            memcpy(&value.index, record->result.value, sizeof(value.index));
            value.follow = 1;
            *bytes = "";
        }
        return value;
    }
    if (flags & (RECORD_RESULT_FAR | RECORD_RESULT_SHARED)) {
        value.shape = SHAPE_FAR;
        value.rank = far ? (uint32_t)(*far >> 32) : agent.rank;
        value.index = far ? (uint32_t)*far : index;
        /* Where they lie there: the receiver may be on that host, though this rank is not. */
        value.place = record->result.block.place;
        value.window = record->result.block.window;
        return value;
    }
    if (!(flags & RECORD_RESULT_BLOCK) && !record_value_fits(record, size)) {
        value.shape = SHAPE_FAILED; /* somebody wrote into the record */
        value.index = MORAY_PROTOCOL;
        value.follow = 1;
        *bytes = "";
        return value;
    }
    if (size <= INLINE_BYTES_MAX) {
        value.shape = SHAPE_INLINE;
        value.follow = (uint32_t)size;
        *bytes = flags & RECORD_RESULT_BLOCK ? agent.lane.arena.region + offset_of(record)
                                             : record_value(record, size);
        /* What its bytes refer to lives as long as the record where it was made. */
        if (flags & RECORD_CONTAINS) {
            value.rank = agent.rank + 1;
            value.index = index;
        } else if ((flags & RECORD_RESULT_KEPT) && far) {
            value.rank = (uint32_t)(*far >> 32) + 1;
            value.index = (uint32_t)*far;
        }
        return value;
    }
    value.shape = SHAPE_FAR;
    value.rank = agent.rank;
    value.index = index;
    value.place = record->result.block.place;
    value.window = (record->result.block.window & ~0xffu) | agent.window;
    return value;
}

/* Its bytes can be read where they are. */
static bool is_near(const struct value *value)
{
    return value->rank == agent.rank || (remote_peers[value->rank].same_host && value->place);
}

/* Whether a FAR value can be what it says: readers go where it points without looking again. */
static bool lies_there(const struct value *value)
{
    const struct record *record;
    uint64_t from, room;

    if (value->rank >= agent.rank_count)
        return false;
    if (value->rank == agent.rank) {
        if (value->index >= agent.lane.control->layout.record_count)
            return false;
        record = record_at(value->index);
        return life_state(record_life(record)) == RECORD_DONE &&
               record_flags(record) & RECORD_RESULT_BLOCK &&
               record_result_bytes(record) == value->bytes;
    }
    if (!is_near(value))
        return true; /* its holder is asked */
    from = (uint64_t)value->place * ARENA_PLACE_BYTES + (uint64_t)(value->window >> 8) * 64;
    room = window_bytes(remote_peers[value->rank].window);
    return from <= room && value->bytes <= room - from;
}

void value_take(uint32_t index, const struct value *value, const void *bytes, bool eager)
{
    struct record *record = record_at(index);

    switch ((enum shape)value->shape) {
    case SHAPE_INLINE:
        if (value->rank && value->rank <= agent.rank_count &&
            !(record_flags(record) & RECORD_PROXY)) {
            map_set(&agent.remote->far, index, pair(value->rank - 1, value->index));
            atomic_fetch_or(&record->flags, RECORD_RESULT_KEPT);
        }
        agent_answer(index, bytes, value->follow);
        return;
    case SHAPE_FAILED:
        story_end(&agent.lane, agent.window, index,
                  value->index ? (enum moray_code)value->index : MORAY_FAILED,
                  value->follow && ((const char *)bytes)[value->follow - 1] == '\0'
                      ? (const char *)bytes
                      : "");
        return;
    case SHAPE_STALE:
        agent_end_failed(index, MORAY_STALE,
                         "a stale reference: its owner, another rank, has freed "
                         "the object");
        return;
    case SHAPE_PENDING:
        return;
    case SHAPE_FAR:
        break;
    }
    if (!lies_there(value)) {
        agent_end_failed(index, MORAY_PROTOCOL,
                         "the bytes of the object are not where rank %u says", value->rank);
        return;
    }
    record_set_result_bytes(record, value->bytes);
    map_set(&agent.remote->far, index, pair(value->rank, value->index));
    record->result.block.place = value->place;
    record->result.block.window =
        (value->window & ~0xffu) |
        (value->rank == agent.rank ? agent.window : remote_peers[value->rank].window);
    if (is_near(value)) {
        if (value->rank == agent.rank) {
            struct record *here = record_at(value->index);
            record->result.block.place = here->result.block.place;
            record->result.block.window = (here->result.block.window & ~0xffu) | agent.window;
        }
        atomic_fetch_or(&record->flags, RECORD_RESULT_SHARED);
        lane_finish(&agent.lane, index, RECORD_DONE);
        return;
    }
    atomic_fetch_or(&record->flags, RECORD_RESULT_FAR);
    if (eager)
        pull_start(index, RECORD_NONE, true);
    else
        lane_finish(&agent.lane, index, RECORD_DONE);
}

/* ---- Stand-ins ---- */

static struct stand_in *stand_in_of(uint32_t index)
{
    return (struct stand_in *)(uintptr_t)*map_get(&details, index);
}

const struct name *stand_in_name(uint32_t index, uint32_t generation)
{
    uint64_t *known = map_get(&details, index);

    return known && lane_find(&agent.lane, index, generation)
               ? &((struct stand_in *)(uintptr_t)*known)->name
               : NULL;
}

static uint64_t key_of(const struct name *name)
{
    return pair(name->owner, name->index);
}

static uint32_t stand_in_first(const struct name *name)
{
    const uint64_t *first = map_get(&agent.remote->stand_ins, key_of(name));
    return first ? (uint32_t)*first : RECORD_NONE;
}

static uint32_t stand_in_find(const struct name *name)
{
    uint32_t index = stand_in_first(name);

    while (index != RECORD_NONE && stand_in_of(index)->name.generation != name->generation)
        index = stand_in_of(index)->next;
    return index;
}

uint32_t stand_in_make(const struct name *name, bool counted)
{
    struct stand_in *stand_in;
    uint32_t index;

    if (name->owner == 0 || name->owner > agent.rank_count)
        return RECORD_NONE;
    if (name->owner == agent.rank + 1) { /* it came home; the hold that came with it goes */
        if (!lane_find(&agent.lane, name->index, name->generation))
            return RECORD_NONE;
        return name->index;
    }
    index = stand_in_find(name);
    if (index != RECORD_NONE) {
        stand_in_of(index)->count += counted;
        return index;
    }
    index = agent_make_pending(RECORD_OBJECT);
    stand_in = malloc(sizeof(*stand_in));
    if (index == RECORD_NONE || !stand_in) {
        free(stand_in);
        return RECORD_NONE;
    }
    *stand_in = (struct stand_in){*name, 1, stand_in_first(name)};
    record_at(index)->function = name->type;
    record_set_maker(record_at(index), name->maker, name->site);
    atomic_fetch_or(&record_at(index)->flags, RECORD_PROXY);
    map_set(&agent.remote->stand_ins, key_of(name), index);
    map_set(&details, index, (uint64_t)(uintptr_t)stand_in);
    if (!counted)
        *(struct item_borrow *)out_item(name->owner - 1, ITEM_BORROW, sizeof(struct item_borrow)) =
            (struct item_borrow){name->index, name->generation, (uint32_t)word_said(), 0};
    return index;
}

uint32_t remote_stand_in(moray_ref ref)
{
    if (agent.rank_count == 1 || ref.owner == agent.rank + 1)
        return ref.owner == agent.rank + 1 && lane_find(&agent.lane, ref.index, ref.generation)
                   ? ref.index
                   : RECORD_NONE;
    return stand_in_make(
        &(struct name){
            .owner = ref.owner, .index = ref.index, .generation = ref.generation, .type = ref.type},
        false);
}

static void stand_in_unlink(const struct stand_in *stand_in, uint32_t index)
{
    uint32_t at = stand_in_first(&stand_in->name);

    if (at != index) {
        while (stand_in_of(at)->next != index)
            at = stand_in_of(at)->next;
        stand_in_of(at)->next = stand_in->next;
    } else if (stand_in->next != RECORD_NONE)
        map_set(&agent.remote->stand_ins, key_of(&stand_in->name), stand_in->next);
    else
        map_remove(&agent.remote->stand_ins, key_of(&stand_in->name), NULL);
}

static void release_say(const struct word_act *act)
{
    *(struct item_release *)out_item(act->with[0], ITEM_RELEASE, sizeof(struct item_release)) =
        (struct item_release){act->with[1], act->with[2], act->with[3], 0};
}

void objects_release(const struct name *name, uint32_t count)
{
    words_then(
        (struct word_act){release_say, {name->owner - 1, name->index, name->generation, count}});
}

static void free_say(const struct word_act *act)
{
    *(struct item_object *)out_item(act->with[0], ITEM_FREE, sizeof(struct item_object)) =
        (struct item_object){act->with[1], 0};
}

static void stand_in_end(uint32_t index)
{
    struct record *record = record_at(index);

    if (!map_get(&details, index))
        return;
    struct stand_in *stand_in = stand_in_of(index);
    stand_in_unlink(stand_in, index);
    map_remove(&details, index, NULL);
    if (stand_in->count)
        objects_release(&stand_in->name, stand_in->count);
    free(stand_in);
    pulls_look();
    map_remove(&agent.remote->far, index, NULL);
    atomic_fetch_and(&record->flags,
                     (uint16_t) ~(RECORD_PROXY | RECORD_RESULT_FAR | RECORD_RESULT_SHARED));
    if (!life_ended(record_life(record)))
        agent_end_failed(index, MORAY_CANCELLED, "nobody waits for it");
    drop_own(index);
}

static bool nobody_holds(const struct record *record)
{
    return atomic_load(&record->holders) == 0 || lane_unheld(&agent.lane, record);
}

void remote_free(uint32_t index, uint32_t generation)
{
    struct record *record = lane_find(&agent.lane, index, generation);
    uint16_t flags = record ? record_flags(record) : 0;
    uint64_t far;

    if (!record || !nobody_holds(record))
        return;
    if (flags & RECORD_PROXY) {
        if (atomic_load(&record->home_count) <= 1 &&
            !(agent.remote && map_get(&agent.remote->pulls, index)))
            stand_in_end(index);
        return;
    }
    if (atomic_load(&record->home_count))
        return;
    if (flags & RECORD_CONTAINS) {
        requests_drop_contained(index);
        route_object_gone(index);
    }
    if ((flags & (RECORD_TIED & ~RECORD_CONTAINS)) && agent.remote &&
        map_remove(&agent.remote->far, index, &far)) {
        uint32_t rank = (uint32_t)(far >> 32);
        if (rank == agent.rank)
            drop_own((uint32_t)far);
        else
            words_then((struct word_act){free_say, {rank, (uint32_t)far}});
    }
    atomic_fetch_and(&record->flags, (uint16_t)~RECORD_TIED);
    lane_look(&agent.lane, index);
}

/* ---- For others ---- */

static void object_send(uint32_t index, uint32_t rank)
{
    const void *bytes;
    const struct record *record = record_at(index);
    struct value value = value_of(index, rank, &bytes);
    struct item_told *item = out_item(
        rank, ITEM_OBJECT, (uint32_t)(sizeof(*item) + sizeof(value)) + rounded(value.follow));

    *item = (struct item_told){index, life_generation(record_life(record)), record_maker(record),
                               record->site};
    memcpy(item + 1, &value, sizeof(value));
    if (value.follow)
        memcpy((char *)(item + 1) + sizeof(value), bytes, value.follow);
}

void objects_want(uint32_t index, uint32_t rank)
{
    struct want *want;
    uint64_t *first;

    if (lane_await(&agent.lane, index)) {
        object_send(index, rank);
        return;
    }
    first = map_get(&agent.remote->wanted, index);
    for (want = first ? (struct want *)(uintptr_t)*first : NULL; want; want = want->next)
        if (want->rank == rank)
            return; /* it asked, let it go and asks again */
    want = malloc(sizeof(*want));
    if (!want)
        abort();
    *want = (struct want){rank, first ? (struct want *)(uintptr_t)*first : NULL};
    map_set(&agent.remote->wanted, index, (uint64_t)(uintptr_t)want);
}

void objects_ended(uint32_t index, uint32_t generation)
{
    uint64_t first;

    (void)generation;
    if (!map_remove(&agent.remote->wanted, index, &first))
        return;
    for (struct want *want = (struct want *)(uintptr_t)first; want;) {
        struct want *next = want->next;
        object_send(index, want->rank);
        free(want);
        want = next;
    }
}

void remote_ended(uint32_t index, uint32_t generation)
{
    if (!agent.remote)
        return;
    uint64_t *fetch = map_get(&agent.remote->fetching, index);
    bool wants =
        fetch && (uint32_t)*fetch == generation && map_remove(&agent.remote->fetching, index, NULL);
    if (!lane_find(&agent.lane, index, generation) || !life_ended(record_life(record_at(index))))
        return;
    if (wants && (record_flags(record_at(index)) & RECORD_RESULT_FAR))
        pull_start(index, RECORD_NONE, false);
    objects_ended(index, generation);
    if (map_get(&agent.remote->executing, index))
        tasks_ended(index, generation);
}

void objects_take_borrow(uint32_t rank, struct bytes_reader *in)
{
    const struct item_borrow *item = bytes_take(in, sizeof(*item));

    if (!item)
        return;
    *(struct item_heard *)out_item(rank, ITEM_HEARD, sizeof(struct item_heard)) =
        (struct item_heard){item->word, 0};
    if (!lane_find(&agent.lane, item->index, item->generation)) {
        struct item_told *answer =
            out_item(rank, ITEM_OBJECT, (uint32_t)(sizeof(*answer) + sizeof(struct value)));
        *answer = (struct item_told){.index = item->index, .generation = item->generation};
        *(struct value *)(answer + 1) = (struct value){.shape = SHAPE_STALE};
        return;
    }
    lane_hold(&agent.lane, item->index);
    objects_want(item->index, rank);
}

void objects_take_object(uint32_t rank, struct bytes_reader *in)
{
    const struct item_told *item = bytes_take(in, sizeof(*item));
    const struct value *value = item ? bytes_take(in, sizeof(*value)) : NULL;
    const void *bytes = value ? bytes_take(in, rounded(value->follow)) : NULL;
    uint32_t index;

    if (!bytes)
        return;
    index = stand_in_find(
        &(struct name){.owner = rank + 1, .index = item->index, .generation = item->generation});
    if (index == RECORD_NONE || life_ended(record_life(record_at(index))) ||
        map_get(&agent.remote->pulls, index))
        return;
    if (value->shape == SHAPE_STALE && stand_in_of(index)->count)
        stand_in_of(index)->count--; /* we asked for a hold and got none */
    if (!record_maker(record_at(index)))
        record_set_maker(record_at(index), item->maker, item->site);
    value_take(index, value, bytes, stand_in_is_input(index));
}

void objects_take_release(uint32_t rank, struct bytes_reader *in)
{
    const struct item_release *item = bytes_take(in, sizeof(*item));

    (void)rank;
    /* One that is not here: it borrowed what was gone, and let go before it heard so. */
    if (!item || !lane_find(&agent.lane, item->index, item->generation))
        return;
    for (uint32_t i = 0; i < item->count && lane_held(&agent.lane, item->index); i++)
        lane_drop(&agent.lane, item->index);
}

void objects_take_free(uint32_t rank, struct bytes_reader *in)
{
    const struct item_object *item = bytes_take(in, sizeof(*item));

    if (!item || item->index >= agent.lane.control->layout.record_count ||
        !lane_held(&agent.lane, item->index)) {
        log_warning("rank %u freed bytes that are not kept for it", rank);
        return;
    }
    lane_drop(&agent.lane, item->index);
}

/* Whether a task here waits for the stand-in's bytes. */
bool stand_in_is_input(uint32_t index)
{
    return atomic_load(&record_at(index)->dependents) != 0;
}

void objects_end(void)
{
    const struct map_cell *cell;
    size_t cursor = 0;

    while ((cell = map_next(&details, &cursor)))
        free((void *)(uintptr_t)cell->value);
    map_clear(&details);
    map_clear(&agent.remote->stand_ins);
    map_clear(&agent.remote->executing);
    map_clear(&agent.remote->wanted);
    map_clear(&agent.remote->far);
}
