/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A matrix copied within a rank, from any strides to any: what a product in the form "plain" does
 * where a caller's operand or result is not as its collective wants it. One work-group copies a
 * row at a time. Reads and writes what launches of the same stream have written and will read.
 */
#include "kernels/abi/instances.h"
#include "kernels/base/kernel.h"

namespace iris
{

template <typename Word>
IRIS_INLINE void copy_words(work_group wg, const iris_copy_matrix_args &args)
{
    const matrix<const Word> source = as_matrix<const Word>(args.source);
    const matrix<Word> target = as_matrix<Word>(args.target);
    IRIS_NO_UNROLL
    for (int64_t row = wg.index; row < args.M; row += wg.count) {
        const Word *from = source.data + row * source.stride_row;
        Word *to = target.data + row * target.stride_row;
        IRIS_NO_UNROLL
        for (int64_t col = wg.thread; col < args.N; col += wg.threads)
            to[col * target.stride_col] = from[col * source.stride_col];
    }
}

IRIS_INLINE void copy_matrix(work_group wg, const iris_copy_matrix_args &args)
{
    if (args.element_nbytes == 2)
        copy_words<uint16_t>(wg, args);
    else
        copy_words<uint32_t>(wg, args);
}

} // namespace iris
