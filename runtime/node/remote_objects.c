#include "node/remote_inside.h"
#include "node/routes.h"
#include "node/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "base/time.h"
#include "store/arena/window.h"

/*
 * Objects of other ranks, and other ranks that have references of ours.
 *
 *     stand-in    a record of home 0 (PROXY): {owner, index} here; `count` holds at its owner for us
 *     borrowed    a record of ours that another rank holds: held by slot 0, once for each of its counts
 *     far         a result whose bytes lie at another rank, which keeps them until our FREE
 *     pull        bytes on their way to us: PULL, GRANT, read, PULLED; one for each object, however
 *                 many wait for it. They begin in order, with at most MORAY_INFLIGHT_BYTES under way
 *                 (one that is larger goes alone); the end of one begins the next. Where the store
 *                 is full the first waits, and with it all behind it, while others run here that may
 *                 free some: not for ever
 */

enum { ROOM_LOOK_MS = 1, ROOM_IDLE_LOOKS = 20, ROOM_WAIT_MS = 10000 };

struct stand_in {
    struct name name;
    uint32_t count;
    uint32_t next; /* of the same index at the owner, of another generation; RECORD_NONE: none */
};

struct want {
    uint32_t rank;
    struct want *next;
};

struct place { /* of bytes elsewhere */
    uint32_t rank, index;
};

struct pull {
    bool used, asked, granted;
    uint32_t index, generation, place;
    uint32_t next; /* that waits behind it; of one that is not used: the next such */
    struct place from;
    uint64_t bytes;
    struct fabric_window window;
    uint32_t *requests, request_count; /* to be answered */
    bool finish;                       /* the record has not ended: it ends with the bytes */
};

struct asked { /* a PULL of another rank that the fabric cannot grant yet */
    uint32_t rank;
    struct item_pull item;
};

struct pin { /* bytes that another rank reads */
    uint64_t token;
    uint32_t rank, index;
    struct fabric_window window;
};

static struct map details; /* stand-in -> struct stand_in * */
static struct pull *pulls;
static uint32_t pull_count, pull_capacity, pull_free = RECORD_NONE;
static uint32_t waiting_first = RECORD_NONE, waiting_last; /* pulls not asked for yet */
static uint64_t asked_bytes;                               /* of those that are */
static uint64_t room_since_ns; /* the first of them waits for room since then; 0: it does not */
static uint64_t room_next_ns;  /* the next look */
/* Looks in a row that saw nobody who may free some. Not a time: on a busy machine that may pass between
 * two looks. */
static uint32_t room_idle_looks;
static struct pin *pins;
static uint32_t pin_count, pin_capacity;
static struct asked *asked;
static uint32_t asked_count, asked_capacity;

static struct record *record_at(uint32_t index)
{
    return lane_record(&agent.lane, index);
}

static uint64_t offset_of(const struct record *record)
{
    return (uint64_t)record->result.block.place * ARENA_PLACE_BYTES +
           (uint64_t)(record->result.block.window >> 8) * 64;
}

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

static void pull_start(uint32_t index, uint32_t request, bool finish);

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
    room_next_ns = room_idle_looks = 0;
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

/* ---- Fetching ---- */

static void pull_answer(struct pull *pull, enum moray_code code, const char *story)
{
    for (uint32_t i = 0; i < pull->request_count; i++)
        if (code == MORAY_OK)
            agent_answer(pull->requests[i], NULL, 0);
        else
            agent_end_failed(pull->requests[i], code, "%s", story);
    free(pull->requests);
    pull->requests = NULL;
    pull->request_count = 0;
}

static void pulls_go(void);

