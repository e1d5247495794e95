#include "gcs/nodes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct line {
    struct nodes_line shown;
    uint64_t share_key;
};

struct nodes {
    uint32_t rank_count;
    uint64_t version;
    uint32_t counts[NODES_LOST + 1]; /* lines by state; their sum is rank_count */
    struct resources total;
    struct line lines[];
};

static void change(struct nodes *nodes, struct nodes_line *line, enum nodes_state next)
{
    nodes->counts[line->state]--;
    nodes->counts[next]++;
    line->state = next;
    line->version = ++nodes->version;
}

/* The first rank that shares memory with `rank`. */
static uint32_t host_of(const struct nodes *nodes, uint32_t rank, uint64_t share_key)
{
    for (uint32_t other = 0; other < nodes->rank_count && share_key; other++)
        if (nodes->lines[other].share_key == share_key)
            return nodes->lines[other].shown.host;
    return rank;
}

enum moray_code nodes_join(struct nodes *nodes, const struct nodes_line *line, uint64_t share_key,
                           uint64_t now_ns, struct moray_error *error)
{
    struct nodes_line *own;

    if (line->rank >= nodes->rank_count)
        return error_set(error, MORAY_INVALID, "rank %u joins a job of %u ranks", line->rank,
                         nodes->rank_count);
    own = &nodes->lines[line->rank].shown;
    if (own->state != NODES_ABSENT)
        return error_set(error, MORAY_INVALID, "rank %u joins again, from %.64s; it is %s",
                         line->rank, line->host_name, own->state == NODES_LOST ? "lost" : "here");
    memcpy(own->host_name, line->host_name, NODES_HOST_BYTES - 1);
    own->runs_tasks = line->runs_tasks;
    own->worker_count = line->worker_count;
    own->have = line->have;
    own->store_bytes = line->store_bytes;
    own->joined_ns = own->reported_ns = now_ns;
    own->host = host_of(nodes, line->rank, share_key);
    nodes->lines[line->rank].share_key = share_key;
    if (own->runs_tasks)
        nodes->total = resources_more(nodes->total, own->have);
    change(nodes, own, NODES_ALIVE);
    return MORAY_OK;
}

bool nodes_report(struct nodes *nodes, uint32_t rank, const struct load *load,
                  uint64_t store_used_bytes, uint64_t now_ns)
{
    struct nodes_line *line;

    if (rank >= nodes->rank_count || nodes->lines[rank].shown.state != NODES_ALIVE)
        return false;
    line = &nodes->lines[rank].shown;
    assert(now_ns >= line->reported_ns);
    line->load = *load;
    line->store_used_bytes = store_used_bytes;
    line->reported_ns = now_ns;
    change(nodes, line, NODES_ALIVE);
    return true;
}

bool nodes_lose(struct nodes *nodes, uint32_t rank)
{
    struct nodes_line *line;

    if (rank >= nodes->rank_count || nodes->lines[rank].shown.state == NODES_LOST)
        return false;
    line = &nodes->lines[rank].shown;
    if (line->state == NODES_ALIVE && line->runs_tasks)
        nodes->total = resources_less(nodes->total, line->have);
    nodes->lines[rank].share_key = 0; /* nobody shares with it any more */
    change(nodes, line, NODES_LOST);
    return true;
}

const struct nodes_line *nodes_get(const struct nodes *nodes, uint32_t rank)
{
    return rank < nodes->rank_count ? &nodes->lines[rank].shown : NULL;
}

uint64_t nodes_age_ns(const struct nodes *nodes, uint32_t rank, uint64_t now_ns)
{
    assert(rank < nodes->rank_count && now_ns >= nodes->lines[rank].shown.reported_ns);
    return now_ns - nodes->lines[rank].shown.reported_ns;
}

size_t nodes_changed(const struct nodes *nodes, uint64_t since, uint32_t *cursor,
                     const struct nodes_line **out, size_t room)
{
    size_t count = 0;

    while (count < room && *cursor < nodes->rank_count) {
        const struct nodes_line *line = &nodes->lines[(*cursor)++].shown;
        if (line->version > since)
            out[count++] = line;
    }
    return count;
}

uint32_t nodes_count(const struct nodes *nodes, enum nodes_state state)
{
    return nodes->counts[state];
}

uint64_t nodes_version(const struct nodes *nodes)
{
    return nodes->version;
}

struct resources nodes_total(const struct nodes *nodes)
{
    return nodes->total;
}

enum moray_code nodes_create(uint32_t rank_count, struct nodes **out, struct moray_error *error)
{
    struct nodes *nodes;

    *out = NULL;
    if (rank_count == 0)
        return error_set(error, MORAY_INVALID, "rank_count is 0; a job has at least one rank");
    nodes = calloc(1, sizeof(*nodes) + rank_count * sizeof(struct line));
    if (!nodes)
        return error_set(error, MORAY_NO_MEMORY, "no memory for a table of %u nodes", rank_count);
    nodes->rank_count = rank_count;
    nodes->counts[NODES_ABSENT] = rank_count;
    for (uint32_t rank = 0; rank < rank_count; rank++)
        nodes->lines[rank].shown.rank = nodes->lines[rank].shown.host = rank;
    *out = nodes;
    return MORAY_OK;
}

void nodes_destroy(struct nodes *nodes)
{
    free(nodes);
}
