/**
 * Moray: tasks, actors and objects for supercomputers. The one public header, for C11 and C++17 with
 * gcc or clang (-std=c11, gnu11, c++17 or later).
 *
 *     mpirun -n 4 ./app
 *     rank 0: main() goes on after moray_init, and submits      ranks 1, 2, 3: serve inside moray_init
 *
 *     MORAY_TASK(int64_t, add, (int64_t, a), (int64_t, b)) { return a + b; }
 *     ...
 *     moray_ref three = moray_call(add, 1, 2);           a future: returns at once
 *     moray_ref ten = moray_call(add, three, 7);         a future stands wherever a value may
 *     int64_t value = moray_take_as(int64_t, ten);       waits, and lets the reference go
 *
 * BEFORE AND AFTER moray_init. Worker and actor processes are forked inside moray_init. So what main
 * does before it happens on every rank, and every worker inherits it (read the command line there,
 * fill tables there). What main does after it happens in the driver alone: a task does not see a
 * global variable that main set after moray_init. Pass it as an argument, put it as an object, or
 * ship it with moray_setup(). Call moray_init before anything that starts threads, MPI or a GPU; in a
 * job of several ranks it starts MPI for itself, and main neither starts nor uses it. The driver has a
 * child of Moray's: wait for your own by waitpid(pid), as wait() and waitpid(-1) wait for that one too.
 *
 * RULES THAT HOLD UNLESS A FUNCTION SAYS OTHERWISE
 * - Who may call: the driver, tasks and actors alike, from any of their threads. Not before moray_init,
 *   not after moray_finalize, not from a signal handler that interrupted a call: MORAY_WRONG_STATE.
 * - Codes: a function that returns enum moray_code returns MORAY_OK (0) or what went wrong;
 *   moray_last(&story) tells the whole story of this thread's last failed call.
 * - A call that returns a reference or a handle returns the null one (all zeros) on failure and sets
 *   moray_last(). Using a null reference tells that story again, so a chain of calls may be checked
 *   once, at its end.
 * - Sizes are bytes. Time limits are milliseconds: 0 means no limit, MORAY_NOW means look and return
 *   at once; other negative limits are invalid. After MORAY_TIMEOUT the same call may be made again.
 * - In every struct of options 0 means the default, so name only what you want to change.
 * - Ownership: a moray_ref is a plain value of 16 bytes. A call that returns one gives you a hold on
 *   the object; passing it as an argument only borrows. Let a hold go with moray_release or
 *   moray_take_as. Holds taken inside a task end with the task unless returned or kept (moray_keep).
 *   Copying the 16 bytes copies no hold.
 */
#ifndef MORAY_H
#define MORAY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MORAY_VERSION_MAJOR 0
#define MORAY_VERSION_MINOR 1
#define MORAY_VERSION_PATCH 0

/* ---- Codes -------------------------------------------------------------------------------------- */

#define MORAY_CODES(X) /* the one list: enum, names and documentation come from it */ \
    X(MORAY_OK, "success")                                                            \
    X(MORAY_INVALID, "invalid argument")                                              \
    X(MORAY_NO_MEMORY, "out of memory")                                               \
    X(MORAY_TIMEOUT, "time limit passed")                                             \
    X(MORAY_FULL, "the store has no room")                                            \
    X(MORAY_BUSY, "a queue is at its limit")                                          \
    X(MORAY_FAILED, "the function reported an error")                                 \
    X(MORAY_DIED, "the process that ran the task died")                               \
    X(MORAY_UPSTREAM, "an input of the task failed")                                  \
    X(MORAY_CANCELLED, "the task was cancelled")                                      \
    X(MORAY_ACTOR_DIED, "the actor is dead")                                          \
    X(MORAY_UNAVAILABLE, "the actor cannot be reached for the moment")                \
    X(MORAY_STALE, "stale reference")                                                 \
    X(MORAY_WRONG_TYPE, "the object is of another type")                              \
    X(MORAY_NOT_FOUND, "no such name")                                                \
    X(MORAY_EXISTS, "the name is taken")                                              \
    X(MORAY_WRONG_STATE, "the call is not allowed here")                              \
    X(MORAY_SYSTEM, "a system call failed")                                           \
    X(MORAY_PROTOCOL, "a message is malformed or not authentic")                      \
    X(MORAY_LOST, "a rank of the job was lost")
#define X(name, text) name,
enum moray_code { MORAY_CODES(X) };
#undef X

/* ---- The types a program handles ----------------------------------------------------------------- */

/** A reference to an object, there already or still to be made. All zeros: the null reference. */
typedef struct {
    uint32_t owner; /* rank + 1 */
    uint32_t index, generation;
    uint32_t type; /* hash of the text of the object's type; 0: bytes of no declared type */
} moray_ref;

/** An object read in place. As a parameter's type: an object of any type, not copied. The bytes are
 *  read-only: a write through `data` stops the process that writes. */
typedef struct {
    const void *data; /* aligned to 64, below 64 bytes to 8; valid until the task returns, or
                         moray_view_release */
    size_t size;      /* bytes */
    moray_ref ref;    /* what is shown here; borrowed */
} moray_view;

/** As a parameter's type: a reference that is handed on unresolved. Made by moray_pass. */
typedef struct {
    moray_ref ref;
} moray_future;

/** A big object under construction, written in place: moray_result() in a task whose result type
 *  this is, moray_create() for a put without a copy. */
typedef struct {
    void *data;  /* writable until returned or sealed; aligned to 64 */
    size_t size; /* bytes */
    uint64_t place;
} moray_buffer;

/** A handle of an actor. A program uses CLASS_actor, a type of its own for each class. Handles may be
 *  passed as arguments, returned, and kept in an actor's state. All zeros: the null handle. */
typedef struct {
    uint32_t node; /* rank + 1 */
    uint32_t index, generation;
    uint32_t type; /* hash of the text "CLASS_actor" */
} moray_actor;

#define MORAY_NOW INT64_MIN /* a limit_ms: look, do not wait */
#define MORAY_ENDLESS (-1)  /* attempts, restarts, retries without a bound */
#define MORAY_NONE (-1) /* in struct moray_options: the number zero, where 0 means the default */
#define MORAY_PARAMETERS_MAX 10 /* of a function; and as many results */

/** In an options struct: the default, yes, or no. */
enum moray_switch { MORAY_DEFAULT = 0, MORAY_ON = 1, MORAY_OFF = 2 };

/* ---- Defining tasks and actors, and calling them --------------------------------------------------
 *
 * MORAY_TASK(R, name, (T, parameter)...) { body }
 *     A task with up to 10 parameters, at file scope. R may be void, or moray_buffer for a big result
 *     that is written in place. A parameter is a value of any size that can be copied as bytes; a
 *     moray_view (an object of any type, read in place); a moray_future (a reference, unresolved); or a
 *     handle. Pointers and moray_ref are refused by the compiler. The name is the task's identity in
 *     the job, so it is unique in the program.
 * MORAY_TASK_RESULTS(name, ((T, result)...), (T, parameter)...) { body }
 *     Several results, each an object of its own. The body returns a name_results; a call gives a
 *     name_refs, whose members are references.
 *
 * MORAY_ACTOR(class, (T, member)...);                     the state; zeroed at the start
 * MORAY_CONSTRUCTOR(class, (T, parameter)...) { body }    may be left out; moray_fail() reports failure
 * MORAY_METHOD(R, class, name, (T, parameter)...) { body }    has `self`, a pointer to the state
 * MORAY_DESTRUCTOR(class) { body }                        runs at a clean end, not when killed
 *     A handle has the type class_actor. A type of 16 bytes whose name ends in _actor is a handle.
 *     An actor runs one call at a time. A method that waits, without a limit, for a call of its own actor
 *     gets MORAY_WRONG_STATE; actors that wait for each other in a ring wait for ever.
 *
 * moray_call(name, argument...), moray_call_with((.cores = 2), name, argument...)
 *     Submits a task and returns at once with a moray_ref (or name_refs). A reference may stand for any
 *     argument: the task waits for it, and fails if it failed. Methods: moray_call(class_name, handle,
 *     argument...). A call with a wrong count or kind of arguments does not compile. The arguments are
 *     evaluated once each. In C, a compound literal as an argument needs parentheses around it, a bit
 *     field a unary plus before it. Owner: the caller holds each reference.
 *     Errors (null reference): MORAY_INVALID (also more than 2 MiB of arguments by value in a job of
 *     several ranks, of a constructor more than 1 MiB: put what is large), MORAY_STALE, MORAY_BUSY,
 *     MORAY_WRONG_STATE.
 * moray_new(class, argument...), moray_new_with((.name = "x"), class, argument...)
 *     Makes an actor and returns at once with its handle, held. Errors (null handle): as moray_call.
 *     The driver and an actor hold the handle until moray_actor_release or their own end, a task until
 *     it ends: an object or another process has it by then (returned, MORAY_REFS, moray_actor_hold), or
 *     the actor finishes its calls and ends. Who gets a handle as a value only borrows it.
 *     One for which no node has a process waits for 10 s; then its calls fail with MORAY_BUSY.
 *
 * A program of several files: in a header, each with the same list and a semicolon,
 *     MORAY_DECLARE_TASK(R, name, ...);  MORAY_DECLARE_TASK_RESULTS(name, (...), ...);
 *     MORAY_DECLARE_ACTOR(class);  MORAY_DECLARE_CONSTRUCTOR(class, ...);
 *     MORAY_DECLARE_METHOD(R, class, name, ...);
 * and in one file that includes it MORAY_DEFINE_TASK, MORAY_DEFINE_TASK_RESULTS, MORAY_DEFINE_ACTOR,
 * MORAY_DEFINE_CONSTRUCTOR, MORAY_DEFINE_METHOD in place of the short forms.
 *
 * MORAY_REFS(type, member...);
 *     Values of this type contain references or handles in these members, and keep them alive. The type
 *     is a typedef's name. An object keeps them as long as it is there, a call with such a value as an
 *     argument until it has ended (a constructor's, of an actor that may restart, until the actor is
 *     dead). Bytes that merely look like a reference keep nothing alive. Who reads such a value borrows
 *     what is inside for as long as it holds the value; moray_hold keeps one longer, and spares further
 *     calls on an object of another rank the way there.
 *
 * C++: the same. Parameters, results and states must be trivially copyable; an exception that leaves a
 * body is the task's error.
 */

/* ---- Options ------------------------------------------------------------------------------------- */

/** How a task is to run: moray_call_with((.cores = 2, .name = "mesh"), f, ...). A call of a method takes
 *  the name alone: the rest is its actor's, and an option that is set makes it fail with MORAY_INVALID.
 *  Absurd values (negative, more than any node could offer) make the call fail with MORAY_INVALID. */
struct moray_task_options {
    double cores;         /* 0: 1; fractions down to 0.0001 */
    uint64_t memory;      /* bytes of its own that it needs; 0: not counted */
    const char *name;     /* shown in errors and lists; copied; NULL: the function's */
    int32_t attempts;     /* tries in all: 1 to 255, or MORAY_ENDLESS; 0: MORAY_ATTEMPTS (4) */
    int32_t on_rank;      /* rank + 1 of the node that shall run it; 0: any */
    uint8_t retry_errors; /* 1: an error that the function reports is tried again as well */
    uint8_t spread;       /* 1: prefer the emptiest node to the nearest */
    uint32_t calls_per_process; /* end its process after so many calls of it; 0: never */
    const char *resource;       /* a resource by name: refused by name in this version */
    double resource_amount;
};