static void pull_end(struct pull *pull, enum moray_code code, const char *story)
{
    uint32_t index = pull->index;
    struct record *record = record_at(index);
    bool finish = pull->finish;

    map_remove(&agent.remote->pulls, index, NULL);
    if (code == MORAY_OK) {
        /* Readers look at the flags first: the place before them. */
        record->result.block.place = pull->place;
        record->result.block.window = agent.window;
        atomic_thread_fence(memory_order_release);
        atomic_fetch_or(&record->flags, RECORD_RESULT_BLOCK);
        atomic_fetch_and(&record->flags, (uint16_t)~RECORD_RESULT_FAR);
        /* Others may read the copy elsewhere still: it goes with this record. */
        if (!(record_flags(record) & RECORD_PROXY))
            atomic_fetch_or(&record->flags, RECORD_RESULT_KEPT);
    } else if (pull->place)
        arena_free(&agent.lane.arena, pull->place, index);
    pull_answer(pull, code, story);
    pull->used = false;
    pull->next = pull_free;
    pull_free = (uint32_t)(pull - pulls);
    if (pull->asked)
        asked_bytes -= pull->bytes;
    if (finish && code == MORAY_OK)
        lane_finish(&agent.lane, index, RECORD_DONE);
    else if (finish) {
        atomic_fetch_and(&record->flags, (uint16_t)~RECORD_RESULT_FAR);
        agent_end_failed(index, code, "%s", story);
    }
    drop_own(index); /* the pull's own hold */
    pulls_go();
}

/* Whether something runs here, or will, that may let go of what it reads. */
static bool is_busy(void)
{
    bool busy = asked_bytes || lane_has_work(&agent.lane) || general_lacks_a_process();

    for (uint32_t i = 1; i < agent.slot_count && !busy; i++) {
        const struct lane_slot *slot = &agent.lane.slots[i];
        busy = atomic_load(&slot->kind) != LANE_NOBODY &&
               (!atomic_load(&slot->asleep) || atomic_load(&slot->mailbox));
    }
    return busy;
}

static bool room_may_come(uint64_t bytes)
{
    if (bytes > window_bytes(agent.window))
        return false;
    if (!room_since_ns) {
        room_since_ns = agent.now_ns;
        room_idle_looks = 0;
    }
    if (is_busy())
        room_idle_looks = 0;
    else if (agent.now_ns >= room_next_ns)
        room_idle_looks++;
    room_next_ns = agent.now_ns + ROOM_LOOK_MS * TIME_NS_PER_MS;
    if (room_idle_looks < ROOM_IDLE_LOOKS &&
        agent.now_ns - room_since_ns < ROOM_WAIT_MS * TIME_NS_PER_MS)
        return true;
    room_idle_looks = 0; /* what fails now may free some for the next */
    return false;
}

/* A pull whose turn it is. False: it must wait for room. */
static bool pull_ask(struct pull *pull)
{
    char story[200];

    pull->place = arena_alloc(&agent.lane.arena, pull->bytes, pull->index);
    if (!pull->place && room_may_come(pull->bytes))
        return false;
    if (!pull->place) {
        snprintf(story, sizeof(story),
                 "no room for %llu bytes of an object of rank %u in the store of rank %u; release "
                 "some, or raise MORAY_STORE_BYTES",
                 (unsigned long long)pull->bytes, pull->from.rank, agent.rank);
        pull_end(pull, MORAY_FULL, story);
        return true;
    }
    room_since_ns = 0;
    pull->asked = true;
    asked_bytes += pull->bytes;
    *(struct item_pull *)out_item(pull->from.rank, ITEM_PULL, sizeof(struct item_pull)) =
        (struct item_pull){.token = (uint64_t)(pull - pulls), .index = pull->from.index};
    return true;
}

/* Begins those that there is leave for, the first first. */
static void pulls_go(void)
{
    static bool goes; /* one that fails at once ends, and comes here again */

    if (goes)
        return;
    goes = true;
    while (waiting_first != RECORD_NONE) {
        uint32_t first = waiting_first;
        struct pull *pull = &pulls[first];
        if (asked_bytes && asked_bytes + pull->bytes > agent.settings.inflight_bytes)
            break;
        waiting_first = pull->next;
        if (!pull_ask(pull)) {
            waiting_first = first;
            break;
        }
    }
    if (waiting_first == RECORD_NONE)
        room_since_ns = 0;
    goes = false;
}

static struct pull *pull_make(uint32_t index)
{
    struct record *record = record_at(index);
    struct pull *pull;

