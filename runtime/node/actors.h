/**
 * The node's table of actors: what lives here, in the arena, so that processes and agent see it.
 *
 *     EMPTY ─▶ STARTING ─▶ READY | UNBUILT ─▶ GONE     a restart: back to STARTING
 *
 * The agent makes and ends entries; the actor's process writes `ready`. The GCS at rank 0 knows all
 * actors of the job (gcs/actors); this is what a call needs: where the mailbox is.
 */
#ifndef MORAY_NODE_ACTORS_H
#define MORAY_NODE_ACTORS_H

#include <stdatomic.h>
#include <stdint.h>

#include "client/process.h"

enum actor_state { ACTOR_EMPTY, ACTOR_STARTING, ACTOR_READY, ACTOR_UNBUILT, ACTOR_GONE };

enum { NODE_ACTORS_MAX = 1024 };

struct node_actor {
    _Atomic uint32_t ready;    /* enum actor_state */
    _Atomic uint32_t slot;     /* of its process */
    _Atomic uint32_t killed;   /* it is being killed: it begins no further call */
    _Atomic uint32_t finish;   /* no handle is left: end when the mailbox is empty */
    _Atomic uint32_t creation; /* record of the constructor's run */
    uint32_t class_id, generation;
    uint32_t pending_max;
    int32_t restarts_left, method_retries;
    uint64_t id; /* the GCS's */
    char name[64];
};

static inline struct node_actor *node_actor(uint32_t index)
{
    return (struct node_actor *)(me.lane.control->node + sizeof(struct node_shared)) + index;
}

#endif
