/* Count the instructions of a call of sparsecc_run by stepping through it: the processor traps after each one. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

typedef int32_t run_fn(void *engine, const void *inputs, const void *outputs, int64_t rows, const void *pool);

static volatile int64_t steps;

static void count(int signal) {
    (void)signal;
    steps++;
}

int64_t instructions(run_fn *run, void *engine, const void *inputs, const void *outputs, int64_t rows,
                     const void *pool);

/* A few more than there are, always the same: those around the call. Negative where the call fails. */
int64_t instructions(run_fn *run, void *engine, const void *inputs, const void *outputs, int64_t rows,
                     const void *pool) {
    struct sigaction counting = {.sa_handler = count}, before;
    if (sigaction(SIGTRAP, &counting, &before))
        return -1;
    steps = 0;
    __asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq" ::: "memory", "cc"); /* the trap flag */
    int32_t failed = run(engine, inputs, outputs, rows, pool);
    __asm__ volatile("pushfq\n andq $~0x100, (%%rsp)\n popfq" ::: "memory", "cc");
    sigaction(SIGTRAP, &before, NULL);
    return failed ? -1 : steps;
}
