#include "node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "fabric/fabric.h"
#include "node/remote.h"
#include "node/routes.h"
#include "store/arena/window.h"

struct agent agent;

enum {
    SLEEP_MS_MAX = 1000,
    END_LIMIT_MS = 2000,
    LOOK_MS = 3,
    LAST_WORDS_MS = 1000,
    EVENTS_MAX = 32,
    LINGER_MS = 300,
    RESCUE_DOUBT_MS = 20,
    LOOK_ROUND_NS = 2000000, /* traffic without an end holds up the rest no longer */
    GIVEN_NS = 200000,       /* a yield that is over soon */
    PATIENCE = 64            /* so often none, after two that were not */
};

/* ---- Records in the agent's hands ---- */

bool agent_claim(uint32_t index, uint32_t generation)
{
    return lane_claim(&agent.lane, index, generation);
}

uint32_t agent_make_pending(enum record_kind kind)
{
    uint32_t index = lane_make(&agent.lane, kind);

    if (index != RECORD_NONE)
        lane_publish(&agent.lane, index, RECORD_RUNNING);
    return index;
}

void agent_end_failed(uint32_t index, enum moray_code code, const char *format, ...)
{
    char text[2048];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    story_end(&agent.lane, agent.window, index, code, text);
}

void agent_answer(uint32_t index, const void *bytes, uint64_t count)
{
    struct record *record = lane_record(&agent.lane, index);

    if (record_value_fits(record, count)) {
        if (count)
            memcpy(record_value(record, count), bytes, count);
        record_set_result_bytes(record, count);
    } else {
        uint32_t place = arena_alloc(&agent.lane.arena, count, index);
        if (!place) {
            agent_end_failed(index, MORAY_FULL,
                             "no room for an answer of %llu bytes; raise "
                             "MORAY_STORE_BYTES",
                             (unsigned long long)count);
            return;
        }
        memcpy(arena_at(&agent.lane.arena, place), bytes, count);
        record->result.block.place = place;
        record->result.block.window = agent.window;
        record_set_result_bytes(record, count);
        atomic_fetch_or(&record->flags, RECORD_RESULT_BLOCK);
    }
    lane_finish(&agent.lane, index, RECORD_DONE);
}

/* ---- Mail ---- */

void agent_take_call(uint32_t index, uint32_t generation)
{
    struct record *record = lane_find(&agent.lane, index, generation);
    uint16_t flags;

    if (!record)
        return;
    flags = record_flags(record);
    if (record->kind == RECORD_REQUEST)
        requests_take(index, generation);
    else if (flags & RECORD_FAR_CALL)
        actors_call_far(index, generation);
    else if (record->kind == RECORD_METHOD)
        actors_call_dead(index);
    else if (flags & RECORD_GENERAL) {
        if (lane_home(&agent.lane, index) != LANE_AGENT ||
            !actors_creation_ready(index, generation))
            general_take(index, generation);
    } else
        workers_push_ready(index);
}

static void take_mail(void *context, const struct lane_mail *mail)
{
    (void)context;
    agent.mail_came = true;
    switch (mail->kind) {
    case CELL_CALL:
        agent_take_call(mail->index, mail->generation);
        break;
    case CELL_ENDED:
        general_ended(mail->index);
        remote_ended(mail->index, mail->generation);
        break;
    case CELL_FREE_ME:
        remote_free(mail->index, mail->generation);
        break;
    case CELL_RESOLVE:
        remote_want(mail->index, mail->generation);
        break;
    case CELL_EDGE:
        break;
    }
}

/* ---- Sleeping ---- */

bool agent_watch(int fd, uint32_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = tag};

    if (fd < 0)
        return true;
    if (epoll_ctl(agent.epoll, EPOLL_CTL_ADD, fd, &event) == 0 || errno == EEXIST)
        return true;
    log_error("the agent cannot watch a descriptor: %s", strerror(errno));
    return false;
}

void agent_wake_slot(void *context, uint16_t slot)
{
    (void)context;
    if (slot == LANE_AGENT) {
        uint64_t one = 1;
        (void)!write(agent.doorbell, &one, sizeof(one));
        return;
    }
    process_wake_in(&agent.lane, slot);
    agent.handed_on = true;
}

static uint64_t soonest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int sleep_ms(void)
{
    uint64_t until = agent.now_ns + (uint64_t)SLEEP_MS_MAX * TIME_NS_PER_MS;

    until = soonest(until, agent.chaos_next_ns ? agent.chaos_next_ns : UINT64_MAX);
    until = soonest(until, output_next_ns(agent.output));
    until = soonest(until, general_deadline());
    until = soonest(until, head_deadline());
    until = soonest(until, remote_deadline());
    if (routes_wait())
        return 0;
    if (agent.unjudged || agent.ready_overflow_count || agent.zygote_late)
        until = soonest(until, agent.now_ns + TIME_NS_PER_MS);
    return until <= agent.now_ns ? 0 : (int)((until - agent.now_ns + 999999) / TIME_NS_PER_MS);
}

