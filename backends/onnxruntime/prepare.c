/* Tables made once from a weight's constant inputs, which are checked first. Needs only libc. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

/* As in kernels/spec.py: rows of a group and columns of a window. */
enum { SELL_ROWS = 16, SELL_WINDOW = 32 };

/* Of a dense weight, `starts` and `columns` are NULL; `values` only where the table holds some. */
struct weight {
    const int32_t *starts;
    const void *columns;
    const float *values;
};

static int32_t load_index(const void *table, int64_t i, int32_t bytes) {
    return bytes == 2 ? ((const uint16_t *)table)[i] : ((const int32_t *)table)[i];
}

static void store_index(void *table, int64_t i, int32_t bytes, int32_t index) {
    if (bytes == 2)
        ((uint16_t *)table)[i] = (uint16_t)index;
    else
        ((int32_t *)table)[i] = index;
}

static int32_t mapped(const struct prepare *p, int32_t column) {
    int32_t kx = column % p->kernel_width, ky = column / p->kernel_width % p->kernel_height;
    return column / p->kernel_width / p->kernel_height * p->channel_step + p->row_steps[ky] + p->column_steps[kx];
}

static bool in_place(const struct prepare *p) {
    if (p->layout != LAYOUT_STORED || p->columns < 0 || p->block_cols != 1 || p->index_bytes != p->stored_index_bytes)
        return false;
    for (int32_t column = 0; column < p->cols; column++)
        if (mapped(p, column) != column)
            return false;
    return true;
}

static int32_t ceil_divide(int32_t a, int32_t b) { return (a + b - 1) / b; }

static int64_t slices_of(const struct prepare *p) {
    return ceil_divide(ceil_divide(p->cols, p->block_cols), p->slice_blocks);
}

/* ---- checks ------------------------------------------------------------------------------------------------- */

/* Kernels trust indices, and an artifact may have been tampered with: every one is checked here. */
static bool check_rows(const struct prepare *p, const int32_t *starts, const char *name, struct message *message) {
    int32_t grid_rows = ceil_divide(p->rows, p->block_rows);
    if (starts[0] != 0 || starts[grid_rows] != p->blocks)
        return sparsecc_fail(message, "input '%s' runs from %d to %d, expected 0 to %d: the artifact is damaged", name,
                             (int)starts[0], (int)starts[grid_rows], (int)p->blocks);
    for (int32_t row = 0; row < grid_rows; row++)
        if (starts[row] > starts[row + 1])
            return sparsecc_fail(message, "input '%s' falls from %d to %d at row %d: the artifact is damaged", name,
                                 (int)starts[row], (int)starts[row + 1], (int)row);
    return true;
}

static bool check_columns(const struct prepare *p, const void *columns, const char *name, struct message *message) {
    int32_t grid_cols = ceil_divide(p->cols, p->block_cols);
    for (int32_t block = 0; block < p->blocks; block++) {
        int32_t column = load_index(columns, block, p->stored_index_bytes);
        if (column < 0 || column >= grid_cols)
            return sparsecc_fail(message,
                                 "input '%s' holds column %d at %d, expected 0 to %d: the artifact is damaged", name,
                                 (int)column, (int)block, (int)grid_cols - 1);
    }
    return true;
}

/* ---- tables ------------------------------------------------------------------------------------------------- */

static void *zeros(int64_t bytes) {
    size_t whole_lines = ((size_t)bytes + 63) / 64 * 64 + 64;
    void *table = aligned_alloc(64, whole_lines);
    return table == NULL ? NULL : memset(table, 0, whole_lines);
}

