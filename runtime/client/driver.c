#include <cpuid.h>
#include <sys/syscall.h>

#include "client/process.h"

/*
 * The driver's core: it owns one in the books only.
 *
 *     driver_busy      it runs user code: the worker `parked_slot` sleeps, others take its queue
 *     not busy         it sleeps in a call: the parked worker is idle like any other
 *
 * Which of those that sleep is the parked one is the driver's choice, made anew when it submits while
 * nobody looks for work. `here` is the worker bound to the hardware thread that the driver is on:
 *     it will compute      `here` is parked, another one is woken, on another core
 *     it will wait         `here` is woken and has the driver's core (it is lent): no other core leaves
 *                          its idle state, which costs more than the whole trip
 * Both stay runnable meanwhile: the driver yields to the worker, and the worker, when its task has ended,
 * to the driver. That takes half as long as to sleep and be woken, and what the worker does before it
 * sleeps is done after the driver went on. When two yields in a row were not over soon (the tasks are
 * long, or others use the core too, each for some ms) it sleeps instead for the next PATIENCE times.
 * What it will do is what it lately did: `trust` counts the submits that were followed at once by a
 * wait. A lent core is a hint: if the driver submits more, or looks in vain, another worker is woken.
 * A driver that comes back at once from its waits is awake, and lends nothing: it and a worker on
 * another core then spin for each other. Has the kernel put it on the core of that worker, neither gets
 * on: the worker becomes the parked one, and the parked one is woken, on its own core.
 * Cost: nothing on the way of a task; a clock and a few lines of the slots where all sleep.
 */

/* In ticks of the processor's clock, 2 to 4 a nanosecond: the kernel's lies on pages of its own. */
enum {
    AT_ONCE_TICKS = 150000,   /* from a submit to the wait for it: some 50 us */
    COMPUTES_TICKS = 3000000, /* it did something else meanwhile: some ms */
    AWAY_TICKS = 150000,      /* of user code between two waits */
    YIELD_TICKS = 600000,     /* over soon: some 200 us */
    TRUST_MAX = 8,
    TRUST_LENDS = 2,
    PATIENCE = 64,
};

TRIP_DATA static struct {
    uint64_t submitted; /* when; it has not waited since; 0: it has */
    uint64_t returned;  /* from its last sleep */
    uint32_t trust;
    uint32_t patience; /* so often more it sleeps, and does not yield */
    bool late;         /* its last yield was */
    uint16_t lent;     /* the worker that was woken on its core for that submit; 0: none */
} lately;

static uint64_t ticks(void)
{
    return __builtin_ia32_rdtsc();
}

/* Some emulated processors have no such instruction. Bit 27: AMD64 Architecture Programmer's Manual 3. */
static bool has_rdtscp(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (d >> 27 & 1);
}

/* The hardware thread that this is, or one that there is not; the kernel has it in the clock's other
 * word for sched_getcpu(). */
static int32_t cpu_here(void)
{
    TRIP_DATA static int8_t has;
    unsigned word;

    if (__builtin_expect(!has, 0))
        has = has_rdtscp() ? 1 : -1;
    if (has < 0)
        return INT32_MAX;
    (void)__builtin_ia32_rdtscp(&word);
    return (int32_t)(word & 0xfff);
}

static bool sleeps(uint32_t slot)
{
    return atomic_load(&me.lane.slots[slot].asleep) != 0;
}

/* A worker with nothing to do that is bound to `cpu`, or, `but` not, to another; 0: none. */
ON_TRIP static uint16_t idle_worker(const struct lane *lane, uint32_t end, int32_t cpu, bool but)
{
    struct lane_control *control = lane->control;

    for (uint32_t word = 0; word < atomic_load(&control->worker_words); word++)
        for (uint64_t bits = atomic_load(&control->idle[word]); bits; bits &= bits - 1) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);
            if (slot > LANE_AGENT && slot < end &&
                (atomic_load(&lane->slots[slot].cpu) == cpu) != but)
                return (uint16_t)slot;
        }
    return 0;
}

uint16_t lend_core(const struct lane *lane, struct node_shared *node)
{
    uint16_t here = idle_worker(lane, node->slot_first_actor, cpu_here(), false);

    if (here && !atomic_load(&node->parked_slot)) { /* else the driver's lending goes before */
        atomic_store(&node->lent_yields, 1);
        atomic_store(&node->lent_slot, here);
    }
    return here;
}

/* Of two that sleep, the idle one becomes the parked one, and the other way round. */
static void change_places(uint32_t parked, uint16_t idle)
{
    struct lane_control *control = me.lane.control;

    atomic_store(&me.node->parked_slot, idle);
    atomic_store(&me.node->parked_deep, idle);
    lane_bit_clear(control->idle, idle);
    lane_bit_set(control->idle, parked);
}

static inline bool is_lent(void)
{
    return atomic_load_explicit(&me.node->lent_slot, memory_order_relaxed) == me.slot;
}

ON_TRIP void driver_submits(uint32_t parked)
{
    int32_t cpu = cpu_here();
    uint32_t end = me.node->slot_first_actor;
    uint64_t now = ticks();
    bool parked_here = atomic_load(&me.lane.slots[parked].cpu) == cpu;
    uint16_t here = parked_here ? (uint16_t)parked : idle_worker(&me.lane, end, cpu, false), other;

    if (lately.submitted && lately.trust)
        lately.trust--;
    lately.submitted = now;
    lately.lent = me.lane.rouse_first = 0;
    if (!here || !sleeps(parked))
        return;
    if (lately.trust < TRUST_LENDS || now - lately.returned < AWAY_TICKS) {
        if (!parked_here)
            change_places(parked, here);
        return;
    }
    if (parked_here) {
        if (!(other = idle_worker(&me.lane, end, cpu, true)))
            return;
        change_places(parked, other);
    }
    lately.lent = me.lane.rouse_first = here;
    atomic_store(&me.node->lent_yields, !lately.patience);
    atomic_store(&me.node->lent_slot, here);
}

