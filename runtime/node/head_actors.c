#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/time.h"
#include "gcs/actors.h"
#include "node/head.h"
#include "node/remote.h"
#include "node/routes.h"
#include "sched/policy/global.h"

/* The GCS's table of actors (gcs/actors), driven: words of nodes in, orders to nodes out. */

static_assert((int)STATE_DEAD == (int)ACTORS_DEAD, "nodes are told the state as a number");

static uint64_t epoch_of(const moray_actor *actor)
{
    return (uint64_t)actor->generation << 32 | actor->index;
}

/* The node for an actor: the one asked for, else the scheduler's choice. Without room it waits: for what
 * others hold as long as they live, for a process with an end, as those who have one may never go. */
static void choose(const struct actors_action *action)
{
    struct resources need = action->line.need;
    struct request_actor request; /* what the table keeps is not aligned */
    struct moray_error error;
    char story[300];
    uint32_t node;

    if (!remote_all_known()) {
        actors_unplaced(head_actors(), action->id, MORAY_BUSY, "", agent.now_ns);
        return;
    }
    memcpy(&request, action->line.start, sizeof(request));
    uint32_t only = request.on_rank >= 0 ? (uint32_t)request.on_rank : UINT32_MAX;
    enum moray_code code = global_place_actor(remote_global(), need, only, &node, &error);
    switch (code) {
    case MORAY_OK:
        if (!actors_placed(head_actors(), action->id, node, agent.now_ns))
            global_actor_ended(remote_global(), node, need);
        break;
    case MORAY_BUSY:
        actors_unplaced(head_actors(), action->id, MORAY_BUSY, "", agent.now_ns);
        break;
    case MORAY_FULL:
        snprintf(story, sizeof(story),
                 "no process came free for the actor in time; let other actors go, raise "
                 "MORAY_PROCESSES_MAX (%lld on rank 0) or lower MORAY_SPARES_MAX",
                 (long long)agent.settings.processes_max);
        actors_unplaced(head_actors(), action->id, MORAY_BUSY, story, agent.now_ns);
        break;
    default:
        actors_unplaced(head_actors(), action->id, code, error.text, agent.now_ns);
    }
}

static void send_word(uint32_t rank, uint32_t kind, const struct actor_word *word, const void *more,
                      size_t more_bytes)
{
    char few[512], *bytes = few;

    if (sizeof(*word) + more_bytes > sizeof(few)) {
        bytes = malloc(sizeof(*word) + more_bytes);
        if (!bytes)
            return;
    }
    memcpy(bytes, word, sizeof(*word));
    if (more_bytes)
        memcpy(bytes + sizeof(*word), more, more_bytes);
    if (rank == agent.rank)
        actors_word(kind, bytes, (uint32_t)(sizeof(*word) + more_bytes));
    else
        remote_word(rank, kind, bytes, (uint32_t)(sizeof(*word) + more_bytes));
    if (bytes != few)
        free(bytes);
}

void head_actor_actions(void)
{
    struct actors_action action;
    static bool busy;

    if (busy)
        return; /* a word to this very node came back at once: the loop below goes on with it */
    busy = true;
    while (actors_next(head_actors(), &action)) {
        struct actor_word word = {.id = action.id, .incarnation = action.incarnation};
        switch (action.kind) {
        case ACTORS_CHOOSE:
            choose(&action);
            break;
        case ACTORS_START:
            word.node = action.rank;
            send_word(action.rank, NODE_ACTOR_START, &word, action.line.start,
                      action.line.start_bytes);
            break;
        case ACTORS_FINISH:
            send_word(action.rank, NODE_ACTOR_FINISH, &word, NULL, 0);
            break;
        case ACTORS_STOP:
            send_word(action.rank, NODE_ACTOR_STOP, &word, NULL, 0);
            break;
        case ACTORS_TELL:
            word.detail = action.line.state;
            /* Its node may refuse it still, and calls would be there before. */
            word.node = action.line.state == ACTORS_PLACING ? UINT32_MAX : action.line.node;
            word.code = (uint32_t)action.line.code;
            word.pending_max = action.line.pending_max;
            send_word(action.rank, NODE_ACTOR_IS, &word, action.line.story,
                      strlen(action.line.story) + 1);
            break;
        case ACTORS_RELEASE: /* its node may hold no handle, and has calls to fail all the same */
            global_actor_ended(remote_global(), action.rank, action.line.need);
            if (!actors_get(head_actors(), action.id, &action.line) ||
                action.line.state != ACTORS_DEAD)
                break;
            word.detail = action.line.state;
            word.node = action.rank;
            word.code = (uint32_t)action.line.code;
            send_word(action.rank, NODE_ACTOR_IS, &word, action.line.story,
                      strlen(action.line.story) + 1);
            actors_room(head_actors(), SIZE_MAX);
            break;
        }
    }
    busy = false;
}

