/**
 * What every process of a job has of Moray: driver, worker and actor alike.
 *
 *     thread -> enter() ... lane, arena ... leave()      one thread in the lane at a time
 *     frame   what a running task, method or open scope has taken: holds, its error, its record
 *
 * The thread that called moray_init (the main thread of a worker) enters without an atomic operation:
 * it announces itself in `inside` and looks at `threaded`. The first other thread sets `threaded`, takes
 * the lock, makes the announcement visible by membarrier, and waits until the owner is out; from then on
 * all take the lock. Nobody sleeps inside.
 * References in user code name records of the node's arena; those of other ranks that reach a process
 * inside the bytes of a value are exchanged for a local stand-in by the agent (RECORD_PROXY).
 */
#ifndef MORAY_CLIENT_PROCESS_H
#define MORAY_CLIENT_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/trip.h"
#include "sched/lane/lane.h"

enum { NODE_CORES_MAX = 192, SETUPS_MAX = 64, FRAME_FEW = 8, SLOT_DRIVER = 1 };

enum process_role { /* the first three may call nothing */
                    ROLE_NONE,
                    ROLE_ENDED,
                    ROLE_FORKED, /* a child of one of those below, by the program's own fork */
                    ROLE_DRIVER,
                    ROLE_WORKER,
                    ROLE_ACTOR
};

/** What the lane's control block has for the node (lane_control.node). */
struct node_shared {
    _Atomic uint32_t setup_count;  /* moray_setup calls so far */
    _Atomic uint32_t driver_busy;  /* the driver runs user code on a core */
    _Atomic uint32_t parked_slot;  /* worker that gives its core to the driver; 0: none */
    _Atomic uint32_t parked_deep;  /* that slot, if it sleeps long: see sleeper_due() */
    _Atomic uint32_t lent_slot;    /* has the driver's or agent's core for a task; 0: none */
    _Atomic uint32_t lent_yields;  /* … and gives it back at the end of the task */
    _Atomic uint32_t lane_workers; /* how many worker processes may take tasks of the queues */
    _Atomic uint32_t ending;       /* the job ends: every process leaves at its next look */
    _Atomic uint32_t agent_deep;   /* the agent sleeps long: the next submit wakes it */
    _Atomic uint32_t job_workers;  /* of all nodes */
    _Atomic uint32_t nodes_known;  /* the other ranks have told theirs */
    uint32_t core_count, worker_count, spin_ns, rank_count, rank, window;
    uint32_t attempts_default;
    _Atomic uint32_t slot_first_actor; /* no worker has had a slot from here on */
    int agent_doorbell;                /* eventfd, inherited by all processes of this rank */
    uint64_t store_bytes;
    char host[64];
    struct {
        uint64_t function; /* address: the same in all processes of a rank */
        uint32_t record, generation;
    } setups[SETUPS_MAX];
    _Alignas(64) _Atomic uint64_t tokens[NODE_CORES_MAX]; /* slot + 1 that has the core, 0: free */
    _Alignas(64) _Atomic uint64_t wanting[LANE_SLOT_WORDS]; /* bits a slot that wants a core back */
    _Alignas(64) _Atomic uint64_t coreless[LANE_SLOT_WORDS]; /* … that sleeps and would take one */
};

enum slot_blocked { /* lane_slot.blocked */
                    SLOT_AWAKE,
                    SLOT_BLOCKED, /* sleeps in get or wait */
                    SLOT_LENDS,   /* … in a general task, whose cores the agent may use */
                    SLOT_LENT,    /* … and does */
                    SLOT_WANTS,   /* … and would go on when it has them again */
};

struct hold { /* in a frame: +1 or, with the high bit, -1 */
    uint32_t index, generation;
};

struct frame {
    struct frame *outer;
    uint32_t record; /* RECORD_NONE: a scope, not a task */
    uint32_t generation;
    uint32_t submitter; /* order of method calls: of this task, or of the actor */
    struct hold *holds; /* `few`, or in the heap */
    uint32_t hold_count;
    enum moray_code failed; /* by moray_fail */
    uint32_t hold_capacity;
    bool has_more; /* a story, or handles of actors: frame_pop() looks closer */
    bool actor;
    char *story;
    struct hold few[FRAME_FEW];
};

