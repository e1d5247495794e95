#include "gcs/actors_inside.h"

#include <assert.h>
#include <string.h>

static void wait_for_room(struct actors *actors, struct actor *actor)
{
    uint32_t at = actor_position(actors, actor);

    actor->waiting = true;
    actor->waiting_next = INDEX_NONE;
    actor->waiting_before = actors->waiting.last;
    if (actors->waiting.first == INDEX_NONE)
        actors->waiting.first = at;
    else
        actors->records[actors->waiting.last].waiting_next = at;
    actors->waiting.last = at;
    actors->waiting_count++;
}

static void leave_waiting(struct actors *actors, struct actor *actor)
{
    uint32_t before = actor->waiting_before, next = actor->waiting_next;

    if (!actor->waiting)
        return;
    if (before == INDEX_NONE)
        actors->waiting.first = next;
    else
        actors->records[before].waiting_next = next;
    if (next == INDEX_NONE)
        actors->waiting.last = before;
    else
        actors->records[next].waiting_before = before;
    actor->waiting = false;
    actors->waiting_count--;
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
    actor_record_touch(actors, actor);
}

static void set_story(struct actor *actor, enum moray_code code, const char *story)
{
    size_t bytes = strnlen(story, ACTORS_STORY_BYTES - 1);

    actor->code = code;
    memcpy(actor->story, story, bytes);
    actor->story[bytes] = 0;
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
    actor_record_touch(actors, actor);
}

static void choose_node(struct actors *actors, struct actor *actor)
{
    assert(!actor->has_node && !actor->waiting);
    actor->choosing = actor->choose = true;
    actor_record_touch(actors, actor);
}

/* A new incarnation is to start on its node. */
static void start(struct actors *actors, struct actor *actor, uint64_t now_ns)
{
    assert(actor->has_node && !actor->has_process);
    actor->incarnation++;
    actor->born_ns = now_ns;
    actor->wake_ns = UINT64_MAX;
    actor->start = true;
    actor_record_touch(actors, actor);
}

/* From whatever state to DEAD. A process that may be there is stopped, and keeps its place until its
 * node says that it is gone. */
static void die(struct actors *actors, struct actor *actor, enum moray_code code, const char *story)
{
    assert(actor->state != ACTORS_DEAD);
    set_story(actor, code, story);
    actor->state = ACTORS_DEAD;
    actor->choosing = actor->choose = actor->start = actor->finish = false;
    actor->wake_ns = actor->force_ns = actor->room_ns = UINT64_MAX;
    leave_waiting(actors, actor);
    actor_record_unname(actors, actor);
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
    if (actor->unheld_ns > now_ns)
        now_ns = actor->unheld_ns;
    if (actor->state == ACTORS_ALIVE) {
        actor->state = ACTORS_ENDING;
        actor->finish = true;
        alarm_at(actors, &actor->force_ns, now_ns + actors->options.finish_ns);
        actor_record_unname(actors, actor);
    } else if (actor->state != ACTORS_ENDING && actor->state != ACTORS_DEAD &&
               !actor->has_process) {
        die(actors, actor, MORAY_ACTOR_DIED, "all its handles were released");
    }
    actor_record_touch(actors, actor); /* a dead one may be forgotten now */
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
    struct actor *actor = actor_record_find(actors, id);

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
    actor->room_ns = UINT64_MAX;
    tell_all(actors, actor);
    release_last(actors, actor, now_ns);
}

/* The final word about a process came. Returns whether the actor was dead already, and so only
 * this was waited for. */
