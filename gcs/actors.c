#include "gcs/actors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/holders.h"
#include "base/index.h"

enum { NOBODY = UINT32_MAX };

struct actor {
    uint64_t id; /* 0: the record is unused */
    enum actors_state state;
    uint32_t node; /* where it is or is to be; meaningful with has_node */
    uint32_t slot;
    uint32_t incarnation;
    int32_t restarts_left;
    uint32_t quick_count; /* quick deaths in a row */
    enum moray_code code;
    char story[ACTORS_STORY_BYTES];
    char *block; /* owned: namespace, name, each with its end, then the constructor's arguments */
    size_t space_bytes, name_bytes, start_bytes;
    uint64_t function;
    struct resources need;
    uint32_t pending_max;
    struct holders holders;

    bool has_node;    /* it counts on `node` at the global scheduler */
    bool has_process; /* a START was taken and no final word came */
    bool named;       /* it has its name still */
    bool choosing;    /* a CHOOSE is due or was taken, and no answer came */
    bool waiting;     /* in the list of those for which there was no room */

    /* Actions that are due; actors_next() takes them in this order. */
    bool stop, release, choose, start, finish;
    uint32_t release_rank;
    uint32_t avoid;   /* for CHOOSE */
    uint32_t tell_at; /* holders from here on may have to be told */
    bool dirty;       /* in the list of those that may have something due */

    uint64_t born_ns;  /* when its last START became due */
    uint64_t wake_ns;  /* when to restart; UINT64_MAX: it does not wait for that */
    uint64_t force_ns; /* when to stop an ending one; UINT64_MAX: never */
    uint32_t dirty_next, waiting_next, unused_next;
};

struct queue {
    uint32_t first, last; /* INDEX_NONE: empty */
};

/* has_process implies has_node; waiting implies not has_node; at most one of choosing and waiting */
struct actors {
    struct actors_options options;
    struct actor *records; /* owned */
    uint32_t capacity, count, unused;
    struct index by_id, by_name;
    struct queue dirty, waiting;
    uint64_t deadline_ns; /* the least of all wake_ns and force_ns, or less */
    bool *lost;           /* owned; by rank */
};

static struct actor *find(const struct actors *actors, uint64_t id)
{
    size_t cursor = 0;
    uint32_t at;

    while ((at = index_next(&actors->by_id, index_mix(id), &cursor)) != INDEX_NONE)
        if (actors->records[at].id == id)
            return &actors->records[at];
    return NULL;
}

static uint64_t name_hash(const char *space, const char *name)
{
    return index_hash(index_hash(0, space, strlen(space)), name, strlen(name));
}

static const char *space_of(const struct actor *actor)
{
    return actor->block;
}

static const char *name_of(const struct actor *actor)
{
    return actor->block + actor->space_bytes + 1;
}

static struct actor *find_name(const struct actors *actors, const char *space, const char *name)
{
    uint64_t hash = name_hash(space, name);
    size_t cursor = 0;
    uint32_t at;

    while ((at = index_next(&actors->by_name, hash, &cursor)) != INDEX_NONE) {
        struct actor *actor = &actors->records[at];
        if (strcmp(space_of(actor), space) == 0 && strcmp(name_of(actor), name) == 0)
            return actor;
    }
    return NULL;
}

static uint32_t position(const struct actors *actors, const struct actor *actor)
{
    return (uint32_t)(actor - actors->records);
}

static void touch(struct actors *actors, struct actor *actor)
{
    uint32_t at = position(actors, actor);

    if (actor->dirty)
        return;
    actor->dirty = true;
    actor->dirty_next = INDEX_NONE;
    if (actors->dirty.first == INDEX_NONE)
        actors->dirty.first = at;
    else
        actors->records[actors->dirty.last].dirty_next = at;
    actors->dirty.last = at;
}

static void wait_for_room(struct actors *actors, struct actor *actor)
{
    uint32_t at = position(actors, actor);

    actor->waiting = true;
    actor->waiting_next = INDEX_NONE;
    if (actors->waiting.first == INDEX_NONE)
        actors->waiting.first = at;
    else
        actors->records[actors->waiting.last].waiting_next = at;
    actors->waiting.last = at;
}

