/**
 * The agent: one event loop a rank, the only thread that calls MPI. It has slot 0 of the rank's arena.
 *
 *     doorbell (eventfd) ── mailbox of slot 0: requests, general tasks, ends it waits for
 *     zygote             ── started, exited: repair the slot, start another
 *     output             ── what processes print
 *     fabric             ── messages of other ranks, ends of reads, lost ranks
 *     timers             ── the node's load, actors, chaos
 *
 * It blocks when idle. Nothing on the path of a local task comes here. Who owns what: the arena's
 * records belong to their home slots; records of home 0 (stand-ins for other ranks' objects) to the
 * agent; the tables below to the agent alone.
 * Threads: the agent's own; the driver's thread talks to it through the arena and `struct agent_door`.
 */
#ifndef MORAY_NODE_AGENT_H
#define MORAY_NODE_AGENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/map.h"
#include "base/settings.h"
#include "client/process.h"
#include "client/requests.h"
#include "node/actors.h"
#include "node/launch.h"
#include "node/output.h"
#include "node/topology.h"
#include "node/zygote.h"
#include "sched/policy/resources.h"

struct local;
struct head;
struct fabric;
struct remote;

enum slot_use { SLOT_UNUSED, SLOT_STARTING, SLOT_RUNNING, SLOT_REPAIRING, SLOT_RESERVED };

struct slot_state {
    enum slot_use use;
    enum lane_slot_kind kind;
    uint32_t incarnation;
    pid_t pid;
    int worker_index; /* -1: a spare, or an actor */
    uint32_t actor;
    uint64_t general;    /* task that it runs for the local scheduler; 0: none */
    uint64_t ran_before; /* tasks that the slot had run when this process was started */
    bool killed_by_us;
    bool subscribed; /* rank 0 is told of its end */
    int status;      /* of its last process, as of waitpid() */
};

struct agent {
    /* set by moray_init before the thread starts */
    struct settings settings;
    struct launch launch;
    struct topology_choice cores;
    uint32_t rank, rank_count, window;
    bool is_head, is_node, attached_driver; /* a driver of another rank has slot 1 */
    struct zygote *zygote;
    int doorbell;
    int argc;
    pthread_t thread;
    /* the agent's own */
    struct lane lane;
    struct node_shared *node;
    struct output *output;
    int epoll;
    struct slot_state *slots;
    uint32_t slot_count, worker_count, spare_first, spare_end, actor_first;
    uint32_t *ready_overflow; /* tasks that found no room in a ring */
    uint32_t ready_overflow_count, ready_overflow_capacity;
    bool spareless; /* a core is free, and no process is at hand nor can be made: waiters help */
    bool workers_missing;    /* that could not be started */
    uint64_t fork_again_ns;  /* no spare is tried before: a fork has failed */
    uint64_t stuck_ns;       /* since when nothing ran, though tasks lie ready; 0: it is not so */
    uint64_t stuck_ran;      /* how many tasks had run then */
    bool stuck_told;         /* the user was told so */
    bool zygote_late;        /* it has not had all that it was asked for */
    bool unjudged;           /* a dead slot's cell could not be judged yet */
    bool skip_exit_handlers; /* a rank was lost: nobody calls MPI_Finalize */
    bool settled;
    struct local *local;
    struct head *head; /* rank 0 */
    struct fabric *fabric;
    struct remote *remote;
    uint64_t now_ns;
    uint64_t chaos_mean_ns, chaos_next_ns;
    uint32_t chaos_seed;
    uint64_t deaths, retries;
    uint64_t next_actor_id;
    struct map actor_routes; /* actor id -> index + 1 in routes */
    struct route *routes;
    uint32_t route_count, route_capacity;
    struct map contained; /* record -> list of references held for it */
    struct lent *lents;
    uint32_t lent_count, lent_capacity;
    bool reads_mail; /* what of it is still to be taken is in no mailbox */
    bool mail_came;
    bool handed_on;   /* somebody that slept was woken in this turn */
    uint64_t rescues; /* sleeps that nothing ended, though there was something to do */
    char *lost_story;
    /* between the driver's thread and this one */
    _Atomic uint32_t ready;     /* 1: the driver may go on; 2: the start failed */
    _Atomic uint32_t end_asked; /* the driver wants the end; status in end_status */
    _Atomic uint32_t ended;
    int end_status;
    bool fell_after; /* the job ends because another rank is lost */
    struct moray_error start_error;
    struct process attached; /* a head alone: what the driver needs to enter another rank's arena */
};

extern struct agent agent;

