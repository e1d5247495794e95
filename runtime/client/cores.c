#include "client/process.h"

/*
 * The cores of a node as tokens: a process takes tasks of the queues only while it has one.
 *
 *     free ──take──▶ a process ──give──▶ to one that wants its core back, else free
 *       ▲                │ idle, asleep: it keeps the token until it wakes; who wants a core back may
 *       '────── death ───'               take it from it (steal)
 *
 * A process that blocks gives its core up and, before it goes on, takes one back (`wanting`: whoever
 * finishes a task hands its token over). A process without a core that would work sleeps in
 * `coreless`: who frees a token wakes one. Only a process that has a core, or sees a free one, counts
 * as idle or searching for the lane: else the lane would wake those that cannot run, and leave those
 * asleep that can.
 *     seq_cst throughout: who frees stores the token and then reads the bits; who sleeps sets its bit
 *     and then reads the tokens. One of the two sees the other.
 * Tokens from lane_workers on belong to tasks of the local scheduler (node/general.c). Such a task is
 * in `me.general`; its cores are the agent's to give: `blocked` of its slot says how it stands.
 * A process may for a moment own two tokens (taken one, handed another): cores_tidy() lets one go.
 * Cost: nothing on the way of a task; a few loads when a process sleeps.
 */

static uint32_t lane_cores(void)
{
    uint32_t may = atomic_load_explicit(&me.node->lane_workers, memory_order_relaxed);
    uint32_t have = me.node->core_count < NODE_CORES_MAX ? me.node->core_count : NODE_CORES_MAX;

    return may < have ? may : have;
}

static uint64_t mine(void)
{
    return me.slot + 1u;
}

ON_TRIP bool core_has(void)
{
    return me.token >= 0 && (uint32_t)me.token < lane_cores() &&
           atomic_load_explicit(&me.node->tokens[me.token], memory_order_relaxed) == mine();
}

bool core_is_free(void)
{
    for (uint32_t core = 0, end = lane_cores(); core < end; core++)
        if (atomic_load(&me.node->tokens[core]) == 0)
            return true;
    return false;
}

ON_TRIP bool core_is_wanted(void)
{
    return lane_any(&me.lane, me.node->wanting);
}

static void took(uint32_t core)
{
    if (me.token != (int)core)
        core_bind((int)core);
    me.token = (int)core;
    atomic_store(&me.lane.self->core, (int)core);
}

bool core_take(void)
{
    uint32_t end = lane_cores();

    for (uint32_t i = 0; i < end; i++) {
        uint32_t core = me.token >= 0 ? ((uint32_t)me.token + i) % end : i;
        uint64_t nobody = 0;
        if (atomic_load(&me.node->tokens[core]) == mine() ||
            atomic_compare_exchange_strong(&me.node->tokens[core], &nobody, mine())) {
            took(core);
            return true;
        }
    }
    return false;
}

/* A sleeper whose core was taken from it is at hand for the next one that is free. It may have woken:
 * it clears its bits after `asleep`, so one of the two does. */
static void left_coreless(uint16_t slot)
{
    lane_bit_set(me.node->coreless, slot);
    if (!atomic_load(&me.lane.slots[slot].asleep)) {
        lane_bit_clear(me.node->coreless, slot);
        lane_wake(&me.lane, slot);
    }
}

/* From a process that sleeps with nothing to do. It may wake just now: then two share a core until the
 * one has finished its task, which is better than a core that nobody uses. */
static bool core_steal(void)
{
    for (uint32_t core = 0, end = lane_cores(); core < end; core++) {
        uint64_t owner = atomic_load(&me.node->tokens[core]);
        if (owner && owner != mine() && owner <= me.lane.control->layout.slot_count &&
            lane_bit(me.lane.control->idle, (uint32_t)owner - 1) &&
            atomic_load(&me.lane.slots[owner - 1].asleep) &&
            atomic_compare_exchange_strong(&me.node->tokens[core], &owner, mine())) {
            took(core);
            left_coreless((uint16_t)(owner - 1));
            return true;
        }
    }
    return false;
}