static void leave_waiting(struct actors *actors, struct actor *actor)
{
    uint32_t before = INDEX_NONE, at = actors->waiting.first;

    if (!actor->waiting)
        return;
    while (&actors->records[at] != actor) {
        before = at;
        at = actors->records[at].waiting_next;
    }
    if (before == INDEX_NONE)
        actors->waiting.first = actor->waiting_next;
    else
        actors->records[before].waiting_next = actor->waiting_next;
    if (actors->waiting.last == at)
        actors->waiting.last = before;
    actor->waiting = false;
}

static void alarm_at(struct actors *actors, uint64_t *field, uint64_t ns)
{
    *field = ns;
    if (ns < actors->deadline_ns)
        actors->deadline_ns = ns;
}

/* All ranks that ever held a handle learn the state, whatever they were told before. */
static void tell_all(struct actors *actors, struct actor *actor)
{
    for (uint32_t i = 0; i < actor->holders.count; i++)
        actor->holders.entries[i].told = false;
    actor->tell_at = 0;
    touch(actors, actor);
}

static void set_story(struct actor *actor, enum moray_code code, const char *story)
{
    size_t bytes = strnlen(story, ACTORS_STORY_BYTES - 1);

    actor->code = code;
    memcpy(actor->story, story, bytes);
    actor->story[bytes] = 0;
}

static void free_name(struct actors *actors, struct actor *actor)
{
    if (actor->named)
        index_remove(&actors->by_name, name_hash(space_of(actor), name_of(actor)),
                     position(actors, actor));
    actor->named = false;
}

/* The node counts it no more. An earlier RELEASE was taken: it stands before CHOOSE in the order. */
static void leave_node(struct actors *actors, struct actor *actor, bool tell_scheduler)
{
    if (!actor->has_node)
        return;
    assert(!actor->has_process && !actor->release);
    actor->has_node = false;
    actor->release = tell_scheduler;
    actor->release_rank = actor->node;
    touch(actors, actor);
}

static void choose_node(struct actors *actors, struct actor *actor, uint32_t avoid)
{
    assert(!actor->has_node && !actor->waiting);
    actor->choosing = actor->choose = true;
    actor->avoid = avoid;
    touch(actors, actor);
}

/* A new incarnation is to start on its node. */
static void start(struct actors *actors, struct actor *actor, uint64_t now_ns)
{
    assert(actor->has_node && !actor->has_process);
    actor->incarnation++;
    actor->born_ns = now_ns;
    actor->wake_ns = UINT64_MAX;
    actor->start = true;
    touch(actors, actor);
}

/* From whatever state to DEAD. A process that may be there is stopped, and keeps its place until its
 * node says that it is gone. */
static void die(struct actors *actors, struct actor *actor, enum moray_code code, const char *story)
{
    assert(actor->state != ACTORS_DEAD);
    set_story(actor, code, story);
    actor->state = ACTORS_DEAD;
    actor->choosing = actor->choose = actor->start = actor->finish = false;
    actor->wake_ns = actor->force_ns = UINT64_MAX;
    leave_waiting(actors, actor);
    free_name(actors, actor);
    if (actor->has_process)
        actor->stop = true;
    else
        leave_node(actors, actor, true);
    tell_all(actors, actor);
}

/* No rank holds a handle: what is running finishes its queue, what has not begun never does. */
static void release_last(struct actors *actors, struct actor *actor, uint64_t now_ns)
{
    if (actor->holders.held > 0)
        return;
    if (actor->state == ACTORS_ALIVE) {
        actor->state = ACTORS_ENDING;
        actor->finish = true;
        alarm_at(actors, &actor->force_ns, now_ns + actors->options.finish_ns);
        free_name(actors, actor);
    } else if (actor->state != ACTORS_ENDING && actor->state != ACTORS_DEAD &&
               !actor->has_process) {
        die(actors, actor, MORAY_ACTOR_DIED, "all its handles were released");
    }
    touch(actors, actor); /* a dead one may be forgotten now */
}

