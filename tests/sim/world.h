/**
 * The simulator's world: virtual time, messages, chance. Nothing in it reads a clock.
 *
 *     post(to, delay) ---> [ heap by time, then by order of posting ] ---> world_next(): one event
 *     send(from, to)  ---'   a message waits for those sent before it by the same rank to the same
 *
 * Messages between two ranks stay in order; those of different pairs overtake each other freely. All
 * chance comes from one seed, and each event that is handed out goes into the trace's hash: the same
 * seed gives the same hash, or something outside the seed had a say.
 * Threads: one. Cost: O(log events) an event.
 */
#ifndef MORAY_TESTS_SIM_WORLD_H
#define MORAY_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world;

struct event {
    uint64_t time_ns;
    uint64_t order; /* of posting: events of one time come in this order */
    uint32_t kind;  /* the model's own */
    uint32_t from, to;
    uint64_t a, b, c;
    void *data; /* owned by the event; world_next()'s caller frees it */
    size_t bytes;
};

struct world_odds {          /* how messages travel; drawn from the seed by world_create() */
    uint64_t latency_ns;     /* the least */
    uint64_t jitter_ns;      /* more, evenly */
    uint32_t slow_per_mille; /* of the messages */
    uint64_t slow_ns;        /* what a slow one takes more, at most */
};

/** Makes an empty world at time 0; aborts without memory, as all of the simulator does. With `calm`
 *  messages take latency_ns of 5 us and little more. Owner: the caller, until world_destroy(). */
struct world *world_create(uint64_t seed, bool calm);
void world_destroy(struct world *world);

uint64_t world_now(const struct world *world);
const struct world_odds *world_odds(const struct world *world);

/** A number below `limit`, from the seed. */
uint64_t world_random(struct world *world, uint64_t limit);

/** Whether something with these odds happens now. */
bool world_chance(struct world *world, uint32_t per_mille);

/** An event for `to` after `delay_ns`, in no order with messages: a timer. */
void world_post(struct world *world, uint64_t delay_ns, struct event event);

/** A message: event.from, event.to and the rest are set. `extra_ns` is what its size costs; a copy of
 *  `data` travels with it. */
void world_send(struct world *world, uint64_t extra_ns, struct event event, const void *data,
                size_t bytes);

/** The next event; time moves to it. Errors: false if there is none. */
bool world_next(struct world *world, struct event *out);

/** Events handed out so far, and the hash over all of them. */
uint64_t world_count(const struct world *world);
uint64_t world_trace(const struct world *world);

#endif
