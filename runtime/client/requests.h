/* What a process may ask of its agent: the kinds of RECORD_REQUEST, and their bytes. A request is a
 * record; its `function` is the kind, its arguments these bytes, its result the answer. */
#ifndef MORAY_CLIENT_REQUESTS_H
#define MORAY_CLIENT_REQUESTS_H

#include <stdint.h>

#include "moray.h"

enum request_kind {
    REQUEST_RESOLVE = 1, /* a moray_ref of another rank -> the local one */
    REQUEST_FETCH,       /* request_record -> its bytes are in this arena */
    REQUEST_CONTAINS, /* request_contains + refs: the record's bytes contain them, or are called with them */
    REQUEST_KV,          /* request_kv + space, key, value … */
    REQUEST_ACTOR_NEW,   /* request_actor + name, arguments -> moray_actor */
    REQUEST_ACTOR_NAMED, /* request_name -> moray_actor */
    REQUEST_ACTOR_HOLD,  /* request_handle */
    REQUEST_ACTOR_KILL,  /* request_handle */
    REQUEST_ACTOR_WHERE, /* request_handle -> answer_actor */
    REQUEST_PUBLISH,
    REQUEST_SUBSCRIBE,
    REQUEST_NEXT,
    REQUEST_UNSUBSCRIBE,
    REQUEST_POSSIBLE, /* request_need: could any node run it? */
    REQUEST_SETUP,    /* moray_setup on all ranks */
    REQUEST_CANCEL,   /* request_record: its task is another rank's, or was sent to one */
    REQUEST_HEARD,    /* an answer once others have heard of what this rank took on them before */
};

/* Between ranks: the arguments of a call, all of a request, an answer. Each goes in one message. */
enum { BY_VALUE_BYTES_MAX = (2 << 20) + 65536 };

struct request_record {
    uint32_t index, generation;
};

struct request_contains {
    uint32_t index, generation, count;
    uint32_t until_ended; /* … the record that took them as arguments, not as long as it is there */
    /* then `count` moray_refs */
};

struct request_kv {
    uint32_t operation; /* enum request_kv_operation */
    uint32_t flags;
    uint32_t space_bytes, key_bytes, expected_bytes, value_bytes; /* follow in this order */
    int64_t delta;
    uint8_t has_expected, reserved[7];
};

enum request_kv_operation { KV_PUT, KV_GET, KV_DELETE, KV_LIST, KV_ADD, KV_SWAP };

struct request_actor {
    uint32_t class_id, site;
    uint32_t name_bytes, argument_bytes, reference_mask;
    uint32_t is_lent; /* the creator's rank holds what the constructor takes, until STARTS */
    uint64_t memory_bytes;
    uint32_t cores; /* 1/10000 */
    int32_t restarts, method_retries, on_rank;
    uint32_t pending_max;
    uint8_t get_if_exists, fill[3];
    /* then name, then the blob of the constructor's arguments, aligned to 8 */
};

struct request_handle {
    moray_actor actor;
    int32_t detail; /* hold: +1, -1; kill: restart allowed */
    uint32_t until; /* hold: record + 1 at whose end the hold ends; 0: none */
    uint32_t until_generation;
    uint32_t while_there; /* … not at its end, but when it is freed: its bytes contain the handle */
    uint32_t late_ms; /* hold, -1, to rank 0: the last handle went so long ago; since then, calls */
};

struct request_name {              /* of an actor */
    uint32_t class_id, name_bytes; /* then the name */
};

struct request_publish {
    uint32_t channel_bytes, data_bytes; /* then both */
};

struct request_subscription { /* subscribe: then the channel */
    uint64_t id;
    uint64_t taken; /* next: the sequence of the last message that was taken */
    uint32_t channel_bytes, slot;
};

struct answer_next { /* then the message */
    uint64_t sequence, lost;
    uint32_t bytes, reserved;
};

struct answer_kv { /* then the value, or keys each ended by a NUL */
    uint64_t bytes, count;
    int64_t sum;
};

struct request_need {
    uint64_t memory_bytes;
    uint32_t cores;
    int32_t on_rank;
};

/* The answer of REQUEST_ACTOR_NEW and _NAMED, and what a handle means on this node. */
struct answer_actor {
    moray_actor actor;
    uint32_t class_id;
    uint32_t slot;  /* of its process, if it lives on this node; else 0 */
    uint32_t table; /* index in the node's table of actors, or of the agent's routes */
    uint32_t pending_max, generation;
};

#endif