/* How long the next start waits: a process that dies quickly again and again must not eat the node. */
static uint64_t pause_ns(const struct actors *actors, struct actor *actor, uint64_t now_ns)
{
    uint64_t ns = actors->options.again_ns;

    if (now_ns - actor->born_ns >= actors->options.quick_ns) {
        actor->quick_count = 0;
        return 0;
    }
    if (actor->quick_count++ == 0)
        return 0;
    for (uint32_t i = 2; i < actor->quick_count && ns < actors->options.again_max_ns; i++)
        ns *= 2;
    return ns < actors->options.again_max_ns ? ns : actors->options.again_max_ns;
}

/* Its process died with restarts left; false: none are. */
static bool charge_restart(struct actors *actors, struct actor *actor, const char *story)
{
    if (actor->restarts_left == 0)
        return false;
    if (actor->restarts_left > 0)
        actor->restarts_left--;
    set_story(actor, MORAY_ACTOR_DIED, story);
    actor->state = ACTORS_RESTARTING;
    actor->stop = actor->finish = false;
    tell_all(actors, actor);
    return true;
}

/* The actor of a node's word about one incarnation; NULL if the word is late. */
static struct actor *of_word(const struct actors *actors, uint64_t id, uint32_t incarnation)
{
    struct actor *actor = find(actors, id);

    return actor && actor->has_process && actor->incarnation == incarnation ? actor : NULL;
}

void actors_started(struct actors *actors, uint64_t id, uint32_t incarnation, uint32_t slot,
                    uint64_t now_ns)
{
    struct actor *actor = of_word(actors, id, incarnation);

    if (!actor || (actor->state != ACTORS_PLACING && actor->state != ACTORS_RESTARTING))
        return;
    actor->state = ACTORS_ALIVE;
    actor->slot = slot;
    tell_all(actors, actor);
    release_last(actors, actor, now_ns);
}

/* The final word about a process came. Returns whether the actor was dead already, and so only
 * this was waited for. */
static bool process_gone(struct actors *actors, struct actor *actor)
{
    actor->has_process = false;
    actor->stop = false;
    touch(actors, actor);
    if (actor->state != ACTORS_DEAD)
        return false;
    leave_node(actors, actor, true);
    return true;
}

void actors_failed(struct actors *actors, uint64_t id, uint32_t incarnation, enum moray_code code,
                   const char *story)
{
    struct actor *actor = of_word(actors, id, incarnation);

    if (actor && !process_gone(actors, actor))
        die(actors, actor, code, story);
}

void actors_refused(struct actors *actors, uint64_t id, uint32_t incarnation)
{
    struct actor *actor = of_word(actors, id, incarnation);

    if (!actor || process_gone(actors, actor))
        return;
    if (actor->state != ACTORS_PLACING && actor->state != ACTORS_RESTARTING) {
        die(actors, actor, MORAY_ACTOR_DIED, "its node said that it never started");
        return;
    }
    leave_node(actors, actor, true);
    if (actor->state == ACTORS_PLACING)
        actor->state = ACTORS_PENDING;
    if (actor->holders.held == 0)
        die(actors, actor, MORAY_ACTOR_DIED, "all its handles were released");
    else
        choose_node(actors, actor, actor->node);
}

void actors_exited(struct actors *actors, uint64_t id, uint32_t incarnation, bool clean,
                   const char *story, uint64_t now_ns)
{
    struct actor *actor = of_word(actors, id, incarnation);
    uint64_t ns;

    if (!actor || process_gone(actors, actor))
        return;
    if (clean || actor->state == ACTORS_ENDING || !charge_restart(actors, actor, story)) {
        die(actors, actor, MORAY_ACTOR_DIED, story);
        return;
    }
    ns = pause_ns(actors, actor, now_ns);
    if (actor->holders.held == 0)
        die(actors, actor, MORAY_ACTOR_DIED, story);
    else if (ns == 0)
        start(actors, actor, now_ns);
    else
        alarm_at(actors, &actor->wake_ns, now_ns + ns);
}

bool actors_placed(struct actors *actors, uint64_t id, uint32_t node, uint64_t now_ns)
{
    struct actor *actor = find(actors, id);

    if (!actor || !actor->choosing || actor->choose)
        return false; /* killed meanwhile, or nobody asked */
    actor->choosing = false;
    actor->has_node = true;
    actor->node = node;
    if (actor->state == ACTORS_PENDING)
        actor->state = ACTORS_PLACING;
    start(actors, actor, now_ns);
    return true;
}

