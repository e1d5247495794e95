#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/chaos.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/streams.h"
#include "base/time.h"
#include "fabric/fabric.h"
#include "node/agent.h"
#include "node/guard.h"
#include "node/remote.h"
#include "node/zygote.h"
#include "store/arena/window.h"

/*
 * moray_init, in the order that decisions.md demands: look at the launcher, check that the process may
 * be forked, make the arena, fork the zygote; only then the agent's thread, and in it workers, MPI and
 * the fabric. Rank 0 goes on as the driver; the others wait here for the end.
 */

enum {
    SPARES_MAX = 64,
    START_LIMIT_S = 60,
    QUEUE_RING_MAX = 1 << 20,
    RECORDS_MIN = 1 << 16,
    QUEUE_MIN = 1 << 12 /* of what nobody asked for */
};

static_assert(sizeof(struct node_shared) + NODE_ACTORS_MAX * sizeof(struct node_actor) <=
                  LANE_NODE_BYTES,
              "what the node shares fits into the lane's control block");

static bool finalized;

/* The end of the agent's start, or of the job: polled, since both are rare. */
static bool wait_for(_Atomic uint32_t *word, uint64_t limit_ns)
{
    uint64_t until = time_ns() + limit_ns;

    while (!atomic_load(word) && time_ns() < until) {
        struct timespec pause = {0, 200000};
        nanosleep(&pause, NULL);
    }
    return atomic_load(word) != 0;
}

/* ---- The parts ---- */

/* Which of the host's ranks are nodes: all but a head that is alone, where others share its host. */
static void roles_choose(uint32_t *node_index, uint32_t *node_count)
{
    const struct launch *launch = &agent.launch;
    bool head_here = launch->rank == launch->local_rank; /* rank 0 is the host's first rank */
    bool alone = agent.settings.head == HEAD_ALONE ||
                 (agent.settings.head == HEAD_AUTO && launch->local_count > 1);

    if (launch->rank_count == 1)
        alone = false;
    agent.is_head = launch->rank == 0;
    agent.is_node = !(agent.is_head && alone);
    *node_index = launch->local_rank;
    *node_count = launch->local_count;
    if (head_here && alone && launch->local_count > 1) {
        *node_count -= 1;
        *node_index = launch->local_rank ? launch->local_rank - 1 : 0;
    }
    if (!agent.is_node)
        *node_index = TOPOLOGY_HEAD;
}

static enum moray_code cores_choose(struct moray_error *error)
{
    uint32_t node_index, node_count;
    const char *setting = agent.settings.cores;
    enum moray_code code;

    roles_choose(&node_index, &node_count);
    if (!*setting || !strcmp(setting, "auto"))
        setting = NULL;
    code = topology_settle(&agent.launch, setting, node_index, node_count, &agent.cores, error);
    if (code != MORAY_OK)
        return code;
    agent.worker_count = agent.is_node ? agent.cores.core_count : 0;
    if (agent.is_node && agent.settings.workers)
        agent.worker_count = (uint32_t)agent.settings.workers;
    if (agent.is_node && agent.worker_count == 0)
        return error_set(error, MORAY_INVALID, "a node without workers; raise MORAY_WORKERS");
    _Static_assert(NODE_CORES_MAX == 192, "the highest MORAY_WORKERS");
    if (agent.worker_count > NODE_CORES_MAX) {
        log_warning("%u cores, but a rank has at most %d workers: start more ranks on this host",
                    agent.worker_count, NODE_CORES_MAX);
        agent.worker_count = NODE_CORES_MAX;
    }
    if (agent.cores.widen)
        topology_bind(&agent.cores, -1);
    return MORAY_OK;
}

static uint64_t store_bytes(void)
{
    const struct setting_size *size = &agent.settings.store_bytes;
    uint64_t limit = window_memory_limit(NULL);

    if (size->bytes)
        return size->bytes;
    return limit / 100 * size->percent / agent.launch.local_count;
}

