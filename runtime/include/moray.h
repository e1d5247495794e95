#ifndef MORAY_H
#define MORAY_H

#define MORAY_CODES(X) /* the one list: enum, names and documentation come from it */              \
    X(MORAY_OK, "success")                                                                         \
    X(MORAY_INVALID, "invalid argument")                                                           \
    X(MORAY_NO_MEMORY, "out of memory")                                                            \
    X(MORAY_TIMEOUT, "time limit passed")                                                          \
    X(MORAY_FULL, "the store has no room")                                                         \
    X(MORAY_BUSY, "a queue is at its limit")                                                       \
    X(MORAY_FAILED, "the function reported an error")                                              \
    X(MORAY_DIED, "the process that ran the task died")                                            \
    X(MORAY_UPSTREAM, "an input of the task failed")                                               \
    X(MORAY_CANCELLED, "the task was cancelled")                                                   \
    X(MORAY_ACTOR_DIED, "the actor is dead")                                                       \
    X(MORAY_UNAVAILABLE, "the actor cannot be reached for the moment")                             \
    X(MORAY_STALE, "stale reference")                                                              \
    X(MORAY_WRONG_TYPE, "the object is of another type")                                           \
    X(MORAY_NOT_FOUND, "no such name")                                                             \
    X(MORAY_EXISTS, "the name is taken")                                                           \
    X(MORAY_WRONG_STATE, "the call is not allowed here")                                           \
    X(MORAY_SYSTEM, "a system call failed")                                                        \
    X(MORAY_PROTOCOL, "a message is malformed or not authentic")                                   \
    X(MORAY_LOST, "a rank of the job was lost")
#define X(name, text) name,
enum moray_code { MORAY_CODES(X) };
#undef X

#endif
