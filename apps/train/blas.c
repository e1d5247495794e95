#include "blas.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cblas.h>

#include "say.h"

static const char marker[] = "TRAIN_BLAS_FIXED"; /* set once executed again: never twice */

/* The best kernel that most processors of the last ten years have: what all nodes of a machine can
 * run is worth more here than the fastest. NULL: OpenBLAS has only one, or is left to choose. */
static const char *common_kernel(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "Haswell";
    if (__builtin_cpu_supports("sse4.2"))
        return "Nehalem";
    return "Prescott";
#elif defined(__aarch64__)
    return "ARMV8";
#else
    return NULL;
#endif
}

int blas_fix(char **argv)
{
    const char *kernel = getenv("OPENBLAS_CORETYPE"), *threads = getenv("OPENBLAS_NUM_THREADS");
    char path[PATH_MAX];
    bool set = (kernel && *kernel) || !common_kernel();

    if ((set && threads && strcmp(threads, "1") == 0) || getenv(marker)) {
        unsetenv(marker);
        openblas_set_num_threads(1);
        return 0;
    }
    if ((!set && setenv("OPENBLAS_CORETYPE", common_kernel(), 1)) ||
        setenv("OPENBLAS_NUM_THREADS", "1", 1) || setenv(marker, "1", 1))
        return say_error("no memory for the environment");
    /* By its own path, not as /proc/self/exe: the process keeps its name in ps. */
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        execv(path, argv);
    }
    return say_error("cannot execute itself again with OPENBLAS_CORETYPE set: %s; set "
                     "OPENBLAS_CORETYPE and OPENBLAS_NUM_THREADS=1 before the start",
                     strerror(errno));
}

const char *blas_kernel(void)
{
    return openblas_get_corename();
}