/* The lowest slot of a set that sleeps or waits; taken out of it. 0: none. */
static uint16_t bit_take(struct lane *lane, _Atomic uint64_t *words)
{
    for (uint32_t word = 0; word < atomic_load(&lane->control->worker_words); word++)
        for (uint64_t bits = atomic_load(&words[word]); bits; bits &= bits - 1) {
            uint64_t bit = bits & -bits;
            if (atomic_fetch_and(&words[word], ~bit) & bit)
                return (uint16_t)(word * 64 + (uint32_t)__builtin_ctzll(bit));
        }
    return 0;
}

void cores_offer(struct lane *lane, struct node_shared *node)
{
    uint16_t slot = bit_take(lane, node->wanting);

    if (!slot)
        slot = bit_take(lane, node->coreless);
    if (slot)
        lane_wake(lane, slot);
}

void core_give(void)
{
    uint64_t own = mine();
    uint16_t slot = 0;

    if (me.token < 0 || atomic_load(&me.node->tokens[me.token]) != own)
        return;
    if ((uint32_t)me.token < lane_cores())
        slot = bit_take(&me.lane, me.node->wanting);
    if (slot) {
        if (atomic_compare_exchange_strong(&me.node->tokens[me.token], &own, slot + 1u))
            lane_wake(&me.lane, slot);
        else
            lane_bit_set(me.node->wanting, slot);
    } else if (atomic_compare_exchange_strong(&me.node->tokens[me.token], &own, 0))
        cores_offer(&me.lane, me.node);
}

void cores_tidy(void)
{
    for (uint32_t core = 0; core < me.node->core_count && core < NODE_CORES_MAX; core++) {
        uint64_t own = mine();
        if ((int)core != me.token && atomic_load(&me.node->tokens[core]) == own &&
            atomic_compare_exchange_strong(&me.node->tokens[core], &own, 0))
            cores_offer(&me.lane, me.node);
    }
}

/* ---- Before and after a sleep ---- */

/* A task of the local scheduler goes on when the agent did not use its cores meanwhile, or has them
 * again. */
static void general_return(bool late)
{
    uint32_t state = SLOT_LENDS;

    if (atomic_compare_exchange_strong(&me.lane.self->blocked, &state, SLOT_AWAKE))
        return;
    atomic_store(&me.lane.self->blocked, SLOT_WANTS);
    lane_wake(&me.lane, LANE_AGENT);
    while (!late && atomic_load(&me.lane.self->blocked) != SLOT_AWAKE && !should_end()) {
        uint32_t seen = atomic_load(&me.lane.self->wake);
        sleep_begin();
        if (atomic_load(&me.lane.self->blocked) != SLOT_AWAKE && process_sleep(seen, 0) &&
            atomic_load(&me.lane.self->blocked) == SLOT_AWAKE)
            rescue_count(seen, "it has its cores back");
        sleep_end();
    }
}

ON_TRIP void core_leave(void)
{
    bool at_hand;

    if (!thread_owner)
        return;
    atomic_store(&me.lane.self->blocked, me.general ? SLOT_LENDS : SLOT_BLOCKED);
    if (me.role == ROLE_DRIVER)
        driver_sleeps();
    if (me.role != ROLE_WORKER || me.general)
        return;
    me.core_left = core_has();
    if (!me.core_left)
        return;
    at_hand = lane_any(&me.lane, me.node->coreless);
    core_give();
    if (lane_has_work(&me.lane))
        lane_rouse(&me.lane);
    if (!at_hand) /* the agent sees to a further process, for the work that may come */
        lane_wake(&me.lane, LANE_AGENT);
}

ON_TRIP void core_return(bool late)
{
    if (!thread_owner)
        return;
    if (RARELY(me.role == ROLE_WORKER && me.general)) {
        general_return(late);
        return;
    }
    atomic_store(&me.lane.self->blocked, SLOT_AWAKE);
    if (me.role == ROLE_DRIVER)
        driver_returns();
    if (me.role != ROLE_WORKER || !me.core_left)
        return;
    me.core_left = false;
    while (!core_take() && !late && !should_end()) {
        uint32_t seen = atomic_load(&me.lane.self->wake);
        sleep_begin();
        lane_bit_set(me.node->wanting, me.slot);
        if (!core_take() && !core_steal() && process_sleep(seen, 0) &&
            (core_take() || core_steal()))
            rescue_count(seen, "there is a core for it");
        sleep_end();
        lane_bit_clear(me.node->wanting, me.slot);
        if (core_has())
            break;
    }
    cores_tidy();
}
