/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * A product's A, whose shards lie on all ranks. Each rank pushes its own shard into every peer's
 * staging, unit by unit, and raises the unit's flag there; who multiplies waits for the flags of
 * what it is about to read. Pushing takes one hop, needs no word from the receiver and lets the
 * shard be ordinary memory.
 *
 *   memory           written by        read by      ordered by
 *   staged shards    the shard's rank  this rank    UNIT flag per (rank, unit), system scope
 *   own staged shard this rank         this rank    the same, where the product cannot read the
 *                                                   shard itself (stages_own)
 *   staged scales    the shard's rank  this rank    the UNIT flags of the units that begin at
 *                                                   column 0; of float8 shards
 *   all of them      the ranks         this rank    DELIVERED, where nothing is multiplied
 *                                                   before all is there (waits_for_all)
 *
 * Flags and staging are those of the call's half. Every rank sends each peer at least one unit and
 * waits for all that it gets, so all have heard from all when the call ends, as NOTE [parity reuse]
 * of sync.h demands, and nobody else looks at its results: the call ends locally.
 *
 * Who sends waits for nothing. Work-groups that only send come first in the launch, so they are
 * running when others wait; the rest send all they owe before they wait.
 */
#ifndef IRIS_GATHERED_OPERAND_H
#define IRIS_GATHERED_OPERAND_H

#include "kernels/abi/schedule.h"
#include "kernels/base/tile.h"
#include "staging.h"
#include "sync.h"