/* What the arena is made of, beside `bytes` for objects. A queue that nobody asked for is halved until
 * the arena is no larger than the memory, be it little: a job is to start in a small container as well. */
static enum moray_code lane_fit(uint64_t bytes, uint64_t limit, const char *whose,
                                struct lane_options *options, struct arena_layout *layout,
                                struct moray_error *error)
{
    bool is_default = agent.settings.source[SETTING_MORAY_QUEUE_MAX] == SETTING_DEFAULT;
    uint64_t queue = agent.settings.queue_max;

    for (;; queue /= 2) {
        uint64_t records = queue + queue / 4;
        *options = (struct lane_options){
            .data_bytes = bytes,
            .slot_count = agent.slot_count,
            .queue_max = queue < QUEUE_RING_MAX ? (uint32_t)queue : QUEUE_RING_MAX,
            .record_count = records < RECORDS_MIN ? RECORDS_MIN : (uint32_t)records,
            .slab_each = true,
        };
        enum moray_code code = lane_plan(options, layout, error);
        if (code != MORAY_OK || layout->total_bytes <= limit)
            return code;
        if (!is_default || queue / 2 < QUEUE_MIN)
            return error_set(
                error, MORAY_INVALID,
                "%llu MiB for objects and %llu MiB for tables and a MORAY_QUEUE_MAX of "
                "%llu are more than %s of %llu MiB; lower MORAY_STORE_BYTES or MORAY_QUEUE_MAX",
                (unsigned long long)bytes >> 20,
                (unsigned long long)(layout->total_bytes - bytes) >> 20, (unsigned long long)queue,
                whose, (unsigned long long)limit >> 20);
    }
}

static enum moray_code arena_make(struct moray_error *error)
{
    struct arena_layout layout;
    struct lane_options options;
    uint32_t spares, processes = (uint32_t)agent.settings.processes_max;
    uint64_t bytes = store_bytes();
    const char *whose;
    uint64_t limit = window_memory_limit(&whose);
    enum moray_code code;

    if (bytes > limit)
        return error_set(error, MORAY_INVALID,
                         "MORAY_STORE_BYTES asks for %llu bytes, more than %s of %llu bytes; lower "
                         "it",
                         (unsigned long long)bytes, whose, (unsigned long long)limit);
    _Static_assert(LANE_SLOTS_MAX - 2 == 1022, "the highest MORAY_PROCESSES_MAX");
    if (processes < agent.worker_count + 2)
        return error_set(
            error, MORAY_INVALID,
            "MORAY_PROCESSES_MAX is %u, but the rank has %u workers and needs 2 more, for "
            "a spare and an actor; raise it or lower MORAY_WORKERS",
            processes, agent.worker_count);
    spares = (processes - agent.worker_count) / 2;
    if (spares > SPARES_MAX)
        spares = SPARES_MAX;
    if (agent.settings.spares_max)
        spares = (uint32_t)agent.settings.spares_max;
    if (spares > processes - agent.worker_count)
        return error_set(
            error, MORAY_INVALID,
            "MORAY_SPARES_MAX is %u, but MORAY_PROCESSES_MAX, %u, leaves %u beside the "
            "rank's %u workers; lower the one or raise the other",
            spares, processes, processes - agent.worker_count, agent.worker_count);
    agent.slot_count = processes + 2;
    agent.spare_first = 2 + agent.worker_count;
    agent.spare_end = agent.spare_first + spares;
    agent.actor_first = agent.spare_end;
    if ((code = lane_fit(bytes, limit, whose, &options, &layout, error)) != MORAY_OK)
        return code;
    struct window_options window = {.local_rank = agent.launch.local_rank,
                                    .local_count = agent.launch.local_count,
                                    .bytes = layout.total_bytes,
                                    .control_bytes = layout.data};
    if ((code = window_open(&window, error)) != MORAY_OK)
        return code;
    agent.window = agent.launch.local_rank;
    lane_format(window_rw(agent.window, 0), &layout, &options, agent.rank);
    return MORAY_OK;
}

