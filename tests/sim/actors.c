/* Actors: ranks that make them, pass handles round and drop them, nodes whose processes start late,
 * crash, hang or are refused. The truth about handles and processes is kept here, outside the
 * machine. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum {
    A_CREATE = ACTOR_KINDS, /* to the head: rank makes actor a, span b, c: its name or none */
    A_MADE,                 /* the answer: actor b has it (a: as asked) */
    A_HOLD,                 /* to the head: rank c & 0xffff, span b, c >> 16: begins or ends */
    A_KILL,                 /* to the head: b: may restart */
    A_START,                /* to a node: incarnation b */
    A_FINISH,
    A_STOP,
    A_TELL,    /* to a rank: state b */
    A_STARTED, /* to the head, and so on: b: incarnation */
    A_REFUSED,
    A_FAILED,
    A_EXITED, /* c: clean */
    A_UP,     /* timers of a node: the constructor has returned */
    A_CRASH,  /* the process dies by itself */
    A_OUT,    /* it has finished its queue */
    A_LET_GO, /* timer of a rank: drops its handle, perhaps after it passed it on; b: span */
    A_TICK,   /* timer of the head */
};

enum { NAMES = 4, RANKS_MAX = 64, PASSES_MAX = 6 };

struct model {
    bool process; /* its node has one, of `incarnation` */
    bool up;
    uint32_t node, incarnation;
    uint64_t held, ever; /* ranks, as bits */
    uint32_t passes;
    uint8_t told[RANKS_MAX]; /* state + 1 */
};

struct actor_model {
    struct model *actors; /* by id - 1 */
    uint32_t count;
    uint64_t epoch[RANKS_MAX];
    uint64_t tick_ns; /* of the valid A_TICK */
};

static uint64_t some_ms(struct sim *sim, uint64_t most)
{
    return world_random(sim->world, most * 1000 * 1000);
}

static void timer(struct sim *sim, uint64_t delay_ns, uint32_t kind, uint32_t rank, uint64_t id,
                  uint64_t b)
{
    world_post(sim->world, delay_ns, (struct event){.kind = kind, .to = rank, .a = id, .b = b});
}

static struct model *model_of(struct sim *sim, uint64_t id)
{
    return &sim->actor_model->actors[id - 1];
}

void actors_start(struct sim *sim, uint32_t count)
{
    struct actor_model *model = calloc(1, sizeof(*model));

    if (!model || sim->options.rank_count > RANKS_MAX)
        abort();
    model->actors = calloc(count, sizeof(*model->actors));
    if (!model->actors)
        abort();
    model->count = count;
    model->tick_ns = UINT64_MAX;
    sim->actor_model = model;
    for (uint32_t id = 1; id <= count; id++) {
        uint32_t rank = (uint32_t)world_random(sim->world, sim->options.rank_count);
        /* The creation is sent when this timer rings, by the rank itself. */
        timer(sim, some_ms(sim, 200), A_CREATE, rank, id, UINT64_MAX);
    }
}

/* A rank begins to hold a handle for a while. */
static void begin_hold(struct sim *sim, uint32_t rank, uint64_t id, uint64_t span)
{
    struct model *actor = model_of(sim, id);

    actor->held |= 1ull << rank;
    actor->ever |= 1ull << rank;
    timer(sim, some_ms(sim, 300), A_LET_GO, rank, id, span);
}

/* A rank lets another hold the actor: it says so itself, before it drops its own handle. */
static void pass_on(struct sim *sim, uint32_t rank, uint64_t id)
{
    uint32_t other = (uint32_t)world_random(sim->world, sim->options.rank_count);
    struct model *actor = model_of(sim, id);
    uint64_t span;

    if ((actor->held >> other & 1) || actor->passes >= PASSES_MAX)
        return;
    actor->passes++;
    span = ++sim->actor_model->epoch[other];
    sim_send(sim, 0, A_HOLD, rank, 0, id, span, 1u << 16 | other);
    if (world_chance(sim->world, 300)) /* the other says so as well */
        sim_send(sim, 0, A_HOLD, other, 0, id, span, 1u << 16 | other);
    begin_hold(sim, other, id, span);
}

static void let_go(struct sim *sim, uint32_t rank, uint64_t id, uint64_t span)
{
    while ((model_of(sim, id)->held >> rank & 1) && world_chance(sim->world, 600))
        pass_on(sim, rank, id);
    if (world_chance(sim->world, 30))
        sim_send(sim, 0, A_KILL, rank, 0, id, world_random(sim->world, 2), 0);
    model_of(sim, id)->held &= ~(1ull << rank);
    sim_send(sim, 0, A_HOLD, rank, 0, id, span, rank);
}