namespace iris
{

template <typename T> class gathered_operand
{
  public:
    IRIS_INLINE gathered_operand(const iris_gather_args &args, const call_state &call)
        : args_(args), call_(call), layout_(args.layout), rank_(args.product.reduce.call.rank),
          world_(args.product.reduce.call.world_size)
    {
    }

    /* Whether rank `source`'s shard is read where it is, not in the staging. */
    IRIS_INLINE bool is_local(int32_t source) const
    {
        return source == rank_ && args_.stages_own == 0;
    }

    /* Rank `source`'s shard as this rank reads it. */
    IRIS_INLINE matrix<const T> shard(int32_t source) const
    {
        if (is_local(source))
            return as_matrix<const T>(args_.product.reduce.a);
        const matrix<T> staged = staged_shard(rank_, source);
        return {staged.data, staged.stride_row, staged.stride_col};
    }

    /* The scales of rank `source`'s float8 shard. */
    IRIS_INLINE iris_scale_args scales(int32_t source) const
    {
        iris_scale_args scales = args_.product.scaling.a;
        if (is_local(source))
            return scales;
        scales.address = reinterpret_cast<uint64_t>(staged_scales(rank_, source));
        scales.stride_mn = layout_.scale_cols;
        scales.stride_k = IRIS_SCALES_BY_BLOCKS(scales.kind) ? 1 : 0;
        scales.kind = IRIS_SCALES_BY_BLOCKS(scales.kind) ? IRIS_SCALE_LINE : IRIS_SCALE_ROW;
        return scales;
    }

    /* Sends every `senders`-th unit of this rank's shard, from the index-th < senders on; to be
     * called by the others too where the product waits for everything. */
    IRIS_INLINE void send(work_group wg, int32_t index, int32_t senders) const
    {
        const matrix<const T> own = as_matrix<const T>(args_.product.reduce.a);
        const int32_t targets = world_ - (args_.stages_own != 0 ? 0 : 1);
        IRIS_NO_UNROLL
        for (int64_t n = index < senders && targets > 0 ? index : layout_.units; n < layout_.units;
             n += senders) {
            const int64_t unit = iris_gather_unit_at(&layout_, n);
            const iris_tile_coord at = unit_at(unit);
            {
                const trace_span span(call_.args, is_leader(wg), IRIS_TRACE_FETCH, rank_, unit);
                copy_part(wg, at, own, targets,
                          [&](int32_t i) { return staged_shard((rank_ + 1 + i) % world_, rank_); });
                if constexpr (kHasScales)
                    if (at.col == 0)
                        send_scales(wg, at, targets);
            }
            signal_tiles(wg, call_, targets, [&](int32_t i) {
                return unit_flag{(rank_ + 1 + i) % world_, rank_ * layout_.units + unit};
            });
        }
        if (args_.waits_for_all != 0)
            deliver(wg, call_);
    }

    /* Stores the joined operand where it is wanted: every `groups`-th unit of all ranks, from the
     * index-th on, as they arrive. false: one did not. */
    IRIS_INLINE bool store_joined(work_group wg, int32_t index, int32_t groups) const
    {
        IRIS_NO_UNROLL
        for (int64_t n = index; args_.gathered.address != 0 && n < layout_.flags_count;
             n += groups) {
            /* This rank's own first. */
            const int32_t source = (int32_t)((rank_ + n / layout_.units) % world_);
            const int64_t unit = n % layout_.units;
            if (!is_local(source) &&
                !wait_tile(wg, call_, source * layout_.units + unit, reason(source, unit)))
                return false;
            const trace_span span(call_.args, is_leader(wg), IRIS_TRACE_FETCH, source, unit);
            copy_part(wg, unit_at(unit), shard(source), 1, [&](int32_t) {
                return as_matrix<T>(args_.gathered)
                    .tile(source * args_.schedule.share_m, source * args_.share_k);
            });
        }
        return true;
    }

    /* One thread's: waits for the unit of rank `source`'s shard that holds (row, k). */
    IRIS_INLINE bool wait_for_unit(int32_t source, int64_t row, int64_t k) const
    {
        const int64_t unit = unit_of(row, k);
        return wait_for_tile(call_, source * layout_.units + unit, reason(source, unit));
    }

    /* The flag that it waits for. */
    IRIS_INLINE const uint32_t *flag_of(int32_t source, int64_t row, int64_t k) const
    {
        return tile_flag(call_, rank_, source * layout_.units + unit_of(row, k));
    }

    /* One of `threads` threads': together they wait for everything. */
    IRIS_INLINE bool wait_for_all(int32_t thread, int32_t threads) const
    {
        bool arrived = true;
        IRIS_NO_UNROLL
        for (int32_t hop = 1 + thread; arrived && hop < world_; hop += threads) {
            const int32_t peer = (rank_ + hop) % world_;
            arrived = wait_for_peer(call_, &call_.control->delivered[peer].value,
                                    {IRIS_SIGNAL_DELIVERED, peer, -1});
        }
        IRIS_NO_UNROLL
        for (int64_t unit = thread; arrived && args_.stages_own != 0 && unit < layout_.units;
             unit += threads)
            arrived = wait_for_tile(call_, rank_ * layout_.units + unit, reason(rank_, unit));
        return arrived;
    }

  private:
    static constexpr bool kHasScales = is_float8<T>::value;

    struct unit_flag {
        int32_t rank;
        int64_t flag;
    };

    IRIS_INLINE int64_t unit_of(int64_t row, int64_t k) const
    {
        return row / layout_.unit_rows * layout_.units_k + k / layout_.unit_cols;
    }

    static IRIS_INLINE wait_reason reason(int32_t source, int64_t unit)
    {
        return {IRIS_SIGNAL_UNIT, source, (int32_t)unit};
    }

    /* The unit's place in its shard. */
    IRIS_INLINE iris_tile_coord unit_at(int64_t unit) const
    {
        iris_tile_coord at;
        at.row = unit / layout_.units_k * layout_.unit_rows;
        at.col = unit % layout_.units_k * layout_.unit_cols;
        const int64_t rows = layout_.rows - at.row, cols = layout_.cols - at.col;
        at.rows = (int32_t)(rows < layout_.unit_rows ? rows : layout_.unit_rows);
        at.cols = (int32_t)(cols < layout_.unit_cols ? cols : layout_.unit_cols);
        return at;
    }

    /* Which of the staged shards of rank `at` is rank `source`'s. */
    IRIS_INLINE int32_t place_of(int32_t at, int32_t source) const
    {
#if defined(IRIS_GPU)
        (void)at;
        return source; /* GPUs have no scalar registers left for skips_own */
#else
        return source - (layout_.skips_own != 0 && source > at ? 1 : 0);
#endif
    }

    /* Rank `source`'s scales in the staging of rank `at`. */
    IRIS_INLINE float *staged_scales(int32_t at, int32_t source) const
    {
        return staged<float>(args_.product.reduce.call, call_.half, at, layout_.scales_offset,
                             place_of(at, source), layout_.scales_step);
    }

    /* Those of this rank's rows, to `targets` others: whatever it has, as many for each row. */
    IRIS_INLINE void send_scales(work_group wg, const iris_tile_coord &at, int32_t targets) const
    {
        const iris_scale_args &own = args_.product.scaling.a;
        const int64_t first = at.row * layout_.scale_cols;
        const int64_t count = (int64_t)at.rows * layout_.scale_cols;
        IRIS_NO_UNROLL
        for (int64_t n = first + wg.thread; n < first + count; n += wg.threads) {
            const float value = *scale_address(own, n / layout_.scale_cols, n % layout_.scale_cols);
            IRIS_NO_UNROLL
            for (int32_t i = 0; i < targets; ++i)
                push(staged_scales((rank_ + 1 + i) % world_, rank_) + n, value);
        }
    }

    /* Rank `source`'s shard in the staging of rank `at`. */
    IRIS_INLINE matrix<T> staged_shard(int32_t at, int32_t source) const
    {
        const iris_call_args &call = args_.product.reduce.call;
        T *data = staged<T>(call, call_.half, at, 0, place_of(at, source), layout_.shard_step);
        return args_.m_contiguous != 0 ? matrix<T>{data, 1, layout_.pitch}
                                       : matrix<T>{data, layout_.pitch, 1};
    }

    /* Copies a part of a shard into `count` others, in the runs of the staging. */
    template <class Target>
    IRIS_INLINE void copy_part(work_group wg, const iris_tile_coord &at,
                               const matrix<const T> &source, int32_t count, Target target) const
    {
        const bool by_m = args_.m_contiguous != 0;
        const matrix<const T> from = source.tile(at.row, at.col);
        copy_runs(wg, by_m ? extent{at.cols, at.rows} : extent{at.rows, at.cols},
                  by_m ? transposed(from) : from, count, [&](int32_t i) {
                      const matrix<T> to = target(i).tile(at.row, at.col);
                      return by_m ? transposed(to) : to;
                  });
    }

    template <typename U> static IRIS_INLINE matrix<U> transposed(const matrix<U> &m)
    {
        return {m.data, m.stride_col, m.stride_row};
    }

    const iris_gather_args &args_;
    const call_state &call_;
    const iris_gather_layout &layout_;
    const int32_t rank_, world_;
};

} // namespace iris

#endif