    if (pull_free != RECORD_NONE) {
        pull = &pulls[pull_free];
        pull_free = pull->next;
    } else {
        pulls = array_grown(pulls, pull_count, &pull_capacity, sizeof(*pulls));
        pull = &pulls[pull_count++];
    }
    *pull = (struct pull){.used = true,
                          .index = index,
                          .generation = life_generation(record_life(record)),
                          .next = RECORD_NONE,
                          .bytes = record_result_bytes(record)};
    map_set(&agent.remote->pulls, index, (uint64_t)(pull - pulls));
    lane_hold(&agent.lane, index);
    return pull;
}

static void pull_start(uint32_t index, uint32_t request, bool finish)
{
    uint64_t *number = map_get(&agent.remote->pulls, index);
    uint64_t *far = map_get(&agent.remote->far, index);
    struct pull *pull = number ? &pulls[*number] : NULL;
    bool is_new = !pull;

    if (is_new)
        pull = pull_make(index);
    pull->finish |= finish;
    if (request != RECORD_NONE) {
        uint32_t *more =
            realloc(pull->requests, (pull->request_count + 1) * sizeof(*pull->requests));
        if (!more)
            abort();
        pull->requests = more;
        pull->requests[pull->request_count++] = request;
    }
    if (!is_new)
        return;
    if (!far) {
        pull_end(pull, MORAY_LOST, "the bytes of the object are nowhere");
        return;
    }
    pull->from = (struct place){(uint32_t)(*far >> 32), (uint32_t)*far};
    if (waiting_first == RECORD_NONE)
        waiting_first = (uint32_t)(pull - pulls);
    else
        pulls[waiting_last].next = (uint32_t)(pull - pulls);
    waiting_last = (uint32_t)(pull - pulls);
    pulls_go();
}

static void pin_add(const struct pin *pin)
{
    pins = array_grown(pins, pin_count, &pin_capacity, sizeof(*pins));
    pins[pin_count++] = *pin;
    lane_hold(&agent.lane, pin->index);
}

/* Answers a PULL. False: the fabric cannot tell yet, so it is to be tried again. */
static bool pull_grant(uint32_t rank, const struct item_pull *item)
{
    struct record *record = record_at(item->index);
    struct pin pin = {.token = item->token, .rank = rank, .index = item->index};
    struct item_grant grant = {.token = item->token, .code = MORAY_STALE};
    struct moray_error error;

    if (life_state(record_life(record)) == RECORD_DONE &&
        (record_flags(record) & RECORD_RESULT_BLOCK)) {
        uint64_t bytes = record_result_bytes(record);
        grant.code = fabric_expose(agent.fabric, offset_of(record), bytes, &pin.window, &error);
        if (grant.code == MORAY_BUSY)
            return false;
        if (grant.code == MORAY_OK) {
            pin_add(&pin);
            grant.address = pin.window.address;
            grant.key = pin.window.key;
            grant.bytes = pin.window.bytes;
            grant.size = bytes;
        } else
            log_warning("rank %u cannot read an object of this rank: %s", rank, error.text);
    }
    memcpy(out_item(rank, ITEM_GRANT, sizeof(grant)), &grant, sizeof(grant));
    return true;
}

bool objects_wait(void)
{
    return asked_count != 0 || room_since_ns;
}

uint32_t objects_poll(void)
{
    uint32_t kept = 0, count = asked_count;

    for (uint32_t i = 0; i < count; i++)
        if (!pull_grant(asked[i].rank, &asked[i].item))
            asked[kept++] = asked[i];
    asked_count = kept;
    if (room_since_ns && agent.now_ns >= room_next_ns)
        pulls_go();
    return count - kept;
}

void objects_take_pull(uint32_t rank, struct bytes_reader *in)
{
    const struct item_pull *item = bytes_take(in, sizeof(*item));

    if (!item || item->index >= agent.lane.control->layout.record_count) {
        agent_fail("rank %u asked to read a record that this rank does not have", rank);
        return;
    }
    if (pull_grant(rank, item))
        return;
    asked = array_grown(asked, asked_count, &asked_capacity, sizeof(*asked));
    asked[asked_count++] = (struct asked){rank, *item};
}

/* Also where nothing was read: the holder keeps the bytes for us until then. */
static void pulled_tell(const struct pull *pull)
{
    *(struct item_pull *)out_item(pull->from.rank, ITEM_PULLED, sizeof(struct item_pull)) =
        (struct item_pull){.token = (uint64_t)(pull - pulls), .index = pull->from.index};
}

