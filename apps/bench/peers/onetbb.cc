/**
 * The peer onetbb: the same shapes as tasks of oneTBB on two threads.
 *
 *     onetbb tasks [quick]   tasks/s: batches of 10,000 empty tasks, each result read
 *     onetbb fib             seconds of fib(25): each call with n >= 2 makes two tasks and waits
 */
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_group.h>

#include <vector>

#include "answer.h"

namespace
{
enum { BATCH = 10000 };

double tasks(int count)
{
    static std::vector<int64_t> results(BATCH);
    oneapi::tbb::task_group group;
    int64_t sum = 0;
    double start = answer_now();

    for (int done = 0; done < count; done += BATCH) {
        for (int i = 0; i < BATCH; i++)
            group.run([i] { results[i] = 1; });
        group.wait();
        for (int i = 0; i < BATCH; i++) {
            sum += results[i];
            results[i] = 0;
        }
    }
    double seconds = answer_now() - start;
    if (sum != count)
        exit(1);
    return count / seconds;
}

struct counted {
    int64_t value, tasks;
};

counted fib(int n)
{
    if (n < 2)
        return {n, 0};
    counted a, b;
    oneapi::tbb::task_group group;
    group.run([&a, n] { a = fib(n - 1); });
    group.run([&b, n] { b = fib(n - 2); });
    group.wait();
    return {a.value + b.value, a.tasks + b.tasks + 2};
}

double nested()
{
    double start = answer_now();
    counted result = fib(25);
    double seconds = answer_now() - start;

    if (result.value != 75025 || result.tasks != 242784)
        exit(1);
    return seconds;
}
} // namespace

int main(int argc, char **argv)
{
    oneapi::tbb::global_control two(oneapi::tbb::global_control::max_allowed_parallelism, 2);
    int count = answer_word(argc, argv, "quick") ? 10 * BATCH : 100 * BATCH;
    bool is_fib = answer_word(argc, argv, "fib");

    while (answer_wanted())
        answer_value(is_fib ? nested() : tasks(count));
    return 0;
}
