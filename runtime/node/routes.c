#include "node/routes.h"

#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/time.h"
#include "client/process.h"
#include "node/head.h"
#include "node/remote.h"
#include "node/words.h"

struct lent {
    uint32_t route, record, generation;
    uint64_t until_ns; /* … or until then; 0: no limit */
};

/* An object whose bytes contain handles holds their actors: record -> the first of a list. */
struct kept {
    struct kept *next;
    uint32_t route;
};
static struct map objects;

/* What an actor has to finish its calls, as the gcs gives it: both count from when the last handle went. */
static const uint64_t CALLS_NS = 30 * TIME_NS_PER_S;

/* Places in the table that were of routes which nobody names. */
static uint32_t *unused, unused_count, unused_capacity;

static uint32_t take_place(void)
{
    if (unused_count)
        return unused[--unused_count];
    agent.routes =
        array_grown(agent.routes, agent.route_count, &agent.route_capacity, sizeof(*agent.routes));
    return agent.route_count++;
}

struct route *route_of(uint64_t id)
{
    uint64_t *at = map_get(&agent.actor_routes, id);

    if (at)
        return &agent.routes[*at - 1];
    uint32_t place = take_place();
    struct route *route = &agent.routes[place];
    memset(route, 0, sizeof(*route));
    route->id = id;
    route->node = UINT32_MAX;
    map_set(&agent.actor_routes, id, place + 1);
    return route;
}

void route_never(uint64_t id)
{
    uint64_t *at = map_get(&agent.actor_routes, id), place;

    if (!at)
        return;
    struct route *route = &agent.routes[*at - 1];
    memset(route->holders, 0, sizeof(route->holders)); /* who asked has no handle of it */
    route->told = false;
    if (route->lent || route->later || route->goes || route->entry || route->waiting_count)
        return;
    free(route->story);
    free(route->waiting);
    free(route->sent);
    memset(route, 0, sizeof(*route));
    map_remove(&agent.actor_routes, id, &place);
    unused = array_grown(unused, unused_count, &unused_capacity, sizeof(*unused));
    unused[unused_count++] = (uint32_t)place - 1;
}

/* ---- Handles ---- */

static bool is_held_but(const struct route *route, uint32_t calls)
{
    if (route->lent > calls)
        return true;
    for (int word = 0; word < LANE_SLOT_WORDS; word++)
        if (route->holders[word])
            return true;
    return false;
}

static bool is_held(const struct route *route)
{
    return is_held_but(route, 0);
}

void route_lend(struct route *route, uint32_t record, uint32_t generation)
{
    agent.lents =
        array_grown(agent.lents, agent.lent_count, &agent.lent_capacity, sizeof(*agent.lents));
    agent.lents[agent.lent_count++] =
        (struct lent){(uint32_t)(route - agent.routes), record, generation, 0};
    route->lent++;
    lane_await(&agent.lane, record);
}

void route_keep(struct route *route, uint32_t record)
{
    struct kept *kept = malloc(sizeof(*kept));
    const uint64_t *first = map_get(&objects, record);

    if (!kept)
        abort();
    *kept = (struct kept){first ? (struct kept *)(uintptr_t)*first : NULL,
                          (uint32_t)(route - agent.routes)};
    if (!map_set(&objects, record, (uint64_t)(uintptr_t)kept))
        abort();
    route->lent++;
    atomic_fetch_or(&lane_record(&agent.lane, record)->flags,
                    RECORD_CONTAINS); /* the agent frees it */
}

void route_sent(struct route *route, uint32_t record, uint32_t generation)
{
    if (route->sent_count >= route->sent_tidy_at) {
        route->sent_count = lane_keep_open(&agent.lane, route->sent, route->sent_count);
        route->sent_tidy_at = route->sent_count * 2 + 16;
    }
    route->sent =
        array_grown(route->sent, route->sent_count, &route->sent_capacity, sizeof(*route->sent));
    route->sent[route->sent_count++] =
        (struct lane_mail){.index = record, .generation = generation};
}

/* A call that has not ended counts as a handle: the word that nobody holds the actor goes by rank 0, and
 * could be there before the calls. But not for ever: one that never ends would keep the actor. Looked for
 * only when the last handle goes. */
static void lend_to_calls(struct route *route)
{
    uint32_t count;

    route->sent_count = lane_keep_open(&agent.lane, route->sent, route->sent_count);
    count = route->sent_count + route->waiting_count;
    for (uint32_t i = 0; i < count; i++) {
        struct lane_mail call =
            i < route->sent_count ? route->sent[i] : route->waiting[i - route->sent_count];
        const struct record *record = lane_find(&agent.lane, call.index, call.generation);
        if (!record || life_ended(record_life(record)))
            continue;
        route_lend(route, call.index, call.generation);
        agent.lents[agent.lent_count - 1].until_ns = route->unheld_ns + CALLS_NS;
        route->calls++;
    }
}

static void look_again(const struct word_act *act)
{
    route_tell_hold(&agent.routes[act->with[0]]);
}

