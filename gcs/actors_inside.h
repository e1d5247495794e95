/**
 * The records of the table of actors, for actors.c (what happens to an actor) and actors_table.c
 * (finding, making, showing and forgetting records). Nobody else includes this.
 */
#ifndef MORAY_GCS_ACTORS_INSIDE_H
#define MORAY_GCS_ACTORS_INSIDE_H

#include "base/holders.h"
#include "base/index.h"
#include "gcs/actors.h"

enum { NOBODY = UINT32_MAX };

struct actor {
    uint64_t id; /* 0: the record is unused */
    enum actors_state state;
    uint32_t node; /* where it is or is to be; meaningful with has_node */
    uint32_t slot;
    uint32_t incarnation;
    int32_t restarts_left;
    uint32_t quick_count; /* quick deaths in a row */
    enum moray_code code;
    char story[ACTORS_STORY_BYTES];
    char *block; /* owned: namespace, name, each with its end, then the constructor's arguments */
    size_t space_bytes, name_bytes, start_bytes;
    uint64_t function;
    struct resources need;
    uint32_t pending_max;
    struct holders holders;

    bool has_node;    /* it counts on `node` at the global scheduler */
    bool has_process; /* a START was taken and no final word came */
    bool named;       /* it has its name still */
    bool choosing;    /* a CHOOSE is due or was taken, and no answer came */
    bool waiting;     /* in the list of those for which there was no room */

    /* Actions that are due; actors_next() takes them in this order. */
    bool stop, release, choose, start, finish;
    uint32_t release_rank;
    uint32_t tell_at; /* holders from here on may have to be told */
    bool dirty;       /* in the list of those that may have something due */

    uint64_t born_ns;   /* when its last START became due */
    uint64_t wake_ns;   /* when to restart; UINT64_MAX: it does not wait for that */
    uint64_t unheld_ns; /* when the last handle of a rank went that told so */
    uint64_t force_ns;  /* when to stop an ending one; UINT64_MAX: never */
    uint64_t room_ns;   /* when its wait for room is over; UINT64_MAX: never */
    uint32_t dirty_next, waiting_next, waiting_before, unused_next;
};

struct queue {
    uint32_t first, last; /* INDEX_NONE: empty */
};

/* has_process implies has_node; waiting implies not has_node; at most one of choosing and waiting */
struct actors {
    struct actors_options options;
    struct actor *records; /* owned */
    uint32_t capacity, count, unused;
    struct index by_id, by_name;
    struct queue dirty, waiting;
    uint32_t waiting_count;
    uint64_t look_ns;     /* when those that wait ask again; UINT64_MAX: not by the clock */
    uint64_t deadline_ns; /* the least of all these, or less */
    bool *lost;           /* owned; by rank */
};

/** Where the record is in the table; it never moves to another position. */
static inline uint32_t actor_position(const struct actors *actors, const struct actor *actor)
{
    return (uint32_t)(actor - actors->records);
}

/** The record of an actor; NULL: it is not known. */
struct actor *actor_record_find(const struct actors *actors, uint64_t id);

/** The record of the actor that has the name; NULL: none has. */
struct actor *actor_record_named(const struct actors *actors, const char *space, const char *name);

/** Makes a PENDING record held by its creator.
 *  Errors: those of actors_create() but for a taken name; then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code actor_record_make(struct actors *actors,
                                                   const struct actors_spec *spec,
                                                   struct actor **out, struct moray_error *error);

/** Puts the record into the list of those that may have actions due. */
void actor_record_touch(struct actors *actors, struct actor *actor);

/** Its name is free. */
void actor_record_unname(struct actors *actors, struct actor *actor);

/** Writes what is known of it. */
void actor_record_show(const struct actor *actor, struct actors_line *out);

/** Frees the record, which is in no list. */
void actor_record_forget(struct actors *actors, struct actor *actor);

/** Refuses a word about a rank that is lost or none: passed on by another, it would bring the rank
 *  back. Errors: MORAY_STALE. */
MORAY_MUST_CHECK enum moray_code actor_record_rank(const struct actors *actors, uint32_t rank,
                                                   struct moray_error *error);

#endif
