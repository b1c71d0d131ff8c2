/* Votes, matrix products, loads of matrices and background copies of the emulated warp; see collectives.h. */
#include "emu/collectives.h"

namespace pxr_emu
{

struct Vote {
    bool predicate;
    unsigned result;
};

PXR_EMU_UNCHECKED static void run_ballot(unsigned mask, void **arguments)
{
    unsigned bits = 0;
    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1) bits |= (unsigned)((Vote *)arguments[l])->predicate << l;
    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1) ((Vote *)arguments[l])->result = bits;
}

unsigned ballot(unsigned mask, bool predicate, Site site)
{
    Vote vote = {predicate, 0};
    meet(mask, run_ballot, &vote, site);
    return vote.result;
}

/* ---- matrices -------------------------------------------------------------------------------------------------- */

struct Product {
    float *d;
    const uint32_t *a, *b;
    int k;
};

PXR_EMU_UNCHECKED static float widened(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } wide = {bits << 16};
    return wide.value;
}

PXR_EMU_UNCHECKED static void run_product(unsigned, void **arguments)
{
    float a[16][16], b[16][8], d[16][8];
    const int k = ((Product *)arguments[0])->k;
    for (int l = 0; l < WARP; l++) {
        const Product *p = (Product *)arguments[l];
        const int r = l / 4, c = l % 4 * 2;
        for (int i = 0; i < k / 4; i++) {
            const int row = r + i % 2 * 8, column = c + i / 2 * 8;
            a[row][column] = widened(p->a[i] & 0xffff);
            a[row][column + 1] = widened(p->a[i] >> 16);
        }
        for (int i = 0; i < k / 8; i++) {
            b[c + i * 8][r] = widened(p->b[i] & 0xffff);
            b[c + i * 8 + 1][r] = widened(p->b[i] >> 16);
        }
        for (int i = 0; i < 4; i++) d[r + i / 2 * 8][c + i % 2] = p->d[i];
    }
    for (int i = 0; i < 16; i++)
        for (int q = 0; q < k; q++)
            for (int j = 0; j < 8; j++) d[i][j] += a[i][q] * b[q][j];
    for (int l = 0; l < WARP; l++) {
        const Product *p = (Product *)arguments[l];
        for (int i = 0; i < 4; i++) p->d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
    }
}

void matrix_product(float *d, const uint32_t *a, const uint32_t *b, int k, Site site)
{
    Product product = {d, a, b, k};
    meet(FULL, run_product, &product, site);
}

struct Matrices {
    uint16_t row[8]; /* the row that this lane gives */
    uint32_t *result;
    int count;
    bool transposed;
};

PXR_EMU_UNCHECKED static void run_matrices(unsigned, void **arguments)
{
    for (int l = 0; l < WARP; l++) {
        Matrices *own = (Matrices *)arguments[l];
        const int r = l / 4, c = l % 4 * 2;
        for (int i = 0; i < own->count; i++) {
            const Matrices *rows[8];
            for (int k = 0; k < 8; k++) rows[k] = (Matrices *)arguments[8 * i + k];
            const uint32_t low = own->transposed ? rows[c]->row[r] : rows[r]->row[c];
            const uint32_t high = own->transposed ? rows[c + 1]->row[r] : rows[r]->row[c + 1];
            own->result[i] = low | high << 16;
        }
    }
}

/* A lane reads its row itself, so that the sanitizers see who reads what. */
void load_matrices(uint32_t *r, const void *row, int count, bool transposed, Site site)
{
    Matrices matrices = {{}, r, count, transposed};
    if (machine.current->lane < 8 * count) {
        if ((uintptr_t)row % 16) fault(site, "ldmatrix: a row at %p is not 16-byte aligned", row);
        for (int i = 0; i < 8; i++) matrices.row[i] = ((const uint16_t *)row)[i];
    }
    meet(FULL, run_matrices, &matrices, site);
}

/* ---- copies in the background ---------------------------------------------------------------------------------- */

void async_copy(void *shared, const void *global, bool valid, Site site)
{
    if (((uintptr_t)shared | (uintptr_t)global) % 16)
        fault(site, "cp_async16: %p or %p is not 16-byte aligned", shared, global);
    Fiber *self = machine.current;
    const uint4 value = valid ? *(const uint4 *)global : make_uint4(0, 0, 0, 0);
    self->copies.push_back({(uint4 *)shared, value, self->group});
    *(uint4 *)shared = make_uint4(~0u, ~0u, ~0u, ~0u);
}

void async_wait(int pending_groups)
{
    Fiber *self = machine.current;
    size_t kept = 0;
    for (const AsyncCopy &copy : self->copies) {
        if (copy.group < self->group - pending_groups)
            *copy.to = copy.value;
        else
            self->copies[kept++] = copy;
    }
    self->copies.resize(kept);
}

} /* namespace pxr_emu */
