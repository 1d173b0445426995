/* Memory between two pages that nobody may touch, for a kernels.so that is built with
 *     -Dmalloc=guarded_malloc -Dcalloc=guarded_calloc -Daligned_alloc=guarded_aligned_alloc -Dfree=guarded_free
 *     -DSLOT_BYTES=..., a multiple of pages
 * A block begins at the page before it, or ends at the page behind it: see sparsecc_guard_end. What is as long as some
 * slots is an arena of test_bounds.py, the last page of each slot lies between two buffers, and is guarded on request:
 * the runtime writes zeros to the whole arena first. */
#undef malloc
#undef calloc
#undef aligned_alloc
#undef free
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

struct block {
    uint64_t bytes; /* of the whole mapping: this page, a guard, the pages of the block, a guard */
    struct block *next;
};

static _Atomic(struct block *) arenas;

__attribute__((visibility("default"))) int sparsecc_guard_end = 1;
__attribute__((visibility("default"))) void sparsecc_guard_gaps(void);

void *guarded_malloc(uint64_t bytes);
void *guarded_calloc(uint64_t count, uint64_t bytes);
void *guarded_aligned_alloc(uint64_t alignment, uint64_t bytes);
void guarded_free(void *address);

void *guarded_aligned_alloc(uint64_t alignment, uint64_t bytes) {
    bytes = (bytes + alignment - 1) / alignment * alignment;
    uint64_t inside = (bytes + PAGE - 1) / PAGE * PAGE, all = inside + 3 * PAGE;
    char *pages = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE) || mprotect(pages + all - PAGE, PAGE, PROT_NONE))
        return NULL;
    struct block *block = (struct block *)pages;
    block->bytes = all;
    if (bytes > 0 && bytes % SLOT_BYTES == 0)
        block->next = atomic_exchange(&arenas, block);
    return pages + 2 * PAGE + (sparsecc_guard_end ? inside - bytes : 0);
}

void *guarded_malloc(uint64_t bytes) { return guarded_aligned_alloc(16, bytes); }
void *guarded_calloc(uint64_t count, uint64_t bytes) { return guarded_malloc(count * bytes); }

void guarded_free(void *address) {
    if (address == NULL)
        return;
    struct block *block = (struct block *)((uintptr_t)address / PAGE * PAGE - 2 * PAGE);
    munmap(block, block->bytes);
}

/* Guard the last page of every slot of all arenas made since the last call. To be called before any of them is freed. */
void sparsecc_guard_gaps(void) {
    for (struct block *block = atomic_exchange(&arenas, NULL); block != NULL; block = block->next)
        for (uint64_t end = SLOT_BYTES; end <= block->bytes - 3 * PAGE; end += SLOT_BYTES)
            mprotect((char *)block + 2 * PAGE + end - PAGE, PAGE, PROT_NONE);
}