/** How an actor is to live: moray_new_with((.name = "model", .restarts = 3), class, ...). */
struct moray_actor_options {
    double cores;           /* held for life if given; 0: one to place it, none while it idles */
    uint64_t memory;        /* bytes of its own that it needs; 0: not counted */
    const char *name;       /* unique in the job while it lives; copied; NULL: none */
    uint8_t get_if_exists;  /* 1: with .name, give the actor that has it, if there is one */
    int32_t restarts;       /* how often it starts again after a death; 0: never; MORAY_ENDLESS */
    int32_t method_retries; /* how often a call that a death interrupted runs again; 0: never */
    uint32_t pending_max;   /* calls that may wait; more are refused with MORAY_BUSY; 0: no limit */
    int32_t on_rank;        /* rank + 1 of its node; 0: any */
    const char *resource;   /* a resource by name: refused by name in this version */
    double resource_amount;
};

/** Settings from the program, a field for each MORAY_* variable (docs/settings.md says what they do).
 *  0 or NULL: not set here. The environment wins over what stands here, so that a user can change a
 *  program without compiling it. Numbers: MORAY_NONE for zero. Texts as in the environment. */
struct moray_options {
    int64_t workers;                /* MORAY_WORKERS */
    const char *cores;              /* MORAY_CORES: "0-3,8" or a number */
    const char *store_bytes;        /* MORAY_STORE_BYTES: "30%" or "2GiB" */
    const char *fabric;             /* MORAY_FABRIC: "ofi" or "mpi" */
    const char *provider;           /* MORAY_PROVIDER */
    const char *interface;          /* MORAY_INTERFACE */
    enum moray_switch share;        /* MORAY_SHARE */
    const char *head;               /* MORAY_HEAD: "auto", "alone" or "node" */
    int64_t queue_max;              /* MORAY_QUEUE_MAX, tasks */
    int64_t processes_max;          /* MORAY_PROCESSES_MAX */
    int64_t spares_max;             /* MORAY_SPARES_MAX */
    int64_t spin_us;                /* MORAY_SPIN_US */
    int64_t attempts;               /* MORAY_ATTEMPTS; MORAY_ENDLESS is allowed */
    const char *near_bytes;         /* MORAY_NEAR_BYTES: "1MiB" */
    int64_t spill_queue;            /* MORAY_SPILL_QUEUE, tasks */
    const char *log;                /* MORAY_LOG: "error", "warning", "info" or "debug" */
    enum moray_switch report_leaks; /* MORAY_REPORT_LEAKS */
    const char *chaos;              /* MORAY_CHAOS: "worker=100ms,seed=1" */
    const char *progress;           /* MORAY_PROGRESS: "auto", "on" or "off" */
    enum moray_switch output_mark;  /* MORAY_OUTPUT_MARK */
    const char *inflight_bytes;     /* MORAY_INFLIGHT_BYTES: "64MiB" */
};

/* ---- The job ------------------------------------------------------------------------------------- */

/** Starts Moray. In rank 0 it returns and main goes on as the driver; on every other rank it serves
 *  until the job ends and does not return. Call it first thing in main, from the only thread.
 *  Errors: the story goes to stderr and the process exits with status 1; moray_init_with returns.
 *  Returns MORAY_OK. */
enum moray_code moray_init(int *argc, char ***argv);

/** The same with settings from the program. Errors: MORAY_INVALID for a setting that cannot be;
 *  MORAY_WRONG_STATE when called twice, after MPI_Init, or with threads that a fork would lose;
 *  MORAY_SYSTEM; then nothing of the job is left, and moray_last tells the story. */
enum moray_code moray_init_with(int *argc, char ***argv, struct moray_options options);

/** Ends the job: waits for no task; frees everything on every rank.
 *  Returns the status that main shall return: 0, or 1 if the job failed. Driver only. */
int moray_finalize(void);

/** The code of this thread's last failed call, and its story in `*story` (may be NULL); the text is
 *  valid until the thread's next failed call. MORAY_OK, "" if none failed. A limit that passed
 *  (MORAY_TIMEOUT) leaves it as it was. Allowed at any time. */
enum moray_code moray_last(const char **story);

/** The name of a code ("MORAY_FULL") and its meaning in one line. Static. Allowed at any time. */
const char *moray_code_name(enum moray_code code);
const char *moray_code_meaning(enum moray_code code);

int moray_rank(void);  /* this process's rank, from 0; -1 before init */
int moray_ranks(void); /* ranks of the job; 0 before init */
int moray_workers(
    void); /* worker processes that the nodes of the job offer, all together; 0 before init */

/** The cores (numbers of the operating system) that the calling task was given: at most `room` are
 *  written to `cores`; returns how many there are. 0 if it may use any. */
size_t moray_cores(int *cores, size_t room);

/** `fn(value)` runs once in every worker and actor process, present and future, before its next task.
 *  `value` is copied (at most 64 KiB). `fn` must be a function of this program. Driver only.
 *  Errors: MORAY_INVALID, MORAY_FULL. */
enum moray_code moray_setup(void (*fn)(const void *value, size_t size), const void *value,
                            size_t size);

/** `fn` runs in every worker and actor process before it ends in an orderly way (not when killed).
 *  Call it before moray_init, or in a task or actor for its own process. At most 32. */
enum moray_code moray_at_worker_exit(void (*fn)(void));

/* ---- Objects: put, get, wait ---------------------------------------------------------------------- */

/** Copies `size` bytes into the store. `data` may be NULL only if size is 0.
 *  The object has no declared type: it stands for a parameter of any type of its size.
 *  Owner: the caller holds the reference. Errors (null reference): MORAY_INVALID; MORAY_FULL with
 *  size, free bytes, the largest holders and the setting. */
moray_ref moray_put(const void *data, size_t size);

/** The same for bytes that contain references, which the object keeps alive: `refs`, `count` of them. */
moray_ref moray_put_refs(const void *data, size_t size, const moray_ref *refs, size_t count);

/** moray_put_value(T, value): puts one value of type T; the reference carries the type. */

/** Room for an object of `size` bytes, to be filled in place and then sealed.
 *  Owner: the caller, until moray_seal or moray_drop. Errors (data is NULL): MORAY_FULL. */
moray_buffer moray_create(size_t size);
moray_ref
moray_seal(moray_buffer buffer);      /* the object, immutable from now on; a hold for the caller */
void moray_drop(moray_buffer buffer); /* gives the room back */

/** In a task or method whose result type is moray_buffer: room for the result. Fill it and return it.
 *  Errors (data is NULL): MORAY_FULL; return it all the same: the task then fails with that story. */
moray_buffer moray_result(size_t size);

/** moray_get(ref, &value, limit_ms): waits for the object and copies it into value, whose size must
 *  be the object's. The reference stays held. A NULL `value` (moray_get_bytes only) just waits.
 *  Errors: MORAY_TIMEOUT; MORAY_WRONG_TYPE if the size differs; MORAY_STALE; MORAY_INVALID for a
 *  negative limit; or the code of the failure of the task that should have made it: moray_error(ref)
 *  tells that story. */
enum moray_code moray_get_bytes(moray_ref ref, void *value, size_t size, int64_t limit_ms);
#define moray_get(ref, value, limit_ms) moray_get_bytes(ref, value, sizeof(*(value)), limit_ms)

/** moray_get_as(T, ref), moray_take_as(T, ref): the value itself, once it is there; take also releases
 *  the reference, and what it gives if T is a moray_future or a handle is the caller's to release.
 *  T may be void: just waits. If the task failed, or the object is of another type, the
 *  calling task fails with the whole story (in the driver: the job ends with it), as an uncaught error
 *  would. To handle failures use moray_get. */

/** Waits for the object and shows it in place, without copying. The view stays valid until
 *  moray_view_release, though the reference be released before. Errors: as moray_get. */
enum moray_code moray_get_view(moray_ref ref, moray_view *view, int64_t limit_ms);
void moray_view_release(moray_view *view); /* and zeroes it; a zero view is allowed */

/** Views of `count` objects, in order. The first failure among them is returned at once, without
 *  waiting for the others; then, and after MORAY_TIMEOUT, no view is held. Release each.
 *  Errors: as moray_get. */
enum moray_code moray_get_many(const moray_ref *refs, size_t count, moray_view *views,
                               int64_t limit_ms);

#define MORAY_FETCH 1u /* moray_wait: begin to move all listed remote objects here */

/** Waits until `want` of `count` objects are ready or the limit passes (no error). A failed, cancelled
 *  or dead one counts as ready. Writes the ready ones, at most `want`, to `ready` (room for `want`), all
 *  others to `rest` (room for `count`), both in the order of `refs`; and how many to the counts. Any of
 *  the four may be NULL. With count 0 it returns at once. The holds stay where they were.
 *  Errors: MORAY_INVALID for want < 1, want > count, a negative limit or a reference listed twice. */
enum moray_code moray_wait(const moray_ref *refs, size_t count, size_t want, moray_ref *ready,
                           size_t *ready_count, moray_ref *rest, size_t *rest_count,
                           int64_t limit_ms, unsigned flags);

/** Lets the caller's hold go. Errors: MORAY_STALE if it is not held here (released twice). */
enum moray_code moray_release(moray_ref ref);

/** One more hold for the caller, of an object that it holds or borrows. Errors: MORAY_STALE. */
enum moray_code moray_hold(moray_ref ref);

/** In a task or method: the hold does not end with it but stays with the process: for references kept
 *  in an actor's state. Errors: MORAY_STALE; MORAY_WRONG_STATE outside a task. */
enum moray_code moray_keep(moray_ref ref);

/** Holds taken between begin and end (this thread) are let go at the end, but for those kept with
 *  moray_keep. Scopes nest; one that is open at the end of its task ends with it. Errors: MORAY_WRONG_STATE for an end without a begin. */
enum moray_code moray_scope_begin(void);
enum moray_code moray_scope_end(void);

/** For a parameter of type moray_future: hands the reference itself on, unresolved. Borrows. */
static inline moray_future moray_pass(moray_ref ref)
{
    moray_future future;
    future.ref = ref;
    return future;
}

/* ---- Failure and cancelling ----------------------------------------------------------------------- */

/** The whole story of a failed object: function, node, process, attempt, signal, message, and the chain
 *  of upstream failures; of a null reference, the story of the call that gave it. "" if it has not
 *  failed (or not yet). Valid until the thread's next call of this function. */
const char *moray_error(moray_ref ref);

/** The task or method that calls this fails with `code` and the text once it returns; what it returns
 *  is ignored. Not tried again unless .retry_errors. In a constructor: every call of the actor fails.
 *  `code` must not be MORAY_OK. Only in a task or actor; elsewhere it is ignored with a warning. */
