/* Borrowed views of activations: no counting, they end with what they look at. */
#ifndef PXR_MODEL_VIEWS_H
#define PXR_MODEL_VIEWS_H

#include "core/tensor.h"

/** Rows begin .. begin+count-1 of the first dim. */
static inline pxr_tensor pxr_rows(const pxr_tensor *x, int64_t begin, int64_t count)
{
    pxr_tensor rows = *x;
    rows.data = (char *)x->data + begin * x->stride[0] * (int64_t)pxr_dtype_size(x->dtype);
    rows.size[0] = count;
    return rows;
}

/** Columns begin .. begin+count-1 of [rows,width]. */
static inline pxr_tensor pxr_columns(const pxr_tensor *x, int64_t begin, int64_t count)
{
    pxr_tensor columns = *x;
    columns.data = (char *)x->data + begin * x->stride[1] * (int64_t)pxr_dtype_size(x->dtype);
    columns.size[1] = count;
    return columns;
}

/** [rows,heads*head_dim] seen as [rows,heads,head_dim]. */
static inline pxr_tensor pxr_heads(const pxr_tensor *x, int64_t heads)
{
    pxr_tensor view = *x;
    view.rank = 3;
    view.size[1] = heads;
    view.size[2] = x->size[1] / heads;
    view.stride[1] = view.size[2];
    view.stride[2] = 1;
    return view;
}

#endif