/* The last hold goes, and waits for the words that were said before (node/words.h). */
static bool must_wait(struct route *route)
{
    if (!route->goes) {
        route->goes = true;
        route->goes_after = words_said();
        if (!words_heard(route->goes_after))
            words_then((struct word_act){look_again, {(uint32_t)(route - agent.routes)}});
    }
    return !words_heard(route->goes_after);
}

void route_tell_word(struct route *route)
{
    if (is_held_but(route, route->calls))
        route->unheld_ns = 0;
    else if (!route->unheld_ns)
        route->unheld_ns = agent.now_ns;
    if (!is_held(route) && route->told && !route->overdue && route->state != STATE_DEAD)
        lend_to_calls(route);
    bool held = is_held(route);
    struct request_handle word = {
        .actor = {.index = (uint32_t)route->id, .generation = (uint32_t)(route->id >> 32)},
        .detail = held ? 1 : -1,
        .late_ms = held ? 0 : (uint32_t)((agent.now_ns - route->unheld_ns) / TIME_NS_PER_MS)};

    if (!held && route->told && must_wait(route))
        return;
    route->goes = false;
    route->overdue = false;
    if (held == route->told)
        return;
    route->told = held;
    if (agent.is_head) {
        head_request(agent.rank, RECORD_NONE, REQUEST_ACTOR_HOLD, &word, sizeof(word));
        return;
    }
    uint64_t token = held ? word_said() << 32 | WORD_TOKEN : RECORD_NONE;
    remote_head_ask(token, REQUEST_ACTOR_HOLD, &word, sizeof(word));
}

/* Those whose last hold went while mail lay unread, that may tell of calls by it. */
static uint32_t *laters, later_count, later_capacity;

void route_tell_hold(struct route *route)
{
    if (is_held(route) || !route->told ||
        (!agent.reads_mail && !atomic_load(&agent.lane.self->mailbox))) {
        route_tell_word(route);
        return;
    }
    if (route->later)
        return;
    route->later = true;
    laters = array_grown(laters, later_count, &later_capacity, sizeof(*laters));
    laters[later_count++] = (uint32_t)(route - agent.routes);
}

bool routes_wait(void)
{
    return later_count != 0;
}

void route_counted(struct route *route, uint16_t slot)
{
    if (slot)
        route->holders[slot / 64] |= (uint64_t)1 << slot % 64;
    if (!route
             ->told) /* what was said last may be older than the count, or younger: it is said again */
        route->told = !is_held(route);
    route_tell_hold(route);
}

static void lent_end(uint32_t number)
{
    struct route *route = &agent.routes[agent.lents[number].route];

    route->calls -= agent.lents[number].until_ns != 0;
    agent.lents[number] = agent.lents[--agent.lent_count];
    route->lent--;
    route_tell_hold(route);
}

void routes_look(void)
{
    uint32_t count =
        later_count; /* all mail of that time has been read; those that come now wait */

    for (uint32_t i = 0; i < count; i++) {
        agent.routes[laters[i]].later = false;
        route_tell_word(&agent.routes[laters[i]]);
    }
    later_count -= count;
    if (count)
        memmove(laters, laters + count, later_count * sizeof(*laters));
    for (uint32_t i = 0; i < agent.lent_count;) {
        struct lent lent = agent.lents[i];
        struct record *record = lane_find(&agent.lane, lent.record, lent.generation);
        bool overdue = lent.until_ns && agent.now_ns >= lent.until_ns;
        if (record && !overdue && !life_ended(record_life(record))) {
            i++;
            continue;
        }
        agent.routes[lent.route].overdue |= overdue;
        lent_end(i);
    }
}

void route_object_gone(uint32_t record)
{
    uint64_t first;

    if (!map_remove(&objects, record, &first))
        return;
    for (struct kept *kept = (struct kept *)(uintptr_t)first; kept;) {
        struct kept gone = *kept;
        free(kept);
        kept = gone.next;
        agent.routes[gone.route].lent--;
        route_tell_word(&agent.routes[gone.route]);
    }
}

/* ---- What constructors take ---- */

void takings_input(struct takings *takings, uint32_t index)
{
    takings->inputs = array_grown(takings->inputs, takings->input_count, &takings->input_capacity,
                                  sizeof(*takings->inputs));
    lane_hold(&agent.lane, index);
    takings->inputs[takings->input_count++] = index;
}

static void take_inside(void *context, uint32_t kind, const void *at)
{
    struct takings *takings = context;
    moray_actor actor;
    moray_ref ref;

    if (kind == MORAY_KIND_FUTURE) {
        memcpy(&ref, at, sizeof(ref));
        uint32_t local = ref.owner ? remote_stand_in(ref) : RECORD_NONE;
        if (local != RECORD_NONE)
            takings_input(takings, local);
        return;
    }
    memcpy(&actor, at, sizeof(actor));
    if (!actor.node)
        return;
    struct route *route = route_of((uint64_t)actor.generation << 32 | actor.index);
    takings->routes = array_grown(takings->routes, takings->route_count, &takings->route_capacity,
                                  sizeof(*takings->routes));
    takings->routes[takings->route_count++] = (uint32_t)(route - agent.routes);
    route->lent++;
    route_tell_hold(route);
}

