#include <stdio.h>

#include "node/remote.h"
#include "sched/policy/local.h"
#include "store/arena/window.h"

bool remote_start(struct moray_error *error)
{
    (void)error;
    return true;
}
void remote_stop(bool clean)
{
    (void)clean;
}
uint32_t remote_poll(void)
{
    return 0;
}
void remote_tick(void)
{
}
bool remote_may_sleep(void)
{
    return true;
}
bool remote_keep_polling(void)
{
    return false;
}
uint64_t remote_deadline(void)
{
    return UINT64_MAX;
}
void remote_watch(uint32_t tag)
{
    (void)tag;
}
bool remote_driver_waits(void)
{
    return false;
}
void remote_tell_end(int status)
{
    (void)status;
}
void remote_tell_setup(uint64_t f, uint32_t r)
{
    (void)f;
    (void)r;
}
uint32_t remote_stand_in(moray_ref ref)
{
    (void)ref;
    return RECORD_NONE;
}
void remote_ended(uint32_t i, uint32_t g)
{
    (void)i;
    (void)g;
}
void remote_free(uint32_t index, uint32_t generation)
{
    struct record *record = lane_find(&agent.lane, index, generation);
    if (!record)
        return;
    requests_drop_contained(index);
    atomic_fetch_and(&record->flags, (uint16_t)~RECORD_CONTAINS);
    pool_mark(&agent.lane.record_pool, index);
    atomic_store(&agent.lane.slots[lane_home(&agent.lane, index)].freed, 1);
}
void remote_want(uint32_t i, uint32_t g)
{
    (void)i;
    (void)g;
}
void remote_fetch_request(uint32_t r, const void *b, uint32_t c)
{
    (void)b;
    (void)c;
    agent_answer(r, NULL, 0);
}
bool remote_place(uint32_t i, uint32_t g, const struct record_long *d)
{
    (void)i;
    (void)g;
    (void)d;
    return false;
}
bool remote_possible(struct resources need, int32_t on, struct moray_error *error)
{
    (void)on;
    return local_possible(agent.local, need, error) == MORAY_OK;
}
bool remote_is_node(uint32_t rank)
{
    return rank == 0;
}
void remote_send_call(uint32_t r, uint64_t a, uint32_t i, uint32_t g)
{
    (void)r;
    (void)a;
    (void)i;
    (void)g;
}
void remote_report(void)
{
}
uint64_t remote_mean_task_ns(void)
{
    return 0;
}
uint64_t remote_arrived(void)
{
    return 0;
}
void remote_head_ask(uint64_t t, uint32_t k, const void *b, uint32_t c)
{
    (void)t;
    (void)k;
    (void)b;
    (void)c;
}
void remote_head_reply(uint32_t r, uint64_t t, enum moray_code code, const void *b, uint32_t c)
{
    (void)r;
    (void)t;
    (void)code;
    (void)b;
    (void)c;
}
void remote_word(uint32_t r, uint32_t k, const void *b, uint32_t c)
{
    (void)r;
    (void)k;
    (void)b;
    (void)c;
}
uint64_t window_memory_limit_of_node(void)
{
    return window_memory_limit(NULL) / agent.launch.local_count;
}