uint32_t agent_spin_ns(void)
{
    bool fits = !agent.is_node || agent.worker_count <= agent.cores.core_count;

    return agent.cores.may_spin && fits ? (uint32_t)agent.settings.spin_us * 1000 : 0;
}

static void shared_fill(void)
{
    struct lane_control *control = window_rw(agent.window, 0);
    struct node_shared *node = (struct node_shared *)control->node;

    agent.node = node;
    node->rank = agent.rank;
    node->rank_count = agent.rank_count;
    node->window = agent.window;
    node->worker_count = agent.worker_count;
    node->core_count = agent.worker_count;
    atomic_store(&node->job_workers, agent.worker_count);
    atomic_store(&node->nodes_known, agent.rank_count == 1);
    node->spin_ns = agent_spin_ns();
    node->attempts_default = agent.settings.attempts == MORAY_ENDLESS
                                 ? (uint32_t)MORAY_ENDLESS
                                 : (uint32_t)agent.settings.attempts;
    node->slot_first_actor = 2 + agent.worker_count;
    node->store_bytes = control->layout.page_count * (uint64_t)ARENA_PAGE_BYTES;
    node->agent_doorbell = agent.doorbell;
    atomic_store(&node->lane_workers, agent.worker_count);
    snprintf(node->host, sizeof(node->host), "%s", agent.launch.node);
}