void actors_unplaced(struct actors *actors, uint64_t id, enum moray_code code, const char *story)
{
    struct actor *actor = find(actors, id);

    if (!actor || !actor->choosing || actor->choose)
        return;
    actor->choosing = false;
    if (code == MORAY_BUSY)
        wait_for_room(actors, actor);
    else
        die(actors, actor, code, story);
}

size_t actors_room(struct actors *actors, size_t count)
{
    size_t left = 0;

    while (count-- > 0 && actors->waiting.first != INDEX_NONE) {
        struct actor *actor = &actors->records[actors->waiting.first];
        leave_waiting(actors, actor);
        choose_node(actors, actor, NOBODY);
    }
    for (uint32_t at = actors->waiting.first; at != INDEX_NONE;
         at = actors->records[at].waiting_next)
        left++;
    return left;
}

bool actors_kill(struct actors *actors, uint64_t id, bool restart, const char *story)
{
    struct actor *actor = find(actors, id);

    if (!actor || actor->state == ACTORS_DEAD)
        return false;
    if (!restart) {
        die(actors, actor, MORAY_ACTOR_DIED, story);
    } else if (actor->has_process) {
        actor->stop = true; /* its node's word about the death brings the restart */
        touch(actors, actor);
    }
    return true;
}

/* The node of an actor is lost, and its process with it. */
static void node_lost(struct actors *actors, struct actor *actor)
{
    bool ran = actor->state == ACTORS_ALIVE;

    actor->has_process = actor->stop = actor->start = actor->finish = false;
    actor->wake_ns = actor->force_ns = UINT64_MAX;
    leave_node(actors, actor, false);
    if (actor->state == ACTORS_DEAD)
        return;
    if (actor->state == ACTORS_ENDING || actor->holders.held == 0 ||
        (ran && !charge_restart(actors, actor, "its node was lost"))) {
        die(actors, actor, MORAY_ACTOR_DIED, "its node was lost");
        return;
    }
    if (actor->state == ACTORS_PLACING)
        actor->state = ACTORS_PENDING;
    choose_node(actors, actor, NOBODY);
}

void actors_rank_lost(struct actors *actors, uint32_t rank, uint64_t now_ns)
{
    if (rank >= actors->options.rank_count || actors->lost[rank])
        return;
    actors->lost[rank] = true;
    for (uint32_t at = 0; at < actors->capacity; at++) {
        struct actor *actor = &actors->records[at];
        if (!actor->id)
            continue;
        if (holders_lose(&actor->holders, rank))
            release_last(actors, actor, now_ns);
        if (actor->has_node && actor->node == rank)
            node_lost(actors, actor);
    }
}

void actors_tick(struct actors *actors, uint64_t now_ns)
{
    if (now_ns < actors->deadline_ns)
        return;
    actors->deadline_ns = UINT64_MAX;
    for (uint32_t at = 0; at < actors->capacity; at++) {
        struct actor *actor = &actors->records[at];
        if (!actor->id)
            continue;
        if (actor->wake_ns <= now_ns)
            start(actors, actor, now_ns);
        if (actor->force_ns <= now_ns)
            die(actors, actor, MORAY_ACTOR_DIED,
                "it did not finish its queue in time after its last handle was released");
        if (actor->wake_ns < actors->deadline_ns)
            actors->deadline_ns = actor->wake_ns;
        if (actor->force_ns < actors->deadline_ns)
            actors->deadline_ns = actor->force_ns;
    }
}

uint64_t actors_deadline(const struct actors *actors)
{
    return actors->deadline_ns;
}

/* A word about a lost rank, passed on by another, must not bring it back. */
static enum moray_code check_rank(const struct actors *actors, uint32_t rank,
                                  struct moray_error *error)
{
    if (rank < actors->options.rank_count && !actors->lost[rank])
        return MORAY_OK;
    return error_set(error, MORAY_STALE, "rank %u is lost, or is none of the %u of this job", rank,
                     actors->options.rank_count);
}