/* ---- agent.c ---- */
void *agent_main(void *context);
/** Ends the job with a failure that is not the user's: tells it, and all ranks end. */
void agent_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** Fails a record that is RUNNING by slot 0. */
void agent_end_failed(uint32_t index, enum moray_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** A record that is QUEUED goes on: a request is served, a task placed, a call sent on. Twice is harmless. */
void agent_take_call(uint32_t index, uint32_t generation);
/** Takes a request or task that is QUEUED for slot 0. */
bool agent_claim(uint32_t index, uint32_t generation);
/** Ends a RUNNING request with these bytes. */
void agent_answer(uint32_t index, const void *bytes, uint64_t count);
/** A new record of home 0 in RUNNING, to be finished by the agent. RECORD_NONE: no room. */
uint32_t agent_make_pending(enum record_kind kind);
bool agent_watch(int fd, uint32_t tag);
enum { WATCH_DOORBELL = 1, WATCH_ZYGOTE, WATCH_OUTPUT, WATCH_FABRIC, WATCH_SHARE, WATCH_LINK };

bool agent_may_spin(void);
uint32_t agent_spin_ns(void); /* MORAY_SPIN_US, or 0 where there are more workers than cores */
/** Rank 0's settings have come: what can still change does. Returns false if it cannot be. */
bool agent_settings_changed(struct moray_error *error);
void agent_set_workers(uint32_t count); /* at most agent_workers_max() */
uint32_t agent_workers_max(void);
void agent_read_chaos(void);
/** Makes the arena ready and starts the workers: after the settings of rank 0 are known. */
bool agent_settle(struct moray_error *error);
void agent_random(void *bytes, size_t count);
uint64_t program_offset(uint64_t address);
uint64_t program_address(uint64_t offset);
uint64_t program_bytes(void);

/* ---- workers.c ---- */
bool workers_start(void);
void workers_event(const struct zygote_event *event);
void workers_tick(void);
void workers_spare(void);
bool workers_spawn(uint16_t slot, enum process_kind kind, int core, int worker_index,
                   uint32_t actor);
/** One more spare. False: all are in use, or forks fail just now. */
bool workers_spawn_spare(void);
void workers_kill(uint16_t slot, int signal);
uint32_t workers_free_actor_slot(void);
void workers_push_ready(uint32_t index);
/** Waits for all processes to leave; kills what is left. */
void workers_end(unsigned limit_ms);
void process_entry(void *context, const struct process_order *order);
void agent_wake_slot(void *context, uint16_t slot);
enum { WAIT_NEVER_STARTED = -1 }; /* stands for the status of a process that could not be forked */
bool wait_story(int status, char *text, size_t bytes);

/* ---- requests.c ---- */
void requests_possible(uint32_t index);
void requests_take(uint32_t index, uint32_t generation);
void requests_drop_contained(uint32_t index);
/** Calls that have ended let go what was inside of their values. */
void requests_look(void);
/** Answers with nothing, once others have heard of all that this rank has taken by now (node/words.h). */
void requests_answer_heard(uint32_t index);
void requests_end(void);

/* ---- actors.c ---- */
void actors_request(uint32_t index, enum request_kind kind, const void *bytes, uint32_t count);
/** Rank 0 has answered a request with an actor. */
void actors_answered(uint32_t index, const void *answer);
void actors_not_made(uint32_t index);
void actors_process_died(uint16_t slot, uint32_t actor, int status);
void actors_process_ready(void);
void actors_call_far(uint32_t index, uint32_t generation);
void actors_call_dead(uint32_t index);    /* a call in the hands of a dead actor process */
void actors_call_untold(uint32_t index);  /* ends it, if that actor is gone */
bool actors_running_dead(uint32_t index); /* it ran; returns whether it was dealt with */
void actors_granted(uint32_t index);      /* it has the resources that it asked for */
bool actors_creation_ready(uint32_t index, uint32_t generation);
void node_actors_tick(void);
void node_actors_end(void);

/* ---- general.c ---- */
enum moray_code general_start(struct moray_error *error);
void general_take(uint32_t index, uint32_t generation);
void general_ended(uint32_t index);
void general_look(void); /* at all tasks, whether they have ended */
void general_actions(void);
void general_process_died(uint16_t slot);
void general_tick(void);
uint64_t general_deadline(void);
/** A task that has its cores waits for a process. */
bool general_lacks_a_process(void);
bool general_possible(const struct request_need *need, struct moray_error *error);
void general_end(void);
/** Resources that actor `index` of this node holds for life; actors_granted() comes when it has them.
 *  Errors: false, with the story, if the node could never give them. */
bool general_hold(uint32_t index, struct resources need, struct moray_error *error);
void general_let_go(uint32_t index);

/* ---- head.c: rank 0 ---- */
/** A request of any rank to the GCS; answered by head_reply at once or later. */
void head_request(uint32_t rank, uint64_t token, uint32_t kind, const void *bytes, uint32_t count);
bool head_start(struct moray_error *error);
void head_tick(void);
uint64_t head_deadline(void);
void head_end(void);
/** Sends a request to the GCS, from this rank, for record `index` (RUNNING by slot 0). */
void head_ask(uint32_t index, uint32_t kind, const void *bytes, uint32_t count);
/** The GCS's answer to such a request. */
void head_answered(uint64_t token, enum moray_code code, const void *bytes, uint32_t count);

_Noreturn void exit_after_agent(int status);

#endif