static void limits_raise(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

uint32_t agent_workers_max(void)
{
    return agent.slot_count - 4; /* agent, driver, a spare and an actor */
}

/* Rank 0 may have another number of workers for the nodes; the slots for them are there. */
void agent_set_workers(uint32_t count)
{
    uint32_t spares = agent.spare_end - agent.spare_first;

    assert(count <= agent_workers_max());
    agent.worker_count = count;
    agent.spare_first = 2 + count;
    agent.spare_end = agent.spare_first + spares < agent.slot_count - 1 ? agent.spare_first + spares
                                                                        : agent.slot_count - 1;
    agent.actor_first = agent.spare_end;
    agent.node->worker_count = count;
    agent.node->core_count = count;
    agent.node->slot_first_actor = 2 + count;
    atomic_store(&agent.node->lane_workers, count);
    atomic_store(&agent.node->job_workers, count);
}

void agent_read_chaos(void)
{
    struct chaos chaos = {0};

    if (!chaos_read(agent.settings.chaos, &chaos))
        abort(); /* the settings have let it through */
    agent.chaos_seed = chaos.seed + agent.rank * 7919;
    agent.chaos_mean_ns = chaos.mean_ns;
    agent.chaos_next_ns = chaos.mean_ns ? time_ns() + chaos.mean_ns : 0;
}

static enum moray_code prepare(const struct moray_options *options, struct moray_error *error)
{
    enum moray_code code;
    extern char **environ;

    if ((code = settings_load(options, environ, &agent.settings, error)) != MORAY_OK ||
        (code = launch_read(NULL, &agent.launch, error)) != MORAY_OK)
        return code;
    agent.rank = agent.launch.rank;
    agent.rank_count = agent.launch.rank_count;
    log_start((enum log_level)agent.settings.log, (int)agent.rank);
    if ((code = functions_settle(error)) != MORAY_OK ||
        (code = launch_check_fork(error)) != MORAY_OK)
        return code;
    agent_read_chaos();
    if (agent.rank_count > 1)
        fabric_environment(*agent.settings.provider ? agent.settings.provider : NULL);
    limits_raise();
    agent.doorbell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (agent.doorbell < 0)
        return error_set(error, MORAY_SYSTEM, "eventfd: %s", strerror(errno));
    if ((code = cores_choose(error)) != MORAY_OK || (code = arena_make(error)) != MORAY_OK)
        return code;
    shared_fill();
    if (agent.cores.core_count > agent.cores.host_core_count)
        log_warning("%s", agent.cores.reason); /* a setting may do so, but few mean it */
    else
        log_info("%s", agent.cores.reason);
    struct zygote_options zygote = {.enter = process_entry,
                                    .cores = agent.is_node ? &agent.cores : NULL,
                                    .keep_fds = &agent.doorbell,
                                    .keep_fd_count = 1,
                                    .process_count_max = agent.slot_count,
                                    .rank = agent.rank};
    agent.slots = calloc(agent.slot_count, sizeof(*agent.slots));
    if (!agent.slots)
        return error_set(error, MORAY_NO_MEMORY, "no memory for a table of processes");
    if ((code = zygote_start(&zygote, &agent.zygote, error)) != MORAY_OK)
        return code;
    code = lane_attach(&agent.lane, window_rw(agent.window, 0), LANE_AGENT, LANE_IS_AGENT,
                       agent_wake_slot, NULL);
    return code;
}

/* Nothing of it is left: the program may try again with other settings. */
static void unprepare(void)
{
    zygote_stop(agent.zygote, 1000);
    agent.zygote = NULL;
    window_close();
    agent.node = NULL;
    free(agent.slots);
    agent.slots = NULL;
    topology_drop(&agent.cores);
    if (agent.doorbell > 0)
        close(agent.doorbell);
    agent.doorbell = 0;
}

/* ---- The driver ---- */

static const char *driver_task(void)
{
    return NULL;
}

static void at_exit(void)
{
    /* The driver's main returned, or called exit(), without moray_finalize. */
    if (me.role == ROLE_DRIVER && !finalized && getpid() == (pid_t)me.self_pid)
        moray_finalize();
}

/* What a child of the program's own fork did here would be its parent's undoing. */
static void forked(void)
{
    if (me.role >= ROLE_DRIVER)
        me.role = ROLE_FORKED;
    process_forked(true);
}

static void fork_made(void)
{
    process_forked(false);
}

/* Nothing would end the job then: the agent's thread goes on, and takes no signal. */
static void main_thread_ended(void *self)
{
    (void)self;
    if (me.role != ROLE_DRIVER || getpid() != (pid_t)me.self_pid)
        return;
    log_error("main's thread ended by pthread_exit, and with it the job; let it wait for the other "
              "threads with pthread_join, and return");
    exit(1);
}

static void driver_begin(void)
{
    pthread_key_t end;

    guard_install(
        &(struct guard_options){.rank = agent.rank, .process = "driver", .task = driver_task});
    thread_owner = true;
    me.self_pid = (uint32_t)getpid();
    if (agent.attached.owner) { /* a head alone: the arena of a node beside it */
        me.owner = agent.attached.owner;
        me.window = agent.attached.window;
        me.doorbell = agent.attached.doorbell;
    } else {
        me.owner = agent.rank + 1;
        me.window = agent.window;
        me.doorbell = agent.doorbell;
    }
    me.rank = agent.rank;
    me.rank_count = agent.rank_count;
    me.alone = agent.rank_count == 1;
    me.slot = SLOT_DRIVER;
    struct lane_control *control = window_rw(me.window, 0);
    me.node = (struct node_shared *)control->node;
    (void)!lane_attach(&me.lane, control, 1, LANE_IS_DRIVER, process_wake, NULL);
    if (me.node->worker_count >= 2)
        atomic_store(&me.node->parked_slot, 2 + me.node->worker_count - 1);
    atomic_store(&me.node->driver_busy, 1);
    me.role = ROLE_DRIVER;
    atexit(at_exit);
    if (pthread_key_create(&end, main_thread_ended) == 0)
        pthread_setspecific(end, &me);
}

enum moray_code moray_init_with(int *argc, char ***argv, struct moray_options options)
{
    struct moray_error error = {.code = MORAY_OK};
    static bool called;

    (void)argc;
    (void)argv;
    if (called)
        return last_set(MORAY_WRONG_STATE, "moray_init is called a second time; a process has one "
                                           "job");
    if (me.role >= ROLE_FORKED)
        return last_set(MORAY_WRONG_STATE, "moray_init in a process that is a job's already: a "
                                           "task, an actor, or a child of one");
    streams_open();
    static bool watches_forks;
    if (!watches_forks && /* the workers inherit it */
        pthread_atfork(process_forking, fork_made, forked) == 0)
        watches_forks = true;
    if (prepare(&options, &error) != MORAY_OK) {
        last_take(&error);
        unprepare();
        return error.code;
    }
    called = true;
    /* Signals that end the job are the driver's; the agent's thread takes none. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&agent.thread, NULL, agent_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        zygote_stop(agent.zygote, 1000);
        return last_set(MORAY_SYSTEM, "the agent's thread could not be started: %s",
                        strerror(failed));
    }
    if (!agent.is_head) {
        pthread_join(agent.thread, NULL);
        if (atomic_load(&agent.ready) == 2) {
            log_error("%s", agent.start_error.text);
            _exit(1);
        }
        fflush(NULL);
        exit_after_agent(agent.end_status);
    }
    if (!wait_for(&agent.ready, START_LIMIT_S * TIME_NS_PER_S))
        error_set(&agent.start_error, MORAY_TIMEOUT, "the job did not start within %d s",
                  START_LIMIT_S);
    if (atomic_load(&agent.ready) != 1) {
        last_take(&agent.start_error);
        zygote_stop(agent.zygote, 1000);
        if (agent.rank_count > 1) {
            log_error("%s", agent.start_error.text);
            _exit(1); /* the other ranks must learn of it, and only the launcher reaches them */
        }
        if (atomic_load(&agent.ready) == 2)
            pthread_join(agent.thread, NULL);
        return agent.start_error.code;
    }
    driver_begin();
    return MORAY_OK;
}

