/**
 * What a node knows of the actors that its processes have handles of, wherever those live.
 *
 *     held     by a process (a bit), by a task that has it as an argument, a call under way or an object
 *              that contains it (lent), by this agent for a constructor (takings) or for one that a
 *              process here has made and that has not begun (starting)
 *     told     whether rank 0 counts this node among those that hold it
 *
 * The last hold that goes here is told to rank 0, and the last of all ends the actor.
 * Threads: the agent's. Owner: routes live until the job's end, but for route_never(); a pointer until the
 * next route_of().
 */
#ifndef MORAY_NODE_ROUTES_H
#define MORAY_NODE_ROUTES_H

#include "client/requests.h"
#include "node/agent.h"

enum {
    STATE_DEAD = 5, /* ACTORS_DEAD of gcs/actors.h, which is rank 0's */
    ACTOR_ID_RANK_SHIFT = 40,
};

struct route {
    uint64_t id;
    uint32_t node;        /* rank; UINT32_MAX: not known yet */
    uint32_t entry;       /* index + 1 in the node's table, if it is here */
    uint32_t state;       /* as the head says: enum actors_state */
    uint32_t pending_max; /* calls that one process may have under way */
    enum moray_code code;
    char *story;                       /* why it is dead; NULL: it is not */
    uint64_t holders[LANE_SLOT_WORDS]; /* processes of this node that hold a handle */
    uint32_t lent;                     /* all others that hold it */
    uint32_t calls;                    /* of these, calls that alone were left */
    uint64_t unheld_ns;                /* since then it has only those, or nothing; 0: more */
    bool told;                         /* the head thinks that we hold it */
    bool goes;    /* … but nobody does; it is told so after `goes_after` words */
    bool overdue; /* … and calls under way keep it no more: they had their time */
    uint64_t goes_after;
    bool ordered;              /* rank 0 has sent it here to start */
    struct lane_mail *waiting; /* calls in order, while its place is not known */
    uint32_t waiting_count, waiting_capacity;
    struct lane_mail *sent; /* to another rank; some have ended */
    uint32_t sent_count, sent_capacity, sent_tidy_at;
    bool later; /* whether it is held is looked at when the mail has been read */
};

/** The route of an actor, made if there is none. */
struct route *route_of(uint64_t id);

/** The route of an actor that a process here was to make, and that never was, as another has its name or
 *  for whatever reason: nobody can name it, and its place is the next actor's. */
void route_never(uint64_t id);

/** One more holder: the record, task or call, until it has ended. */
void route_lend(struct route *route, uint32_t record, uint32_t generation);

/** … an object whose bytes contain the handle, until it is freed, which route_object_gone() tells. */
void route_keep(struct route *route, uint32_t record);
void route_object_gone(uint32_t record);

/** A call of a process here goes to another rank. */
void route_sent(struct route *route, uint32_t record, uint32_t generation);

/** Tells rank 0 if the first hold has come or the last has gone. route_tell_word(): from the mail, which
 *  told of every call by the hold that has gone before it told of that. */
void route_tell_hold(struct route *route);
void route_tell_word(struct route *route);

/** Rank 0 counts this node among the holders since it answered the process of a slot; 0: which has ended
 *  by now, and holds nothing. */
void route_counted(struct route *route, uint16_t slot);

/** Lets go what was lent to records that have ended by now; and what the process of a slot held. */
void routes_look(void);
bool routes_wait(void); /* for that look, with the mail read before */
void routes_drop_holder(uint16_t slot);

/** What this agent holds for somebody: records, and handles of actors. All zeros: nothing. */
struct takings {
    uint32_t *inputs, *routes; /* owned */
    uint32_t input_count, input_capacity, route_count, route_capacity;
};
void takings_input(struct takings *takings, uint32_t index);
/** What is inside the values among a constructor's arguments. `bytes`: of the request with its name and
 *  arguments, checked here. */
void takings_insides(struct takings *takings, const struct request_actor *request, uint32_t bytes);
void takings_drop(struct takings *takings);
void takings_free(struct takings *takings); /* at the job's end */

/** Holds the references and handles that a constructor takes until the actor's node says that it does, or
 *  that there will be no actor. Returns whether there are any. */
bool route_inputs_hold(uint64_t id, const struct request_actor *request, uint32_t bytes);

/** Says so to the rank whose process made the actor. */
void route_tell_inputs_held(uint64_t id);

void routes_end(void);

#endif
