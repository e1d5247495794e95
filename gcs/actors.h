/**
 * The table of actors and their names: a pure state machine of the GCS.
 *
 *   create --> PENDING --placed--> PLACING --started--> ALIVE --last handle gone--> ENDING
 *                 ^                   |  ^                |                           |
 *                 '----- refused -----'  '--- START ------+ died, restarts left       | exited,
 *                 ^                        (same node)    v                           | or 30 s
 *                 '----- the node is lost ---------- RESTARTING                       v
 *   any --> DEAD: killed; clean exit; constructor's error; died with no restarts left; node lost too
 *
 * Incarnations count 1, 2, …; a word about an older one is ignored. A node answers each START with
 * actors_started() and later one final word, or with the final word alone: actors_exited(),
 * actors_failed() or actors_refused(). Until the final word the process is thought to be there.
 *
 * Handles are counted by rank, not one by one: a rank says when its count leaves 0 and when it is 0
 * again, with an epoch of its own (base/holders.h); a call that has not yet reached the actor's process
 * counts as a handle of the rank that made it. When no rank holds one, the actor is asked to FINISH its
 * queue, and is stopped by force after finish_ns.
 * A name is taken from create until the actor is ENDING or DEAD: exactly while someone can reach it.
 *
 * Actions are worked out from the state when they are taken, so an event allocates nothing for them,
 * and what was overtaken (two changes of state before the first was told) is told once.
 * A dead actor's line stays while a rank holds a handle or its process may still be there.
 * Threads: one caller at a time (rank 0's agent). Cost: O(1) an event, O(ranks that hold) a change of
 * state; about 1.1 KiB an actor, 16 more a rank that held it, and its constructor's arguments.
 */
#ifndef MORAY_GCS_ACTORS_H
#define MORAY_GCS_ACTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "sched/policy/resources.h"

struct actors;

enum {
    ACTORS_NAME_BYTES_MAX = 255, /* of a name, and of a namespace */
    ACTORS_STORY_BYTES = 1024,   /* of the reason of a death; longer ones are cut */
    ACTORS_ENDLESS = -1,         /* restarts without limit */
};

struct actors_options {    /* zeros are the defaults, but for rank_count */
    uint32_t rank_count;   /* ranks of the job, at least 1 */
    uint32_t actor_max;    /* actors that are not yet forgotten; 0: 100,000 */
    uint64_t finish_ns;    /* time to finish the queue after the last handle; 0: 30 s */
    uint64_t quick_ns;     /* a process that lived less has died quickly; 0: 1 s */
    uint64_t again_ns;     /* wait before the 2nd quick restart in a row, then doubled; 0: 10 ms */
    uint64_t again_max_ns; /* the longest such wait; 0: 1 s */
    uint64_t room_ns;      /* the longest wait for room that may never come; 0: 10 s */
    uint64_t look_ns;      /* those that wait so ask again after that at the latest; 0: 1 s */
    uint64_t start_bytes_max; /* of one constructor's arguments; 0: 1 MiB */
};

enum actors_state {
    ACTORS_PENDING,    /* waits for a node */
    ACTORS_PLACING,    /* its node makes the process and runs the constructor */
    ACTORS_ALIVE,      /* takes calls */
    ACTORS_RESTARTING, /* its process died; a new one comes */
    ACTORS_ENDING,     /* nobody holds a handle; it finishes its queue */
    ACTORS_DEAD,
};

struct actors_spec {   /* what create is told; all is copied */
    uint64_t id;       /* the creator's choice, not 0: unique in the job, never used again */
    uint32_t creator;  /* its rank, which holds a handle */
    uint64_t epoch;    /* of that handle */
    const char *space; /* namespace of the name; NULL: the job's own, "" */
    const char *name;  /* NULL: no name */
    bool or_get;       /* if the name is taken, the answer is the actor that has it, if it is of the
                          same constructor */
    uint64_t function; /* identity of the constructor */
    const void *start; /* the constructor's arguments, for each incarnation again */
    size_t start_bytes;
    struct resources need; /* held for life; zeros: an idle actor holds nothing */
    int32_t restarts;      /* how often its process may be replaced; ACTORS_ENDLESS */
    uint32_t pending_max;  /* limit of calls pending at a caller, kept for the callers; 0: none */
};

struct actors_line { /* what is known of an actor; pointers are borrowed until the next event */
    uint64_t id;
    enum actors_state state;
    uint32_t node;        /* its rank; UINT32_MAX: none */
    uint32_t slot;        /* its process on that node, while ALIVE or ENDING */
    uint32_t incarnation; /* of the present or last process; 0: none yet */
    int32_t restarts_left;
    enum moray_code code;     /* of the last death */
    const char *story;        /* why it last died; "" */
    const char *space, *name; /* name is NULL if it has none (or has it no more) */
    uint64_t function;
    const void *start;
    size_t start_bytes;
    struct resources need;
    uint32_t pending_max;
    uint32_t holder_count; /* ranks that hold a handle */
};