void moray_fail(enum moray_code code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define MORAY_FORCE 1u     /* moray_cancel: kill the process if the task runs already */
#define MORAY_RECURSIVE 2u /* and cancel the tasks that it submitted */

/** Cancels the task that makes `ref`: a queued one never runs, a finished one is untouched; a running one
 *  goes on to its end, and is not told in this version. Whoever holds a reference may cancel.
 *  moray_cancel_with takes MORAY_FORCE, MORAY_RECURSIVE; running or actor's tasks are not forced in
 *  this version: MORAY_INVALID. Errors: MORAY_STALE; MORAY_INVALID for a put object. */
enum moray_code moray_cancel_with(moray_ref ref, unsigned flags);
#define moray_cancel(ref) moray_cancel_with(ref, 0)

int moray_cancelled(void);    /* in a task: 1 once it was cancelled; in this version always 0 */
uint32_t moray_attempt(void); /* in a task: which try this is, from 1; 0 outside */

/* ---- Actors ---------------------------------------------------------------------------------------- */

/** moray_kill(actor, restart): ends the actor's process at once. restart 1: it starts again if it has
 *  restarts left; 0: it is dead for good. Killing a dead actor is no error.
 *  moray_actor_release(actor): lets the handle go. After the last one the actor finishes its queued
 *  calls, runs its destructor and ends; one that has not done so after 30 s is ended by force.
 *  moray_actor_hold: one more. moray_actor_keep(actor): in a task or method, one more that does not end
 *  with it but stays with the process.
 *  Errors: MORAY_STALE; MORAY_WRONG_STATE for moray_actor_keep outside a task. */
enum moray_code moray_actor_kill(moray_actor actor, int restart);
enum moray_code moray_actor_drop(moray_actor actor);
enum moray_code moray_actor_add(moray_actor actor);
enum moray_code moray_actor_stay(moray_actor actor);
#define moray_kill(actor, restart) moray_actor_kill((actor).handle, restart)
#define moray_actor_release(actor) moray_actor_drop((actor).handle)
#define moray_actor_hold(actor) moray_actor_add((actor).handle)
#define moray_actor_keep(actor) moray_actor_stay((actor).handle)

/** moray_actor_named(class, "name"): a handle of the actor with that name, held.
 *  Errors (null handle): MORAY_NOT_FOUND; MORAY_WRONG_TYPE if it is of another class. */

/* ---- Keys and values, publish and subscribe -------------------------------------------------------- */

#define MORAY_IF_ABSENT 1u /* moray_kv_put: do not overwrite: MORAY_EXISTS */

/** Keys and values of the whole job, in namespaces (`space`, "" allowed). A value is at most 1 MiB.
 *  put overwrites. Errors: MORAY_INVALID, MORAY_EXISTS, MORAY_FULL. */
enum moray_code moray_kv_put(const char *space, const char *key, const void *value, size_t size,
                             unsigned flags);

/** Copies the value, at most `room` bytes of it, to `value`, and its size to `*size`.
 *  Errors: MORAY_NOT_FOUND; MORAY_FULL if `room` is too small: `*size` says what is needed. */
enum moray_code moray_kv_get(const char *space, const char *key, void *value, size_t room,
                             size_t *size);

/** Errors: MORAY_NOT_FOUND. */
enum moray_code moray_kv_delete(const char *space, const char *key);

/** The keys that begin with `prefix`, ascending: each ended by a NUL, one behind the other, in `*keys`.
 *  Owner: the caller, who frees `*keys` with free(). Errors: MORAY_NO_MEMORY; MORAY_FULL if they take
 *  more than 2 MiB in a job of several ranks: ask for a longer prefix. `*keys` is NULL then. */
enum moray_code moray_kv_list(const char *space, const char *prefix, char **keys, size_t *count);

/** Adds to a counter (an absent one is 0) and tells the sum. Errors: MORAY_WRONG_TYPE if the value is
 *  no counter; MORAY_INVALID if it would overflow. */
enum moray_code moray_kv_add(const char *space, const char *key, int64_t delta, int64_t *sum);

/** Stores `value` if the present one is `expected` (NULL: if there is none), in one step.
 *  Errors: MORAY_EXISTS if it is another; MORAY_NOT_FOUND if there is none but one was expected. */
enum moray_code moray_kv_swap(const char *space, const char *key, const void *expected,
                              size_t expected_size, const void *value, size_t size);

typedef struct moray_subscription moray_subscription;

/** Sends a message of at most 1 MiB to all who subscribed to the channel before. */
enum moray_code moray_publish(const char *channel, const void *data, size_t size);

/** Owner: the caller, until moray_unsubscribe; it belongs to the calling process. */
enum moray_code moray_subscribe(const char *channel, moray_subscription **out);

/** The next message: at most `room` bytes to `data`, its size to `*size`, and to `*lost` (may be NULL)
 *  how many were dropped before it because the subscriber was slow. One thread at a time for each
 *  subscription. Errors: MORAY_TIMEOUT; MORAY_FULL if `room` is too small: the message stays. */
enum moray_code moray_next(moray_subscription *subscription, void *data, size_t room, size_t *size,
                           uint64_t *lost, int64_t limit_ms);
void moray_unsubscribe(moray_subscription *subscription); /* NULL is allowed */

/* ==================================================================================================
 * Below: the functions beneath the macros, and the machinery of the macros. A program uses none of it
 * directly; a wrapper for another language uses the functions.
 *
 *     MORAY_TASK(int64_t, add, (int64_t, a), (int64_t, b)) { ... }      leaves behind, at file scope:
 *
 *     add_function                  what is known of it at run time; registered before main
 *     add_takes_2_arguments         a type: what a call gives. A call names it with its own count, so
 *                                   that a wrong count reads "unknown type name add_takes_3_arguments"
 *     add_type_0, add_type_1        the parameters' types
 *     add_is_method                 a type of size 1 (task) or 2 (method)
 *     add_run, add_body             the trampoline, which unpacks the arguments, and the user's code
 *
 * Declarations (MORAY_DECLARE_...) may be repeated, definitions may not.
 * Cost of a call with plain arguments: 40 bytes an argument on the stack, one call; no allocation.
 * ================================================================================================== */

#define MORAY_KIND_VALUE 0  /* bytes */
#define MORAY_KIND_VIEW 1   /* moray_view: an object in place */
#define MORAY_KIND_FUTURE 2 /* moray_future: a reference, not resolved */
#define MORAY_KIND_BUFFER 3 /* moray_buffer: a result written in place */
#define MORAY_KIND_VOID 4
#define MORAY_KIND_ACTOR 5 /* a handle: any type of 16 bytes whose name ends in _actor */

struct moray_parameter {
    const char *type, *name; /* the text of the type; the name; static */
    uint32_t size;           /* bytes */
    uint32_t type_hash;      /* of the text */
    uint8_t kind;            /* MORAY_KIND_... */
};

#define MORAY_IS_TASK 0
#define MORAY_IS_CONSTRUCTOR 1
#define MORAY_IS_METHOD 2
#define MORAY_IS_DESTRUCTOR 3

struct moray_class;

struct moray_function {
    const char *name, *file; /* static */
    int line;
    uint8_t kind; /* MORAY_IS_... */
    uint8_t parameter_count, result_count;
    const struct moray_parameter *parameters, *results; /* static; NULL if there are none */
    const struct moray_class *of;                       /* NULL for a task */
    /* Runs the user's code. arguments[i]: the value, or a moray_view, moray_future, handle, by kind;
     * any alignment. results[i]: room for the result, any alignment. self: the actor's state. */
    void (*run)(void *self, const void *const *arguments, void *const *results);
    uint32_t id; /* given by moray_init: place in the order of names, the same on all ranks */
};

struct moray_class {
    const char *name, *file; /* static */
    int line;
    uint32_t state_size; /* bytes; zeroed before the constructor runs */
    const struct moray_function *constructor, *destructor; /* NULL: none */
    uint32_t type_hash;                                    /* of the text "NAME_actor" */
    uint32_t id;                                           /* given by moray_init, as above */
};

/** Called before main, once for each definition. Nothing is checked here: names that come twice are
 *  kept, so that moray_init can report both places. Owner: the caller's, static. */
void moray_register(struct moray_function *function);
void moray_register_class(struct moray_class *type);

struct moray_inside { /* a reference or a handle inside a value */
    uint32_t offset;  /* bytes */
    uint32_t kind;    /* MORAY_KIND_FUTURE or MORAY_KIND_ACTOR */
};

struct moray_insides { /* what MORAY_REFS(type, members) says */
    const char *type, *file;
    int line;
    uint32_t type_hash, size, count;
    const struct moray_inside *members;
};
void moray_register_refs(const struct moray_insides *insides);

#define MORAY_ARGUMENT_VALUE 0
#define MORAY_ARGUMENT_REF 1

struct moray_argument {
    const void *data;   /* a value's bytes, borrowed for the call; MORAY_ARGUMENT_REF: unused */
    uint32_t size;      /* of the parameter's type */
    uint32_t kind;      /* MORAY_ARGUMENT_... */
    uint32_t type_hash; /* 0: the compiler has checked the type */
    moray_ref ref;      /* MORAY_ARGUMENT_REF: borrowed */
};

struct moray_site { /* where a call stands in the user's text; static */
    const char *file, *function;
    int line;
};

/** The functions beneath the macros: for wrappers in other languages as well. Everything is checked:
 *  the count, sizes and kinds of the arguments, the options. `results` takes the references of all
 *  results (NULL: none wanted, or at most one); returns the first, which for a function without
 *  results stands for its completion. Errors: the null reference, and moray_last(). */
moray_ref moray_submit(const struct moray_function *function, const struct moray_site *site,
                       const struct moray_task_options *options,
                       const struct moray_argument *arguments, unsigned count, moray_ref *results);
moray_ref moray_submit_method(moray_actor actor, const struct moray_function *function,
                              const struct moray_site *site,
                              const struct moray_task_options *options,
                              const struct moray_argument *arguments, unsigned count,
                              moray_ref *results);
moray_actor moray_new_actor(const struct moray_class *type, const struct moray_site *site,
                            const struct moray_actor_options *options,
                            const struct moray_argument *arguments, unsigned count);
moray_actor moray_find_actor(const struct moray_class *type, const struct moray_site *site,
                             const char *name);

/** moray_put with the hash of a type's text. */
moray_ref moray_put_typed(const void *data, size_t size, uint32_t type_hash);

/** moray_get_as and moray_take_as: does not return if the object failed or is of another type (0 and
 *  objects put without a type match any type of their size). A NULL `value` just waits. `release`: 0: no;
 *  1: yes; MORAY_KIND_FUTURE, MORAY_KIND_ACTOR: yes, and what the value is gets a hold. */
void moray_get_or_end(moray_ref ref, void *value, size_t size, uint32_t type_hash, const char *type,
                      const struct moray_site *site, int release);

/* What a call gives: one reference by value, several through `into`, which is made of references. */
static inline void moray_submit_into(moray_ref *into, unsigned ref_count, int is_method,
                                     const struct moray_function *function,
                                     const struct moray_site *site,
                                     const struct moray_task_options *options,
                                     const struct moray_argument *arguments, unsigned count)
{
    moray_ref first;

    if (is_method)
        first = moray_submit_method(*(const moray_actor *)arguments[0].data, function, site,
                                    options, arguments + 1, count - 1, ref_count > 1 ? into : NULL);
    else
        first =
            moray_submit(function, site, options, arguments, count, ref_count > 1 ? into : NULL);
    if (ref_count == 1)
        *into = first;
}

#ifdef __cplusplus
} /* extern "C" */
#endif