static void watch_events(int count, const struct epoll_event *events)
{
    struct zygote_event event;
    uint64_t rung;
    bool forked = false;

    for (int i = 0; i < count; i++) {
        switch (events[i].data.u32) {
        case WATCH_DOORBELL:
            (void)!read(agent.doorbell, &rung, sizeof(rung));
            break;
        case WATCH_ZYGOTE:
            forked = true;
            break;
        case WATCH_OUTPUT:
            output_poll(agent.output, agent.now_ns);
            break;
        case WATCH_FABRIC:
            remote_rung();
            break;
        case WATCH_LINK:
        case WATCH_SHARE:
            remote_watch(events[i].data.u32);
            break;
        default:
            break;
        }
    }
    while (forked && zygote_next(agent.zygote, &event)) {
        workers_event(&event);
        if (event.kind == ZYGOTE_LOST)
            break;
    }
}

/* Who was woken may wait for this core: its work goes before a look for more. Where this takes long (the
 * core is others' too, each for some ms) it is left for a while, as in driver.c. */
static void give_way(void)
{
    static uint32_t late, patience;
    uint64_t before_ns;

    if (!agent.handed_on)
        return;
    agent.handed_on = false;
    if (patience) {
        patience--;
        return;
    }
    before_ns = time_ns();
    sched_yield();
    late = time_ns() - before_ns > GIVEN_NS ? late + 1 : 0;
    if (late == 2) {
        late = 0;
        patience = PATIENCE;
    }
}

/* One turn: everything that waits is done; returns how much that was. What goes to other ranks goes
 * before a look at what comes from them. */
static uint32_t turn(void)
{
    uint32_t done;

    agent.reads_mail = true;
    done = lane_mail(&agent.lane, take_mail, NULL);
    agent.reads_mail = false;
    lane_tick(&agent.lane);
    if (done)
        general_tick(); /* what it tells rank 0 goes with the results */
    done += remote_flush();
    give_way();
    done += remote_poll();
    general_actions();
    actors_process_ready();
    give_way();
    return done;
}

static bool job_ends(void)
{
    return atomic_load(&agent.end_asked) != 0;
}

static bool is_only_node(void)
{
    return agent.rank_count == 1 || (agent.worker_count && atomic_load(&agent.node->nodes_known) &&
                                     atomic_load(&agent.node->job_workers) == agent.worker_count);
}

/* Tasks that others are to run, or may, need this agent: without workers it is woken like one; with
 * workers it looks every few milliseconds while there is work, and the first submit wakes it. */
static void sleep_prepare(int *limit)
{
    if (agent.spareless) { /* what is pushed now is this agent's to look after */
        lane_bit_set(agent.lane.control->idle, LANE_AGENT);
        if (lane_has_work(&agent.lane) && *limit > LOOK_MS)
            *limit = LOOK_MS;
    }
    if (is_only_node())
        return;
    if (!agent.worker_count) {
        lane_bit_set(agent.lane.control->idle, LANE_AGENT);
        if (lane_has_work(&agent.lane) && remote_can_send())
            *limit = 0;
        return;
    }
    atomic_store(&agent.node->agent_deep, 1);
    if (lane_has_work(&agent.lane)) {
        atomic_store(&agent.node->agent_deep, 0);
        if (*limit > LOOK_MS)
            *limit = LOOK_MS;
    }
}

/* Who posts rings after the post: the bell may be on its way still. */
static void rescue_suspected(void)
{
    struct epoll_event event;

    if (epoll_wait(agent.epoll, &event, 1, RESCUE_DOUBT_MS) == 0) {
        agent.rescues++;
        log_debug("the agent slept a second though its mailbox is not empty");
    }
}

/* A job that was suspended finds its time limits as they were: else it would end what it had to wait for. */
static void clock_look(void)
{
    static struct time_awake awake;

    if (!awake.seen_ns)
        awake.seen_ns = time_ns();
    agent.now_ns = time_awake_ns(&awake, time_ns());
}

/* Deaths, output and bells come by descriptors. Returns how many, after at most `limit` ms. */
static int descriptors_wait(struct epoll_event *events, int limit)
{
    int count = epoll_wait(agent.epoll, events, EVENTS_MAX, limit);

    clock_look();
    return count < 0 ? 0 : count;
}

