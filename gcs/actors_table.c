#include "gcs/actors_inside.h"

#include <stdlib.h>
#include <string.h>

struct actor *actor_record_find(const struct actors *actors, uint64_t id)
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

struct actor *actor_record_named(const struct actors *actors, const char *space, const char *name)
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

void actor_record_touch(struct actors *actors, struct actor *actor)
{
    uint32_t at = actor_position(actors, actor);

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

void actor_record_unname(struct actors *actors, struct actor *actor)
{
    if (actor->named)
        index_remove(&actors->by_name, name_hash(space_of(actor), name_of(actor)),
                     actor_position(actors, actor));
    actor->named = false;
}

/* A word about a lost rank, passed on by another, must not bring it back. */
enum moray_code actor_record_rank(const struct actors *actors, uint32_t rank,
                                  struct moray_error *error)
{
    if (rank < actors->options.rank_count && !actors->lost[rank])
        return MORAY_OK;
    return error_set(error, MORAY_STALE, "rank %u is lost, or is none of the %u of this job", rank,
                     actors->options.rank_count);
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
    if (actor_record_find(actors, spec->id))
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

enum moray_code actor_record_make(struct actors *actors, const struct actors_spec *spec,
                                  struct actor **out, struct moray_error *error)
{
    const char *space = spec->space ? spec->space : "";
    struct holders holders = {0};
    struct actor *actor;
    enum moray_code code;
    char *block;

    *out = NULL;
    code = actor_record_rank(actors, spec->creator, error);
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
                            .force_ns = UINT64_MAX,
                            .room_ns = UINT64_MAX};
    actors->count++;
    index_add(&actors->by_id, index_mix(actor->id), actor_position(actors, actor));
    if (actor->named)
        index_add(&actors->by_name, name_hash(space, spec->name), actor_position(actors, actor));
    *out = actor;
    return MORAY_OK;
}

void actor_record_show(const struct actor *actor, struct actors_line *out)
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
    const struct actor *actor = actor_record_find(actors, id);

    if (actor)
        actor_record_show(actor, out);
    return actor != NULL;
}

bool actors_list(const struct actors *actors, uint32_t *cursor, struct actors_line *out)
{
    while (*cursor < actors->capacity) {
        const struct actor *actor = &actors->records[(*cursor)++];
        if (actor->id) {
            actor_record_show(actor, out);
            return true;
        }
    }
    return false;
}

size_t actors_count(const struct actors *actors)
{
    return actors->count;
}

void actor_record_forget(struct actors *actors, struct actor *actor)
{
    index_remove(&actors->by_id, index_mix(actor->id), actor_position(actors, actor));
    holders_clear_all(&actor->holders);
    free(actor->block);
    memset(actor, 0, sizeof(*actor));
    actor->unused_next = actors->unused;
    actors->unused = actor_position(actors, actor);
    actors->count--;
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
    if (!options->room_ns)
        options->room_ns = 10 * 1000000000ull;
    if (!options->look_ns)
        options->look_ns = 1000000000;
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
    actors->look_ns = actors->deadline_ns = UINT64_MAX;
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