/* ---- Bricks -------------------------------------------------------------------------------------- */

#define MORAY_CAT(a, b) MORAY_CAT_(a, b)
#define MORAY_CAT_(a, b) a##b
#define MORAY_CAT4(a, b, c, d) MORAY_CAT4_(a, b, c, d)
#define MORAY_CAT4_(a, b, c, d) a##b##c##d
#define MORAY_STRING(...) MORAY_STRING_(__VA_ARGS__)
#define MORAY_STRING_(...) #__VA_ARGS__
#define MORAY_UNPAREN(...) __VA_ARGS__
#define MORAY_HEAD(...) MORAY_HEAD_(__VA_ARGS__, ~)
#define MORAY_HEAD_(head, ...) head
#define MORAY_SECOND(...) MORAY_SECOND_(__VA_ARGS__, ~)
#define MORAY_SECOND_(first, second, ...) second
#define MORAY_DO(m, arguments) m arguments
#define MORAY_INC(n) MORAY_CAT(MORAY_INC_, n)
#define MORAY_DEC(n) MORAY_CAT(MORAY_DEC_, n)
#define MORAY_COMMA() ,
#define MORAY_NOTHING()

/* Counting (1 to 14; the first is always a name), and walking over lists of (type, name): EACH and LIST
 * give m(c, 0, type, name) m(c, 1, type, name) ..., without and with commas; the head is skipped. */
#define MORAY_COUNT(...) MORAY_COUNT_(__VA_ARGS__, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define MORAY_COUNT_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, n, ...) n
#define MORAY_INC_0 1
#define MORAY_INC_1 2
#define MORAY_INC_2 3
#define MORAY_INC_3 4
#define MORAY_INC_4 5
#define MORAY_INC_5 6
#define MORAY_INC_6 7
#define MORAY_INC_7 8
#define MORAY_INC_8 9
#define MORAY_INC_9 10
#define MORAY_INC_10 11
#define MORAY_INC_11 12
#define MORAY_INC_12 13
#define MORAY_INC_13 14
#define MORAY_DEC_1 0
#define MORAY_DEC_2 1
#define MORAY_DEC_3 2
#define MORAY_DEC_4 3
#define MORAY_DEC_5 4
#define MORAY_DEC_6 5
#define MORAY_DEC_7 6
#define MORAY_DEC_8 7
#define MORAY_DEC_9 8
#define MORAY_DEC_10 9
#define MORAY_DEC_11 10
#define MORAY_DEC_12 11
#define MORAY_DEC_13 12
#define MORAY_DEC_14 13

#define MORAY_EACH_1(m, c, h)
#define MORAY_EACH_2(m, c, h, p0) MORAY_EACH_1(m, c, h) MORAY_DO(m, (c, 0, MORAY_UNPAREN p0))
#define MORAY_EACH_3(m, c, h, p0, p1) \
    MORAY_EACH_2(m, c, h, p0) MORAY_DO(m, (c, 1, MORAY_UNPAREN p1))
#define MORAY_EACH_4(m, c, h, p0, p1, p2) \
    MORAY_EACH_3(m, c, h, p0, p1) MORAY_DO(m, (c, 2, MORAY_UNPAREN p2))
#define MORAY_EACH_5(m, c, h, p0, p1, p2, p3) \
    MORAY_EACH_4(m, c, h, p0, p1, p2) MORAY_DO(m, (c, 3, MORAY_UNPAREN p3))
#define MORAY_EACH_6(m, c, h, p0, p1, p2, p3, p4) \
    MORAY_EACH_5(m, c, h, p0, p1, p2, p3) MORAY_DO(m, (c, 4, MORAY_UNPAREN p4))
#define MORAY_EACH_7(m, c, h, p0, p1, p2, p3, p4, p5) \
    MORAY_EACH_6(m, c, h, p0, p1, p2, p3, p4) MORAY_DO(m, (c, 5, MORAY_UNPAREN p5))
#define MORAY_EACH_8(m, c, h, p0, p1, p2, p3, p4, p5, p6) \
    MORAY_EACH_7(m, c, h, p0, p1, p2, p3, p4, p5) MORAY_DO(m, (c, 6, MORAY_UNPAREN p6))
#define MORAY_EACH_9(m, c, h, p0, p1, p2, p3, p4, p5, p6, p7) \
    MORAY_EACH_8(m, c, h, p0, p1, p2, p3, p4, p5, p6) MORAY_DO(m, (c, 7, MORAY_UNPAREN p7))
#define MORAY_EACH_10(m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8) \
    MORAY_EACH_9(m, c, h, p0, p1, p2, p3, p4, p5, p6, p7) MORAY_DO(m, (c, 8, MORAY_UNPAREN p8))
#define MORAY_EACH_11(m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9) \
    MORAY_EACH_10(m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8) MORAY_DO(m, (c, 9, MORAY_UNPAREN p9))
#define MORAY_EACH_12(m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10) \
    MORAY_EACH_11(m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9)          \
    MORAY_DO(m, (c, 10, MORAY_UNPAREN p10))
#define MORAY_LIST_1(empty, m, c, h) empty
#define MORAY_LIST_2(empty, m, c, h, p0) MORAY_DO(m, (c, 0, MORAY_UNPAREN p0))
#define MORAY_LIST_3(e, m, c, h, p0, p1) \
    MORAY_LIST_2(e, m, c, h, p0), MORAY_DO(m, (c, 1, MORAY_UNPAREN p1))
#define MORAY_LIST_4(e, m, c, h, p0, p1, p2) \
    MORAY_LIST_3(e, m, c, h, p0, p1), MORAY_DO(m, (c, 2, MORAY_UNPAREN p2))
#define MORAY_LIST_5(e, m, c, h, p0, p1, p2, p3) \
    MORAY_LIST_4(e, m, c, h, p0, p1, p2), MORAY_DO(m, (c, 3, MORAY_UNPAREN p3))
#define MORAY_LIST_6(e, m, c, h, p0, p1, p2, p3, p4) \
    MORAY_LIST_5(e, m, c, h, p0, p1, p2, p3), MORAY_DO(m, (c, 4, MORAY_UNPAREN p4))
#define MORAY_LIST_7(e, m, c, h, p0, p1, p2, p3, p4, p5) \
    MORAY_LIST_6(e, m, c, h, p0, p1, p2, p3, p4), MORAY_DO(m, (c, 5, MORAY_UNPAREN p5))
#define MORAY_LIST_8(e, m, c, h, p0, p1, p2, p3, p4, p5, p6) \
    MORAY_LIST_7(e, m, c, h, p0, p1, p2, p3, p4, p5), MORAY_DO(m, (c, 6, MORAY_UNPAREN p6))
#define MORAY_LIST_9(e, m, c, h, p0, p1, p2, p3, p4, p5, p6, p7) \
    MORAY_LIST_8(e, m, c, h, p0, p1, p2, p3, p4, p5, p6), MORAY_DO(m, (c, 7, MORAY_UNPAREN p7))
#define MORAY_LIST_10(e, m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8) \
    MORAY_LIST_9(e, m, c, h, p0, p1, p2, p3, p4, p5, p6, p7), MORAY_DO(m, (c, 8, MORAY_UNPAREN p8))
#define MORAY_LIST_11(e, m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9) \
    MORAY_LIST_10(e, m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8),        \
        MORAY_DO(m, (c, 9, MORAY_UNPAREN p9))
#define MORAY_LIST_12(e, m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10) \
    MORAY_LIST_11(e, m, c, h, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9),         \
        MORAY_DO(m, (c, 10, MORAY_UNPAREN p10))

/* m(id, c, 0, x0) s() m(id, c, 1, x1) ...: for the arguments of a call and the members of a type. */
#define MORAY_PLAIN_1(m, s, id, c)
#define MORAY_PLAIN_2(m, s, id, c, x0) m(id, c, 0, x0)
#define MORAY_PLAIN_3(m, s, id, c, x0, x1) MORAY_PLAIN_2(m, s, id, c, x0) s() m(id, c, 1, x1)
#define MORAY_PLAIN_4(m, s, id, c, x0, x1, x2) \
    MORAY_PLAIN_3(m, s, id, c, x0, x1) s() m(id, c, 2, x2)
#define MORAY_PLAIN_5(m, s, id, c, x0, x1, x2, x3) \
    MORAY_PLAIN_4(m, s, id, c, x0, x1, x2) s() m(id, c, 3, x3)
#define MORAY_PLAIN_6(m, s, id, c, x0, x1, x2, x3, x4) \
    MORAY_PLAIN_5(m, s, id, c, x0, x1, x2, x3) s() m(id, c, 4, x4)
#define MORAY_PLAIN_7(m, s, id, c, x0, x1, x2, x3, x4, x5) \
    MORAY_PLAIN_6(m, s, id, c, x0, x1, x2, x3, x4) s() m(id, c, 5, x5)
#define MORAY_PLAIN_8(m, s, id, c, x0, x1, x2, x3, x4, x5, x6) \
    MORAY_PLAIN_7(m, s, id, c, x0, x1, x2, x3, x4, x5) s() m(id, c, 6, x6)
#define MORAY_PLAIN_9(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7) \
    MORAY_PLAIN_8(m, s, id, c, x0, x1, x2, x3, x4, x5, x6) s() m(id, c, 7, x7)
#define MORAY_PLAIN_10(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8) \
    MORAY_PLAIN_9(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7) s() m(id, c, 8, x8)
#define MORAY_PLAIN_11(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9) \
    MORAY_PLAIN_10(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8) s() m(id, c, 9, x9)
#define MORAY_PLAIN_12(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10) \
    MORAY_PLAIN_11(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9) s() m(id, c, 10, x10)
#define MORAY_PLAIN_13(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11) \
    MORAY_PLAIN_12(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10) s() m(id, c, 11, x11)
#define MORAY_PLAIN_14(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12) \
    MORAY_PLAIN_13(m, s, id, c, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11)          \
    s() m(id, c, 12, x12)
#define MORAY_EACH(m, c, n, ...) MORAY_CAT(MORAY_EACH_, n)(m, c, __VA_ARGS__)
#define MORAY_LIST(empty, m, c, n, ...) MORAY_CAT(MORAY_LIST_, n)(empty, m, c, __VA_ARGS__)
#define MORAY_PLAIN(m, s, id, n, ...) MORAY_CAT(MORAY_PLAIN_, n)(m, s, id, __VA_ARGS__)

#define MORAY_IS_VOID(T) MORAY_IS_VOID_(T)
#define MORAY_IS_VOID_(T) MORAY_SECOND(MORAY_VOID_##T, 0)
#define MORAY_VOID_void ~, 1
#define MORAY_IS_ONE(n) MORAY_SECOND(MORAY_CAT(MORAY_ONE_, n), 0)
#define MORAY_ONE_1 ~, 1

/* The text of a type; bool, a macro in C, reads the same in both languages. */
#ifdef __cplusplus
#define MORAY_TEXT(T) MORAY_STRING(T)
#else
#define MORAY_TEXT(T) MORAY_TEXT_(T)
#define MORAY_TEXT_(T) MORAY_SECOND(MORAY_TEXT_OF_##T, #T)
#define MORAY_TEXT_OF__Bool ~, "bool"
#endif

