#include "sched/policy/reporter.h"

enum {
    FIRST_LOOK_NS = 50 * 1000, /* a queue is looked at again after this, then at doubled times */
    IDLE_REPORT_NS =
        1000 * 1000, /* that a worker came free: so often at most; busy: after so long */
};

/* The time of one task, by the mean of those that ended or by those that run, which are half through
 * on average. */
static uint64_t task_ns(const struct load *load)
{
    uint64_t running_ns = 2 * load->running_ns;

    return load->mean_task_ns > running_ns ? load->mean_task_ns : running_ns;
}

static bool due(const struct reporter *reporter, const struct load *load, uint64_t wait_ns,
                bool hungry, bool idle, uint64_t now_ns)
{
    uint64_t since_ns = now_ns - reporter->was_ns;

    if (!reporter->reported || hungry != reporter->was_hungry)
        return true;
    /* Else the global one goes on thinking that they are on their way. This goes with the last result. */
    if (hungry && load->arrived_count != reporter->was_arrived &&
        load->queued_count + load->running_count == 0)
        return true;
    if (idle && !reporter->was_idle && since_ns >= IDLE_REPORT_NS)
        return true;
    if (reporter->busy_ns && now_ns - reporter->busy_ns >= IDLE_REPORT_NS)
        return true;
    if (!hungry && (wait_ns >= 2 * reporter->was_wait_ns || wait_ns <= reporter->was_wait_ns / 2))
        return true;
    return wait_ns != reporter->was_wait_ns && since_ns >= reporter->report_ns;
}

static void look_at(struct reporter *reporter, uint64_t ns)
{
    if (ns < reporter->deadline_ns)
        reporter->deadline_ns = ns;
}

bool reporter_look(struct reporter *reporter, const struct load *load, uint64_t now_ns)
{
    uint64_t each_ns = task_ns(load);
    uint64_t wait_ns = load->queued_count * (each_ns / load->worker_count + 1);
    bool hungry = wait_ns < reporter->hungry_ns;
    bool idle = load->queued_count == 0 && load->running_count < load->worker_count;
    bool busier =
        (!idle && reporter->was_idle) || (hungry && load->arrived_count != reporter->was_arrived);
    bool report;

    if (!busier)
        reporter->busy_ns = 0;
    else if (!reporter->busy_ns)
        reporter->busy_ns = now_ns;
    report = due(reporter, load, wait_ns, hungry, idle, now_ns);
    if (report) {
        reporter->busy_ns = 0;
        reporter->reported = true;
        reporter->was_hungry = hungry;
        reporter->was_idle = idle;
        reporter->was_ns = now_ns;
        reporter->was_wait_ns = wait_ns;
        reporter->was_arrived = load->arrived_count;
    }
    reporter->deadline_ns = UINT64_MAX;
    if (load->queued_count > 0) { /* is it a queue of long tasks? */
        uint64_t look_ns = each_ns > FIRST_LOOK_NS ? each_ns : FIRST_LOOK_NS;
        look_at(reporter, now_ns + (look_ns < reporter->report_ns ? look_ns : reporter->report_ns));
    }
    if (idle && !reporter->was_idle)
        look_at(reporter, reporter->was_ns + IDLE_REPORT_NS);
    if (reporter->busy_ns)
        look_at(reporter, reporter->busy_ns + IDLE_REPORT_NS);
    if (wait_ns != reporter->was_wait_ns)
        look_at(reporter, reporter->was_ns + reporter->report_ns);
    return report;
}
