#include "node/remote_inside.h"

#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "base/time.h"
#include "sched/policy/global.h"
#include "sched/policy/local.h"

/*
 * Who runs what: the agent's part of the two schedulers (sched/policy).
 *
 *     a node      reports its load to rank 0 when its machine says so; rank 0's machine orders moves
 *                 from loaded nodes to hungry ones; the loaded one sends its oldest queued tasks
 *     no workers  a head alone, whose driver could not attach elsewhere: all its tasks go out, to the
 *                 node with the least of ours per worker, in the measure in which it ends them
 */

enum { CREDIT_MIN = 32, CREDIT_MAX = 16384, TURN_TASKS_MAX = 1024 };
#define CREDIT_WINDOW_NS (4 * TIME_NS_PER_MS)

struct order {
    struct global_move move;
    uint64_t sent;
};

struct possible { /* asked before all ranks were there */
    uint32_t index, generation;
};

static struct global *global; /* rank 0 */
static struct order *orders;
static uint32_t order_count, order_capacity;
static struct credit {
    uint32_t limit, ended; /* in this window */
    uint32_t seen;         /* outstanding at its begin */
    uint64_t until_ns;
} * credits;
static struct possible *possibles;
static uint32_t possible_count;

bool moves_start(struct moray_error *error)
{
    struct global_options options = {.rank_count = agent.rank_count};

    credits = calloc(agent.rank_count, sizeof(*credits));
    if (!credits) {
        error_set(error, MORAY_NO_MEMORY, "no memory for %u ranks", agent.rank_count);
        return false;
    }
    if (agent.is_head && global_create(&options, &global, error) != MORAY_OK)
        return false;
    if (agent.rank_count > 1)
        return true;
    struct global_node node = {.host = UINT32_MAX,
                               .worker_count = agent.worker_count,
                               .have = {.core_parts = (uint64_t)agent.worker_count * RESOURCES_CORE,
                                        .memory_bytes = window_memory_limit_of_node()}};
    return global_join(global, &node, error) == MORAY_OK;
}

struct global *remote_global(void)
{
    return global;
}

void moves_end(void)
{
    global_destroy(global);
    global = NULL;
    free(orders);
    free(credits);
    free(possibles);
    orders = NULL;
    credits = NULL;
    possibles = NULL;
    order_count = order_capacity = possible_count = 0;
}

static struct resources resources_of(uint32_t rank)
{
    return (struct resources){.core_parts = (uint64_t)remote_peers[rank].workers * 10000,
                              .memory_bytes = remote_peers[rank].memory_bytes};
}

void moves_join(void)
{
    struct resources *nodes = calloc(agent.rank_count, sizeof(*nodes));
    struct moray_error error;
    size_t count = 0;

    for (uint32_t rank = 0; nodes && rank < agent.rank_count; rank++) {
        if (!remote_peers[rank].is_node)
            continue;
        nodes[count++] = resources_of(rank);
        uint32_t host = rank;
        while (host > 0 && remote_peers[host - 1].host == remote_peers[rank].host)
            host--;
        if (global &&
            global_join(global,
                        &(struct global_node){.rank = rank,
                                              .host = agent.settings.share ? host : UINT32_MAX,
                                              .worker_count = remote_peers[rank].workers,
                                              .have = resources_of(rank)},
                        &error) != MORAY_OK)
            log_error("%s", error.text);
    }
    if (nodes && local_cluster(agent.local, nodes, count, &error) != MORAY_OK)
        log_error("%s", error.text);
    free(nodes);
}

/* ---- Is it possible at all ---- */

static bool possible_now(struct resources need, int32_t on_rank, struct moray_error *error)
{
    if (agent.rank_count == 1 || on_rank < 0)
        return local_possible(agent.local, need, error) == MORAY_OK;
    if (!remote_peers[on_rank].is_node) {
        error_set(error, MORAY_INVALID,
                  "rank %d runs no tasks: it is a head alone; set "
                  "MORAY_HEAD=node to make it a node",
                  on_rank);
        return false;
    }
    if (resources_fit(need, resources_of((uint32_t)on_rank)))
        return true;
    error_set(error, MORAY_INVALID,
              "rank %d has %u cores and %llu bytes of memory; that is less than "
              "what the task asks for",
              on_rank, remote_peers[on_rank].workers,
              (unsigned long long)remote_peers[on_rank].memory_bytes);
    return false;
}

