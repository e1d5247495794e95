/**
 * train: a network learns to tell shirts from shoes, on one core or on many hosts, with the same
 * bits everywhere.
 *
 *     dataset, shard, net, optimiser    the computation: pure, shared by both ways below
 *     plain                             two plain processes, the yardstick
 *     distributed                       the same with Moray's tasks, actor and objects
 *     report, curve, say                what the user sees
 */
#include <stdlib.h>
#include <sodium.h>

#include "blas.h"
#include "distributed.h"
#include "options.h"
#include "plain.h"
#include "report.h"
#include "say.h"

int main(int argc, char **argv)
{
    static struct report report; /* static: it is large, and the stack is not */
    struct options options;

    if (blas_fix(argv))
        return 1;
    report_start(&report);
    if (sodium_init() < 0) {
        say_error("libsodium does not start");
        return 1;
    }
    if (options_parse(argc, argv, &options))
        return 2;
    if (options.help) {
        options_help();
        return 0;
    }
    if (!options.plain)
        return distributed_main(&argc, &argv, &options, &report);
    if (report_check(&options) || plain_train(&options, &report))
        return 1;
    return report_write(&report, &options) ? 1 : 0;
}