/* `order`: the stored block at each place of the table, NULL for as they are stored. */
static void *cols_table(const struct prepare *p, const void *columns, const int32_t *order) {
    int64_t blocks = columns != NULL ? p->blocks : p->cols;
    void *table = zeros(blocks * p->block_cols * p->index_bytes);
    for (int64_t block = 0; table != NULL && block < blocks; block++) {
        int64_t from = order == NULL ? block : order[block];
        int32_t first = columns == NULL ? (int32_t)block : load_index(columns, from, p->stored_index_bytes);
        for (int32_t i = 0; i < p->block_cols; i++) {
            int32_t column = first * p->block_cols + i; /* beyond the matrix its values are 0: any column will do */
            store_index(table, block * p->block_cols + i, p->index_bytes,
                        mapped(p, column < p->cols ? column : p->cols - 1));
        }
    }
    return table;
}

static void *values_table(const struct prepare *p, const float *values, const int32_t *order) {
    int64_t elems = (int64_t)p->block_rows * p->block_cols;
    float *table = zeros(p->blocks * elems * (int64_t)sizeof *table);
    for (int64_t block = 0; table != NULL && block < p->blocks; block++)
        memcpy(table + block * elems, values + order[block] * elems, (size_t)elems * sizeof *table);
    return table;
}

/* A block row in a slice. */
struct part {
    int32_t blocks, row;
};

static int by_blocks(const void *left, const void *right) {
    const struct part *a = left, *b = right;
    int32_t blocks = a->blocks - b->blocks;
    return blocks != 0 ? blocks : a->row - b->row;
}

/* The blocks of a row, from `first` on, that belong to a slice or to one before it; to the last one all do. */
static int32_t blocks_of(const struct prepare *p, const struct weight *w, int32_t row, int32_t first, int32_t slice) {
    int32_t end = first;
    int64_t beyond = slice == slices_of(p) - 1 ? INT64_MAX : (int64_t)(slice + 1) * p->slice_blocks;
    while (end < w->starts[row + 1] && load_index(w->columns, end, p->stored_index_bytes) < beyond)
        end++;
    return end - first;
}

/* Where each stored block of a sliced matrix comes from; where each part begins, and which block row it is. Whatever the
 * columns are, each block is taken once. The rows of a chunk are sorted, so that the CPU foresees where most loops over
 * blocks end. */
static void slice(const struct prepare *p, const struct weight *w, int32_t *next, struct part *parts, int32_t *order,
                  int32_t *rows) {
    int32_t grid_rows = ceil_divide(p->rows, p->block_rows), placed = 0;
    int32_t *row_of = rows + (int64_t)slices_of(p) * grid_rows + 1;
    memcpy(next, w->starts, (size_t)grid_rows * sizeof *next);
    for (int32_t slice = 0; slice < slices_of(p); slice++) {
        for (int32_t row = 0; row < grid_rows; row++)
            parts[row] = (struct part){blocks_of(p, w, row, next[row], slice), row};
        for (int64_t chunk = 0; chunk < p->chunks; chunk++) {
            int64_t begin = chunk * grid_rows / p->chunks, end = (chunk + 1) * grid_rows / p->chunks;
            qsort(parts + begin, (size_t)(end - begin), sizeof *parts, by_blocks);
        }
        for (int32_t place = 0; place < grid_rows; place++) {
            *rows++ = placed;
            *row_of++ = parts[place].row;
            for (int32_t block = 0; block < parts[place].blocks; block++)
                order[placed++] = next[parts[place].row]++;
        }
    }
    *rows = placed;
}

static void *sliced_table(const struct prepare *p, const struct weight *w) {
    int64_t grid_rows = ceil_divide(p->rows, p->block_rows);
    int32_t *rows = zeros((2 * slices_of(p) * grid_rows + 1) * (int64_t)sizeof *rows), *order = zeros(p->blocks * 4LL);
    int32_t *next = zeros(grid_rows * (int64_t)sizeof *next);
    struct part *parts = zeros(grid_rows * (int64_t)sizeof *parts);
    void *table = NULL;
    if (rows != NULL && order != NULL && next != NULL && parts != NULL) {
        slice(p, w, next, parts, order, rows);
        table = p->table == TABLE_ROWS     ? rows
                : p->table == TABLE_VALUES ? values_table(p, w->values, order)
                                           : cols_table(p, w->columns, order);
    }
    free(parts);
    free(next);
    free(order);
    if (table != rows)
        free(rows);
    return table;
}