enum moray_code moray_init(int *argc, char ***argv)
{
    enum moray_code code = moray_init_with(argc, argv, (struct moray_options){0});
    const char *story;

    if (code == MORAY_OK)
        return code;
    moray_last(&story);
    fprintf(stderr, "moray: moray_init: %s: %s\n", error_name(code), story);
    exit(1); /* the program's own handlers take down what it set up before, an MPI of its own too */
}

int moray_finalize(void)
{
    if (me.role != ROLE_DRIVER) {
        (void)enter_refused();
        return 1;
    }
    finalized = true;
    if (enter() == MORAY_OK) {
        far_forget();
        lane_settle_freed(&me.lane);
        leave();
    }
    fflush(NULL);
    me.role = ROLE_ENDED;
    atomic_store(&me.node->driver_busy, 0);
    atomic_store(&agent.end_asked, 1);
    agent_wake_slot(NULL, LANE_AGENT);
    if (!wait_for(&agent.ended, 10 * TIME_NS_PER_S)) {
        log_error("the job did not end within 10 s; what is left of it is killed");
        zygote_stop(agent.zygote, 1000);
        fflush(NULL);
        _exit(1);
    }
    pthread_join(agent.thread, NULL);
    return agent.end_status;
}

void exit_after_agent(int status)
{
    if (agent.skip_exit_handlers)
        _exit(status);
    exit(status);
}

int moray_rank(void)
{
    return me.role == ROLE_NONE ? -1 : (int)me.rank;
}

int moray_ranks(void)
{
    return (int)me.rank_count;
}

int moray_workers(void)
{
    if (me.role == ROLE_NONE)
        return 0;
    wait_for(&me.node->nodes_known, START_LIMIT_S * TIME_NS_PER_S);
    return (int)atomic_load(&me.node->job_workers);
}