/* FNV-1a of the first 64 bytes of a literal, as a constant; odd, so never 0. hash_type() in base/hash.h is the
 * same for a text at run time. */
#define MORAY_HASH(s) (MORAY_HASH_64(s) | 1u)
#define MORAY_HASH_64(s)                                                                           \
    MORAY_HASH_16(MORAY_HASH_16(MORAY_HASH_16(MORAY_HASH_16(2166136261u, s, 0), s, 16), s, 32), s, \
                  48)
#define MORAY_HASH_16(h, s, i)                                                                 \
    MORAY_HASH_4(MORAY_HASH_4(MORAY_HASH_4(MORAY_HASH_4(h, s, i), s, (i) + 4), s, (i) + 8), s, \
                 (i) + 12)
#define MORAY_HASH_4(h, s, i)                                                                  \
    MORAY_HASH_1(MORAY_HASH_1(MORAY_HASH_1(MORAY_HASH_1(h, s, i), s, (i) + 1), s, (i) + 2), s, \
                 (i) + 3)
#define MORAY_HASH_1(h, s, i)                                                             \
    (((h) ^ ((i) < sizeof(s) - 1 ? (unsigned char)(s)[(i) < sizeof(s) ? (i) : 0] : 0u)) * \
     ((i) < sizeof(s) - 1 ? 16777619u : 1u))

#define MORAY_ENDS_IN_ACTOR(s)                                         \
    (sizeof(s) > 7 && (s)[sizeof(s) > 7 ? sizeof(s) - 7 : 0] == '_' && \
     (s)[sizeof(s) > 7 ? sizeof(s) - 6 : 0] == 'a' &&                  \
     (s)[sizeof(s) > 7 ? sizeof(s) - 5 : 0] == 'c' &&                  \
     (s)[sizeof(s) > 7 ? sizeof(s) - 4 : 0] == 't' &&                  \
     (s)[sizeof(s) > 7 ? sizeof(s) - 3 : 0] == 'o' &&                  \
     (s)[sizeof(s) > 7 ? sizeof(s) - 2 : 0] == 'r')

#define MORAY_SITE                                                                       \
    (__extension__({                                                                     \
        static const struct moray_site moray_site_here = {__FILE__, __func__, __LINE__}; \
        &moray_site_here;                                                                \
    }))

/* ---- Checks and packing: C ------------------------------------------------------------------------ */

#ifndef __cplusplus

#define MORAY_EXTERN extern
#define MORAY_ASSERT _Static_assert
#define MORAY_CLASS(x) \
    __builtin_classify_type(x) /* 1-4 integer, 5 pointer, 8 real, 9 complex, 12 struct */

/* clang-format does not know _Generic. */
/* clang-format off */
#define MORAY_KIND(T)                                                                              \
    _Generic(*(T *)0,                                                                              \
        moray_view: MORAY_KIND_VIEW,                                                               \
        moray_future: MORAY_KIND_FUTURE,                                                           \
        moray_buffer: MORAY_KIND_BUFFER,                                                           \
        default: MORAY_ENDS_IN_ACTOR(MORAY_TEXT(T)) && sizeof(T) == sizeof(moray_actor)            \
                     ? MORAY_KIND_ACTOR : MORAY_KIND_VALUE)

#define MORAY_NOT_POINTER(T) (MORAY_CLASS(*(T *)0) != 5)
#define MORAY_NOT_REF(T) _Generic(*(T *)0, moray_ref: 0, default: 1)
#define MORAY_NOT_BUFFER(T) _Generic(*(T *)0, moray_buffer: 0, default: 1)
#define MORAY_PLAIN_BYTES(T) 1

/* May `v` stand for a parameter of type T? */
#define MORAY_FITS(T, v)                                                                           \
    (MORAY_CLASS(*(T *)0) >= 12                                                                    \
         ? _Generic((v), T: 1, moray_ref: 1, default: 0)                                           \
         : _Generic((v), moray_ref: 1,                                                             \
                    default: MORAY_NUMBER_FITS(MORAY_CLASS(*(T *)0), MORAY_CLASS(v))))
#define MORAY_NUMBER_FITS(t, v)                                                                    \
    (((v) >= 1 && (v) <= 4) || ((v) == 8 && ((t) == 8 || (t) == 9)) || ((v) == 9 && (t) == 9))

/* A variable's name; id is a number that no other call has. */
#define MORAY_V(name, id, i) MORAY_CAT4(moray_, name, MORAY_CAT(id, _), i)
#define MORAY_T(f, i) MORAY_CAT4(f, _type_, i, )
#define MORAY_IF_REF(v, yes, no) _Generic((v), moray_ref: yes, default: no)

/* One argument of a call: `x` is evaluated once, here. */
#define MORAY_ARGUMENT(id, f, i, x)                                                                \
    __auto_type MORAY_V(given, id, i) = (x);                                                       \
    MORAY_ASSERT(MORAY_FITS(MORAY_T(f, i), MORAY_V(given, id, i)),                                 \
                 "argument " MORAY_STRING(MORAY_INC(i)) " of " MORAY_STRING(f)                     \
                 ": wrong kind of value");                                                         \
    MORAY_ASSERT(_Generic(*(MORAY_T(f, i) *)0,                                                     \
                     moray_future: MORAY_IF_REF(MORAY_V(given, id, i), 0, 1),                      \
                     default: 1),                                                                  \
                 "argument " MORAY_STRING(MORAY_INC(i)) " of " MORAY_STRING(f)                     \
                 ": a reference is handed on unresolved with moray_pass(reference)");              \
    MORAY_ASSERT((i) > 0 || sizeof(MORAY_CAT(f, _is_method)) == 1 ||                               \
                     MORAY_IF_REF(MORAY_V(given, id, i), 0, 1),                                    \
                 "argument 1 of " MORAY_STRING(f)                                                  \
                 ": a method needs the handle of the actor, not a reference to it");               \
    MORAY_T(f, i) MORAY_V(stored, id, i) =                                                         \
        MORAY_IF_REF(MORAY_V(given, id, i), (MORAY_T(f, i)){0}, MORAY_V(given, id, i));

/* A view that is given for a view hands on the reference that it shows. */
#define MORAY_PACKED(id, f, i, x)                                                                  \
    {                                                                                              \
        .data = &MORAY_V(stored, id, i), .size = sizeof(MORAY_V(stored, id, i)),                   \
        .kind = _Generic((MORAY_V(given, id, i)),                                                  \
            moray_ref: MORAY_ARGUMENT_REF,                                                         \
            moray_view: MORAY_ARGUMENT_REF,                                                        \
            default: MORAY_ARGUMENT_VALUE),                                                        \
        .ref = _Generic((MORAY_V(given, id, i)),                                                   \
            moray_ref: MORAY_V(given, id, i),                                                      \
            moray_view: _Generic((MORAY_V(given, id, i)),                                          \
                            moray_view: &MORAY_V(given, id, i),                                    \
                            default: (const moray_view *)0)->ref,                                  \
            default: (moray_ref){0, 0, 0, 0})                                                      \
    }
/* clang-format on */

/* The array of packed arguments, or a null pointer. n is one more than their number. */
#define MORAY_PACK(id, n, ...) MORAY_CAT(MORAY_PACK_, MORAY_IS_ONE(n))(id, n, __VA_ARGS__)
#define MORAY_PACK_1(id, n, f) const struct moray_argument *MORAY_V(packed, id, 0) = 0;
#define MORAY_PACK_0(id, n, f, ...)                                   \
    MORAY_PLAIN(MORAY_ARGUMENT, MORAY_NOTHING, id, n, f, __VA_ARGS__) \
    const struct moray_argument MORAY_V(packed, id, 0)[] = {          \
        MORAY_PLAIN(MORAY_PACKED, MORAY_COMMA, id, n, f, __VA_ARGS__)};

/* clang-format off */
#define MORAY_WITHOUT() 0
#define MORAY_WITH_TASK(...) &(const struct moray_task_options){__VA_ARGS__}
#define MORAY_WITH_ACTOR(...) &(const struct moray_actor_options){__VA_ARGS__}
/* clang-format on */