bool remote_possible(struct resources need, int32_t on_rank, struct moray_error *error)
{
    return possible_now(need, on_rank, error);
}

bool remote_must_wait(uint32_t index, uint32_t generation)
{
    if (agent.rank_count == 1 || agent.remote->all_known)
        return false;
    struct possible *more = realloc(possibles, (possible_count + 1) * sizeof(*more));
    if (!more)
        return false;
    possibles = more;
    possibles[possible_count++] = (struct possible){index, generation};
    return true;
}

void moves_possible_flush(void)
{
    struct possible *all = possibles;
    uint32_t count = possible_count;

    possibles = NULL;
    possible_count = 0;
    for (uint32_t i = 0; i < count; i++)
        requests_possible(all[i].index);
    free(all);
}

/* ---- Loads and orders ---- */

static void order_add(const struct global_move *move)
{
    orders = array_grown(orders, order_count, &order_capacity, sizeof(*orders));
    orders[order_count++] = (struct order){*move, 0};
}

static void orders_give(void)
{
    struct global_move move;

    while (global_next(global, &move)) {
        if (move.from == agent.rank) {
            order_add(&move);
            continue;
        }
        *(struct item_move *)out_item(move.from, ITEM_MOVE, sizeof(struct item_move)) =
            (struct item_move){move.from, move.to, move.count, 0};
    }
}

void remote_report(void)
{
    struct load load;

    if (agent.rank_count == 1 || !agent.remote->all_known || !agent.is_node)
        return;
    local_load(agent.local, &load);
    if (agent.is_head) {
        global_report(global, agent.rank, &load);
        orders_give();
    } else
        memcpy(out_item(0, ITEM_LOAD, sizeof(load)), &load, sizeof(load));
}

void moves_take_load(uint32_t rank, struct bytes_reader *in)
{
    const struct load *load = bytes_take(in, sizeof(*load));

    if (!load || !global)
        return;
    global_report(global, rank, load);
    orders_give();
}

void moves_take_move(uint32_t rank, struct bytes_reader *in)
{
    const struct item_move *item = bytes_take(in, sizeof(*item));

    if (item && rank == 0 && item->to < agent.rank_count && item->to != agent.rank)
        order_add(&(struct global_move){item->from, item->to, item->count});
}

void moves_take_moved(uint32_t rank, struct bytes_reader *in)
{
    const struct item_move *item = bytes_take(in, sizeof(*item));

    if (item && global && item->from == rank) {
        global_moved(global, &(struct global_move){item->from, item->to, item->count}, item->sent);
        orders_give();
    }
}

static void order_over(const struct order *order)
{
    if (agent.is_head) {
        global_moved(global, &order->move, order->sent);
        orders_give();
    } else
        *(struct item_move *)out_item(0, ITEM_MOVED, sizeof(struct item_move)) =
            (struct item_move){order->move.from, order->move.to, order->move.count, order->sent};
}

/* A task of the node's queues, claimed by slot 0, that another node may run. */
static uint32_t take_one(void)
{
    return lane_next(&agent.lane);
}

static uint32_t orders_carry_out(void)
{
    uint32_t sent = 0;

    for (uint32_t i = 0; i < order_count;) {
        struct order *order = &orders[i];
        bool dry = false;
        while (order->sent < order->move.count && sent < TURN_TASKS_MAX && !dry) {
            uint32_t index = take_one();
            if (index == RECORD_NONE)
                dry = true;
            else {
                tasks_send(order->move.to, index);
                order->sent++;
                sent++;
            }
        }
        if (!dry && order->sent < order->move.count) {
            i++;
            continue;
        }
        struct order over = *order;
        *order = orders[--order_count];
        order_over(&over);
    }
    return sent;
}

/* ---- A rank without workers ---- */

static void credit_renew(uint32_t rank)
{
    struct credit *credit = &credits[rank];
    uint32_t least = CREDIT_MIN * (remote_peers[rank].workers ? remote_peers[rank].workers : 1);

    if (agent.now_ns < credit->until_ns && credit->limit)
        return;
    /* What it ended in the last window, twice over, keeps it busy until our next look. */
    credit->limit = credit->ended * 2 > least ? credit->ended * 2 : least;
    if (credit->limit > CREDIT_MAX)
        credit->limit = CREDIT_MAX;
    credit->ended = 0;
    credit->until_ns = agent.now_ns + CREDIT_WINDOW_NS;
}

void moves_ended(uint32_t rank)
{
    if (credits)
        credits[rank].ended++;
}