enum moray_code actors_hold(struct actors *actors, uint64_t id, uint32_t rank, uint64_t epoch,
                            bool set, uint64_t now_ns, struct moray_error *error)
{
    struct actor *actor = find(actors, id);
    enum moray_code code = check_rank(actors, rank, error);

    if (code != MORAY_OK)
        return code;
    if (!actor)
        return error_set(error, MORAY_STALE, "actor %llx is dead and forgotten, or never was",
                         (unsigned long long)id);
    if (!holders_reserve(&actor->holders))
        return error_set(error, MORAY_NO_MEMORY, "no memory for a handle of rank %u", rank);
    if (!holders_hear(&actor->holders, rank, epoch, set))
        return MORAY_OK;
    if (set) {
        actor->holders.entries[holders_find(&actor->holders, rank)].told = false;
        actor->tell_at = 0;
        touch(actors, actor);
    } else {
        release_last(actors, actor, now_ns);
    }
    return MORAY_OK;
}

enum moray_code actors_find(struct actors *actors, const char *space, const char *name,
                            uint32_t rank, uint64_t epoch, uint64_t *id, struct moray_error *error)
{
    struct actor *actor = find_name(actors, space ? space : "", name);

    if (!actor)
        return error_set(error, MORAY_NOT_FOUND,
                         "no actor is named \"%.200s\" in the namespace \"%.200s\"", name,
                         space ? space : "");
    *id = actor->id;
    return actors_hold(actors, actor->id, rank, epoch, true, 0, error);
}

/* Makes sure of one unused record and of room in the indexes. */
static bool reserve(struct actors *actors)
{
    uint32_t capacity = actors->capacity ? 2 * actors->capacity : 16;
    struct actor *records;

    if (!index_reserve(&actors->by_id, 1) || !index_reserve(&actors->by_name, 1))
        return false;
    if (actors->unused != INDEX_NONE)
        return true;
    records = realloc(actors->records, capacity * sizeof(*records));
    if (!records)
        return false;
    actors->records = records;
    for (uint32_t at = capacity; at-- > actors->capacity;) {
        memset(&records[at], 0, sizeof(*records));
        records[at].unused_next = actors->unused;
        actors->unused = at;
    }
    actors->capacity = capacity;
    return true;
}

static enum moray_code check_spec(const struct actors *actors, const struct actors_spec *spec,
                                  struct moray_error *error)
{
    size_t space_bytes = spec->space ? strnlen(spec->space, ACTORS_NAME_BYTES_MAX + 1) : 0;
    size_t name_bytes = spec->name ? strnlen(spec->name, ACTORS_NAME_BYTES_MAX + 1) : 1;

    if (!spec->id)
        return error_set(error, MORAY_INVALID, "an actor's id is never 0");
    if (find(actors, spec->id))
        return error_set(error, MORAY_EXISTS, "actor %llx exists", (unsigned long long)spec->id);
    if (space_bytes > ACTORS_NAME_BYTES_MAX || name_bytes > ACTORS_NAME_BYTES_MAX)
        return error_set(error, MORAY_INVALID, "an actor's name or namespace is over %d bytes",
                         ACTORS_NAME_BYTES_MAX);
    if (name_bytes == 0)
        return error_set(error, MORAY_INVALID, "an actor's name is empty; NULL means none");
    if (spec->restarts < ACTORS_ENDLESS)
        return error_set(error, MORAY_INVALID, "an actor's restarts are %d; -1 means endless",
                         spec->restarts);
    if (spec->start_bytes > actors->options.start_bytes_max)
        return error_set(error, MORAY_INVALID,
                         "the constructor's arguments have %zu bytes; at most %zu "
                         "(start_bytes_max): put larger ones as objects",
                         spec->start_bytes, actors->options.start_bytes_max);
    if (actors->count >= actors->options.actor_max)
        return error_set(error, MORAY_BUSY, "the job has %u actors (actor_max)", actors->count);
    return MORAY_OK;
}