void takings_insides(struct takings *takings, const struct request_actor *request, uint32_t bytes)
{
    const struct moray_function *constructor = classes[request->class_id]->constructor;
    uint64_t at = sizeof(*request) + ((uint64_t)request->name_bytes + 7) / 8 * 8 +
                  (uint64_t)__builtin_popcount(request->reference_mask) * sizeof(moray_ref);

    for (unsigned i = 0; constructor && i < constructor->parameter_count; i++) {
        const struct moray_parameter *parameter = &constructor->parameters[i];
        if (request->reference_mask >> i & 1)
            continue;
        if (at + parameter->size > bytes)
            return;
        insides_walk(parameter, (const char *)request + at, take_inside, takings);
        at += ((uint64_t)parameter->size + 7) / 8 * 8;
    }
}

void takings_free(struct takings *takings)
{
    free(takings->inputs);
    free(takings->routes);
    *takings = (struct takings){0};
}

void takings_drop(struct takings *takings)
{
    struct takings old = *takings;

    *takings = (struct takings){0};
    for (uint32_t i = 0; i < old.input_count; i++)
        drop_own(old.inputs[i]);
    for (uint32_t i = 0; i < old.route_count; i++) {
        agent.routes[old.routes[i]].lent--;
        route_tell_hold(&agent.routes[old.routes[i]]);
    }
    takings_free(&old);
}

/* An actor made by a process here, whose node has not said yet that it holds what its constructor takes.
 * Meanwhile this agent does, and has a handle, so that rank 0 tells it if the actor never starts. */
struct starting {
    uint64_t id;
    struct takings takings;
};

static struct starting *startings;
static uint32_t starting_count, starting_capacity;

bool route_inputs_hold(uint64_t id, const struct request_actor *request, uint32_t bytes)
{
    uint64_t before = (uint64_t)sizeof(*request) + ((uint64_t)request->name_bytes + 7) / 8 * 8;
    uint32_t count = (uint32_t)__builtin_popcount(request->reference_mask);
    const moray_ref *refs = (const moray_ref *)((const char *)request + before);
    struct starting starting = {.id = id};

    if (request->class_id >= class_count || count > MORAY_PARAMETERS_MAX ||
        before + count * sizeof(*refs) > bytes)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (refs[i].owner == agent.rank + 1 &&
            lane_find(&agent.lane, refs[i].index, refs[i].generation))
            takings_input(&starting.takings, refs[i].index);
    takings_insides(&starting.takings, request, bytes);
    if (!starting.takings.input_count && !starting.takings.route_count)
        return false;
    startings = array_grown(startings, starting_count, &starting_capacity, sizeof(*startings));
    startings[starting_count++] = starting;
    route_of(id)->lent++;
    return true;
}

void actors_inputs_held(uint64_t id)
{
    uint32_t at = 0;

    while (at < starting_count && startings[at].id != id)
        at++;
    if (at == starting_count)
        return;
    struct starting starting = startings[at];
    startings[at] = startings[--starting_count];
    takings_drop(&starting.takings);
    struct route *route = route_of(id);
    route->lent--;
    route_tell_hold(route);
}

void route_tell_inputs_held(uint64_t id)
{
    uint32_t creator = (uint32_t)(id >> ACTOR_ID_RANK_SHIFT) - 1;

    if (creator == agent.rank)
        actors_inputs_held(id);
    else if (creator < agent.rank_count)
        remote_tell_starts(creator, id);
}

void routes_drop_holder(uint16_t slot)
{
    for (uint32_t i = 0; i < agent.route_count; i++) {
        struct route *route = &agent.routes[i];
        if (!(route->holders[slot / 64] >> slot % 64 & 1))
            continue;
        route->holders[slot / 64] &= ~((uint64_t)1 << slot % 64);
        route_tell_hold(route);
    }
}

void routes_end(void)
{
    for (uint32_t i = 0; i < agent.route_count; i++) {
        free(agent.routes[i].story);
        free(agent.routes[i].waiting);
        free(agent.routes[i].sent);
    }
    free(unused);
    unused = NULL;
    unused_count = unused_capacity = 0;
    free(laters);
    laters = NULL;
    later_count = later_capacity = 0;
    free(agent.routes);
    const struct map_cell *cell;
    size_t cursor = 0;
    while ((cell = map_next(&objects, &cursor)))
        for (struct kept *kept = (struct kept *)(uintptr_t)cell->value, *next; kept; kept = next) {
            next = kept->next;
            free(kept);
        }
    map_clear(&objects);
    free(agent.lents);
    for (uint32_t i = 0; i < starting_count; i++)
        takings_free(&startings[i].takings);
    free(startings);
    startings = NULL;
    starting_count = starting_capacity = 0;
    agent.routes = NULL;
    agent.lents = NULL;
    agent.route_count = agent.route_capacity = agent.lent_count = agent.lent_capacity = 0;
    map_clear(&agent.actor_routes);
}