#define MORAY_CALL(id, n, with, options, ...) \
    MORAY_CALL_(id, n, MORAY_DEC(n), with, options, MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_CALL_(id, n, takes, with, options, f, ...)                                   \
    (__extension__({                                                                       \
        MORAY_CAT4(f, _takes_, takes, _arguments) MORAY_V(made, id, 0);                    \
        MORAY_PACK(id, n, __VA_ARGS__)                                                     \
        moray_submit_into((moray_ref *)&MORAY_V(made, id, 0),                              \
                          sizeof(MORAY_V(made, id, 0)) / sizeof(moray_ref),                \
                          sizeof(MORAY_CAT(f, _is_method)) == 2, &MORAY_CAT(f, _function), \
                          MORAY_SITE, with options, MORAY_V(packed, id, 0), takes);        \
        MORAY_V(made, id, 0);                                                              \
    }))

#define MORAY_NEW(id, n, with, options, ...) \
    MORAY_NEW_(id, n, MORAY_DEC(n), with, options, MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_NEW_(id, n, takes, with, options, c, ...)                                           \
    (__extension__({                                                                              \
        MORAY_CAT4(c, _constructor_takes_, takes, _arguments) MORAY_V(made, id, 0);               \
        MORAY_ASSERT(_Generic(&MORAY_CAT(c, _constructor_arity), char(*)[n] : 1, default : 0),    \
                     "the constructor of " MORAY_STRING(c) " takes another number of arguments"); \
        MORAY_PACK(id, n, MORAY_CONSTRUCTOR_OF(__VA_ARGS__))                                      \
        MORAY_V(made, id, 0).handle = moray_new_actor(                                            \
            &MORAY_CAT(c, _class), MORAY_SITE, with options, MORAY_V(packed, id, 0), takes);      \
        MORAY_V(made, id, 0);                                                                     \
    }))
/* counter, x, y -> counter_constructor, x, y */
#define MORAY_CONSTRUCTOR_OF(...) MORAY_CONSTRUCTOR_OF_(MORAY_COUNT(__VA_ARGS__), __VA_ARGS__)
#define MORAY_CONSTRUCTOR_OF_(n, ...) MORAY_CAT(MORAY_CONSTRUCTOR_OF_, MORAY_IS_ONE(n))(__VA_ARGS__)
#define MORAY_CONSTRUCTOR_OF_1(c) MORAY_CAT(c, _constructor)
#define MORAY_CONSTRUCTOR_OF_0(c, ...) MORAY_CAT(c, _constructor), __VA_ARGS__

#define MORAY_TAKE(id, T, ref, release) \
    MORAY_CAT(MORAY_TAKE_, MORAY_IS_VOID(T))(id, T, ref, release)
#define MORAY_TAKE_1(id, T, ref, release) \
    moray_get_or_end(ref, 0, 0, 0, "void", MORAY_SITE, release)
#define MORAY_TAKE_0(id, T, ref, release)                                                   \
    (__extension__({                                                                        \
        T MORAY_V(taken, id, 0);                                                            \
        moray_get_or_end(ref, &MORAY_V(taken, id, 0), sizeof(T), MORAY_HASH(MORAY_TEXT(T)), \
                         MORAY_TEXT(T), MORAY_SITE, MORAY_TAKE_AS(MORAY_KIND(T), release)); \
        MORAY_V(taken, id, 0);                                                              \
    }))
#define MORAY_TAKE_AS(kind, release) \
    (!(release) ? 0 : (kind) == MORAY_KIND_FUTURE || (kind) == MORAY_KIND_ACTOR ? (kind) : 1)
#define MORAY_PUT(T, value) moray_put_typed((T[1]){value}, sizeof(T), MORAY_HASH(MORAY_TEXT(T)))
#define MORAY_NAMED(c, text) \
    ((MORAY_CAT(c, _actor)){moray_find_actor(&MORAY_CAT(c, _class), MORAY_SITE, text)})
/* clang-format off */
#define MORAY_MEMBER_KIND(type, member)                                                            \
    _Generic(((type *)0)->member,                                                                  \
        moray_ref: MORAY_KIND_FUTURE,                                                              \
        moray_future: MORAY_KIND_FUTURE,                                                           \
        default: MORAY_KIND_ACTOR)
/* clang-format on */

#define MORAY_LOAD(f, i, T, a) \
    T MORAY_CAT(moray_a, i);   \
    __builtin_memcpy(&MORAY_CAT(moray_a, i), arguments[i], sizeof(T));
#define MORAY_RUN_AND_STORE(R, call) MORAY_CAT(MORAY_RUN_AND_STORE_, MORAY_IS_VOID(R))(R, call)
#define MORAY_RUN_AND_STORE_1(R, call) call;
#define MORAY_RUN_AND_STORE_0(R, call) \
    R moray_value = call;              \
    __builtin_memcpy(results[0], &moray_value, sizeof(R));
#define MORAY_TRY(f)
#define MORAY_CATCH(f)

#endif /* C */

/* ---- Checks and packing: C++ ---------------------------------------------------------------------- */

#ifdef __cplusplus
#include <exception>
#include <type_traits>
#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#define MORAY_EXTERN extern "C"
#define MORAY_ASSERT static_assert
#define MORAY_KIND(T) \
    (moray_cpp::kind<T>(MORAY_ENDS_IN_ACTOR(MORAY_TEXT(T)) && sizeof(T) == sizeof(moray_actor)))
#define MORAY_NOT_POINTER(T) (!std::is_pointer<T>::value && !std::is_reference<T>::value)
#define MORAY_NOT_REF(T) (!std::is_same<T, moray_ref>::value)
#define MORAY_NOT_BUFFER(T) (!std::is_same<T, moray_buffer>::value)
#define MORAY_PLAIN_BYTES(T) (std::is_trivially_copyable<T>::value)

namespace moray_cpp
{
template <class T> constexpr uint8_t kind(bool actor)
{
    return std::is_same<T, moray_view>::value     ? MORAY_KIND_VIEW
           : std::is_same<T, moray_future>::value ? MORAY_KIND_FUTURE
           : std::is_same<T, moray_buffer>::value ? MORAY_KIND_BUFFER
           : actor                                ? MORAY_KIND_ACTOR
                                                  : MORAY_KIND_VALUE;
}

/* May an X stand for a parameter of type T? Numbers as in C; anything else must be a T. */
template <class T, class X> constexpr bool fits()
{
    return std::is_same<X, moray_ref>::value || std::is_same<T, X>::value ||
           ((std::is_integral<T>::value || std::is_enum<T>::value) &&
            (std::is_integral<X>::value || std::is_enum<X>::value) &&
            std::is_convertible<X, T>::value) ||
           (std::is_floating_point<T>::value &&
            (std::is_arithmetic<X>::value || std::is_enum<X>::value) &&
            std::is_convertible<X, T>::value);
}

template <class T> T load(const void *from)
{
    union room {
        T value;
        unsigned char bytes[sizeof(T)];
        room()
        {
        }
    } room;
    __builtin_memcpy(room.bytes, from, sizeof(T));
    return room.value;
}

template <class F> struct results_of { /* runs the user's code and stores what it returns */
    template <class Call> static void store(void *const *results, Call call)
    {
        F value = call();
        __builtin_memcpy(results[0], &value, sizeof(F));
    }
};
template <> struct results_of<void> {
    template <class Call> static void store(void *const *, Call call)
    {
        call();
    }
};

/* One argument of a call to the function that `Call` names; lives until the end of the call. */
template <class Call, unsigned number, bool handle, class T> struct held {
    T value;
    struct moray_argument packed;

    template <class X> held(const X &x) : value(), packed()
    {
        typedef typename std::decay<X>::type plain;
        static_assert(fits<T, plain>(), "moray: wrong kind of value for this argument");
        static_assert(!(handle && std::is_same<plain, moray_ref>::value),
                      "moray: a method needs the handle of the actor, not a reference to it");
        static_assert(
            !(std::is_same<T, moray_future>::value && std::is_same<plain, moray_ref>::value),
            "moray: a reference is handed on unresolved with moray_pass(reference)");
        if constexpr (std::is_same<plain, moray_ref>::value) {
            packed.kind = MORAY_ARGUMENT_REF;
            packed.ref = x;
        } else if constexpr (fits<T, plain>()) {
            value = static_cast<T>(x);
            if constexpr (std::is_same<plain, moray_view>::value) {
                packed.kind = MORAY_ARGUMENT_REF;
                packed.ref = x.ref;
            }
        }
        packed.size = sizeof(T);
    }
    held(const held &) = delete;
    held &operator=(const held &) = delete;

    struct moray_argument argument() const
    {
        struct moray_argument copy = packed;
        copy.data = &value;
        return copy;
    }
};

template <class Options> struct with { /* a null pointer, or the options of this call */
    Options value;
    const Options *address() const
    {
        return &value;
    }
};
struct without {
    template <class Options> operator const Options *() const
    {
        return nullptr;
    }
};

template <class Refs, class... Held>
inline Refs call(bool is_method, const struct moray_function *function,
                 const struct moray_site *site, const struct moray_task_options *options,
                 const Held &...held)
{
    const struct moray_argument arguments[sizeof...(Held) + 1] = {held.argument()..., {}};
    Refs refs;
    moray_submit_into(reinterpret_cast<moray_ref *>(&refs), sizeof(Refs) / sizeof(moray_ref),
                      is_method, function, site, options, arguments, sizeof...(Held));
    return refs;
}

template <class Actor, bool arity_fits, class... Held>
inline Actor make(const struct moray_class *type, const struct moray_site *site,
                  const struct moray_actor_options *options, const Held &...held)
{
    static_assert(arity_fits,
                  "moray: the constructor of this class takes another number of arguments");
    const struct moray_argument arguments[sizeof...(Held) + 1] = {held.argument()..., {}};
    Actor actor = {moray_new_actor(type, site, options, arguments, sizeof...(Held))};
    return actor;
}

template <class T>
inline T take(moray_ref ref, uint32_t hash, const char *type, const struct moray_site *site,
              int release, bool actor)
{
    if constexpr (std::is_void<T>::value) {
        moray_get_or_end(ref, nullptr, 0, 0, "void", site, release);
    } else {
        static_assert(std::is_trivially_copyable<T>::value,
                      "moray: an object's type must be trivially copyable");
        union room {
            T value;
            room()
            {
            }
        } room;
        constexpr bool future = std::is_same<T, moray_future>::value;
        if (release && (future || (actor && sizeof(T) == sizeof(moray_actor))))
            release = future ? MORAY_KIND_FUTURE : MORAY_KIND_ACTOR;
        moray_get_or_end(ref, &room.value, sizeof(T), hash, type, site, release);
        return room.value;
    }
}

template <class T> inline moray_ref put(const T &value, uint32_t hash)
{
    static_assert(std::is_trivially_copyable<T>::value,
                  "moray: an object's type must be trivially copyable");
    return moray_put_typed(&value, sizeof(T), hash);
}

template <class T> constexpr bool is_array_of(size_t count) /* or of no known length */
{
    return std::extent<T>::value == 0 || std::extent<T>::value == count;
}
} /* namespace moray_cpp */

#define MORAY_HELD(id, f, i, x)                                          \
    , moray_cpp::held<MORAY_CAT4(f, _type_, i, _of), (i) + 1,            \
                      (i) == 0 && sizeof(MORAY_CAT(f, _is_method)) == 2, \
                      MORAY_CAT4(f, _type_, i, )>(x)

#define MORAY_WITHOUT() nullptr
#define MORAY_WITH_TASK(...) MORAY_WITH_OPTIONS(moray_task_options, __VA_ARGS__)
#define MORAY_WITH_ACTOR(...) MORAY_WITH_OPTIONS(moray_actor_options, __VA_ARGS__)
#define MORAY_WITH_OPTIONS(T, ...)                                                       \
    moray_cpp::with<T>{[&] {                                                             \
        T moray_o = T();                                                                 \
        MORAY_PLAIN(MORAY_SET, MORAY_NOTHING, ~, MORAY_INC(MORAY_COUNT(__VA_ARGS__)), ~, \
                    __VA_ARGS__)                                                         \
        return moray_o;                                                                  \
    }()}                                                                                 \
        .address()
#define MORAY_SET(id, c, i, item) moray_o item;

#define MORAY_CALL(id, n, with, options, ...) \
    MORAY_CALL_(id, n, MORAY_DEC(n), with, options, MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_CALL_(id, n, takes, with, options, f, ...)                             \
    (moray_cpp::call<MORAY_CAT4(f, _takes_, takes, _arguments)>(                     \
        sizeof(MORAY_CAT(f, _is_method)) == 2, &MORAY_CAT(f, _function), MORAY_SITE, \
        with options MORAY_PLAIN(MORAY_HELD, MORAY_NOTHING, id, n, __VA_ARGS__)))

#define MORAY_NEW(id, n, with, options, ...) \
    MORAY_NEW_(id, n, MORAY_DEC(n), with, options, MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_NEW_(id, n, takes, with, options, c, ...)                                      \
    (moray_cpp::make<MORAY_CAT4(c, _constructor_takes_, takes, _arguments),                  \
                     moray_cpp::is_array_of<decltype(MORAY_CAT(c, _constructor_arity))>(n)>( \
        &MORAY_CAT(c, _class), MORAY_SITE,                                                   \
        with options MORAY_PLAIN(MORAY_HELD_NEW, MORAY_NOTHING, id, n, __VA_ARGS__)))
#define MORAY_HELD_NEW(id, c, i, x) MORAY_HELD(id, MORAY_CAT(c, _constructor), i, x)

#define MORAY_TAKE(id, T, ref, release)                                                     \
    (moray_cpp::take<T>(ref, MORAY_HASH(MORAY_TEXT(T)), MORAY_TEXT(T), MORAY_SITE, release, \
                        MORAY_ENDS_IN_ACTOR(MORAY_TEXT(T))))
#define MORAY_PUT(T, value) (moray_cpp::put<T>(value, MORAY_HASH(MORAY_TEXT(T))))
#define MORAY_NAMED(c, text) \
    (MORAY_CAT(c, _actor){moray_find_actor(&MORAY_CAT(c, _class), MORAY_SITE, text)})
#define MORAY_MEMBER_KIND(type, member)                                \
    (std::is_same<decltype(type::member), moray_ref>::value ||         \
             std::is_same<decltype(type::member), moray_future>::value \
         ? MORAY_KIND_FUTURE                                           \
         : MORAY_KIND_ACTOR)

#define MORAY_LOAD(f, i, T, a) T MORAY_CAT(moray_a, i) = moray_cpp::load<T>(arguments[i]);
#define MORAY_RUN_AND_STORE(R, call) \
    moray_cpp::results_of<R>::store(results, [&]() -> R { return call; });

/* An exception that leaves the user's code is the task's error; a forced unwinding goes on. */
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define MORAY_TRY(f) try {
#ifdef __GLIBCXX__
#define MORAY_CATCH_UNWINDING      \
    catch (abi::__forced_unwind &) \
    {                              \
        throw;                     \
    }
#else
#define MORAY_CATCH_UNWINDING
#endif
#define MORAY_CATCH(f)                                                                       \
    }                                                                                        \
    MORAY_CATCH_UNWINDING                                                                    \
    catch (const std::exception &moray_thrown)                                               \
    {                                                                                        \
        moray_fail(MORAY_FAILED, "%s: exception: %s", MORAY_STRING(f), moray_thrown.what()); \
    }                                                                                        \
    catch (...)                                                                              \
    {                                                                                        \
        moray_fail(MORAY_FAILED, "%s: an exception of unknown type", MORAY_STRING(f));       \
    }
#else
#define MORAY_TRY(f)
#define MORAY_CATCH(f)
#endif

#endif /* C++ */

/* ---- Declarations and definitions ------------------------------------------------------------------ */

/* For each parameter: what it is called, checked, listed, declared and passed on. */
#define MORAY_P_TYPE(f, i, T, a)          \
    typedef T MORAY_CAT4(f, _type_, i, ); \
    struct MORAY_CAT4(f, _type_, i, _of);
#define MORAY_P_TYPE_NEXT(f, i, T, a) MORAY_P_TYPE_NEXT_(f, MORAY_INC(i), T, a)
#define MORAY_P_TYPE_NEXT_(f, i, T, a) MORAY_P_TYPE(f, i, T, a)
#define MORAY_P_CHECK(f, i, T, a)                                                                  \
    MORAY_ASSERT(MORAY_NOT_POINTER(T),                                                             \
                 "parameter " #a " of " MORAY_STRING(f) " is a pointer: pass a view or a struct"); \
    MORAY_ASSERT(MORAY_NOT_REF(T),                                                                 \
                 "parameter " #a                                                                   \
                 " of " MORAY_STRING(f) " is a moray_ref, which would be resolved: "               \
                                        "for a reference handed on unresolved use moray_future");  \
    MORAY_ASSERT(MORAY_NOT_BUFFER(T),                                                              \
                 "parameter " #a " of " MORAY_STRING(                                              \
                     f) " is a moray_buffer, which is for results: use moray_view");               \
    MORAY_ASSERT(MORAY_PLAIN_BYTES(T),                                                             \
                 "parameter " #a " of " MORAY_STRING(f) " is not trivially copyable");
#define MORAY_R_CHECK(f, i, T, a)                                                                  \
    MORAY_ASSERT(MORAY_NOT_POINTER(T), "result " #a " of " MORAY_STRING(                           \
                                           f) " is a pointer: return a struct or a moray_buffer"); \
    MORAY_ASSERT(MORAY_PLAIN_BYTES(T),                                                             \
                 "result " #a " of " MORAY_STRING(f) " is not trivially copyable");
#define MORAY_P_INFO(f, i, T, a) \
    {MORAY_TEXT(T), #a, (uint32_t)sizeof(T), MORAY_HASH(MORAY_TEXT(T)), MORAY_KIND(T)},
#define MORAY_P_PARAMETER(f, i, T, a) T a
#define MORAY_P_PARAMETER_NEXT(f, i, T, a) , T a
#define MORAY_P_PASS(f, i, T, a) MORAY_CAT(moray_a, i)
#define MORAY_P_PASS_NEXT(f, i, T, a) , MORAY_CAT(moray_a, i)
#define MORAY_P_MEMBER(f, i, T, a) T a;
#define MORAY_P_REF(f, i, T, a) moray_ref a;
#define MORAY_P_STORE(f, i, T, a) __builtin_memcpy(results[i], &moray_value.a, sizeof(T));

#define MORAY_DECLARE(f, refs, takes, method)                   \
    MORAY_EXTERN struct moray_function MORAY_CAT(f, _function); \
    typedef char MORAY_CAT(f, _is_method)[method];              \
    typedef refs MORAY_CAT4(f, _takes_, takes, _arguments);

/* The tables, the function and its registration. n: one more than the number of parameters. */
#define MORAY_DEFINE(f, is, of, n, ...)                                            \
    MORAY_ASSERT(MORAY_DEC(n) <= MORAY_PARAMETERS_MAX,                             \
                 MORAY_STRING(f) " has more than 10 parameters: pass a struct");   \
    MORAY_ASSERT((int)MORAY_CAT(f, _result_count) <= MORAY_PARAMETERS_MAX,         \
                 MORAY_STRING(f) " has more than 10 results: return a struct");    \
    MORAY_EACH(MORAY_P_CHECK, f, n, __VA_ARGS__)                                   \
    static const struct moray_parameter MORAY_CAT(f, _parameters)[] = {            \
        MORAY_EACH(MORAY_P_INFO, f, n, __VA_ARGS__){0, 0, 0, 0, 0}};               \
    static void MORAY_CAT(f, _run)(void *self, const void *const *arguments,       \
                                   void *const *results);                          \
    struct moray_function MORAY_CAT(f, _function) = {MORAY_STRING(f),              \
                                                     __FILE__,                     \
                                                     __LINE__,                     \
                                                     is,                           \
                                                     MORAY_DEC(n),                 \
                                                     MORAY_CAT(f, _result_count),  \
                                                     MORAY_CAT(f, _parameters),    \
                                                     MORAY_CAT(f, _results_table), \
                                                     of,                           \
                                                     MORAY_CAT(f, _run),           \
                                                     0};                           \
    __attribute__((constructor)) static void MORAY_CAT(f, _register)(void)         \
    {                                                                              \
        moray_register(&MORAY_CAT(f, _function));                                  \
    }

/* One result or none. */
#define MORAY_RESULT(f, R) MORAY_CAT(MORAY_RESULT_, MORAY_IS_VOID(R))(f, R)
#define MORAY_RESULT_1(f, R)                  \
    enum { MORAY_CAT(f, _result_count) = 0 }; \
    static const struct moray_parameter MORAY_CAT(f, _results_table)[] = {{0, 0, 0, 0, 0}};
#define MORAY_RESULT_0(f, R)                                                                \
    MORAY_R_CHECK(f, 0, R, value)                                                           \
    MORAY_ASSERT(MORAY_NOT_REF(R),                                                          \
                 "result of " MORAY_STRING(                                                 \
                     f) " is a moray_ref: return moray_pass(reference) as a moray_future"); \
    enum { MORAY_CAT(f, _result_count) = 1 };                                               \
    static const struct moray_parameter MORAY_CAT(f, _results_table)[] = {                  \
        MORAY_P_INFO(f, 0, R, value)};

#define MORAY_RUN(f, n, R, call, ...)                                                              \
    static void MORAY_CAT(f, _run)(void *self, const void *const *arguments, void *const *results) \
    {                                                                                              \
        (void)self, (void)arguments, (void)results;                                                \
        MORAY_TRY(f)                                                                               \
        MORAY_EACH(MORAY_LOAD, f, n, __VA_ARGS__)                                                  \
        MORAY_RUN_AND_STORE(R, call)                                                               \
        MORAY_CATCH(f)                                                                             \
    }

/* Tasks */
#define MORAY_DECLARE_TASK(R, ...) MORAY_DECLARE_TASK_1(R, __VA_ARGS__) struct moray_end
#define MORAY_DECLARE_TASK_1(R, ...) \
    MORAY_DECLARE_TASK_(R, MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_DECLARE_TASK_(R, n, f, ...)        \
    MORAY_DECLARE(f, moray_ref, MORAY_DEC(n), 1) \
    MORAY_EACH(MORAY_P_TYPE, f, n, __VA_ARGS__)

#define MORAY_TASK(R, ...)               \
    MORAY_DECLARE_TASK_1(R, __VA_ARGS__) \
    MORAY_DEFINE_TASK(R, __VA_ARGS__)
#define MORAY_DEFINE_TASK(R, ...) \
    MORAY_DEFINE_TASK_(R, MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_DEFINE_TASK_(R, n, f, ...)                                                   \
    MORAY_RESULT(f, R)                                                                     \
    MORAY_DEFINE(f, MORAY_IS_TASK, 0, n, __VA_ARGS__)                                      \
    static R MORAY_CAT(f, _body)(MORAY_LIST(void, MORAY_P_PARAMETER, f, n, __VA_ARGS__));  \
    MORAY_RUN(f, n, R, MORAY_CAT(f, _body)(MORAY_LIST(, MORAY_P_PASS, f, n, __VA_ARGS__)), \
              __VA_ARGS__)                                                                 \
    static R MORAY_CAT(f, _body)(MORAY_LIST(void, MORAY_P_PARAMETER, f, n, __VA_ARGS__))

/* Tasks with several results */
#define MORAY_DECLARE_TASK_RESULTS(f, ...) MORAY_DECLARE_RESULTS_1(f, __VA_ARGS__) struct moray_end
#define MORAY_DECLARE_RESULTS_1(f, ...) \
    MORAY_DECLARE_RESULTS_(f, MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_DECLARE_RESULTS_(f, n, group, ...)                                                   \
    typedef struct MORAY_CAT(f, _results) {                                                        \
        MORAY_EACH(MORAY_P_MEMBER, f, MORAY_COUNT(~, MORAY_UNPAREN group), ~, MORAY_UNPAREN group) \
    } MORAY_CAT(f, _results);                                                                      \
    typedef struct MORAY_CAT(f, _refs) {                                                           \
        MORAY_EACH(MORAY_P_REF, f, MORAY_COUNT(~, MORAY_UNPAREN group), ~, MORAY_UNPAREN group)    \
    } MORAY_CAT(f, _refs);                                                                         \
    MORAY_DECLARE(f, MORAY_CAT(f, _refs), MORAY_DEC(n), 1)                                         \
    MORAY_EACH(MORAY_P_TYPE, f, n, __VA_ARGS__)

#define MORAY_TASK_RESULTS(f, ...)          \
    MORAY_DECLARE_RESULTS_1(f, __VA_ARGS__) \
    MORAY_DEFINE_TASK_RESULTS(f, __VA_ARGS__)
#define MORAY_DEFINE_TASK_RESULTS(f, ...) \
    MORAY_DEFINE_RESULTS_(f, MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_DEFINE_RESULTS_(f, n, group, ...)                                                    \
    MORAY_EACH(MORAY_R_CHECK, f, MORAY_COUNT(~, MORAY_UNPAREN group), ~, MORAY_UNPAREN group)      \
    enum { MORAY_CAT(f, _result_count) = MORAY_DEC(MORAY_COUNT(~, MORAY_UNPAREN group)) };         \
    static const struct moray_parameter MORAY_CAT(f, _results_table)[] = {                         \
        MORAY_EACH(MORAY_P_INFO, f, MORAY_COUNT(~, MORAY_UNPAREN group), ~, MORAY_UNPAREN group)}; \
    MORAY_DEFINE(f, MORAY_IS_TASK, 0, n, __VA_ARGS__)                                              \
    static MORAY_CAT(f, _results)                                                                  \
        MORAY_CAT(f, _body)(MORAY_LIST(void, MORAY_P_PARAMETER, f, n, __VA_ARGS__));               \
    static void MORAY_CAT(f, _run)(void *self, const void *const *arguments, void *const *results) \
    {                                                                                              \
        (void)self, (void)arguments;                                                               \
        MORAY_TRY(f)                                                                               \
        MORAY_EACH(MORAY_LOAD, f, n, __VA_ARGS__)                                                  \
        MORAY_CAT(f, _results)                                                                     \
        moray_value = MORAY_CAT(f, _body)(MORAY_LIST(, MORAY_P_PASS, f, n, __VA_ARGS__));          \
        MORAY_EACH(MORAY_P_STORE, f, MORAY_COUNT(~, MORAY_UNPAREN group), ~, MORAY_UNPAREN group)  \
        MORAY_CATCH(f)                                                                             \
    }                                                                                              \
    static MORAY_CAT(f, _results)                                                                  \
        MORAY_CAT(f, _body)(MORAY_LIST(void, MORAY_P_PARAMETER, f, n, __VA_ARGS__))

/* Actors */
#define MORAY_DECLARE_ACTOR(c) MORAY_DECLARE_ACTOR_(c) struct moray_end
#define MORAY_DECLARE_ACTOR_(c)                           \
    struct MORAY_CAT(c, _state);                          \
    typedef struct MORAY_CAT(c, _actor) {                 \
        moray_actor handle;                               \
    } MORAY_CAT(c, _actor);                               \
    MORAY_EXTERN struct moray_class MORAY_CAT(c, _class); \
    MORAY_EXTERN char MORAY_CAT(c, _constructor_arity)[]; \
    typedef MORAY_CAT(c, _actor) MORAY_CAT(c, _constructor_takes_0_arguments);

#define MORAY_ACTOR(...)                          \
    MORAY_DECLARE_ACTOR_(MORAY_HEAD(__VA_ARGS__)) \
    MORAY_DEFINE_ACTOR(__VA_ARGS__)
#define MORAY_DEFINE_ACTOR(...) \
    MORAY_DEFINE_ACTOR_(MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_DEFINE_ACTOR_(n, c, ...)                                                         \
    struct MORAY_CAT(c, _state) {                                                              \
        MORAY_CAT(MORAY_STATE_, MORAY_IS_ONE(n))                                               \
        MORAY_EACH(MORAY_P_MEMBER, c, n, __VA_ARGS__)                                          \
    };                                                                                         \
    MORAY_ASSERT(                                                                              \
        MORAY_PLAIN_BYTES(struct MORAY_CAT(c, _state)),                                        \
        "the state of " MORAY_STRING(c) " is not trivially copyable: keep a pointer to it");   \
    struct moray_class MORAY_CAT(c, _class) = {MORAY_STRING(c),                                \
                                               __FILE__,                                       \
                                               __LINE__,                                       \
                                               (uint32_t)sizeof(struct MORAY_CAT(c, _state)),  \
                                               0,                                              \
                                               0,                                              \
                                               MORAY_HASH(MORAY_STRING(MORAY_CAT(c, _actor))), \
                                               0};                                             \
    __attribute__((constructor)) static void MORAY_CAT(c, _register)(void)                     \
    {                                                                                          \
        moray_register_class(&MORAY_CAT(c, _class));                                           \
    }                                                                                          \
    struct MORAY_CAT(c, _state)
#define MORAY_STATE_1 char moray_nothing;
#define MORAY_STATE_0

/* c##_##m of class c: a method, constructor or destructor, whose body has `self`. */
#define MORAY_DEFINE_MEMBER(R, is, c, n, f, ...)                                              \
    MORAY_RESULT(f, R)                                                                        \
    MORAY_DEFINE(f, is, &MORAY_CAT(c, _class), n, __VA_ARGS__)                                \
    static R MORAY_CAT(f, _body)(struct MORAY_CAT(c, _state) *                                \
                                 self MORAY_EACH(MORAY_P_PARAMETER_NEXT, f, n, __VA_ARGS__)); \
    MORAY_RUN(f, n, R,                                                                        \
              MORAY_CAT(f, _body)((struct MORAY_CAT(c, _state) *)self MORAY_EACH(             \
                  MORAY_P_PASS_NEXT, f, n, __VA_ARGS__)),                                     \
              __VA_ARGS__)                                                                    \
    MORAY_LINK_##is(c, f) static R MORAY_CAT(f, _body)(                                       \
        __attribute__((unused)) struct MORAY_CAT(c, _state) *                                 \
        self MORAY_EACH(MORAY_P_PARAMETER_NEXT, f, n, __VA_ARGS__))
#define MORAY_LINK_MORAY_IS_METHOD(c, f)
#define MORAY_LINK_MORAY_IS_CONSTRUCTOR(c, f) MORAY_LINK_(c, f, constructor)
#define MORAY_LINK_MORAY_IS_DESTRUCTOR(c, f) MORAY_LINK_(c, f, destructor)
#define MORAY_LINK_(c, f, member)                                      \
    __attribute__((constructor)) static void MORAY_CAT(f, _link)(void) \
    {                                                                  \
        MORAY_CAT(c, _class).member = &MORAY_CAT(f, _function);        \
    }

#define MORAY_DECLARE_CONSTRUCTOR_(...) \
    MORAY_DECLARE_CONSTRUCTOR_2(MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_DECLARE_CONSTRUCTOR_2(n, c, ...)                                       \
    MORAY_EXTERN char MORAY_CAT(c, _constructor_arity)[n];                           \
    MORAY_DECLARE(MORAY_CAT(c, _constructor), MORAY_CAT(c, _actor), MORAY_DEC(n), 1) \
    MORAY_EACH(MORAY_P_TYPE, MORAY_CAT(c, _constructor), n, __VA_ARGS__)
#define MORAY_DEFINE_CONSTRUCTOR(...) \
    MORAY_DEFINE_CONSTRUCTOR_(MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_DEFINE_CONSTRUCTOR_(n, c, ...) \
    MORAY_DEFINE_MEMBER(void, MORAY_IS_CONSTRUCTOR, c, n, MORAY_CAT(c, _constructor), __VA_ARGS__)
#define MORAY_DECLARE_CONSTRUCTOR(...) MORAY_DECLARE_CONSTRUCTOR_(__VA_ARGS__) struct moray_end
#define MORAY_CONSTRUCTOR(...)              \
    MORAY_DECLARE_CONSTRUCTOR_(__VA_ARGS__) \
    MORAY_DEFINE_CONSTRUCTOR(__VA_ARGS__)

#define MORAY_DESTRUCTOR(c)                                                \
    MORAY_EXTERN struct moray_function MORAY_CAT(c, _destructor_function); \
    MORAY_DEFINE_MEMBER(void, MORAY_IS_DESTRUCTOR, c, 1, MORAY_CAT(c, _destructor), c)

/* Methods: c, m, parameters -> the function c_m, whose argument 1 is the handle. */
#define MORAY_DECLARE_METHOD_(c, ...) \
    MORAY_DECLARE_METHOD_2(c, MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(c##_##__VA_ARGS__), __VA_ARGS__)
#define MORAY_DECLARE_METHOD_2(c, n, f, ...)        \
    MORAY_DECLARE(f, moray_ref, n, 2)               \
    MORAY_P_TYPE(f, 0, MORAY_CAT(c, _actor), actor) \
    MORAY_EACH(MORAY_P_TYPE_NEXT, f, n, __VA_ARGS__)
#define MORAY_DEFINE_METHOD(R, c, ...) \
    MORAY_DEFINE_METHOD_(R, c, MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(c##_##__VA_ARGS__), __VA_ARGS__)
#define MORAY_DEFINE_METHOD_(R, c, n, f, ...) \
    MORAY_DEFINE_MEMBER(R, MORAY_IS_METHOD, c, n, f, __VA_ARGS__)
#define MORAY_DECLARE_METHOD(R, c, ...) MORAY_DECLARE_METHOD_(c, __VA_ARGS__) struct moray_end
#define MORAY_METHOD(R, c, ...)           \
    MORAY_DECLARE_METHOD_(c, __VA_ARGS__) \
    MORAY_DEFINE_METHOD(R, c, __VA_ARGS__)

/* References inside values */
#define MORAY_REFS(...) MORAY_REFS_(MORAY_COUNT(__VA_ARGS__), MORAY_HEAD(__VA_ARGS__), __VA_ARGS__)
#define MORAY_REFS_(n, T, ...)                                                                  \
    MORAY_PLAIN(MORAY_REFS_CHECK, MORAY_NOTHING, ~, n, __VA_ARGS__)                             \
    static const struct moray_inside MORAY_CAT(T, _inside_members)[] = {                        \
        MORAY_PLAIN(MORAY_REFS_MEMBER, MORAY_COMMA, ~, n, __VA_ARGS__)};                        \
    static const struct moray_insides MORAY_CAT(T, _insides) = {MORAY_TEXT(T),                  \
                                                                __FILE__,                       \
                                                                __LINE__,                       \
                                                                MORAY_HASH(MORAY_TEXT(T)),      \
                                                                (uint32_t)sizeof(T),            \
                                                                MORAY_DEC(n),                   \
                                                                MORAY_CAT(T, _inside_members)}; \
    __attribute__((constructor)) static void MORAY_CAT(T, _register_insides)(void)              \
    {                                                                                           \
        moray_register_refs(&MORAY_CAT(T, _insides));                                           \
    }                                                                                           \
    struct moray_end
#define MORAY_REFS_CHECK(id, T, i, member)                      \
    MORAY_ASSERT(sizeof(((T *)0)->member) == sizeof(moray_ref), \
                 #member " of " MORAY_STRING(T) " is neither a reference nor a handle");
#define MORAY_REFS_MEMBER(id, T, i, member)                          \
    {                                                                \
        (uint32_t) offsetof(T, member), MORAY_MEMBER_KIND(T, member) \
    }

/* ---- Calls ---------------------------------------------------------------------------------------- */

#define moray_call(...) \
    MORAY_CALL(__COUNTER__, MORAY_COUNT(__VA_ARGS__), MORAY_WITHOUT, (), __VA_ARGS__)
#define moray_call_with(options, ...) \
    MORAY_CALL(__COUNTER__, MORAY_COUNT(__VA_ARGS__), MORAY_WITH_TASK, options, __VA_ARGS__)
#define moray_new(...) \
    MORAY_NEW(__COUNTER__, MORAY_COUNT(__VA_ARGS__), MORAY_WITHOUT, (), __VA_ARGS__)
#define moray_new_with(options, ...) \
    MORAY_NEW(__COUNTER__, MORAY_COUNT(__VA_ARGS__), MORAY_WITH_ACTOR, options, __VA_ARGS__)
#define moray_get_as(T, ref) MORAY_TAKE(__COUNTER__, T, ref, 0)
#define moray_take_as(T, ref) MORAY_TAKE(__COUNTER__, T, ref, 1)
#define moray_put_value(T, value) MORAY_PUT(T, value)
#define moray_actor_named(c, name) MORAY_NAMED(c, name)

#endif
