/**
 * What agents say to each other: a message of the fabric is a row of items, in order.
 *
 *     item: kind, bytes behind this head (a multiple of 8) | fields of the kind | bytes
 *
 * Names: an object is {owner rank, index, generation}; `index` of a rank's own arena.
 * Bytes from the wire are checked before use: message_next() cuts a row into items that lie wholly in
 * it, message_wrong() says whether an item is what its kind says; only then does anybody act on it. A
 * row that is wrong ends the job, which names the rank and the fault: what came behind is lost.
 * Threads: no state; any. Cost: ~10 ns an item, more for a task by its arguments.
 */
#ifndef MORAY_NODE_MESSAGE_H
#define MORAY_NODE_MESSAGE_H

#include <stdint.h>

#include "base/bytes.h"
#include "moray.h"

enum item_kind {
    ITEM_HELLO = 1, /* rank -> 0: who I am */
    ITEM_NODES,     /* 0 -> all: all of them */
    ITEM_TASK,      /* owner -> node: run this */
    ITEM_CALL,      /* caller's rank -> actor's rank */
    ITEM_RESULT,    /* node -> owner: it has ended */
    ITEM_BORROW,    /* rank -> owner: I have a reference of yours; answer with HEARD, and OBJECT */
    ITEM_OBJECT,    /* owner -> borrower: what it is, where it lies */
    ITEM_RELEASE,   /* borrower -> owner: `count` holds are gone */
    ITEM_FREE,      /* owner -> node that keeps the bytes of a result */
    ITEM_PULL,      /* reader -> node with the bytes: may I? */
    ITEM_GRANT,     /* the answer */
    ITEM_PULLED,    /* reader -> node: done */
    ITEM_ASK,       /* rank -> 0: a request to the GCS */
    ITEM_REPLY,     /* 0 -> rank */
    ITEM_WORD,      /* 0 -> rank: about actors */
    ITEM_LOAD,      /* rank -> 0 */
    ITEM_MOVE,      /* 0 -> rank: send tasks there */
    ITEM_MOVED,     /* rank -> 0 */
    ITEM_SETUP,     /* moray_setup, from the driver's rank to all */
    ITEM_FUNCTIONS, /* 0 -> rank: which functions have you? rank -> 0: these */
    ITEM_END,       /* 0 -> all: the job ends */
    ITEM_STARTS,    /* node -> creator of an actor: what its constructor takes is held here */
    ITEM_CANCEL,    /* rank -> owner, owner -> nodes: this task, if it is still queued with you */
    ITEM_HEARD,     /* owner -> borrower: it is held for you */
};

struct item {
    uint16_t kind, flags;
    uint32_t bytes; /* behind this head; a multiple of 8 */
};

/* How a value travels: in a TASK's input, in a RESULT, in an OBJECT. */
enum shape {
    SHAPE_PENDING, /* not made yet: OBJECT follows when it is */
    SHAPE_INLINE,  /* its bytes follow */
    SHAPE_FAR,     /* at {rank, index}, `bytes` long; place and window for ranks of the same host */
    SHAPE_FAILED,  /* a story follows: code in `index` */
    SHAPE_STALE,   /* there is no such object */
};

struct value {
    uint32_t shape, rank, index, place;
    uint64_t bytes;
    uint32_t window, follow; /* bytes that follow, not rounded */
};

struct name {
    uint32_t owner, index, generation, type; /* owner: rank + 1, as in moray_ref */
    uint32_t maker, site; /* whose result it is: function + 1 (0: nobody's), called where */
};

struct item_hello {
    uint64_t digest; /* of the program's functions */
    uint64_t host;   /* the launcher's node, hashed */
    uint64_t memory_bytes;
    uint32_t is_node, workers, window, reserved;
};

struct item_task { /* then inputs: struct name, struct value, bytes; then argument bytes */
    uint32_t index, generation; /* of the owner's record */
    uint32_t function, site;
    uint16_t reference_mask, flags; /* RECORD_LONG, RECORD_GENERAL */
    uint8_t attempts_max, extra_count;
    uint16_t home;           /* CALL: the submitter's slot */
    uint32_t argument_bytes; /* record_long, then values */
    uint32_t submitter;      /* CALL: its number there */
    uint64_t actor;          /* CALL */
};

struct item_result { /* then `count` values with their bytes */
    uint32_t index, generation;
    uint32_t count, reserved;
};

struct item_object {            /* FREE */
    uint32_t index, generation; /* the owner's */
};

struct item_borrow {
    uint32_t index, generation; /* the owner's */
    uint32_t word,
        reserved; /* the borrower's number for it (node/words.h), which HEARD gives back */
};

struct item_heard {
    uint32_t word, reserved;
};

struct item_told { /* OBJECT; then a value with its bytes */
    uint32_t index, generation;
    uint32_t maker, site; /* as in a name */
};

struct item_cancel {
    uint32_t owner, index, generation,
        reserved; /* as in a name; the receiver's task, or the sender's */
};

struct item_release {
    uint32_t index, generation, count, reserved;
};

struct item_pull { /* PULL: index of the holder's record; token of the reader */
    uint64_t token;
    uint32_t index, reserved;
};

struct item_grant {
    uint64_t token;
    uint64_t address, key, bytes; /* struct fabric_window; bytes 0: not to be had, why in `code` */
    uint64_t size;
    uint32_t code, reserved;
};

struct item_ask { /* then bytes */
    uint64_t token;
    uint32_t kind, count; /* REPLY: kind is the code */
};

struct item_move {
    uint32_t from, to;
    uint64_t count, sent;
};

struct item_setup {    /* then bytes */
    uint64_t function; /* distance from the program's first byte */
    uint32_t count, reserved;
};

struct item_starts {
    uint64_t actor;
};

struct item_end {
    int32_t status;
    uint32_t reserved;
};

#define MESSAGE_VALUE_BYTES_MAX ((uint64_t)1 << 46) /* the most that MORAY_STORE_BYTES takes */

struct message_world { /* what numbers in a message are checked against; tables borrowed */
    uint32_t rank, rank_count;
    uint32_t record_count; /* of this rank's arena */
    uint32_t function_count, class_count;
    const struct moray_function *const *functions;
    const struct moray_class *const *classes;
    uint64_t program_bytes; /* set-up functions lie in it */
};

/** Takes the next item off a row; it lies wholly in the row, aligned as the row is.
 *  Errors: NULL: the row is over, or (`row->bad`) malformed. */
const struct item *message_next(struct bytes_reader *row);

/** Whether an item that rank `from` sent is what its kind says: each length, count and number that is
 *  relied on later. Returns what is wrong (static), or NULL. */
const char *message_wrong(const struct item *item, uint32_t from,
                          const struct message_world *world);

#endif
