/* The inside of a polygon, bit for bit as pycocotools (rleFrPoly in common/maskApi.c).
 *
 * The outline is walked on a grid five times as fine. Where it steps from one fine column to the next, and that step is
 * the middle of a pixel's column, it crosses that column at some height; the crossings, sorted along the columns, are
 * where runs begin and end.
 */
#include "core/memory.h"
#include "media/limits.h"
#include "media/mask.h"

#include <math.h>
#include <stdlib.h>

enum { FINE = 5 /* fine steps a pixel */, MAX_STEPS = 1 << 28, MAX_COORDINATE = 1000000 };

typedef struct walk {
    int64_t height, width;
    int u, v;           /* the last fine point */
    bool started;       /* there is a last point */
    uint32_t *crossing; /* positions along the columns */
    size_t count, capacity;
    bool failed; /* no memory */
} walk;

/* Goes on to the fine point (u, v). */
static void step(walk *w, int u, int v)
{
    const int last_u = w->u, last_v = w->v;
    const bool crossed = w->started && u != last_u;
    w->u = u, w->v = v, w->started = true;
    if (!crossed) return;
    const double x = ((double)(u < last_u ? u : u - 1) + 0.5) / FINE - 0.5;
    if (floor(x) != x || x < 0 || x > (double)(w->width - 1)) return;
    double y = ((double)(v < last_v ? v : last_v) + 0.5) / FINE - 0.5;
    if (y < 0)
        y = 0;
    else if (y > (double)w->height)
        y = (double)w->height;
    void *crossing = w->crossing;
    if (!pxr_grow(&crossing, &w->capacity, w->count + 1, sizeof *w->crossing)) {
        w->failed = true;
        return;
    }
    w->crossing = crossing;
    w->crossing[w->count++] = (uint32_t)((int64_t)x * w->height + (int64_t)ceil(y));
}

/* Walks one edge, both ends included. Rounding is by truncation of value + 0.5, as there, also below zero. */
static void walk_edge(walk *w, int from_x, int from_y, int to_x, int to_y)
{
    const int dx = abs(to_x - from_x), dy = abs(to_y - from_y), steps = dx >= dy ? dx : dy;
    const bool flip = dx >= dy ? from_x > to_x : from_y > to_y; /* slopes are taken in the growing direction */
    const int x0 = flip ? to_x : from_x, y0 = flip ? to_y : from_y;
    const int x1 = flip ? from_x : to_x, y1 = flip ? from_y : to_y;
    if (steps == 0) {
        step(w, x0, y0);
        return;
    }
    const double slope = dx >= dy ? (double)(y1 - y0) / dx : (double)(x1 - x0) / dy;
    for (int d = 0; d <= steps && !w->failed; d++) {
        const int t = flip ? steps - d : d;
        if (dx >= dy)
            step(w, t + x0, (int)(y0 + slope * t + 0.5));
        else
            step(w, (int)(x0 + slope * t + 0.5), t + y0);
    }
}

static int compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int fine(double coordinate)
{
    return (int)(FINE * coordinate + 0.5);
}

static pxr_status check_points(const double *xy, size_t points, pxr_error *error)
{
    if (points < 3)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a polygon of %zu points has no inside, expected at least 3",
                        points);
    int64_t steps = 0;
    for (size_t i = 0; i < 2 * points; i++)
        if (!(fabs(xy[i]) <= MAX_COORDINATE))
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s %zu of a polygon is %g, expected a number within %d",
                            i % 2 ? "y" : "x", i / 2 + 1, xy[i], MAX_COORDINATE);
    for (size_t i = 0; i < points && steps <= MAX_STEPS; i++) {
        const size_t next = (i + 1) % points;
        const int dx = abs(fine(xy[2 * i]) - fine(xy[2 * next]));
        const int dy = abs(fine(xy[2 * i + 1]) - fine(xy[2 * next + 1]));
        steps += (dx > dy ? dx : dy) + 1;
    }
    if (steps > MAX_STEPS)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a polygon's outline is longer than %d pixels", MAX_STEPS / FINE);
    return PXR_OK;
}

/* Sorted crossings (the mask's end included) to runs; two equal crossings cancel and join the runs around them. */
static bool make_runs(pxr_rle *rle, const uint32_t *crossing, size_t count)
{
    rle->counts = pxr_malloc(count * sizeof *rle->counts);
    if (!rle->counts) return false;
    rle->capacity = count;
    rle->counts[rle->count++] = crossing[0];
    for (size_t i = 1; i < count; i++) {
        const uint32_t run = crossing[i] - crossing[i - 1];
        if (run > 0)
            rle->counts[rle->count++] = run;
        else if (++i < count)
            rle->counts[rle->count - 1] += crossing[i] - crossing[i - 1];
    }
    return true;
}

pxr_status pxr_rle_from_polygon(pxr_rle *rle, const double *xy, size_t points, int64_t height, int64_t width,
                                pxr_error *error)
{
    *rle = (pxr_rle){.height = height, .width = width};
    pxr_status status = pxr_check_picture_size(height, width, "a mask", error);
    if (status == PXR_OK) status = check_points(xy, points, error);
    if (status != PXR_OK) return status;

    walk w = {.height = height, .width = width};
    for (size_t i = 0; i < points; i++) {
        const size_t next = (i + 1) % points;
        walk_edge(&w, fine(xy[2 * i]), fine(xy[2 * i + 1]), fine(xy[2 * next]), fine(xy[2 * next + 1]));
    }
    void *crossing = w.crossing;
    if (!w.failed && pxr_grow(&crossing, &w.capacity, w.count + 1, sizeof *w.crossing)) {
        w.crossing = crossing;
        w.crossing[w.count++] = (uint32_t)(height * width);
        qsort(w.crossing, w.count, sizeof *w.crossing, compare);
        w.failed = !make_runs(rle, w.crossing, w.count);
    } else {
        w.failed = true;
    }
    pxr_free(w.crossing);
    if (!w.failed) return PXR_OK;
    pxr_rle_free(rle);
    return pxr_fail_memory(error, (w.count + 1) * sizeof *rle->counts, "the outline of a polygon");
}
