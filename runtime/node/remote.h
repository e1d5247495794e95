/**
 * The message lane: what crosses ranks. Tasks that go to another node, their results, objects that are
 * fetched, calls of actors elsewhere, words of and to the GCS. In batches, by the fabric.
 *
 *     owner rank                                   node that runs it
 *     record, RUNNING by slot 0  ── TASK ────────▶ stand-in (PROXY, home 0), inputs likewise
 *                                                  queue, worker, end: told to slot 0
 *     result, or where it lies   ◀── RESULT ─────  the bytes stay there if they are many
 *
 * A stand-in is a record of this rank's arena for one of another's: {owner, index, generation} is its
 * name. It is held there by this rank (BORROW) until nobody here holds the stand-in.
 * Threads: the agent.
 */
#ifndef MORAY_NODE_REMOTE_H
#define MORAY_NODE_REMOTE_H

#include "node/agent.h"
#include "sched/policy/resources.h"

bool remote_start(struct moray_error *error);
void remote_stop(bool clean);
/** Takes what came from other ranks, and gives the fabric what is to go there; flush does the second
 *  alone. How much was done. */
uint32_t remote_poll(void);
uint32_t remote_flush(void);
/** After a sleep of the agent; after it, if the fabric's descriptor ended it. */
void remote_woken(void);
void remote_rung(void);
void remote_tick(void);
bool remote_may_sleep(void);
bool remote_keep_polling(void);
uint64_t remote_deadline(void);
void remote_watch(uint32_t tag);
/** The driver of a head alone must wait for the arena it will attach to. */
bool remote_driver_waits(void);

/** All ranks end, with this status. */
void remote_tell_end(int status);
void remote_tell_setup(uint64_t function, uint32_t record);

/** Cancels the task of a record, or that a stand-in stands for, wherever in the job it is queued; one
 *  that runs is untouched. */
void remote_cancel(uint32_t index, uint32_t generation);

/** The local stand-in of another rank's object, or the object itself if it is of this rank; held by
 *  the agent. RECORD_NONE: it leads nowhere. */
uint32_t remote_stand_in(moray_ref ref);
/** Lets a hold of the agent's own go. All holds of other ranks are the agent's too: one of them that
 *  lets go what it does not have takes ours, which ends the job here. */
void drop_own(uint32_t index);
/** A record that the agent waited for has ended. */
void remote_ended(uint32_t index, uint32_t generation);
/** Nobody here holds the record any more; the agent lets go what it stood for. */
void remote_free(uint32_t index, uint32_t generation);
/** Somebody wants the bytes here. */
void remote_want(uint32_t index, uint32_t generation);
void remote_fetch_request(uint32_t request, const void *bytes, uint32_t count);

/** A general task that is to run elsewhere; false: it stays. */
bool remote_place(uint32_t index, uint32_t generation, const struct record_long *details);
/** Bytes of a ready task's inputs that a node would have to fetch. */
uint64_t remote_missing(uint32_t index, uint32_t rank);
/** Whether some node would take a task of this rank now. */
bool remote_can_send(void);
bool remote_possible(struct resources need, int32_t on_rank, struct moray_error *error);
/** Not all ranks are known yet: the request is asked again (requests_possible) when they are. */
bool remote_must_wait(uint32_t index, uint32_t generation);
bool remote_is_node(uint32_t rank);
/** Rank 0's scheduler, which knows the nodes when all ranks are known; NULL elsewhere. */
struct global *remote_global(void);
bool remote_all_known(void);
void remote_send_call(uint32_t rank, uint64_t actor, uint32_t index, uint32_t generation);
void remote_report(void);
uint64_t remote_arrived(void);

/** To the creator of an actor: this node holds what the constructor takes. */
void remote_tell_starts(uint32_t rank, uint64_t actor);
/** … which the creator need not do any more. */
void actors_inputs_held(uint64_t id);

/* Words of the GCS, between this rank and rank 0. */
void remote_head_ask(uint64_t token, uint32_t kind, const void *bytes, uint32_t count);
void remote_head_reply(uint32_t rank, uint64_t token, enum moray_code code, const void *bytes,
                       uint32_t count);
void remote_word(uint32_t rank, uint32_t kind, const void *bytes, uint32_t count);

/* actors.c, for calls that come from other ranks */
struct node_actor *actors_here(uint64_t id, uint32_t *route);
/** Why an actor takes no calls here: the code and the story for them. */
enum moray_code actors_gone(uint64_t id, const char **story);
/** Whether the actor may still be to start here: neither did rank 0 order it yet, nor say that it is dead. */
bool actors_expected(uint64_t id);
/** It is no longer expected: the calls that wait for that are taken (remote_tasks.c). */
void tasks_expected(uint64_t actor);
uint32_t actors_route(uint64_t id);
void _exit_job(int status) __attribute__((noreturn));
struct local_lane;
void general_load(struct local_lane *out);
uint64_t window_memory_limit_of_node(void);

#endif
