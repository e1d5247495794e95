/**
 * The peer openmp: seconds of fib(25) as tasks of libgomp on two threads; each call with n >= 2 makes
 * two tasks and waits for both, without a cut-off.
 */
#include "answer.h"

struct counted {
    int64_t value, tasks;
};

static struct counted fib(int n)
{
    struct counted a, b;

    if (n < 2)
        return (struct counted){n, 0};
#pragma omp task shared(a) firstprivate(n)
    a = fib(n - 1);
#pragma omp task shared(b) firstprivate(n)
    b = fib(n - 2);
#pragma omp taskwait
    return (struct counted){a.value + b.value, a.tasks + b.tasks + 2};
}

int main(void)
{
    while (answer_wanted()) {
        struct counted result = {0, 0};
        double start = answer_now();
#pragma omp parallel num_threads(2)
#pragma omp single
        result = fib(25);
        double seconds = answer_now() - start;
        if (result.value != 75025 || result.tasks != 242784)
            return 1;
        answer_value(seconds);
    }
    return 0;
}
