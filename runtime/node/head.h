/* What the files of rank 0's side share: head.c (keys, channels), head_actors.c (actors). */
#ifndef MORAY_NODE_HEAD_H
#define MORAY_NODE_HEAD_H

#include "node/agent.h"

struct actors;

/* Words between a node and the head; of those about actors the bytes are struct actor_word and more. */
enum head_word {
    HEAD_ACTOR_STARTED = 100, /* node -> head */
    HEAD_ACTOR_FAILED,        /* then the story */
    HEAD_ACTOR_EXITED,        /* detail 1: clean; then the story */
    HEAD_ACTOR_REFUSED,       /* no room for its process there */
    NODE_ACTOR_START,         /* head -> node: then struct request_actor and what follows it */
    NODE_ACTOR_FINISH,
    NODE_ACTOR_STOP,
    NODE_ACTOR_IS,     /* head -> holders: state in detail; then the story */
    HEAD_PROCESS_GONE, /* node -> head: a process that has subscribed; its slot */
};

struct actor_word {
    uint64_t id;
    uint32_t incarnation, detail, code, node;
    uint32_t pending_max, reserved;
};

void head_reply(uint32_t rank, uint64_t token, enum moray_code code, const void *bytes,
                size_t count);
struct actors *head_actors(void);
void head_actor_request(uint32_t rank, uint64_t token, uint32_t kind, const void *bytes,
                        uint32_t count);
void head_actors_tick(void);
void head_nodes_known(void);
/** Carries the actors' actions out. */
void head_actor_actions(void);

/** A word from the head reaches this node (actors.c). */
void actors_word(uint32_t kind, const void *bytes, uint32_t count);
/** A word to the head, from this node. */
void head_tell(uint32_t kind, const void *bytes, uint32_t count);

#endif