struct process {
    enum process_role role;
    struct lane lane;
    struct node_shared *node;
    uint32_t owner;  /* rank + 1 of the arena */
    uint32_t window; /* its number */
    uint32_t rank, rank_count;
    uint16_t slot;
    int worker_index; /* among the lane's workers; -1: none */
    bool alone;       /* one rank: no reference can be of elsewhere */
    uint32_t setups_done;
    int token;      /* core it held last; -1: none yet. core_has() says whether it does now */
    bool core_left; /* it gave the core up to sleep */
    bool general;   /* it runs a task whose cores are the agent's */
    void *self;     /* actor: its state */
    uint32_t actor; /* actor: its index in the node's table */
    /* the door */
    _Atomic uint32_t inside, threaded, lock;
    void (*pump)(void); /* where no other thread makes progress; NULL */
    int doorbell;       /* of the agent of the arena */
    uint32_t self_pid;  /* of the driver: its children are not it */
};

extern struct process me;
extern _Thread_local struct frame *frame_top;
extern _Thread_local bool thread_inside, thread_owner;
extern _Thread_local const char *thread_stack; /* where the outermost task's frame began */

/** Writes this thread's last error (moray_last). Returns `code`. */
#define last_set(code, ...) last_set_at(code, __FILE__, __LINE__, __VA_ARGS__)
enum moray_code last_set_at(enum moray_code code, const char *file, int line, const char *format,
                            ...) __attribute__((format(printf, 4, 5)));
enum moray_code last_take(const struct moray_error *error);

/** The call at `site` (NULL: not known) failed, and gives the null reference or handle for it. */
void null_given(const struct moray_site *site);
/** A null "reference" or "handle" is used: tells what gave this task, or thread, the last one. The code is
 *  that call's; MORAY_INVALID if none did. */
enum moray_code null_told(const char *what);
/** That call's story; "": none did. */
const char *null_story(void);

enum moray_code enter_refused(void);
void enter_slow(void);

/** Opens the door; not MORAY_OK: the call is not allowed here, and the story is set. */
static inline enum moray_code enter(void)
{
    if (RARELY(thread_inside || me.role <= ROLE_FORKED))
        return enter_refused();
    thread_inside = true;
    if (__builtin_expect(thread_owner, 1)) {
        atomic_store_explicit(&me.inside, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst); /* the other side pays the fence: membarrier */
        if (RARELY(atomic_load_explicit(&me.threaded, memory_order_relaxed)))
            enter_slow();
    } else
        enter_slow();
    lane_tick(&me.lane);
    return MORAY_OK;
}

void leave_slow(void);

static inline void leave(void)
{
    if (RARELY(atomic_load_explicit(&me.threaded, memory_order_relaxed)))
        leave_slow();
    if (thread_owner)
        atomic_store_explicit(&me.inside, 0, memory_order_release);
    thread_inside = false;
}

/* ---- Frames ---- */

/** A number that no other submitter of this slot has had. Inside the door. */
uint32_t submitter_next(void);

void frame_push(struct frame *frame, uint32_t record);
/** Lets go what the frame still holds. */
void frame_pop(struct frame *frame);
/** Ends the scopes that the body of `frame` has left open. */
void scopes_end(struct frame *frame);
/** Notes a hold taken (or, `gone`, let go) in the innermost frame. */
void frame_note(uint32_t index, uint32_t generation, bool gone);
/** The innermost frame of a task or method; NULL: there is none. */
struct frame *frame_of_task(void);
/** A hold was let go: the newest that the frames know of. */
void frame_gone(uint32_t index, uint32_t generation);

/* ---- References ---- */

static inline moray_ref ref_of(uint32_t index, uint32_t type)
{
    uint64_t life = atomic_load_explicit(&me.lane.records[index].life, memory_order_relaxed);
    return (moray_ref){me.owner, index, life_generation(life), type};
}

/** The record of a reference. Errors: the story is set. A reference of another rank is exchanged for
 *  its local stand-in, held until ref_done(): each find that went well has one. */
enum moray_code ref_find(moray_ref ref, uint32_t *index);

/** The end of what the call that found the reference did with it. `later`: its limit passed, or it began a
 *  transfer: the caller will come back, so a stand-in that nothing else holds here stays until a later
 *  call is done with it, or until the task (of the driver: the job) ends. */
void far_done(uint32_t index, bool later);
static inline void ref_done(moray_ref ref, uint32_t index, bool later)
{
    if (RARELY(ref.owner != me.owner))
        far_done(index, later);
}