static void loop(void)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t looked_ns = 0;

    while (!job_ends()) {
        int count, limit;
        uint32_t seen = atomic_load(&agent.lane.self->wake);
        clock_look();
        if (agent.now_ns - looked_ns >= LOOK_ROUND_NS) {
            looked_ns = agent.now_ns;
            watch_events(descriptors_wait(events, 0), events);
        }
        bool over = false;
        while (!over && turn() > 0 && !job_ends()) {
            clock_look();
            over = agent.now_ns - looked_ns >= LOOK_ROUND_NS;
        }
        if (job_ends())
            break;
        workers_tick();
        general_tick();
        node_actors_tick();
        requests_look();
        head_tick();
        remote_tick();
        output_poll(agent.output, agent.now_ns);
        /* What the lines above wrote for other ranks goes before the sleep, not after it. */
        if (remote_flush() > 0 || over)
            continue;
        if (remote_keep_polling()) {
            sched_yield(); /* whom its messages woke may wait for this core */
            continue;
        }
        limit = sleep_ms();
        atomic_store_explicit(&agent.lane.self->asleep, 1, memory_order_seq_cst);
        sleep_prepare(&limit);
        /* Woken since the look began: whoever did so rang no bell if we were awake. */
        if (atomic_load(&agent.lane.self->wake) != seen || atomic_load(&agent.lane.self->freed) ||
            job_ends() || !remote_may_sleep())
            limit = 0;
        count = descriptors_wait(events, limit);
        looked_ns = agent.now_ns;
        if (count == 0 && limit == SLEEP_MS_MAX && atomic_load(&agent.lane.self->mailbox))
            rescue_suspected();
        atomic_store(&agent.lane.self->asleep, 0);
        lane_bit_clear(agent.lane.control->idle, LANE_AGENT);
        remote_woken();
        watch_events(count, events);
    }
}

/* ---- Start and end ---- */

void agent_fail(const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (atomic_load(&agent.end_asked) || atomic_load(&agent.node->ending))
        return;
    log_error("%s; the job ends", text);
    remote_tell_end(1);
    _exit_job(1);
}

void _exit_job(int status)
{
    atomic_store(&agent.node->ending, 1);
    if (agent.output)
        output_destroy(agent.output, 200);
    agent.output = NULL;
    zygote_stop(agent.zygote, 1000);
    fflush(NULL);
    if (agent.fell_after) /* the launcher shall hear of that rank first: its status is the job's */
        usleep(LINGER_MS * 1000);
    _exit(status);
}

static bool start(void)
{
    struct output_options output = {.rank = agent.rank, .mark = agent.settings.output_mark};

    if (output_create(&output, &agent.output, &agent.start_error) != MORAY_OK)
        return false;
    agent.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (agent.epoll < 0) {
        error_set(&agent.start_error, MORAY_SYSTEM, "epoll_create1: %s", strerror(errno));
        return false;
    }
    if (!agent_watch(agent.doorbell, WATCH_DOORBELL) ||
        !agent_watch(zygote_fd(agent.zygote), WATCH_ZYGOTE) ||
        !agent_watch(output_fd(agent.output), WATCH_OUTPUT))
        return false;
    if (agent.is_head && !head_start(&agent.start_error))
        return false;
    /* Rank 0's node, or a rank alone, has work before the fabric is there. */
    if ((agent.rank_count == 1 || agent.is_head) && !agent_settle(&agent.start_error))
        return false;
    return remote_start(&agent.start_error);
}

bool agent_settle(struct moray_error *error)
{
    if (agent.settled)
        return true;
    agent.settled = true;
    if (general_start(error) != MORAY_OK)
        return false;
    if (!workers_start()) {
        error_set(error, MORAY_SYSTEM, "the workers could not be started");
        return false;
    }
    return true;
}

bool agent_settings_changed(struct moray_error *error)
{
    struct node_shared *node = agent.node;
    uint32_t workers = (uint32_t)agent.settings.workers;

    log_start((enum log_level)agent.settings.log, (int)agent.rank);
    node->attempts_default = (uint32_t)agent.settings.attempts;
    if (agent.is_node && workers > agent_workers_max()) {
        error_set(error, MORAY_INVALID,
                  "rank 0 asks for MORAY_WORKERS=%u, but rank %u began with a MORAY_PROCESSES_MAX "
                  "of %u; raise it there, lower the one or leave it out",
                  workers, agent.rank, agent_workers_max() + 2);
        return false;
    }
    if (agent.is_node && workers)
        agent_set_workers(workers);
    node->spin_ns = agent_spin_ns();
    agent_read_chaos();
    return true;
}