/* Steps of sliced ELLPACK. A step's window begins at the first column that any row of the group needs next, rounded down
 * to a cache line of x; each row gives its next non-zero if that is in the window. Tables that are NULL are not written;
 * `cols` and `values` start as zeros. */
static int64_t sell(const struct prepare *p, const struct weight *w, int32_t *rows, uint8_t *cols, float *values) {
    int32_t groups = ceil_divide(p->rows, SELL_ROWS);
    int64_t step = 0;
    for (int32_t group = 0; group < groups; group++) {
        int32_t next[SELL_ROWS], count = p->rows - group * SELL_ROWS < SELL_ROWS ? p->rows - group * SELL_ROWS : SELL_ROWS;
        const int32_t *starts = w->starts + group * SELL_ROWS;
        memcpy(next, starts, (size_t)count * sizeof *next);
        if (rows != NULL)
            rows[group] = (int32_t)step;
        for (;; step++) {
            int32_t window = p->cols;
            for (int32_t row = 0; row < count; row++) {
                int32_t column = next[row] < starts[row + 1] ? load_index(w->columns, next[row], p->stored_index_bytes) : p->cols;
                window = column < window ? column : window;
            }
            if (window == p->cols)
                break;
            window -= window % 16;
            window = window < p->cols - SELL_WINDOW ? window : p->cols - SELL_WINDOW;
            if (rows != NULL)
                rows[groups + 1 + step] = window;
            for (int32_t row = 0; row < count; row++) {
                if (next[row] == starts[row + 1])
                    continue;
                int32_t place = load_index(w->columns, next[row], p->stored_index_bytes) - window;
                if (place >= SELL_WINDOW)
                    continue;
                if (cols != NULL)
                    cols[step * SELL_ROWS + row] = (uint8_t)place;
                if (values != NULL)
                    values[step * SELL_ROWS + row] = w->values[next[row]];
                next[row]++;
            }
        }
    }
    if (rows != NULL)
        rows[groups] = (int32_t)step;
    return step;
}

static void *sell_table(const struct prepare *p, const struct weight *w) {
    int64_t steps = sell(p, w, NULL, NULL, NULL), groups = ceil_divide(p->rows, SELL_ROWS);
    int64_t bytes[] = {[TABLE_COLS] = steps * SELL_ROWS,
                       [TABLE_ROWS] = (groups + 1 + steps) * (int64_t)sizeof(int32_t),
                       [TABLE_VALUES] = steps * SELL_ROWS * (int64_t)sizeof(float)};
    void *table = zeros(bytes[p->table]);
    if (table != NULL)
        sell(p, w, p->table == TABLE_ROWS ? table : NULL, p->table == TABLE_COLS ? table : NULL,
             p->table == TABLE_VALUES ? table : NULL);
    return table;
}

bool sparsecc_prepare(const struct prepare *p, const struct input *inputs, const void *const *constants,
                      const void **table, void **owned, struct message *message) {
    struct weight w = {p->row_starts < 0 ? NULL : constants[p->row_starts], p->columns < 0 ? NULL : constants[p->columns],
                       p->values < 0 ? NULL : constants[p->values]};
    if (w.columns != NULL && (!check_rows(p, w.starts, inputs[p->row_starts].name, message) ||
                              !check_columns(p, w.columns, inputs[p->columns].name, message)))
        return false;
    if (in_place(p)) {
        *table = w.columns;
        return true;
    }
    *table = *owned = p->layout == LAYOUT_SELL     ? sell_table(p, &w)
                      : p->layout == LAYOUT_SLICED ? sliced_table(p, &w)
                                                   : cols_table(p, w.columns, NULL);
    return *table != NULL || sparsecc_fail(message, "out of memory");
}