/* The block of texts and arguments; NULL: no memory. */
static char *copy_texts(const struct actors_spec *spec)
{
    const char *space = spec->space ? spec->space : "", *name = spec->name ? spec->name : "";
    size_t space_bytes = strlen(space) + 1, name_bytes = strlen(name) + 1;
    char *block = malloc(space_bytes + name_bytes + spec->start_bytes);

    if (!block)
        return NULL;
    memcpy(block, space, space_bytes);
    memcpy(block + space_bytes, name, name_bytes);
    if (spec->start_bytes)
        memcpy(block + space_bytes + name_bytes, spec->start, spec->start_bytes);
    return block;
}

enum moray_code actors_create(struct actors *actors, const struct actors_spec *spec,
                              uint64_t now_ns, uint64_t *id, struct moray_error *error)
{
    const char *space = spec->space ? spec->space : "";
    struct actor *actor = spec->name ? find_name(actors, space, spec->name) : NULL;
    struct holders holders = {0};
    enum moray_code code;
    char *block;

    if (actor && spec->or_get) {
        *id = actor->id;
        return actors_hold(actors, actor->id, spec->creator, spec->epoch, true, now_ns, error);
    }
    if (actor)
        return error_set(error, MORAY_EXISTS,
                         "an actor is named \"%.200s\" already in the namespace \"%.200s\"",
                         spec->name, space);
    code = check_rank(actors, spec->creator, error);
    if (code == MORAY_OK)
        code = check_spec(actors, spec, error);
    if (code != MORAY_OK)
        return code;
    block = copy_texts(spec);
    if (!block || !holders_reserve(&holders) || !reserve(actors)) {
        free(block);
        holders_clear_all(&holders);
        return error_set(error, MORAY_NO_MEMORY, "no memory for one more actor of %u",
                         actors->count);
    }

    holders_hear(&holders, spec->creator, spec->epoch, true);
    holders.entries[0].told = true; /* it knows that its actor is PENDING */
    actor = &actors->records[actors->unused];
    actors->unused = actor->unused_next;
    *actor = (struct actor){.id = spec->id,
                            .state = ACTORS_PENDING,
                            .node = NOBODY,
                            .restarts_left = spec->restarts,
                            .block = block,
                            .space_bytes = strlen(space),
                            .name_bytes = spec->name ? strlen(spec->name) : 0,
                            .start_bytes = spec->start_bytes,
                            .function = spec->function,
                            .need = spec->need,
                            .pending_max = spec->pending_max,
                            .holders = holders,
                            .named = spec->name != NULL,
                            .wake_ns = UINT64_MAX,
                            .force_ns = UINT64_MAX};
    actors->count++;
    index_add(&actors->by_id, index_mix(actor->id), position(actors, actor));
    if (actor->named)
        index_add(&actors->by_name, name_hash(space, spec->name), position(actors, actor));
    choose_node(actors, actor, NOBODY);
    *id = spec->id;
    return MORAY_OK;
}

static void show(const struct actor *actor, struct actors_line *out)
{
    *out = (struct actors_line){
        .id = actor->id,
        .state = actor->state,
        .node = actor->has_node ? actor->node : NOBODY,
        .slot = actor->slot,
        .incarnation = actor->incarnation,
        .restarts_left = actor->restarts_left,
        .code = actor->code,
        .story = actor->story,
        .space = space_of(actor),
        .name = actor->named ? name_of(actor) : NULL,
        .function = actor->function,
        .start = actor->block + actor->space_bytes + 1 + actor->name_bytes + 1,
        .start_bytes = actor->start_bytes,
        .need = actor->need,
        .pending_max = actor->pending_max,
        .holder_count = actor->holders.held,
    };
}

bool actors_get(const struct actors *actors, uint64_t id, struct actors_line *out)
{
    const struct actor *actor = find(actors, id);

    if (actor)
        show(actor, out);
    return actor != NULL;
}

bool actors_list(const struct actors *actors, uint32_t *cursor, struct actors_line *out)
{
    while (*cursor < actors->capacity) {
        const struct actor *actor = &actors->records[(*cursor)++];
        if (actor->id) {
            show(actor, out);
            return true;
        }
    }
    return false;
}

size_t actors_count(const struct actors *actors)
{
    return actors->count;
}

