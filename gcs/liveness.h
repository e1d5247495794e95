/**
 * Who is still there? A pure state machine of the GCS, fed with signs of life and with time.
 *
 *                    quiet for doubt_ns            quiet for give_up_ns, or its link is cut
 *        PRESENT ------------------------> DOUBTED ----------------------------------------> GONE
 *           ^------------ any sign ----------'                 (a cut link: from PRESENT too)
 *
 * GONE is final: what the rank did is given to others by then, so a later sign of it is not heard.
 * Quiet is measured on the listener's side, so a listener that slept (stopped by a debugger, starved)
 * must not blame the others for its own pause: a tick that comes more than doubt_ns after the one before
 * it excuses everybody once, as if all had been heard at that tick. (Not after the event before it: who
 * awakes may hear one of the signs that lie unread, and tick before it reads the others.)
 * Nothing here sends, waits, logs or reads a clock; nothing is allocated after liveness_create().
 * Threads: one caller at a time (the agent). Cost: a sign is O(1); a tick reads 16 bytes a rank.
 */
#ifndef MORAY_GCS_LIVENESS_H
#define MORAY_GCS_LIVENESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct liveness;

enum liveness_state { LIVENESS_PRESENT, LIVENESS_DOUBTED, LIVENESS_GONE };

struct liveness_options {
    uint32_t rank_count; /* ranks of the job, at least 1 */
    uint64_t doubt_ns;   /* quiet after which calls to the rank say "unavailable"; not 0 */
    uint64_t give_up_ns; /* quiet after which it is gone; more than doubt_ns */
};

struct liveness_action { /* tell the job: `rank` is in `state` now */
    uint32_t rank;
    enum liveness_state state;
};

/** Makes the machine; every rank counts as heard at `now_ns`.
 *  Owner: the caller, until liveness_destroy(); `options` is copied.
 *  Errors: MORAY_INVALID, MORAY_NO_MEMORY; then `*out` is NULL and `error` names the option. */
MORAY_MUST_CHECK enum moray_code liveness_create(const struct liveness_options *options,
                                                 uint64_t now_ns, struct liveness **out,
                                                 struct moray_error *error);

/** Frees the machine; NULL is allowed. */
void liveness_destroy(struct liveness *liveness);

/** A rank gave a sign of life. `now_ns` never goes back. Writes what changed to `actions` (room for
 *  1) and returns how many. A rank out of range is not heard. */
size_t liveness_heard(struct liveness *liveness, uint32_t rank, uint64_t now_ns,
                      struct liveness_action *actions);

/** The kernel or the fabric says that the link to a rank is cut. As liveness_heard(). */
size_t liveness_cut(struct liveness *liveness, uint32_t rank, uint64_t now_ns,
                    struct liveness_action *actions);

/** Time went on. Writes what changed to `actions` (room for rank_count), lowest rank first, and
 *  returns how many. */
size_t liveness_tick(struct liveness *liveness, uint64_t now_ns, struct liveness_action *actions);

/** What is thought of a rank; GONE if it is out of range. */
enum liveness_state liveness_state(const struct liveness *liveness, uint32_t rank);

#endif
