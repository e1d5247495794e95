#include "node/remote_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "base/time.h"
#include "store/arena/window.h"

/*
 * Bytes on their way to us: PULL, GRANT, read, PULLED; one pull for each object, however many wait for it.
 * They begin in order, with at most MORAY_INFLIGHT_BYTES under way (one that is larger goes alone); the
 * end of one begins the next. Where the store is full the first waits, and with it all behind it, while
 * others run here that may free some: not for ever.
 * The other way round a pin holds what another rank reads here.
 */

enum { ROOM_LOOK_MS = 1, ROOM_IDLE_LOOKS = 20, ROOM_WAIT_MS = 10000 };

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

void pull_start(uint32_t index, uint32_t request, bool finish)
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

/* Somebody let go of something: there may be room. */
void pulls_look(void)
{
    room_next_ns = room_idle_looks = 0;
}

void pulls_end(void)
{
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
    map_clear(&agent.remote->pulls);
    map_clear(&agent.remote->fetching);
}
