#include "node/remote_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/head.h"

/* Who is who: each rank's HELLO to rank 0, rank 0's NODES to all; programs that differ are told apart by
 * their functions. */

enum { PROGRAM_TEXT_BYTES = 128 * 1024 };

void peers_know(uint32_t rank, const struct item_hello *hello)
{
    struct peer *peer = &remote_peers[rank];

    if (peer->known)
        return;
    peer->known = true;
    peer->is_node = hello->is_node != 0;
    peer->workers = hello->workers;
    peer->memory_bytes = hello->memory_bytes;
    peer->host = hello->host;
    peer->digest = hello->digest;
    agent.remote->known_count++;
    if (agent.remote->known_count == agent.rank_count) {
        uint32_t workers = 0;
        for (uint32_t i = 0; i < agent.rank_count; i++)
            workers += remote_peers[i].workers;
        atomic_store(&agent.node->job_workers, workers);
        atomic_store(&agent.node->nodes_known, 1);
        agent.remote->all_known = true;
        moves_join();
        moves_possible_flush();
        head_nodes_known();
    }
}

struct item_hello peers_own_hello(void)
{
    uint64_t host = 0xcbf29ce484222325;

    for (const char *at = agent.launch.node_key; *at; at++)
        host = (host ^ (unsigned char)*at) * 0x100000001b3;
    return (struct item_hello){.digest = program_digest(),
                               .host = host,
                               .memory_bytes = window_memory_limit_of_node(),
                               .is_node = agent.is_node,
                               .workers = agent.worker_count,
                               .window = agent.window};
}

static void print_types(FILE *out, const struct moray_parameter *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        fprintf(out, "%s%.64s:%u", i ? ", " : "", list[i].type, list[i].size);
}

/* What makes two programs one: a line a function and an actor, "add(int64_t:8) -> int64_t:8 at F:L".
 * To be freed; NULL: no memory. */
static char *program_text(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    if (!out)
        return NULL;
    for (uint32_t i = 0; i < function_count && ftell(out) < PROGRAM_TEXT_BYTES; i++) {
        fprintf(out, "%.200s(", functions[i]->name);
        print_types(out, functions[i]->parameters, functions[i]->parameter_count);
        fputs(functions[i]->result_count ? ") -> " : ")", out);
        print_types(out, functions[i]->results, functions[i]->result_count);
        fprintf(out, " at %.200s:%d\n", functions[i]->file, functions[i]->line);
    }
    for (uint32_t i = 0; i < class_count && ftell(out) < PROGRAM_TEXT_BYTES; i++)
        fprintf(out, "actor %.200s(%u bytes) at %.200s:%d\n", classes[i]->name,
                classes[i]->state_size, classes[i]->file, classes[i]->line);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

static void functions_send(uint32_t rank)
{
    char *text = program_text();
    uint32_t count = text ? (uint32_t)strlen(text) + 1 : 1;

    memcpy(out_item(rank, ITEM_FUNCTIONS, count), text ? text : "", count);
    free(text);
}

static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n');
    return end ? end + 1 : line + strlen(line);
}

/* The line with the name (what stands before the '(') of `line`, or NULL. */
static const char *find_named(const char *text, const char *line)
{
    size_t name = strcspn(line, "(\n");

    for (; *text; text = next_line(text))
        if (strncmp(text, line, name + 1) == 0)
            return text;
    return NULL;
}

/* Bytes of a line before its place, which may differ. */
static size_t meaning(const char *line)
{
    size_t length = strcspn(line, "\n");

    for (size_t at = 0; at + 4 <= length; at++)
        if (strncmp(line + at, " at ", 4) == 0)
            return at;
    return length;
}

/* Ends the job with the first line that one has otherwise, or not at all. */
static void functions_differ(uint32_t rank, const char *theirs)
{
    char *ours = program_text();
    const char *line, *other;

    for (line = ours ? ours : ""; *line; line = next_line(line)) {
        other = find_named(theirs, line);
        if (!other)
            agent_fail("the programs of rank 0 and rank %u differ: %.*s is not in that of rank %u; "
                       "start the same program on all ranks",
                       rank, (int)strcspn(line, "\n"), line, rank);
        else if (meaning(line) != meaning(other) || strncmp(line, other, meaning(line)) != 0)
            agent_fail("the programs of rank 0 and rank %u differ: %.*s is on rank %u %.*s; start "
                       "the same program on all ranks",
                       rank, (int)strcspn(line, "\n"), line, rank, (int)strcspn(other, "\n"),
                       other);
    }
    for (line = theirs; ours && *line; line = next_line(line))
        if (!find_named(ours, line))
            agent_fail("the programs of rank 0 and rank %u differ: %.*s of rank %u is not in that "
                       "of rank 0; start the same program on all ranks",
                       rank, (int)strcspn(line, "\n"), line, rank);
    free(ours);
    agent_fail("the programs of rank 0 and rank %u differ; start the same program on all ranks",
               rank);
}

void peers_take_hello(uint32_t rank, struct bytes_reader *in)
{
    const struct item_hello *hello = bytes_take(in, sizeof(*hello));

    if (!hello || !agent.is_head)
        return;
    if (hello->digest != program_digest()) {
        out_item(rank, ITEM_FUNCTIONS, 0);
        return;
    }
    peers_know(rank, hello);
    if (!agent.remote->all_known)
        return;
    for (uint32_t to = 1; to < agent.rank_count; to++) {
        struct item_hello *all =
            out_item(to, ITEM_NODES, agent.rank_count * (uint32_t)sizeof(*all));
        for (uint32_t i = 0; i < agent.rank_count; i++)
            all[i] = (struct item_hello){.host = remote_peers[i].host,
                                         .memory_bytes = remote_peers[i].memory_bytes,
                                         .is_node = remote_peers[i].is_node,
                                         .workers = remote_peers[i].workers};
    }
}

void peers_take_nodes(struct bytes_reader *in)
{
    const struct item_hello *all = bytes_take(in, agent.rank_count * sizeof(*all));

    for (uint32_t rank = 0; all && rank < agent.rank_count; rank++)
        peers_know(rank, &all[rank]);
}

void peers_take_functions(uint32_t rank, const struct bytes_reader *in)
{
    if (!agent.is_head)
        functions_send(rank);
    else if (bytes_left(in) && in->end[-1] == '\0')
        functions_differ(rank, (const char *)in->at);
}
