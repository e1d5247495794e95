#include "node/remote_inside.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Rows of items on their way to the fabric: an item is written in place, a row goes as one message. */

static void out_push_full(struct out *out)
{
    struct out_full *full = malloc(sizeof(*full) + out->used);

    if (!full)
        abort();
    full->next = NULL;
    full->used = out->used;
    memcpy(full->bytes, out->bytes, out->used);
    if (!out->full)
        out->full_last = &out->full;
    *out->full_last = full;
    out->full_last = &full->next;
    out->used = 0;
}

/* Whether the message is off our hands. To a rank that is lost nothing goes; that ends the job. */
static bool out_give(uint32_t rank, const char *bytes, uint32_t count)
{
    enum moray_code code = fabric_send(agent.fabric, rank, bytes, count);

    if (code != MORAY_OK && code != MORAY_BUSY && code != MORAY_LOST)
        agent_fail("a message of %u bytes to rank %u could not be sent: %s", count, rank,
                   moray_code_name(code));
    return code != MORAY_BUSY;
}

/* Gives what it can to the fabric. Returns whether something went. */
static bool out_send(uint32_t rank)
{
    struct out *out = &remote_peers[rank].out;
    bool any = false;

    while (out->full) {
        struct out_full *full = out->full;
        if (!out_give(rank, full->bytes, full->used))
            return any;
        out->full = full->next;
        free(full);
        any = true;
    }
    if (!out->used)
        return any;
    if (!out_give(rank, out->bytes, out->used))
        return any;
    out->used = 0;
    return true;
}

bool out_flush(void)
{
    bool any = false;

    for (uint32_t rank = 0; rank < agent.rank_count; rank++)
        if (rank != agent.rank && (remote_peers[rank].out.used || remote_peers[rank].out.full))
            any |= out_send(rank);
    return any;
}

void *out_item(uint32_t rank, enum item_kind kind, uint32_t bytes)
{
    struct out *out = &remote_peers[rank].out;
    uint32_t whole = (uint32_t)sizeof(struct item) + rounded(bytes);

    assert(rank != agent.rank && rank < agent.rank_count);
    if (out->used && out->used + whole > OUT_BYTES) {
        out_send(rank);
        if (out->used)
            out_push_full(out);
    }
    if (out->used + whole > out->capacity) {
        out->capacity = out->used + whole > OUT_BYTES ? out->used + whole : OUT_BYTES;
        out->bytes = realloc(out->bytes, out->capacity);
        if (!out->bytes)
            abort(); /* the rank ends, and with it the job: nothing can be told to others */
    }
    struct item *item = (struct item *)(out->bytes + out->used);
    *item = (struct item){.kind = kind, .bytes = rounded(bytes)};
    if (item->bytes > bytes)
        memset((char *)(item + 1) + bytes, 0, item->bytes - bytes);
    out->used += whole;
    return item + 1;
}