static bool process_gone(struct actors *actors, struct actor *actor)
{
    actor->has_process = false;
    actor->stop = false;
    actor_record_touch(actors, actor);
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
        choose_node(actors, actor);
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
    struct actor *actor = actor_record_find(actors, id);

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

void actors_unplaced(struct actors *actors, uint64_t id, enum moray_code code, const char *story,
                     uint64_t now_ns)
{
    struct actor *actor = actor_record_find(actors, id);

    if (!actor || !actor->choosing || actor->choose)
        return;
    actor->choosing = false;
    if (code != MORAY_BUSY) {
        die(actors, actor, code, story);
        return;
    }
    wait_for_room(actors, actor);
    if (!*story) {
        actor->room_ns = UINT64_MAX;
        return;
    }
    set_story(actor, code, story);
    alarm_at(actors, &actor->room_ns,
             actor->room_ns != UINT64_MAX ? actor->room_ns : now_ns + actors->options.room_ns);
    if (actors->look_ns == UINT64_MAX)
        alarm_at(actors, &actors->look_ns, now_ns + actors->options.look_ns);
}

size_t actors_room(struct actors *actors, size_t count)
{
    while (count-- > 0 && actors->waiting.first != INDEX_NONE) {
        struct actor *actor = &actors->records[actors->waiting.first];
        leave_waiting(actors, actor);
        choose_node(actors, actor);
    }
    return actors->waiting_count;
}

bool actors_kill(struct actors *actors, uint64_t id, bool restart, const char *story)
{
    struct actor *actor = actor_record_find(actors, id);

    if (!actor || actor->state == ACTORS_DEAD)
        return false;
    if (!restart) {
        die(actors, actor, MORAY_ACTOR_DIED, story);
    } else if (actor->has_process) {
        actor->stop = true; /* its node's word about the death brings the restart */
        actor_record_touch(actors, actor);
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
    choose_node(actors, actor);
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

static void room_over(struct actors *actors, struct actor *actor)
{
    char story[ACTORS_STORY_BYTES];

    memcpy(story, actor->story, sizeof(story));
    die(actors, actor, actor->code, story);
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
        if (actor->waiting && actor->room_ns <= now_ns)
            room_over(actors, actor);
        if (actor->waiting && actor->room_ns < actors->deadline_ns)
            actors->deadline_ns = actor->room_ns;
        if (actor->wake_ns < actors->deadline_ns)
            actors->deadline_ns = actor->wake_ns;
        if (actor->force_ns < actors->deadline_ns)
            actors->deadline_ns = actor->force_ns;
    }
    if (actors->look_ns <= now_ns) {
        actors->look_ns = UINT64_MAX; /* who then still finds none sets it again */
        actors_room(actors, SIZE_MAX);
    }
    if (actors->look_ns < actors->deadline_ns)
        actors->deadline_ns = actors->look_ns;
}

uint64_t actors_deadline(const struct actors *actors)
{
    return actors->deadline_ns;
}

enum moray_code actors_hold(struct actors *actors, uint64_t id, uint32_t rank, uint64_t epoch,
                            bool set, uint64_t now_ns, struct moray_error *error)
{
    struct actor *actor = actor_record_find(actors, id);
    enum moray_code code = actor_record_rank(actors, rank, error);

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
        actor_record_touch(actors, actor);
    } else {
        if (actor->unheld_ns < now_ns)
            actor->unheld_ns = now_ns;
        release_last(actors, actor, now_ns);
    }
    return MORAY_OK;
}

/* To say so after the handle is counted would be too late: who is told of an error lets nothing go. */
static enum moray_code check_class(const struct actor *actor, uint64_t function, const char *name,
                                   struct moray_error *error)
{
    if (actor->function == function)
        return MORAY_OK;
    return error_set(error, MORAY_WRONG_TYPE, "the actor \"%.200s\" is of another class", name);
}

enum moray_code actors_find(struct actors *actors, const char *space, const char *name,
                            uint64_t function, uint32_t rank, uint64_t epoch, uint64_t *id,
                            struct moray_error *error)
{
    enum moray_code code;
    struct actor *actor = actor_record_named(actors, space ? space : "", name);

    if (!actor)
        return error_set(error, MORAY_NOT_FOUND,
                         "no actor is named \"%.200s\" in the namespace \"%.200s\"", name,
                         space ? space : "");
    code = check_class(actor, function, name, error);
    if (code != MORAY_OK)
        return code;
    *id = actor->id;
    return actors_hold(actors, actor->id, rank, epoch, true, 0, error);
}

enum moray_code actors_create(struct actors *actors, const struct actors_spec *spec,
                              uint64_t now_ns, uint64_t *id, struct moray_error *error)
{
    const char *space = spec->space ? spec->space : "";
    struct actor *actor = spec->name ? actor_record_named(actors, space, spec->name) : NULL;
    enum moray_code code;

    if (actor && spec->or_get) {
        code = check_class(actor, spec->function, spec->name, error);
        if (code != MORAY_OK)
            return code;
        *id = actor->id;
        return actors_hold(actors, actor->id, spec->creator, spec->epoch, true, now_ns, error);
    }
    if (actor)
        return error_set(error, MORAY_EXISTS,
                         "an actor is named \"%.200s\" already in the namespace \"%.200s\"",
                         spec->name, space);
    code = actor_record_make(actors, spec, &actor, error);
    if (code != MORAY_OK)
        return code;
    choose_node(actors, actor);
    *id = spec->id;
    return MORAY_OK;
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
        due.rank = NOBODY;
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
    actor_record_show(actor, &due.line);
    *out = due;
    return true;
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
            actor_record_forget(actors, actor);
    }
    return false;
}