uint32_t driver_submits_more(uint32_t parked)
{
    if (!lately.lent || !sleeps(lately.lent))
        return parked;
    /* It waits for this core: it is the parked one now, and the other takes all. */
    atomic_store(&me.node->parked_slot, lately.lent);
    lately.lent = 0;
    lately.trust = 0;
    return parked;
}

ON_TRIP bool driver_waits(void)
{
    if (!lately.submitted)
        return false;
    uint64_t after = ticks() - lately.submitted;
    if (after < AT_ONCE_TICKS)
        lately.trust = lately.trust ? TRUST_MAX : 1;
    else /* a little late it is when something else took its core */
        lately.trust = after < COMPUTES_TICKS ? lately.trust / 2 : 0;
    lately.submitted = 0;
    return lately.lent != 0;
}

/* sched_yield(2), not on a page of the C library. */
static inline void yield(void)
{
    long result;

    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_sched_yield) : "rcx", "r11", "memory");
}

ON_TRIP bool driver_yields(uint32_t index)
{
    uint64_t before;

    if (lately.patience) {
        lately.patience--;
        return false;
    }
    leave(); /* other threads of the driver go on meanwhile */
    before = ticks();
    yield();
    lately.returned = ticks();
    (void)!enter();
    if (lately.returned - before <= YIELD_TICKS)
        lately.late = false;
    else if (lately.late)
        lately.patience = PATIENCE;
    else
        lately.late = true; /* once is chance */
    if (!life_ended(record_life(lane_record(&me.lane, index))))
        return false;
    lately.lent = 0;
    atomic_store(&me.node->driver_busy, 1);
    return true;
}

ON_TRIP void driver_lent_yields(void)
{
    if (is_lent() && atomic_load_explicit(&me.node->lent_yields, memory_order_relaxed))
        yield();
}

void driver_lent_submits(void)
{
    if (is_lent())
        atomic_store(&me.node->driver_busy, 0);
}

bool driver_lent(void)
{
    if (!is_lent())
        return false;
    atomic_store(&me.node->lent_slot, 0);
    return true;
}

/* It has looked in vain for a while. */
OFF_TRIP void driver_moves(void)
{
    uint32_t parked = atomic_load(&me.node->parked_slot), end = me.node->slot_first_actor;
    int32_t cpu = cpu_here();

    if (!parked || !sleeps(parked) || atomic_load(&me.lane.slots[parked].cpu) == cpu)
        return;
    for (uint32_t slot = LANE_AGENT + 1; slot < end; slot++)
        if (atomic_load(&me.lane.slots[slot].kind) == LANE_IS_WORKER && !sleeps(slot) &&
            atomic_load(&me.lane.slots[slot].cpu) == cpu) {
            atomic_store(&me.node->parked_slot, slot);
            atomic_store(&me.node->parked_deep, 0);
            lane_wake(&me.lane, (uint16_t)parked);
            return;
        }
}

/* Whether there is work besides the task that the lent core is for. */
static bool work_is_left(void)
{
    if (lately.lent && sleeps(lately.lent) &&
        atomic_load(&me.lane.self->tail) - atomic_load(&me.lane.self->head) <= 1)
        return false;
    return lane_has_work(&me.lane);
}

ON_TRIP void driver_sleeps(void)
{
    uint32_t parked = atomic_load(&me.node->parked_slot);

    if (!parked)
        return;
    atomic_store(&me.node->driver_busy, 0);
    if (work_is_left())
        lane_wake(&me.lane, (uint16_t)parked);
    else if (sleeps(parked)) {
        lane_bit_set(me.lane.control->idle, parked);
        if (work_is_left())
            lane_rouse(&me.lane);
        else if (core_is_wanted()) /* who was blocked may have the parked worker's core */
            lane_wake(&me.lane, (uint16_t)parked);
    }
}

ON_TRIP void driver_returns(void)
{
    uint32_t parked = atomic_load(&me.node->parked_slot);

    if (!parked)
        return;
    lately.lent = 0;
    lately.returned = ticks();
    atomic_store(&me.node->driver_busy, 1);
    if (lane_bit(me.lane.control->idle, parked)) {
        lane_bit_clear(me.lane.control->idle, parked);
        if (sleeps(parked)) /* however it sleeps: from now on as one that is parked */
            atomic_store(&me.node->parked_deep, parked);
    }
}

/* An edge, or a message, made a task ready while all sleep: submits alone look after the parked one. */
void parked_rouse(struct lane *lane, struct node_shared *node)
{
    struct lane_control *control = lane->control;

    if (!atomic_load(&node->parked_deep) || !lane_has_work(lane))
        return;
    if (lane_any(lane, control->searching) || lane_any(lane, control->idle))
        return;
    uint32_t parked = atomic_exchange(&node->parked_deep, 0);
    if (parked)
        lane_wake(lane, (uint16_t)parked);
}

void driver_polls(void)
{
    uint32_t parked = atomic_load(&me.node->parked_slot);

    if (!parked)
        return;
    atomic_store(&me.node->driver_busy, 0);
    if (lane_has_work(&me.lane))
        lane_wake(&me.lane, (uint16_t)parked);
}