/* The creator's own actor will never be: it lets go what it holds for the constructor. */
static void never_starts(uint32_t rank, const struct request_actor *request, uint64_t id)
{
    struct actor_word word = {
        .id = id, .node = UINT32_MAX, .detail = ACTORS_DEAD, .code = MORAY_ACTOR_DIED};
    static const char story[] = "it was never made";

    if (request->is_lent)
        send_word(rank, NODE_ACTOR_IS, &word, story, sizeof(story));
}

static void create(uint32_t rank, uint64_t token, const struct request_actor *request,
                   uint32_t count, const moray_actor *handle)
{
    char name[ACTORS_NAME_BYTES_MAX + 1] = "";
    struct moray_error error;
    uint64_t id;

    snprintf(name, sizeof(name), "%.*s", (int)request->name_bytes, (const char *)(request + 1));
    struct actors_spec spec = {
        .id = epoch_of(handle),
        .creator = rank,
        .epoch = agent.next_actor_id++ + 1,
        .name = request->name_bytes ? name : NULL,
        .or_get = request->get_if_exists,
        .function = request->class_id,
        .start = request,
        .start_bytes = count,
        .need = {.core_parts = request->cores, .memory_bytes = request->memory_bytes},
        .restarts = request->restarts,
        .pending_max = request->pending_max,
    };
    if (actors_create(head_actors(), &spec, agent.now_ns, &id, &error) != MORAY_OK) {
        never_starts(rank, request, spec.id);
        head_reply(rank, token, error.code, error.text, strlen(error.text) + 1);
        return;
    }
    if (id != spec.id)
        never_starts(rank, request, spec.id);
    head_actor_actions();
    moray_actor answer = {
        .node = rank + 1, .index = (uint32_t)id, .generation = (uint32_t)(id >> 32)};
    head_reply(rank, token, MORAY_OK, &answer, sizeof(answer));
}

static void named(uint32_t rank, uint64_t token, const struct request_name *request, uint32_t count)
{
    char name[ACTORS_NAME_BYTES_MAX + 1];
    struct moray_error error;
    uint64_t id;

    if (request->name_bytes > count - sizeof(*request) ||
        request->name_bytes > ACTORS_NAME_BYTES_MAX) {
        head_reply(rank, token, MORAY_INVALID, "a name is too long", 19);
        return;
    }
    snprintf(name, sizeof(name), "%.*s", (int)request->name_bytes, (const char *)(request + 1));
    if (actors_find(head_actors(), NULL, name, request->class_id, rank, agent.next_actor_id++ + 1,
                    &id, &error) != MORAY_OK) {
        head_reply(rank, token, error.code, error.text, strlen(error.text) + 1);
        return;
    }
    head_actor_actions();
    moray_actor answer = {
        .node = rank + 1, .index = (uint32_t)id, .generation = (uint32_t)(id >> 32)};
    head_reply(rank, token, MORAY_OK, &answer, sizeof(answer));
}

