/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What a kernel does when, recorded by itself: a `trace_span` lives from the beginning of something
 * to its end and then leaves a record in the rank's trace. Only kernels compiled with IRIS_TRACED
 * do: code objects and functions of their own, launched for calls with trace=True. In all others a
 * span is nothing.
 *
 * Records of all work-groups share one array and one counter. That the launch has ended orders them
 * before whoever reads them.
 */
#ifndef IRIS_TRACE_H
#define IRIS_TRACE_H

#include "kernels/abi/launch_limits.h"
#include "kernels/base/kernel.h"

namespace iris
{

#if defined(IRIS_TRACED)

#if !defined(IRIS_GPU)
/* The work-group that this thread runs. */
inline thread_local int32_t traced_group;
#endif

IRIS_INLINE int32_t traced_index()
{
#if defined(IRIS_GPU)
    return block_index();
#else
    return traced_group;
#endif
}

class trace_span
{
  public:
    /* By one thread: the one where `records` holds. */
    IRIS_INLINE trace_span(const iris_call_args &args, bool records, iris_trace_kind kind,
                           int32_t rank, int64_t index)
        : args_(args), begin_(records ? clock_ticks() : 0), index_((int32_t)index), rank_(rank),
          kind_(kind)
    {
    }

    trace_span(const trace_span &) = delete;

    IRIS_INLINE ~trace_span()
    {
        iris_trace *trace = device_pointer<iris_trace>(args_.trace);
        if (begin_ == 0)
            return;
        const uint64_t end = clock_ticks();
        const uint32_t place = count_in_relaxed(&trace->count) - 1;
        if (place >= trace->capacity)
            return;
        iris_trace_record *record = reinterpret_cast<iris_trace_record *>(trace + 1) + place;
        record->begin = begin_;
        record->end = end;
        record->what = (uint32_t)kind_ | (uint32_t)traced_role() << 8 | args_.operation << 16;
        record->where = (uint32_t)traced_index() | (uint32_t)rank_ << 16;
        record->index = index_;
        record->call = args_.traced_call;
    }

  private:
    const iris_call_args &args_;
    const uint64_t begin_; /* 0: not this thread */
    const int32_t index_, rank_;
    const iris_trace_kind kind_;
};

#else

class trace_span
{
  public:
    IRIS_INLINE trace_span(const iris_call_args &, bool, iris_trace_kind, int32_t, int64_t)
    {
    }

    IRIS_INLINE ~trace_span()
    {
    }
};

#endif

} // namespace iris

#endif