/** The driver came back to the stand-in; to all of them, or will to none. Inside the door. */
void far_back(uint32_t index);
void far_forget(void);

/** Takes a hold for the caller, noted in its frame. */
void hold_take(uint32_t index);

/* ---- Sleeping ---- */

enum { SLEEP_RESCUE_MS = 1000 };

/* A call that sleeps is out of the door, and the interrupted one all the same of a signal handler that calls. */
static inline void asleep_in_call(bool is)
{
    thread_inside = is;
}

/** In the middle of such a sleep: lets go what others are done with. */
void freed_tidy(void);

/* Whoever has something for this process wakes all its threads that sleep: `asleep` counts them. */
static inline void sleep_begin(void)
{
    atomic_fetch_add_explicit(&me.lane.self->asleep, 1, memory_order_seq_cst);
}

static inline void sleep_end(void)
{
    atomic_fetch_sub_explicit(&me.lane.self->asleep, 1, memory_order_seq_cst);
}

/** Sleeps until the own wake word moves on from `seen`, or until `until_ns` (0: none); at most 1 s.
 *  Between sleep_begin() and sleep_end(), the caller has looked once more. Not inside the door.
 *  Returns whether it was that second that ended the sleep: who finds then what it waited for was not
 *  woken for it, and says so by rescue_count(). */
bool process_sleep(uint32_t seen, uint64_t until_ns);

/** `found` after a sleep that nobody ended: a wake-up was lost, unless it is only late. */
void rescue_count(uint32_t seen, const char *found);

void process_wake(void *context, uint16_t slot);
void process_wake_in(struct lane *lane, uint16_t slot);
const char *run_name(void);
uint64_t now_ns(void);

/** Waits for the end of a record. MORAY_OK, MORAY_TIMEOUT or MORAY_STALE. `limit_ms` as in moray.h,
 *  checked. Called inside the door; leaves it while it sleeps or runs other tasks. */
enum moray_code record_wait(uint32_t index, int64_t limit_ms);
/** The same, until a time: 0: no limit; LIMIT_NOW_NS: it only looks. */
enum moray_code record_wait_until(uint32_t index, uint64_t until_ns);
enum { LIMIT_NOW_NS = 1 };
/** Runs here what the end of a record depends on, while there is something that this process may run.
 *  Returns whether it may. Inside the door; leaves it meanwhile. */
bool record_help(uint32_t index);
/** Whether who is at the bound of its queue may run what lies there on this stack; in a thread of a task as
 *  well, which keeps its core. Runs a task that was claimed. Inside the door; leaves it meanwhile. */
bool may_run_mine(void);
void run_claimed(uint32_t index);
/** For a wait that the end of the job cut short: a worker or actor leaves, the driver gets MORAY_LOST.
 *  Inside the door. */
enum moray_code wait_cut(void);
/** Who waits may hold nothing: the user let the reference go before its task ended. At the end the
 *  record is free then, or somebody else's. gone_while_waiting() tells it: MORAY_STALE. */
static inline bool life_is_gone(uint64_t life, uint32_t generation)
{
    return life_generation(life) != generation || life_state(life) <= RECORD_ORPHAN;
}
enum moray_code gone_while_waiting(void);
enum moray_code limit_until(int64_t limit_ms, uint64_t *until_ns);

/** Before and after a sleep in a blocking call: the core goes to somebody else. Outside the door. */
void core_leave(void);
/** `late`: a time limit has passed, so it goes on whether there is a core or not. */
void core_return(bool late);
/** Whether this process has a core of the lane's; whether one lies free; takes one, not waiting. */
bool core_has(void);
bool core_is_free(void);
bool core_take(void);
/** Whether a process that slept waits for a core; hands one over, or lets it go. */
bool core_is_wanted(void);
void core_give(void);
/** Lets go what it has beyond one. */
void cores_tidy(void);
/** Binds this process to the core that it has now (node/workers.c). */
void core_bind(int core);
/** The driver's core (driver.c). Before a submit while nobody looks for work: who of those that sleep is
 *  to be woken for it? `parked` is the parked worker. Threads: the driver's owner. */
void driver_submits(uint32_t parked);
/** The same where nobody is idle. Returns whom to wake after the submit. */
uint32_t driver_submits_more(uint32_t parked);
/** Before it waits; whether its core is lent, so that it should sleep at once. */
bool driver_waits(void);
/** For the end of a record, after it lent its core: lets the worker run. Returns whether it has ended.
 *  Called inside the door; leaves it meanwhile. */
