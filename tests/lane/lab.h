/**
 * A lab: a process that makes a small node and plays all of its slots, but for those that it lets other
 * processes play, instruction by instruction. What tests/lane/kill and interleave stand on.
 */
#ifndef MORAY_TESTS_LANE_LAB_H
#define MORAY_TESTS_LANE_LAB_H

#include <sys/types.h>

#include "tests/lane/node.h"

enum { KILL_SLOTS = 5, AGENT = 0, DRIVER = NODE_DRIVER, WORKER = 2, OTHER = 3, ACTOR = 4 };
enum { WORLD_OWNED_MAX = 128, LAB_CHANGES_MAX = 1 << 16, LAB_PLAYERS = 2 };

struct owned { /* what a living slot holds and looks at in the end */
    uint32_t index, generation;
    uint64_t value;   /* of its result */
    uint16_t slot;    /* who holds it */
    uint16_t flags;   /* of its record, that a player sets */
    bool may_fail;    /* a player cancels it */
    bool needs_slot;  /* only the victim's successor can run it */
    uint8_t at_death; /* its state then */
};

struct world {
    struct node node;
    struct lane lanes[KILL_SLOTS];
    struct owned owned[WORLD_OWNED_MAX];
    uint32_t owned_count;
    uint32_t a, b, c, d; /* records that setup() leaves for act() */
    uint32_t place;
};

struct lab_shared {                /* of main, labs and players */
    _Atomic int done[LAB_PLAYERS]; /* the operation is over */
    uint32_t change_count, steps[LAB_PLAYERS];
    uint32_t changes[LAB_CHANGES_MAX]; /* instructions after which shared memory was another */
    unsigned long at[LAB_CHANGES_MAX]; /* … and where the program was then */
    uint64_t note;                     /* of a player, to its lab */
    char what[256];                    /* is going on: for the story of a failure */
    char failure[1024];
};
extern struct lab_shared *lab_shared;

/** Before anything else, in main. False: no memory. */
bool lab_open(void);
/** Runs `lab` in a process of its own. False: a law is broken, and lab_shared->failure says how. Ends
 *  the program with 77 where no process can be traced. */
bool lab_run(void (*lab)(const void *argument), const void *argument);

#define DEMAND(condition, ...)                           \
    do {                                                 \
        if (!(condition))                                \
            lab_fail(#condition, __LINE__, __VA_ARGS__); \
    } while (0)
_Noreturn void lab_fail(const char *condition, int line, const char *what, unsigned long value);

/** Forks a process that will play: act(world), stopped before its first instruction. */
pid_t player_start(struct world *world, unsigned number, void (*act)(struct world *world));
/** One instruction on. False: the operation is over. */
bool player_step(pid_t pid, unsigned number);
/** Where it is in the program. */
unsigned long player_where(pid_t pid);
void player_kill(pid_t pid);

void world_open(struct world *world);
enum lane_slot_kind world_kind(uint16_t slot);
/** Notes a record that `slot` holds, and what its value will be. Returns the index. */
uint32_t world_own(struct world *world, uint16_t slot, uint32_t index, uint64_t value);
/** The slots, but those in the mask, do all that there is to do. */
void world_live(struct world *world, uint32_t without);
/** The states of what is owned, now; from here on each task that runs is counted. */
void world_note(struct world *world);
/** It has ended, with its value, and ran as often as it had to. */
void world_check(struct world *world, const struct owned *owned);
/** Nothing is in use, and everything can be had again. All handles are gone after it. */
void world_count(struct world *world);

#endif