size_t moray_cores(int *cores, size_t room)
{
    size_t count = 0;

    if (me.role != ROLE_WORKER || !core_has() || !agent.cores.place_count)
        return 0;
    const struct topology_set *place =
        &agent.cores.places[(uint32_t)me.token % agent.cores.place_count];
    for (int cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++)
        if (place->bits[cpu / 64] >> cpu % 64 & 1) {
            if (count < room)
                cores[count] = cpu;
            count++;
        }
    return count;
}

enum moray_code moray_setup(void (*fn)(const void *value, size_t size), const void *value,
                            size_t size)
{
    enum moray_code code;
    moray_ref ref;
    struct {
        uint64_t function;
        uint32_t record, generation;
    } request;
    uint32_t record;
    const void *answer;
    uint64_t bytes;

    if (!fn || (!value && size) || size > 65536)
        return last_set(MORAY_INVALID, "moray_setup takes a function and at most 64 KiB");
    if (me.role == ROLE_WORKER || me.role == ROLE_ACTOR)
        return last_set(MORAY_WRONG_STATE,
                        "moray_setup is the driver's: a task or actor cannot set "
                        "the other processes up");
    if (me.role == ROLE_DRIVER && !me.alone &&
        program_offset((uint64_t)(uintptr_t)fn) >= program_bytes())
        return last_set(MORAY_INVALID, "moray_setup takes a function of the program itself: one of "
                                       "a shared library may lie elsewhere in another process");
    ref = moray_put(value, size);
    if (!ref.owner)
        return moray_last(NULL);
    if ((code = enter()) != MORAY_OK)
        return code;
    /* As a distance: the agent may be that of another rank, whose program lies elsewhere. */
    request.function = program_offset((uint64_t)(uintptr_t)fn);
    request.record = ref.index;
    request.generation = ref.generation;
    code = request_call(REQUEST_SETUP, &request, sizeof(request), &record, &answer, &bytes);
    if (code == MORAY_OK)
        request_done(record);
    leave();
    moray_release(ref);
    return code;
}

/* The task is another rank's, or lies there: the agents pass the word on. */
static enum moray_code cancel_elsewhere(uint32_t index, uint32_t generation)
{
    struct request_record request = {index, generation};
    uint32_t record;
    const void *answer;
    uint64_t bytes;
    enum moray_code code =
        request_call(REQUEST_CANCEL, &request, sizeof(request), &record, &answer, &bytes);

    if (code == MORAY_OK)
        request_done(record);
    return code;
}

enum moray_code moray_cancel_with(moray_ref ref, unsigned flags)
{
    enum moray_code code = enter();
    const struct record *record;
    uint32_t index;

    if (code != MORAY_OK)
        return code;
    code = ref_find(ref, &index);
    if (code != MORAY_OK) {
        leave();
        return code;
    }
    record = lane_record(&me.lane, index);
    if (flags)
        code = last_set(MORAY_INVALID, "moray_cancel of running tasks and of children comes in a "
                                       "later version; a queued task is cancelled with flags 0");
    bool is_far = record->kind == RECORD_OBJECT && (record_flags(record) & RECORD_PROXY);
    if (code == MORAY_OK && record->kind == RECORD_OBJECT && (!is_far || !record_maker(record)))
        code = last_set(MORAY_INVALID, "moray_cancel of an object that was put, or of a further "
                                       "result: cancel by the task's first result");
    if (code == MORAY_OK && !is_far)
        record_cancel(&me.lane, me.window, index, life_generation(record_life(record)));
    if (code == MORAY_OK && !me.alone) {
        uint64_t life = record_life(record);
        if (is_far || (life_state(life) == RECORD_RUNNING && life_slot(life) == LANE_AGENT))
            code = cancel_elsewhere(index, life_generation(life));
    }
    ref_done(ref, index, false);
    leave();
    return code;
}