struct actors_action {
    enum {
        ACTORS_CHOOSE,  /* ask the global scheduler for a node (`rank` is UINT32_MAX); answer:
                           actors_placed() or actors_unplaced() */
        ACTORS_START,   /* rank: make process `incarnation`, run the constructor */
        ACTORS_FINISH,  /* rank: finish the queue, run the shutdown function, exit */
        ACTORS_STOP,    /* rank: kill the process `incarnation` */
        ACTORS_TELL,    /* rank: the actor is now as `line` says */
        ACTORS_RELEASE, /* rank holds the actor no more: global_actor_ended() */
    } kind;
    uint32_t rank;
    uint32_t incarnation;
    uint64_t id;
    struct actors_line line; /* as it is now; pointers are borrowed until the next call */
};

/** Makes an empty table. Owner: the caller, until actors_destroy(); `options` is copied.
 *  Errors: MORAY_INVALID for 0 ranks, MORAY_NO_MEMORY; then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code actors_create_table(const struct actors_options *options,
                                                     struct actors **out,
                                                     struct moray_error *error);

/** Frees the table; NULL is allowed. */
void actors_destroy_table(struct actors *actors);

/** A rank makes an actor. `*id` is the actor's: the one in `spec`, or with or_get that of the actor
 *  that has the name already, of which the creator then holds a handle.
 *  Errors: MORAY_EXISTS if the name is taken (and not or_get) or the id is known; MORAY_WRONG_TYPE if
 *  with or_get the actor is of another constructor: no handle of it is held then; MORAY_INVALID for
 *  a bad name or arguments over start_bytes_max; MORAY_BUSY at actor_max; MORAY_STALE if the creator
 *  is lost; MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code actors_create(struct actors *actors,
                                               const struct actors_spec *spec, uint64_t now_ns,
                                               uint64_t *id, struct moray_error *error);

/** A rank asks for an actor by name and constructor; from now on it holds a handle, with that epoch.
 *  Errors: MORAY_NOT_FOUND, MORAY_WRONG_TYPE, MORAY_NO_MEMORY; then it holds none by this. */
MORAY_MUST_CHECK enum moray_code actors_find(struct actors *actors, const char *space,
                                             const char *name, uint64_t function, uint32_t rank,
                                             uint64_t epoch, uint64_t *id,
                                             struct moray_error *error);

/** A word about a rank's handles: its count left 0 (`set`), or is 0 again. Another rank may pass it
 *  on; late and repeated words are harmless (base/holders.h). A rank that begins to hold is told the
 *  actor's state. `now_ns`: where the last handle went before it was told, that time: from the latest of
 *  these the actor has finish_ns. Errors: MORAY_STALE if the actor is not known (any more), or the rank
 *  is lost; MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code actors_hold(struct actors *actors, uint64_t id, uint32_t rank,
                                             uint64_t epoch, bool set, uint64_t now_ns,
                                             struct moray_error *error);

/** The answer to CHOOSE. Errors: false if the actor waits for no node (killed meanwhile): the caller
 *  gives the place back. */
bool actors_placed(struct actors *actors, uint64_t id, uint32_t node, uint64_t now_ns);

/** The other answer: MORAY_BUSY: it waits until actors_room(), and with a story no longer than room_ns
 *  in all: then it dies of that. Any other code is its death at once. */
void actors_unplaced(struct actors *actors, uint64_t id, enum moray_code code, const char *story,
                     uint64_t now_ns);

/** Some node has room again: those that wait for it ask once more, the oldest first, `count` at
 *  most. Returns how many wait still. */
size_t actors_room(struct actors *actors, size_t count);

/** A node's words about one incarnation. Late ones are ignored.
 *  started: the constructor returned. failed (final): it reported an error, `code` and `story` are
 *  the cause of every call's failure. refused (final): the node has no room for the process.
 *  exited (final): the process is gone, by itself and in order (`clean`) or not. */
void actors_started(struct actors *actors, uint64_t id, uint32_t incarnation, uint32_t slot,
                    uint64_t now_ns);
void actors_failed(struct actors *actors, uint64_t id, uint32_t incarnation, enum moray_code code,
                   const char *story);
void actors_refused(struct actors *actors, uint64_t id, uint32_t incarnation);
void actors_exited(struct actors *actors, uint64_t id, uint32_t incarnation, bool clean,
                   const char *story, uint64_t now_ns);

/** Someone kills it: its process at once; with `restart` it comes back if restarts are left.
 *  Errors: false if it is dead or not known. */
bool actors_kill(struct actors *actors, uint64_t id, bool restart, const char *story);

/** A rank is lost: it holds nothing, and its actors restart elsewhere or die. */
void actors_rank_lost(struct actors *actors, uint32_t rank, uint64_t now_ns);

/** Time went on: call at actors_deadline() (UINT64_MAX: no need). Stops what did not finish,
 *  restarts what waited, ends waits for room or lets them ask again. */
void actors_tick(struct actors *actors, uint64_t now_ns);
uint64_t actors_deadline(const struct actors *actors);

/** One actor's line. Errors: false if it is not known (any more). */
bool actors_get(const struct actors *actors, uint64_t id, struct actors_line *out);

/** Lines of all actors, from `*cursor` (0 at first); false after the last. */
bool actors_list(const struct actors *actors, uint32_t *cursor, struct actors_line *out);

/** Actors that are not yet forgotten. */
size_t actors_count(const struct actors *actors);

/** The next action. Errors: false if there is none. */
bool actors_next(struct actors *actors, struct actors_action *out);

#endif