/* The next rank that has to learn the state; NULL: none. */
static struct holder *next_to_tell(struct actor *actor, const bool *lost)
{
    while (actor->tell_at < actor->holders.count) {
        struct holder *holder = &actor->holders.entries[actor->tell_at++];
        if (holder->told || lost[holder->rank])
            continue;
        holder->told = true;
        return holder;
    }
    return NULL;
}

/* Takes the next action that is due for one actor; false: none. */
static bool take_due(struct actor *actor, const bool *lost, struct actors_action *out)
{
    struct actors_action due = {
        .id = actor->id, .rank = actor->node, .incarnation = actor->incarnation};

    if (actor->stop) {
        due.kind = ACTORS_STOP;
        actor->stop = false;
    } else if (actor->release) {
        due.kind = ACTORS_RELEASE;
        due.rank = actor->release_rank;
        actor->release = false;
    } else if (actor->choose) {
        due.kind = ACTORS_CHOOSE;
        due.rank = actor->avoid;
        actor->choose = false;
    } else if (actor->start) {
        due.kind = ACTORS_START;
        actor->start = false;
        actor->has_process = true;
    } else if (actor->finish) {
        due.kind = ACTORS_FINISH;
        actor->finish = false;
    } else {
        struct holder *holder = next_to_tell(actor, lost);
        if (!holder)
            return false;
        due.kind = ACTORS_TELL;
        due.rank = holder->rank;
    }
    show(actor, &due.line);
    *out = due;
    return true;
}

static void forget(struct actors *actors, struct actor *actor)
{
    index_remove(&actors->by_id, index_mix(actor->id), position(actors, actor));
    holders_clear_all(&actor->holders);
    free(actor->block);
    memset(actor, 0, sizeof(*actor));
    actor->unused_next = actors->unused;
    actors->unused = position(actors, actor);
    actors->count--;
}

bool actors_next(struct actors *actors, struct actors_action *out)
{
    while (actors->dirty.first != INDEX_NONE) {
        struct actor *actor = &actors->records[actors->dirty.first];
        if (take_due(actor, actors->lost, out))
            return true;
        actors->dirty.first = actor->dirty_next;
        actor->dirty = false;
        if (actor->state == ACTORS_DEAD && actor->holders.held == 0 && !actor->has_process)
            forget(actors, actor);
    }
    return false;
}

static void set_defaults(struct actors_options *options)
{
    if (!options->actor_max)
        options->actor_max = 100 * 1000;
    if (!options->finish_ns)
        options->finish_ns = 30 * 1000000000ull;
    if (!options->quick_ns)
        options->quick_ns = 1000000000;
    if (!options->again_ns)
        options->again_ns = 10 * 1000 * 1000;
    if (!options->again_max_ns)
        options->again_max_ns = 1000000000;
    if (!options->start_bytes_max)
        options->start_bytes_max = 1 << 20;
}

enum moray_code actors_create_table(const struct actors_options *options, struct actors **out,
                                    struct moray_error *error)
{
    struct actors *actors;

    *out = NULL;
    if (options->rank_count == 0)
        return error_set(error, MORAY_INVALID, "rank_count is 0; a job has at least one rank");
    actors = calloc(1, sizeof(*actors));
    if (actors)
        actors->lost = calloc(options->rank_count, sizeof(*actors->lost));
    if (!actors || !actors->lost) {
        free(actors);
        return error_set(error, MORAY_NO_MEMORY, "no memory for the table of actors");
    }
    actors->options = *options;
    set_defaults(&actors->options);
    actors->unused = INDEX_NONE;
    actors->dirty = actors->waiting = (struct queue){INDEX_NONE, INDEX_NONE};
    actors->deadline_ns = UINT64_MAX;
    *out = actors;
    return MORAY_OK;
}

void actors_destroy_table(struct actors *actors)
{
    if (!actors)
        return;
    for (uint32_t at = 0; at < actors->capacity; at++) {
        holders_clear_all(&actors->records[at].holders);
        free(actors->records[at].block);
    }
    index_clear(&actors->by_id);
    index_clear(&actors->by_name);
    free(actors->records);
    free(actors->lost);
    free(actors);
}