bool agent_may_spin(void)
{
    uint32_t awake = 1;

    for (uint32_t slot = 1; slot < agent.node->slot_first_actor; slot++)
        awake += atomic_load(&agent.lane.slots[slot].kind) != LANE_NOBODY &&
                 !atomic_load(&agent.lane.slots[slot].asleep);
    return awake <= agent.node->core_count;
}

void agent_random(void *bytes, size_t count)
{
    randombytes_buf(bytes, count);
}

static bool is_record_left(void)
{
    uint32_t end = atomic_load(&agent.lane.control->records_claimed) * POOL_SLAB_ITEMS;

    for (uint32_t index = 0; index < end; index++)
        if (life_state(record_life(lane_record(&agent.lane, index))) >= RECORD_MAKING)
            return true;
    return false;
}

/* What was freed for processes that are gone, by them for others, and by other ranks, whose words may
 * be on their way: until nothing is left, or nothing has come for long. */
static void collect_all(void)
{
    struct lane lane;

    for (int round = 0; round < 3 || (round < LAST_WORDS_MS && is_record_left()); round++) {
        if (round >= 3)
            usleep(1000);
        agent.now_ns = time_ns();
        turn();
        for (uint32_t slot = 1; slot < agent.slot_count; slot++) {
            enum lane_slot_kind kind =
                (enum lane_slot_kind)atomic_load(&agent.lane.slots[slot].kind);
            if (!atomic_load(&agent.lane.slots[slot].freed))
                continue;
            if (lane_attach(&lane, agent.lane.control, (uint16_t)slot, kind, agent_wake_slot,
                            NULL) == MORAY_OK)
                lane_detach(&lane);
        }
        lane_settle_freed(&agent.lane);
    }
}

static void report_leaks(void)
{
    struct arena_usage usage;
    uint32_t records = 0, objects = 0, end;

    for (uint32_t i = atomic_load(&agent.node->setup_count); i-- > 0;)
        lane_drop(&agent.lane, agent.node->setups[i].record);
    collect_all();
    end = atomic_load(&agent.lane.control->records_claimed) * POOL_SLAB_ITEMS;
    for (uint32_t index = 0; index < end; index++) {
        struct record *record = lane_record(&agent.lane, index);
        if (life_state(record_life(record)) < RECORD_MAKING)
            continue;
        records++;
        objects += life_ended(record_life(record));
        if (records <= 5) {
            char what[300];
            record_describe(&agent.lane, record, what, sizeof(what));
            fprintf(stderr,
                    "moray: rank %u still has record %u: %s; state %d, home %u holds %u, holders "
                    "%llx, flags %x\n",
                    agent.rank, index, what, life_state(record_life(record)),
                    lane_home(&agent.lane, index), atomic_load(&record->home_count),
                    (unsigned long long)atomic_load(&record->holders), record_flags(record));
        }
    }
    arena_usage(&agent.lane.arena, &usage);
    fprintf(stderr, "moray: rank %u in use: %u objects, %u records, %llu bytes\n", agent.rank,
            objects, records, (unsigned long long)usage.held_bytes);
}

/* Every sleep ends within a second and looks again: what was found then had lost its wake-up. */
static void report_rescues(void)
{
    struct fabric_counts counts = {0};
    uint64_t processes = 0;

    if (agent.fabric)
        fabric_counts(agent.fabric, &counts);
    for (uint32_t slot = 0; slot < agent.slot_count; slot++)
        processes += atomic_load(&agent.lane.slots[slot].rescues);
    fprintf(stderr,
            "moray: rank %u lost wake-ups: %llu of processes, %llu of the agent, %llu of bells\n",
            agent.rank, (unsigned long long)processes, (unsigned long long)agent.rescues,
            (unsigned long long)counts.rescues);
}

static void stop(void)
{
    bool clean = agent.end_status == 0 || agent.is_head;

    agent.now_ns = time_ns();
    if (agent.is_head)
        remote_tell_end(agent.end_status);
    atomic_store(&agent.node->ending, 1);
    workers_end(END_LIMIT_MS);
    if (agent.settings.report_leaks) {
        report_leaks();
        report_rescues();
    }
    remote_stop(clean);
    requests_end();
    node_actors_end(); /* not before: until here messages about actors still come */
    if (agent.output)
        output_destroy(agent.output, 1000);
    agent.output = NULL;
    zygote_stop(agent.zygote, 1000);
    agent.zygote = NULL;
    general_end();
    head_end();
    close(agent.epoll);
}

void *agent_main(void *context)
{
    (void)context;
    agent.now_ns = time_ns();
    if (!start()) {
        atomic_store(&agent.ready, 2);
        return NULL;
    }
    if (!remote_driver_waits())
        atomic_store(&agent.ready, 1);
    loop();
    stop();
    atomic_store(&agent.ended, 1);
    return NULL;
}