/* Rank: the answer to its creation came. Its span holds whichever actor that is. */
static void made(struct sim *sim, const struct event *event)
{
    if (event->b)
        timer(sim, some_ms(sim, 300), A_LET_GO, event->to, event->b, event->c);
}

static void node_part(struct sim *sim, const struct event *event)
{
    struct model *actor = model_of(sim, event->a);
    uint32_t rank = event->to, fate = (uint32_t)world_random(sim->world, 100);

    switch (event->kind) {
    case A_START:
        if (actor->process)
            sim_fail(sim, "actor %u starts on rank %u while it has a process", (uint32_t)event->a,
                     rank);
        if (fate < 5) {
            sim_send(sim, 0, A_REFUSED, rank, 0, event->a, event->b, 0);
            return;
        }
        actor->process = true;
        actor->up = false;
        actor->node = rank;
        actor->incarnation = (uint32_t)event->b;
        timer(sim, some_ms(sim, 20), fate < 15 ? A_CRASH : A_UP, rank, event->a, event->b);
        return;
    case A_UP:
        if (!actor->process || actor->incarnation != event->b)
            return;
        if (fate < 5) {
            actor->process = false;
            sim_send(sim, 0, A_FAILED, rank, 0, event->a, event->b, 0);
            return;
        }
        actor->up = true;
        sim_send(sim, 0, A_STARTED, rank, 0, event->a, event->b, 0);
        if (fate < 40)
            timer(sim, some_ms(sim, fate < 20 ? 50 : 3000), A_CRASH, rank, event->a, event->b);
        return;
    case A_FINISH:
        if (fate >= 10) /* else it hangs, and will be stopped */
            timer(sim, some_ms(sim, 20), A_OUT, rank, event->a, event->b);
        return;
    case A_STOP:
    case A_CRASH:
    case A_OUT:
        if (!actor->process || actor->node != rank || actor->incarnation != event->b)
            return;
        actor->process = false;
        sim_send(sim, 0, A_EXITED, rank, 0, event->a, event->b, event->kind == A_OUT || fate < 2);
        return;
    }
}

static void create(struct sim *sim, const struct event *event)
{
    static const char *const names[NAMES] = {"a", "b", "c", "d"};
    struct actors_spec spec = {.id = event->a,
                               .creator = event->from,
                               .epoch = event->b,
                               .name = event->c ? names[event->c - 1] : NULL,
                               .or_get = true,
                               .restarts = (int32_t)world_random(sim->world, 4) - 1};
    struct moray_error error;
    uint64_t id = 0;

    if (world_chance(sim->world, 100))
        spec.need.core_parts = RESOURCES_CORE * (uint64_t)sim->options.worker_count;
    if (actors_create(sim->actors, &spec, world_now(sim->world), &id, &error) != MORAY_OK) {
        sim_fail(sim, "actor %u cannot be made: %s", (uint32_t)event->a, error.text);
        return;
    }
    sim->paths[PATH_SHARED_NAME] += id != event->a;
    model_of(sim, id)->held |= 1ull << event->from;
    model_of(sim, id)->ever |= 1ull << event->from;
    sim_send(sim, 0, A_MADE, 0, event->from, event->a, id, event->b);
}

static void head_part(struct sim *sim, const struct event *event)
{
    struct actors *actors = sim->actors;
    uint64_t now_ns = world_now(sim->world);
    uint32_t incarnation = (uint32_t)event->b;
    enum moray_code code;

    switch (event->kind) {
    case A_CREATE:
        create(sim, event);
        break;
    case A_HOLD:
        code = actors_hold(actors, event->a, (uint32_t)(event->c & 0xffff), event->b,
                           event->c >> 16, now_ns, NULL);
        if (code != MORAY_OK && code != MORAY_STALE)
            sim_fail(sim, "a handle's word is not taken: %s", error_name(code));
        break;
    case A_KILL:
        actors_kill(actors, event->a, event->b, "killed");
        break;
    case A_STARTED:
        actors_started(actors, event->a, incarnation, 7, now_ns);
        break;
    case A_REFUSED:
        sim->paths[PATH_REFUSED]++;
        global_actor_refused(sim->global, event->from);
        actors_refused(actors, event->a, incarnation);
        break;
    case A_FAILED:
        actors_failed(actors, event->a, incarnation, MORAY_FAILED, "its constructor failed");
        break;
    case A_EXITED:
        actors_exited(actors, event->a, incarnation, event->c, "it ended", now_ns);
        break;
    case A_TICK:
        sim->actor_model->tick_ns = UINT64_MAX;
        global_actors_again(sim->global);
        actors_tick(actors, now_ns);
        break;
    }
}