static void handle_request(uint32_t rank, uint64_t token, uint32_t kind,
                           const struct request_handle *request)
{
    uint64_t id = epoch_of(&request->actor), late_ns = request->late_ms * TIME_NS_PER_MS;
    struct moray_error error = {.code = MORAY_OK};

    if (late_ns > agent.now_ns)
        late_ns = agent.now_ns;
    if (kind == REQUEST_ACTOR_KILL)
        actors_kill(head_actors(), id, request->detail != 0, "it was killed by moray_kill");
    else
        (void)!actors_hold(head_actors(), id, rank, agent.next_actor_id++ + 1, request->detail > 0,
                           agent.now_ns - late_ns, &error);
    head_actor_actions();
    if (error.code == MORAY_STALE && request->detail > 0) { /* calls there may wait for its place */
        struct actor_word word = {
            .id = id, .node = UINT32_MAX, .detail = ACTORS_DEAD, .code = MORAY_STALE};
        send_word(rank, NODE_ACTOR_IS, &word, error.text, strlen(error.text) + 1);
    }
    if (error.code != MORAY_OK && kind != REQUEST_ACTOR_KILL && request->detail > 0)
        head_reply(rank, token, error.code, error.text, strlen(error.text) + 1);
    else
        head_reply(rank, token, MORAY_OK, NULL, 0);
}

static void node_word(uint32_t rank, uint32_t kind, const void *bytes, uint32_t count)
{
    struct actor_word word;
    const char *story = (const char *)bytes + sizeof(word);

    memcpy(&word, bytes, sizeof(word));
    if (count <= sizeof(word) || story[count - sizeof(word) - 1] != '\0')
        story = "";
    if (kind == HEAD_ACTOR_STARTED)
        actors_started(head_actors(), word.id, word.incarnation, word.detail, agent.now_ns);
    else if (kind == HEAD_ACTOR_REFUSED) {
        global_actor_refused(remote_global(), rank);
        actors_refused(head_actors(), word.id, word.incarnation);
    } else if (kind == HEAD_ACTOR_FAILED)
        actors_failed(head_actors(), word.id, word.incarnation, (enum moray_code)word.code, story);
    else
        actors_exited(head_actors(), word.id, word.incarnation, word.detail != 0, story,
                      agent.now_ns);
    head_actor_actions();
}

void head_actor_request(uint32_t rank, uint64_t token, uint32_t kind, const void *bytes,
                        uint32_t count)
{
    if (kind == REQUEST_ACTOR_NEW && count >= sizeof(struct request_actor) + sizeof(moray_actor)) {
        /* The id that the creator chose stands behind everything else. */
        moray_actor handle;
        uint32_t rest = count - (uint32_t)sizeof(handle);
        const struct request_actor *request = bytes;
        memcpy(&handle, (const char *)bytes + rest, sizeof(handle));
        if ((uint64_t)sizeof(*request) + request->name_bytes <= rest &&
            request->name_bytes <= ACTORS_NAME_BYTES_MAX && request->class_id < class_count) {
            create(rank, token, request, rest, &handle);
            return;
        }
    } else if (kind == REQUEST_ACTOR_NAMED && count >= sizeof(struct request_name)) {
        named(rank, token, bytes, count);
        return;
    } else if ((kind == REQUEST_ACTOR_HOLD || kind == REQUEST_ACTOR_KILL) &&
               count >= sizeof(struct request_handle)) {
        handle_request(rank, token, kind, bytes);
        return;
    } else if (kind >= HEAD_ACTOR_STARTED && count >= sizeof(struct actor_word)) {
        node_word(rank, kind, bytes, count);
        return;
    }
    head_reply(rank, token, MORAY_INVALID, "a word about an actor is malformed", 35);
}

void head_tell(uint32_t kind, const void *bytes, uint32_t count)
{
    if (agent.is_head)
        head_request(agent.rank, RECORD_NONE, kind, bytes, count);
    else
        remote_head_ask(RECORD_NONE, kind, bytes, count);
}

/* The nodes are known now: what waited for one is placed. */
void head_nodes_known(void)
{
    if (!head_actors())
        return;
    actors_room(head_actors(), SIZE_MAX);
    head_actor_actions();
}

void head_actors_tick(void)
{
    global_actors_again(remote_global());
    actors_tick(head_actors(), agent.now_ns);
    head_actor_actions();
}
