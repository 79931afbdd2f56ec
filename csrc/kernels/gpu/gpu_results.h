/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What all variants of the reduction over ranks on a GPU share: which tiles there are, where they
 * are staged, and where finished chunks go: to this rank's output, to all outputs, or to one
 * rank's, in the heap or by way of the result staging.
 */
#ifndef IRIS_GPU_RESULTS_H
#define IRIS_GPU_RESULTS_H

#include "gpu_geometry.h"
#include "kernels/abi/schedule.h"
#include "kernels/protocol/staging.h"
#include "kernels/protocol/sync.h"
#include "tile_gpu.h"

namespace iris
{

template <typename T, iris_variant kVariant, class Geometry, result kResult> class gpu_results
{
  public:
    static constexpr bool kScatters = kResult == result::scattered;
    static constexpr bool kGathers = kResult == result::gathered;
    static constexpr bool kHasShares = kScatters || kGathers;

    IRIS_INLINE gpu_results(work_group wg, const iris_reduce_args &args, const call_state &call,
                            reduction_shared *shared)
        : wg_(wg), args_(args), call_(call), geometry_(args), shared_(shared),
          schedule_(to_vector_registers(gpu_schedule<kResult>(args))),
          layout_(to_vector_registers(iris_reduce_layout_make(
              &schedule_, kScatters, kGathers, kVariant, sizeof(T), Geometry::kParts))),
          rank_(args.call.rank), world_(args.call.world_size)
    {
    }

    IRIS_INLINE int64_t tiles() const
    {
        return uniform(gpu_tiles<kResult>(&schedule_));
    }

    IRIS_INLINE int32_t ranks() const
    {
        return (int32_t)uniform(world_);
    }

    IRIS_INLINE iris_tile_coord coord(int64_t tile) const
    {
        return gpu_tile_coord<kResult>(&schedule_, args_, tile);
    }

    IRIS_INLINE const Geometry &geometry() const
    {
        return geometry_;
    }

    /* Waits for the peers' arrival and looks up where they want their results. */
    IRIS_INLINE bool open_results()
    {
        if (kScatters || kVariant == IRIS_VARIANT_ONE_SHOT)
            return true;
        if (!wait_all_peers(wg_, call_, call_.control->arrived, IRIS_SIGNAL_ARRIVED))
            return false;
        if (wg_.thread < world_) {
            const int32_t target = wg_.thread;
            const iris_record &record = call_.control->records[call_.half][target];
            const bool staged = target != rank_ && record.output_offset == IRIS_STAGED;
            result_place place = {args_.output.address, args_.output.stride_row,
                                  args_.output.stride_col, staged, 0};
            if (staged)
                place.address = (uint64_t)slot(target, layout_.results_offset, 0);
            else if (target != rank_)
                place = {args_.call.heap_bases[target] + record.output_offset, record.stride_row,
                         record.stride_col, 0, 0};
            place.vector = has_vector_rows<T>(place.address, place.stride_row, place.stride_col);
            shared_->places[target] = place;
        }
        group_barrier(wg_);
        if (is_leader(wg_)) {
            bool uniform = true;
            for (int32_t target = 0; target < world_; ++target)
                uniform = uniform && shared_->places[target].vector &&
                          !shared_->places[target].staged &&
                          shared_->places[target].stride_row == args_.output.stride_row;
            shared_->uniform = uniform;
        }
        group_barrier(wg_);
        return true;
    }

  protected:
    using value_t = acc_t<T>;
    using values_t = value_t[kChunk<T>];

    /* What this rank reduces and publishes in two_shot: units, pieces of the tiles it owns. The
     * first flag of a unit of its index-th tile; the ranks' flags lie flag_stride() apart. */
    IRIS_INLINE int64_t owned_units() const
    {
        return iris_dealt_count(&schedule_, rank_) * Geometry::kPieces;
    }

    static IRIS_INLINE int64_t flag_of(int64_t index, int64_t unit)
    {
        return index * Geometry::kParts +
               unit % Geometry::kPieces * Geometry::kParts / Geometry::kPieces;
    }

    IRIS_INLINE int64_t flag_stride() const
    {
        return schedule_.share_max * Geometry::kParts;
    }

    /* The index-th tile of T in the part of rank `rank`'s staging that begins at `part`. */
    IRIS_INLINE char *slot(int32_t rank, uint64_t part, int64_t index) const
    {
        return staged<char>(args_.call, call_.half, rank, part, index, layout_.tile_nbytes);
    }

    /* Where a chunk of a tile of this rank's lies in its share, if `kShares`, else in the whole. */
    template <bool kShares>
    IRIS_INLINE matrix<T> part_at(const iris_matrix_args &of, const iris_tile_coord &at,
                                  int32_t chunk) const
    {
        return as_matrix<T>(of).tile(
            at.row + geometry_.row(chunk) - (kShares ? rank_ * args_.share_m : 0),
            at.col + geometry_.col(chunk) - (kShares ? rank_ * args_.share_n : 0));
    }

    IRIS_INLINE bool exists(const iris_tile_coord &at, int32_t chunk) const
    {
        return geometry_.row(chunk) < at.rows && geometry_.col(chunk) < at.cols;
    }

    IRIS_INLINE void add_bias(const iris_tile_coord &at, int32_t chunk, values_t &values) const
    {
        if (!Geometry::kProduct || args_.bias.address == 0)
            return;
        const matrix<T> bias = part_at<kHasShares>(args_.bias, at, chunk);
        const int32_t last = at.cols - 1 - geometry_.col(chunk); /* past it nothing is stored */
#pragma unroll
        for (int i = 0; i < kChunk<T>; ++i)
            if constexpr (Geometry::kProduct)
                values[i] += to_float(bias.data[(i < last ? i : last) * bias.stride_col]);
    }

    /* Stores a chunk of this rank's own output. */
    IRIS_INLINE void store_own(const iris_tile_coord &at, int32_t chunk, const chunk16 &c) const
    {
        const matrix<T> output = part_at<kScatters>(args_.output, at, chunk);
        store_run<reader::own>(output.data, output.stride_col, at.cols - geometry_.col(chunk),
                               has_vector_rows<T>(args_.output.address, args_.output.stride_row,
                                                  args_.output.stride_col),
                               c);
    }

    IRIS_INLINE void store_result(int32_t target, int64_t tile, const iris_tile_coord &at,
                                  int32_t chunk, const chunk16 &c) const
    {
        const result_place place = shared_->places[target];
        if (place.staged) {
            char *staged =
                device_pointer<char>(place.address) + (uint64_t)tile * layout_.tile_nbytes;
            push_chunk(staged + geometry_.offset(chunk), c);
            return;
        }
        const matrix<T> output = {device_pointer<T>(place.address), place.stride_row,
                                  place.stride_col};
        const matrix<T> run =
            output.tile(at.row + geometry_.row(chunk), at.col + geometry_.col(chunk));
        store_run(run.data, run.stride_col, at.cols - geometry_.col(chunk), place.vector != 0, c);
    }

    /* Concludes, adds the bias, rounds, and stores a finished chunk on this rank and, if `push`,
     * all peers. */
    IRIS_INLINE void publish(int64_t tile, const iris_tile_coord &at, int32_t chunk,
                             values_t &values, bool push) const
    {
        conclude_chunk<T, Geometry::kProduct>(values, args_, world_);
        add_bias(at, chunk, values);
        const chunk16 c = pack(values, T{});
        if (!Geometry::kProduct && args_.root >= 0)
            return args_.root == rank_ ? store_own(at, chunk, c)
                                       : store_result(args_.root, tile, at, chunk, c);
        if (push && shared_->uniform && geometry_.col(chunk) + kChunk<T> <= at.cols) {
            const int64_t offset = ((at.row + geometry_.row(chunk)) * args_.output.stride_row +
                                    at.col + geometry_.col(chunk)) *
                                   (int64_t)sizeof(T);
            int32_t target = rank_;
            const int32_t world = ranks();
            for (int32_t hop = 0; hop < world; ++hop) {
                push_chunk(device_pointer<char>(shared_->places[target].address) + offset, c);
                target = target + 1 < world ? target + 1 : 0;
            }
            return;
        }
        store_own(at, chunk, c);
        if (push)
            for (int32_t hop = 1; hop < ranks(); ++hop)
                store_result((rank_ + hop) % world_, tile, at, chunk, c);
    }

    /* A chunk of a result that a peer has pushed to this rank. */
    IRIS_INLINE chunk16 load_received(int64_t tile, const iris_tile_coord &at, int32_t chunk) const
    {
        if (args_.output_offset == IRIS_STAGED)
            return load_chunk(slot(rank_, layout_.results_offset, tile) + geometry_.offset(chunk));
        const matrix<const T> output =
            as_matrix<const T>(args_.output)
                .tile(at.row + geometry_.row(chunk), at.col + geometry_.col(chunk));
        return load_run(output.data, output.stride_col, at.cols - geometry_.col(chunk), false);
    }

    IRIS_INLINE iris_tile_coord received_coord(int64_t tile) const
    {
        const int64_t source = kGathers ? tile / schedule_.share_max : 0;
        return kGathers ? iris_share_tile_coord(&schedule_, (int32_t)source,
                                                tile - source * schedule_.share_max, args_.share_m,
                                                args_.share_n)
                        : coord(tile);
    }

    IRIS_INLINE bool stored_by_itself(int64_t tile) const
    {
        if constexpr (kGathers)
            return tile / schedule_.share_max == rank_;
        if constexpr (kVariant == IRIS_VARIANT_RING)
            return rank_ == world_ - 1;
        return iris_cyclic_owner(&schedule_, tile) == rank_;
    }

    const work_group wg_;
    const iris_reduce_args &args_;
    const call_state &call_;
    const Geometry geometry_;
    reduction_shared *const shared_;
    const iris_schedule schedule_;
    const iris_reduce_layout layout_;
    const int32_t rank_, world_;
};

} // namespace iris

#endif