bool driver_yields(uint32_t index);

/** While it spins in vain: gets the worker that it waits for off its core. */
void driver_moves(void);
/** Before and after it sleeps; it has looked in vain and computes on. */
void driver_sleeps(void);
void driver_returns(void);
void driver_polls(void);
/** Before a task is queued by a process that will sleep soon: an idle worker bound to the hardware thread
 *  that the caller is on. Woken for the task it needs no other core to leave its idle state, and
 *  where no driver lends cores it gives this one back at the task's end. 0: there is none. Any process. */
uint16_t lend_core(const struct lane *lane, struct node_shared *node);
/** After tasks may have become ready in a process that runs none of them: the parked worker, which sleeps
 *  long, is woken if there is work and nobody else to take it. Any process. */
void parked_rouse(struct lane *lane, struct node_shared *node);
/** A worker's: whether it has the driver's core, which waits for it: then it does not look round. */
bool driver_lent(void);
/** The same worker's: after the first task since its sleep; and before it submits one while all others
 *  sleep: the driver, which waits for it, needs no second core. */
void driver_lent_yields(void);
void driver_lent_submits(void);
/** A token became free: wakes one that waits for a core, else one that would work. Any process. */
void cores_offer(struct lane *lane, struct node_shared *node);
bool spin_allowed(void);
/** Whoever looks for work, when it has found some: lets a submitter get ahead. */
void fall_back(void);

/* ---- Results and failures ---- */

/** Sets the result fields of a record that this slot runs to a failure. Never fails: without room the
 *  story is cut to what fits in place. */
void story_fill(struct lane *lane, uint32_t window, uint32_t index, enum moray_code code,
                const char *text);
/** The same for a record and its further results, which then end. */
void story_end(struct lane *lane, uint32_t window, uint32_t index, enum moray_code code,
               const char *text);
