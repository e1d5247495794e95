/**
 * What tasks and actors print comes out in whole lines, within 1 s, also what was printed before a kill
 * (semantics.md 46). prints.sh reads it and looks at the times.
 *
 *     pieces    a line printed in pieces by each of several tasks at the same time
 *     half      a line without its end, by a task that goes on for 3 s; then "done" by the driver
 *     closed    with standard streams closed: tasks and driver print all the same, and go on
 *     killed    lines and half a line, then SIGKILL; by a task and by an actor
 */
#include "law.h"

MORAY_TASK(int32_t, prints_pieces, (int32_t, who), (int32_t, lines))
{
    for (int32_t line = 0; line < lines; line++) {
        for (int piece = 0; piece < 10; piece++)
            printf("%c", 'a' + who);
        printf("\n");
    }
    return 0;
}

MORAY_TASK(int32_t, prints_a_line, (int32_t, number))
{
    printf("a line of a task: %d\n", number);
    fprintf(stderr, "a word of a task: %d\n", number);
    return 1;
}

MORAY_TASK(int32_t, prints_half, (int32_t, ms))
{
    printf("half a line");
    fprintf(stderr, "half an error");
    law_sleep_ms(ms);
    return 0;
}

MORAY_TASK(int32_t, prints_and_dies, (int32_t, lines))
{
    for (int32_t line = 0; line < lines; line++)
        printf("task line %d\n", line);
    printf("task half");
    raise(SIGKILL);
    return 0;
}

MORAY_ACTOR(speaker);
MORAY_METHOD(int32_t, speaker, speak_and_die, (int32_t, lines))
{
    (void)self;
    for (int32_t line = 0; line < lines; line++)
        printf("actor line %d\n", line);
    printf("actor half");
    raise(SIGKILL);
    return 0;
}

static void pieces(void)
{
    moray_ref refs[8];

    for (int i = 0; i < 8; i++)
        refs[i] = moray_call(prints_pieces, i, 200);
    for (int i = 0; i < 8; i++)
        moray_take_as(int32_t, refs[i]);
}

static void half(void)
{
    moray_ref ref = moray_call(prints_half, 3000);

    law_sleep_ms(2000);
    printf("the driver, 2 s later\n");
    fflush(stdout);
    moray_take_as(int32_t, ref);
}

static int closed(void)
{
    int64_t lines = 0;

    for (int i = 0; i < 50; i++) {
        lines += moray_take_as(int32_t, moray_call(prints_a_line, i));
        printf("a line of the driver that is as long as a line may well be, and longer: %d\n", i);
        fflush(stdout);
        fprintf(stderr, "a word of the driver\n");
    }
    return lines == 50 ? 0 : 1;
}

static void killed(void)
{
    speaker_actor actor = moray_new(speaker);
    moray_ref task = moray_call_with((.attempts = 1), prints_and_dies, 100);
    moray_ref call = moray_call(speaker_speak_and_die, actor, 100);

    moray_get_bytes(task, NULL, 0, 0);
    moray_get_bytes(call, NULL, 0, 0);
    moray_release(task);
    moray_release(call);
    moray_actor_release(actor);
    law_sleep_ms(1500);
    printf("the driver, 1.5 s later\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int failed = 0;

    (void)law_name, (void)law_failed, (void)laws_run, (void)shared;
    moray_init(&argc, &argv);
    if (argc > 1 && !strcmp(argv[1], "pieces"))
        pieces();
    else if (argc > 1 && !strcmp(argv[1], "half"))
        half();
    else if (argc > 1 && !strcmp(argv[1], "closed"))
        failed = closed();
    else if (argc > 1 && !strcmp(argv[1], "killed"))
        killed();
    return moray_finalize() || failed;
}