static uint32_t emptiest(void)
{
    uint32_t best = UINT32_MAX;
    double best_load = 0;

    for (uint32_t rank = 0; rank < agent.rank_count; rank++) {
        struct peer *peer = &remote_peers[rank];
        if (!peer->known || !peer->is_node || !peer->workers || rank == agent.rank)
            continue;
        credit_renew(rank);
        if (peer->outstanding >= credits[rank].limit)
            continue;
        double load = (double)peer->outstanding / peer->workers;
        if (best == UINT32_MAX || load < best_load) {
            best = rank;
            best_load = load;
        }
    }
    return best;
}

bool remote_can_send(void)
{
    return agent.remote && emptiest() != UINT32_MAX;
}

static uint32_t send_out(void)
{
    uint32_t sent = 0;

    while (sent < TURN_TASKS_MAX && lane_has_work(&agent.lane)) {
        uint32_t rank = emptiest();
        if (rank == UINT32_MAX)
            break;
        /* A few at a time to one rank, so that they share a message. */
        for (int i = 0; i < 16; i++) {
            uint32_t index = take_one();
            if (index == RECORD_NONE)
                break;
            tasks_send(rank, index);
            sent++;
        }
    }
    return sent;
}

uint32_t moves_poll(void)
{
    if (agent.worker_count == 0)
        return send_out();
    return order_count ? orders_carry_out() : 0;
}

/* ---- General tasks ---- */

enum { TASK_NS_GUESSED = 1000000 }; /* where none has ended yet */

/* The rank with the bytes of an object; UINT32_MAX: they are everywhere, or nowhere yet. */
static uint32_t rank_with(uint32_t index, uint64_t *bytes)
{
    struct record *record = lane_record(&agent.lane, index);
    uint64_t *far = map_get(&agent.remote->far, index);
    uint16_t flags = record_flags(record);

    *bytes = record_result_bytes(record);
    if (life_state(record_life(record)) != RECORD_DONE || *bytes <= INLINE_BYTES_MAX)
        return UINT32_MAX;
    if (flags & (RECORD_RESULT_FAR | RECORD_RESULT_SHARED))
        return far ? (uint32_t)(*far >> 32) : UINT32_MAX;
    return agent.rank;
}

uint64_t remote_missing(uint32_t index, uint32_t rank)
{
    struct record *record = lane_record(&agent.lane, index);
    uint32_t count = (uint32_t)__builtin_popcount(record->reference_mask), blob_bytes;
    const moray_ref *refs = (const moray_ref *)lane_arguments(&agent.lane, record, &blob_bytes);
    uint64_t missing = 0, bytes;

    if (agent.rank_count == 1)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t from = rank_with(refs[i].index, &bytes);
        if (from < agent.rank_count && from != rank &&
            !(agent.settings.share && remote_peers[from].host == remote_peers[rank].host))
            missing += bytes;
    }
    return missing;
}

/* Nanoseconds until a task would run at a rank: those before it there, and the way of its inputs, a
 * byte a nanosecond. */
static double wait_at(uint32_t rank, uint32_t index)
{
    struct load load;
    double before = remote_peers[rank].outstanding;

    local_load(agent.local, &load);
    if (rank == agent.rank)
        before = (double)load.queued_count + load.running_count;
    return before / remote_peers[rank].workers *
               (double)(load.mean_task_ns ? load.mean_task_ns : TASK_NS_GUESSED) +
           (double)remote_missing(index, rank);
}

bool remote_place(uint32_t index, uint32_t generation, const struct record_long *details)
{
    struct resources need = {.core_parts = details && details->cores ? details->cores : 10000,
                             .memory_bytes = details ? details->memory_bytes : 0};
    uint32_t best = UINT32_MAX;
    double best_wait = 0;

    if (agent.rank_count == 1)
        return false;
    if (details && details->on_rank >= 0)
        best = (uint32_t)details->on_rank;
    for (uint32_t rank = 0; rank < agent.rank_count && !(details && details->on_rank >= 0);
         rank++) {
        if (!remote_is_node(rank) || !resources_fit(need, resources_of(rank)))
            continue;
        double wait = wait_at(rank, index);
        if (best == UINT32_MAX || wait < best_wait) {
            best = rank;
            best_wait = wait;
        }
    }
    if (best >= agent.rank_count || best == agent.rank)
        return false;
    if (!agent_claim(index, generation))
        return true;
    tasks_send(best, index);
    return true;
}