void fail_fill(uint32_t index, enum moray_code code, const char *text);
void fail_record(uint32_t index, enum moray_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** The code of a failed record, and its story. */
enum moray_code failure_of(const struct record *record, const char **text);

/** Where the bytes of an ended record lie, read-only; fetched first if they are on another rank, until
 *  `until_ns` (as in record_wait_until). Inside the door. Errors: those of the fetch; MORAY_TIMEOUT: it
 *  goes on, and the bytes can be had later. */
enum moray_code result_bytes(uint32_t index, uint64_t until_ns, const void **data, uint64_t *bytes);

/** The same, or the failure as the caller's error. */
enum moray_code record_outcome(uint32_t index, uint64_t until_ns, const void **data,
                               uint64_t *bytes);
/** Has the bytes of a record of another rank fetched, and does not wait. Inside the door. */
void fetch_begin(uint32_t index);
/** Makes a view of bytes that result_bytes() gave; it holds the record. Inside the door. */
void view_open(uint32_t index, moray_ref ref, const void *data, uint64_t bytes, moray_view *view);
/** Its end, if it was opened here; zeroes it. Inside the door. */
void view_close(moray_view *view);

/** ref_find() of a list. Owner: the caller, who gives `*indices` to refs_done(); NULL after an error. */
enum moray_code refs_find(const moray_ref *refs, size_t count, uint32_t **indices);
void refs_done(const moray_ref *refs, size_t count, uint32_t *indices, bool later);

/** Puts a result into a record in MAKING or RUNNING. Errors: MORAY_FULL, with the whole story. */
enum moray_code result_store(uint32_t index, const void *data, uint64_t bytes);
enum moray_code store_full(uint64_t bytes);

/** Seals the buffer that the function of a running task returned. Errors: the story is set. */
enum moray_code result_take(uint32_t index, const moray_buffer *buffer);
/** Frees the buffers that moray_result made for a task that has not ended yet. */
void results_drop(uint32_t index);
/** A block of the arena for record `index`; looks for some milliseconds where others have only just let
 *  something go. 0: no room. Inside the door. */
uint32_t room_find(uint64_t bytes, uint32_t index);

/** Says of an object which function (its number + 1; 0: none) made it, and where that was called;
 *  what is said of any record. */
void record_set_maker(struct record *record, uint32_t maker, uint32_t site);
uint32_t record_maker(const struct record *record);
/** The text of a type by its hash; NULL: no function of the program takes or gives it. */
const char *type_text(uint32_t type_hash);

/** Describes a record for stories: "task add (add.c:12), called in main (app.c:30)". */
void record_describe(const struct lane *lane, const struct record *record, char *text,
                     size_t bytes);

/** Cancels a task or call that has not begun. */
void record_cancel(struct lane *lane, uint32_t window, uint32_t index, uint32_t generation);

/* ---- Functions ---- */

extern const struct moray_function **functions;
extern uint32_t function_count;
extern const struct moray_class **classes;
extern uint32_t class_count;
enum moray_code functions_settle(struct moray_error *error);
uint64_t program_digest(void);
uint64_t program_offset(uint64_t address);
uint64_t program_address(uint64_t offset);
uint32_t site_pack(const struct moray_site *site);
const struct moray_site *site_unpack(uint32_t packed);

/* ---- Calls ---- */

/** Resolves the references among the arguments and adds the blob up; then packs it (call.c). */
enum moray_code arguments_check(const struct moray_function *function,
                                const struct moray_argument *arguments, unsigned count,
                                uint32_t *inputs, uint16_t *mask, uint32_t *bytes);
/** The holds that arguments_check() took end: a record holds what it needs by now. Inside the door. */
void arguments_done(const struct moray_argument *arguments, const uint32_t *inputs, uint16_t mask);
void arguments_pack(const struct moray_function *function, const struct moray_argument *arguments,
                    unsigned count, const uint32_t *inputs, uint16_t mask, char *blob);
struct answer_actor;
enum moray_code actor_resolve(moray_actor actor, struct answer_actor *out);
enum moray_code actor_lend(moray_actor actor, uint32_t record, bool while_there);
enum moray_code actor_room(moray_actor actor, const struct answer_actor *where);
void actor_counts(moray_actor actor, const struct answer_actor *where, uint32_t index);
void actor_posted(const struct answer_actor *where, uint32_t index);
/** Lets go the handles that a task has taken, which ends. Inside the door; leaves it meanwhile. */
void handles_let_go(const struct frame *frame);

/* ---- Running ---- */

/** Runs a record that this slot has claimed, to its end. Outside the door. */
void run_record(uint32_t index);
void fail_end(uint32_t index, enum moray_code code, const char *text);
_Noreturn void caller_fail(enum moray_code code, const struct moray_site *site, const char *story);
void worker_main(int worker_index, bool spare);
void actor_main(uint32_t actor);
void run_setups(void);
/** Whether there are some that this process has not run; runs them while a task waits on this stack, which
 *  they have nothing to do with. */
static inline bool setups_due(void)
{
    return me.setups_done < atomic_load_explicit(&me.node->setup_count, memory_order_relaxed);
}
void setups_under(void);
void run_exit_hooks(void);
bool should_end(void);
_Noreturn void process_leave(void);

/** Shows each reference and handle in a value, or that it is: `kind` MORAY_KIND_FUTURE or _ACTOR, at any
 *  alignment, perhaps null. Any process, and the agent. */
typedef void inside_take(void *context, uint32_t kind, const void *at);
void insides_walk(const struct moray_parameter *type, const void *data, inside_take *take,
                  void *context);

/** What a value has inside (MORAY_REFS), or is (a bare reference), is held as long as record `index` is
 *  there, or `until_ended`. Inside the door, which it leaves for a request to the agent if there is
 *  anything. What leads nowhere is passed over. */
enum moray_code insides_tell(uint32_t index, const struct moray_parameter *type, const void *data,
                             bool until_ended);
extern uint32_t insides_count; /* types registered; 0: no value has anything inside */

/* ---- Requests to the agent ---- */

/** Sends `bytes` and waits for the answer, which stays in the record until request_done().
 *  Inside the door; leaves it while it waits. */
enum moray_code request_call(uint32_t kind, const void *bytes, uint32_t count, uint32_t *record,
                             const void **answer, uint64_t *answer_bytes);
/** The same with a limit (record_wait_until). MORAY_TIMEOUT: the agent goes on with it all the same. */
enum moray_code request_until(uint32_t kind, const void *bytes, uint32_t count, uint64_t until_ns,
                              uint32_t *record, const void **answer, uint64_t *answer_bytes);
void request_done(uint32_t record);

#endif
