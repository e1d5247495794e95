/* What the files of the message lane share: remote.c (start, fabric, items in), remote_out.c (items out),
 * remote_peers.c (who is who), remote_tasks.c (tasks, calls, results), remote_objects.c (stand-ins,
 * borrowing), remote_pulls.c (fetching), remote_moves.c (who runs what). */
#ifndef MORAY_NODE_REMOTE_INSIDE_H
#define MORAY_NODE_REMOTE_INSIDE_H

#include "fabric/fabric.h"
#include "node/message.h"
#include "node/remote.h"

enum {
    OUT_BYTES = 256 * 1024,  /* a message: flushed when an item would not fit */
    INLINE_BYTES_MAX = 4096, /* above it the bytes stay where they are until they are wanted */
    ITEM_BYTES_MAX = FABRIC_MESSAGE_BYTES_MAX - (int)sizeof(struct item), /* one goes alone then */
};

struct out { /* items for one rank, not yet given to the fabric */
    char *bytes;
    uint32_t used, capacity;
    struct out_full { /* whole messages that the fabric had no room for */
        struct out_full *next;
        uint32_t used;
        char bytes[];
    } * full, **full_last;
};

struct peer {
    bool known, is_node, same_host;
    uint32_t workers, window; /* window: where its arena is mapped, if same_host */
    uint64_t memory_bytes, host, digest;
    uint32_t outstanding; /* tasks sent there that have not ended */
    struct out out;
};

struct remote {
    struct peer *peers;
    uint32_t known_count;
    bool all_known, ended, mpi, told_end;
    struct share *share;
    uint64_t poll_until_ns, came_ns; /* came: the last message or read */
    uint64_t silent_until_ns;        /* its descriptor told of nothing when the agent woke */
    bool dense;                      /* it came soon after the one before */
    /* stand-ins: {owner, index} -> index here; and what the owner counts for us */
    struct map stand_ins;
    struct map executing; /* task or call stand-in -> the owner's record: rank, index; see names */
    struct map wanted;    /* own record -> list of ranks that are to be told its end */
    struct map far;       /* own record -> {rank, index} of its bytes elsewhere */
    struct map pulls;     /* own record -> pull + 1 */
    struct map fetching;  /* own record, not ended -> its generation: fetched at its end */
    uint64_t arrived;     /* tasks that came from other ranks */
    uint64_t arrived_ns;  /* when the last of them did */
};

#define remote_peers agent.remote->peers

/** Room for an item of a kind to a rank: `bytes` behind the head, zeroed at the end. Never NULL. */
void *out_item(uint32_t rank, enum item_kind kind, uint32_t bytes);
bool out_flush(void);

/* remote_peers.c */
/** This rank, as it presents itself; what a rank has said of itself, once. */
struct item_hello peers_own_hello(void);
void peers_know(uint32_t rank, const struct item_hello *hello);
void peers_take_hello(uint32_t rank, struct bytes_reader *in);
void peers_take_nodes(struct bytes_reader *in);
/** The head asks for the functions; their text, once it has it, ends the job. */
void peers_take_functions(uint32_t rank, const struct bytes_reader *in);

/* remote_tasks.c */
void tasks_take_task(uint32_t rank, enum item_kind kind, struct bytes_reader *in);
void tasks_take_cancel(uint32_t rank, struct bytes_reader *in);
void tasks_take_result(uint32_t rank, struct bytes_reader *in);
void tasks_ended(uint32_t index, uint32_t generation);
bool tasks_send(uint32_t rank, uint32_t index);
void tasks_forget(uint32_t index);
void tasks_end(void);

/* remote_objects.c */
/** Describes what a record of this rank is, for another rank; appends nothing. `bytes` gets what is to
 *  follow. */
struct value value_of(uint32_t index, uint32_t for_rank, const void **bytes);
/** Puts a received value into a record in RUNNING by slot 0, and ends it. `eager`: bytes elsewhere are
 *  fetched before it ends. */
void value_take(uint32_t index, const struct value *value, const void *bytes, bool eager);
/** Whom the record of this generation stands for; NULL: for nobody. Borrowed while it is held. */
const struct name *stand_in_name(uint32_t index, uint32_t generation);
uint32_t stand_in_make(const struct name *name, bool counted);
/** Lets holds at the owner go. */
void objects_release(const struct name *name, uint32_t count);
void objects_take_object(uint32_t rank, struct bytes_reader *in);
void objects_take_borrow(uint32_t rank, struct bytes_reader *in);
void objects_take_release(uint32_t rank, struct bytes_reader *in);
void objects_take_free(uint32_t rank, struct bytes_reader *in);
void objects_want(uint32_t index, uint32_t rank);
void objects_ended(uint32_t index, uint32_t generation);
void objects_end(void);

/* remote_pulls.c */
/** Fetches the bytes of a record that lie elsewhere. `request`: to be answered then, or RECORD_NONE;
 *  `finish`: the record has not ended, and ends with them. */
void pull_start(uint32_t index, uint32_t request, bool finish);
void objects_take_pull(uint32_t rank, struct bytes_reader *in);
void objects_take_grant(uint32_t rank, struct bytes_reader *in);
void objects_take_pulled(uint32_t rank, struct bytes_reader *in);
void objects_read_done(uint64_t cookie, enum moray_code code);
/** Tries again what the fabric could not do yet; returns how much it could. Whether there is some. */
uint32_t objects_poll(void);
bool objects_wait(void);
/** Something here was let go: there may be room for what waits. */
void pulls_look(void);
void pulls_end(void);

/* remote_moves.c */
bool moves_start(struct moray_error *error);
void moves_end(void);
void moves_join(void);
uint32_t moves_poll(void);
void moves_take_load(uint32_t rank, struct bytes_reader *in);
void moves_take_move(uint32_t rank, struct bytes_reader *in);
void moves_take_moved(uint32_t rank, struct bytes_reader *in);
void moves_possible_flush(void);
void moves_ended(uint32_t rank);
bool stand_in_is_input(uint32_t index);

static inline struct record *record_at(uint32_t index)
{
    return lane_record(&agent.lane, index);
}

/* Where in the arena a record's result begins that lies in a block. */
static inline uint64_t offset_of(const struct record *record)
{
    return (uint64_t)record->result.block.place * ARENA_PLACE_BYTES +
           (uint64_t)(record->result.block.window >> 8) * 64;
}

static inline uint64_t pair(uint32_t high, uint32_t low)
{
    return (uint64_t)high << 32 | low;
}

static inline uint32_t rounded(uint32_t bytes)
{
    return (bytes + 7) & ~7u;
}

#endif