static void choose(struct sim *sim, const struct actors_action *action)
{
    struct moray_error error;
    uint32_t rank;
    enum moray_code code =
        global_place_actor(sim->global, action->line.need, UINT32_MAX, &rank, &error);

    code = code == MORAY_FULL ? MORAY_BUSY : code; /* it waits without end */
    sim->paths[PATH_NO_ROOM] += code == MORAY_BUSY;
    if (code != MORAY_OK)
        actors_unplaced(sim->actors, action->id, code, code == MORAY_BUSY ? "" : error.text,
                        world_now(sim->world));
    else if (!actors_placed(sim->actors, action->id, rank, world_now(sim->world)))
        global_actor_ended(sim->global, rank, action->line.need);
}

static void act(struct sim *sim, const struct actors_action *action)
{
    struct model *actor = model_of(sim, action->id);

    switch (action->kind) {
    case ACTORS_CHOOSE:
        choose(sim, action);
        break;
    case ACTORS_START:
        sim->paths[PATH_RESTARTED] += action->incarnation > 1;
        sim_send(sim, 0, A_START, 0, action->rank, action->id, action->incarnation, 0);
        break;
    case ACTORS_FINISH:
        sim->paths[PATH_FINISHED]++;
        if (actor->held)
            sim_fail(sim, "actor %u is to finish while ranks %llx hold it", (uint32_t)action->id,
                     (unsigned long long)actor->held);
        sim_send(sim, 0, A_FINISH, 0, action->rank, action->id, action->incarnation, 0);
        break;
    case ACTORS_STOP:
        sim->paths[PATH_STOPPED]++;
        sim_send(sim, 0, A_STOP, 0, action->rank, action->id, action->incarnation, 0);
        break;
    case ACTORS_TELL:
        sim_send(sim, 0, A_TELL, 0, action->rank, action->id, action->line.state, 0);
        break;
    case ACTORS_RELEASE:
        global_actor_ended(sim->global, action->rank, action->line.need);
        actors_room(sim->actors, 10);
        break;
    }
}

static void settle(struct sim *sim)
{
    struct actors_action action;
    uint64_t deadline_ns;

    while (actors_next(sim->actors, &action))
        act(sim, &action);
    deadline_ns = actors_deadline(sim->actors);
    if (deadline_ns < sim->actor_model->tick_ns) {
        sim->actor_model->tick_ns = deadline_ns;
        timer(sim, deadline_ns > world_now(sim->world) ? deadline_ns - world_now(sim->world) : 0,
              A_TICK, 0, 1, 0);
    }
    /* A place that was refused everywhere is asked for again, later. */
    if (actors_room(sim->actors, 0) > 0 && sim->actor_model->tick_ns == UINT64_MAX) {
        sim->actor_model->tick_ns = world_now(sim->world) + 10 * 1000 * 1000;
        timer(sim, 10 * 1000 * 1000, A_TICK, 0, 1, 0);
    }
}

void actors_event(struct sim *sim, const struct event *event)
{
    uint32_t rank = event->to;

    switch (event->kind) {
    case A_CREATE:
        if (event->b == UINT64_MAX) { /* the rank's own timer */
            uint64_t name = world_chance(sim->world, 300) ? 1 + world_random(sim->world, NAMES) : 0;
            sim_send(sim, 0, A_CREATE, rank, 0, event->a, ++sim->actor_model->epoch[rank], name);
            return;
        }
        break;
    case A_MADE:
        made(sim, event);
        return;
    case A_TELL:
        model_of(sim, event->a)->told[rank] = (uint8_t)(event->b + 1);
        return;
    case A_LET_GO:
        let_go(sim, rank, event->a, event->b);
        return;
    case A_START:
    case A_UP:
    case A_FINISH:
    case A_STOP:
    case A_CRASH:
    case A_OUT:
        node_part(sim, event);
        return;
    }
    head_part(sim, event);
    if (event->kind == A_TICK)
        actors_room(sim->actors, 10);
    settle(sim);
}

void actors_check(struct sim *sim)
{
    if (!sim->actor_model)
        return;
    for (uint64_t id = 1; id <= sim->actor_model->count; id++) {
        struct model *actor = model_of(sim, id);
        struct actors_line line;
        if (actors_get(sim->actors, id, &line))
            sim_fail(sim, "actor %u is in state %d at the end", (uint32_t)id, (int)line.state);
        if (actor->process)
            sim_fail(sim, "actor %u has a process on rank %u at the end", (uint32_t)id,
                     actor->node);
        for (uint32_t rank = 0; rank < sim->options.rank_count; rank++)
            if ((actor->ever >> rank & 1) && actor->told[rank] != ACTORS_DEAD + 1)
                sim_fail(sim, "rank %u was not told that actor %u is dead", rank, (uint32_t)id);
    }
    if (actors_count(sim->actors))
        sim_fail(sim, "%zu actors are left at the end", actors_count(sim->actors));
}

void actors_end(struct sim *sim)
{
    if (sim->actor_model)
        free(sim->actor_model->actors);
    free(sim->actor_model);
}