static void pull_refused(struct pull *pull, const struct item_grant *grant)
{
    char story[200];

    if (grant->bytes)
        pulled_tell(pull);
    if (grant->bytes || !grant->code || grant->code == MORAY_STALE)
        snprintf(story, sizeof(story),
                 "rank %u, which had the bytes of the object, has them no more", pull->from.rank);
    else
        snprintf(story, sizeof(story), "rank %u cannot let others read the bytes of the object: %s",
                 pull->from.rank, moray_code_name((enum moray_code)grant->code));
    pull_end(pull, MORAY_LOST, story);
}

void objects_take_grant(uint32_t rank, struct bytes_reader *in)
{
    const struct item_grant *item = bytes_take(in, sizeof(*item));
    struct pull *pull =
        item && item->token < pull_count && pulls[item->token].used ? &pulls[item->token] : NULL;

    if (!pull || !pull->asked || pull->granted ||
        pull->from.rank != rank) { /* the one that was asked for is lost */
        agent_fail("rank %u let this rank read what it had not asked for", rank);
        return;
    }
    pull->granted = true;
    if (!item->bytes || item->size != pull->bytes) {
        pull_refused(pull, item);
        return;
    }
    pull->window = (struct fabric_window){item->address, item->key, item->bytes};
    enum moray_code code =
        fabric_read(agent.fabric, rank, &pull->window, 0, arena_at(&agent.lane.arena, pull->place),
                    pull->bytes, item->token);
    if (code != MORAY_OK) {
        pulled_tell(pull);
        pull_end(pull, MORAY_LOST, "the fabric could not read the bytes of the object");
    }
}

void objects_read_done(uint64_t cookie, enum moray_code code)
{
    struct pull *pull = cookie < pull_count && pulls[cookie].used ? &pulls[cookie] : NULL;

    if (!pull)
        return;
    pulled_tell(pull);
    pull_end(pull, code, "the rank that had the bytes of the object is lost");
}

void objects_take_pulled(uint32_t rank, struct bytes_reader *in)
{
    const struct item_pull *item = bytes_take(in, sizeof(*item));

    for (uint32_t i = 0; item && i < pin_count; i++)
        if (pins[i].rank == rank && pins[i].token == item->token) {
            fabric_conceal(agent.fabric, &pins[i].window);
            uint32_t index = pins[i].index;
            pins[i] = pins[--pin_count];
            drop_own(index);
            return;
        }
}

void remote_want(uint32_t index, uint32_t generation)
{
    struct record *record = lane_find(&agent.lane, index, generation);

    if (!record || !agent.remote)
        return;
    if (!lane_await(&agent.lane, index))
        map_set(&agent.remote->fetching, index, generation);
    else if (record_flags(record) & RECORD_RESULT_FAR)
        pull_start(index, RECORD_NONE, false);
}

void remote_fetch_request(uint32_t request, const void *bytes, uint32_t count)
{
    struct request_record wanted;

    if (count != sizeof(wanted)) {
        agent_end_failed(request, MORAY_INVALID, "a request of %u bytes", count);
        return;
    }
    memcpy(&wanted, bytes, sizeof(wanted));
    struct record *record = lane_find(&agent.lane, wanted.index, wanted.generation);
    if (!record || !agent.remote || !(record_flags(record) & RECORD_RESULT_FAR))
        agent_answer(request, NULL, 0);
    else
        pull_start(wanted.index, request, false);
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
    for (uint32_t i = 0; i < pull_count; i++)
        free(pulls[i].requests);
    free(pulls);
    free(pins);
    free(asked);
    pulls = NULL;
    pins = NULL;
    asked = NULL;
    pull_count = pull_capacity = pin_count = pin_capacity = asked_count = asked_capacity = 0;
    pull_free = waiting_first = RECORD_NONE;
    asked_bytes = room_since_ns = 0;
    map_clear(&agent.remote->stand_ins);
    map_clear(&agent.remote->executing);
    map_clear(&agent.remote->wanted);
    map_clear(&agent.remote->far);
    map_clear(&agent.remote->pulls);
    map_clear(&agent.remote->fetching);
}
