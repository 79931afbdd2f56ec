/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The reduction over ranks on a GPU: output tile = sum over ranks of a partial tile, in the
 * variants of reduction_host.h, with its signals and its staging (protocol/staging.h), but another
 * algorithm: tiles are dealt to their owners in turn, where the host's own ranges of them, and what
 * is reduced is pieces of tiles, by whoever has time. It is split where a GPU splits: some threads
 * compute partial tiles, round them to T and store them where `partial_place` says, each followed
 * by its flag; others, or the same ones later, reduce what has arrived and publish the results
 * (`reduce_and_publish`). Partials always pass through memory, this rank's own too.
 *
 *   variant   a partial goes to              what is reduced and published, in pieces of a tile
 *   two_shot  its owner, rank tile mod W     owner: sum over ranks -> every rank's output
 *     scattered, on sm_90a: this rank        see fetch_sm90.h
 *   one_shot  every rank                     every rank: sum over ranks -> its own output
 *   ring      this rank                      partial + sum from rank - 1 -> rank + 1; the result
 *                                            from the last rank on in the same direction
 *   atomic    this rank                      partial added to every rank's fp32 sum
 *   spinlock  this rank                      the same, under one lock per tile
 *
 * Who computes never waits before it has pushed everything, so waits form no circle. */
#ifndef IRIS_GPU_REDUCTION_H
#define IRIS_GPU_REDUCTION_H

#include "gpu_results.h"

namespace iris
{

template <typename T, iris_variant kVariant, class Geometry, result kResult>
class gpu_reduction : public gpu_results<T, kVariant, Geometry, kResult>
{
    using base = gpu_results<T, kVariant, Geometry, kResult>;
    using base::add_bias;
    using base::args_;
    using base::call_;
    using base::exists;
    using base::flag_of;
    using base::flag_stride;
    using base::geometry_;
    using base::kGathers;
    using base::kScatters;
    using base::layout_;
    using base::load_received;
    using base::owned_units;
    using base::publish;
    using base::rank_;
    using base::received_coord;
    using base::schedule_;
    using base::slot;
    using base::store_own;
    using base::store_result;
    using base::stored_by_itself;
    using base::wg_;
    using base::world_;
    using value_t = typename base::value_t;
    using values_t = typename base::values_t;

  public:
    using base::base;
    using base::coord;
    using base::open_results;
    using base::ranks;
    using base::tiles;

    /* ---- partials ---- */

    IRIS_INLINE void announce_output() const
    {
        if (!is_local() && !kScatters)
            announce(wg_, call_, args_.output_offset, args_.output.stride_row,
                     args_.output.stride_col);
    }

    IRIS_INLINE int32_t partial_places() const
    {
        return kVariant == IRIS_VARIANT_ONE_SHOT ? ranks() : 1;
    }

    /* Whether each part of a partial tile has a flag, or the whole tile has one. */
    static constexpr bool kSignalsParts =
        kVariant == IRIS_VARIANT_TWO_SHOT || kVariant == IRIS_VARIANT_ONE_SHOT;

    /* Whether partials stay where they are computed, for their owner to fetch. */
    static constexpr bool kFetched = kScatters && Geometry::kTensorCores;

    /* one_shot: the i-th rank that a partial goes to. */
    IRIS_INLINE int32_t target_of(int32_t i) const
    {
        return rank_ + 1 + i < world_ ? rank_ + 1 + i : rank_ + 1 + i - world_;
    }

    /* The i-th of partial_places() places of `tile`; the flag of its first part, and on whom. */
    IRIS_INLINE partial_place place_of(int64_t tile, int32_t i) const
    {
        if constexpr (kGathers) {
            return {slot(rank_, layout_.partials_offset, tile), rank_, tile * Geometry::kParts};
        } else if constexpr (kVariant == IRIS_VARIANT_TWO_SHOT) {
            const int64_t index = partial_in_share(schedule_, rank_, tile / world_);
            const int32_t owner = iris_cyclic_owner(&schedule_, tile);
            return {kFetched ? slot(rank_, layout_.partials_offset, tile)
                             : slot(owner, layout_.partials_offset, index),
                    owner, index * Geometry::kParts};
        } else if constexpr (kVariant == IRIS_VARIANT_ONE_SHOT) {
            const int64_t index = partial_of_all(schedule_, rank_, tile);
            const int32_t target = target_of(i);
            return {slot(target, layout_.partials_offset, index), target, index * Geometry::kParts};
        } else {
            return {slot(rank_, layout_.own_offset, tile), rank_, layout_.own_flags + tile};
        }
    }

    /* The slots of place_of() of one tile: what takes a division is worked out once, and the rest
     * is an addition, for loops that store. */
    class partial_slots
    {
      public:
        IRIS_INLINE partial_slots(const gpu_reduction &reduction, int64_t tile)
            : reduction_(reduction)
        {
            const partial_place first = reduction.place_of(tile, 0);
            rank_ = first.rank;
            flag_ = first.flag;
            offset_ = (uint64_t)first.slot;
            if constexpr (kVariant == IRIS_VARIANT_ONE_SHOT)
                offset_ -= reduction.args_.call.heap_bases[first.rank];
        }

        IRIS_INLINE char *at(int32_t i) const
        {
            if constexpr (kVariant == IRIS_VARIANT_ONE_SHOT)
                return heap_pointer<char>(reduction_.args_.call, reduction_.target_of(i), offset_);
            return device_pointer<char>(offset_);
        }

        /* The whole of the i-th place. */
        IRIS_INLINE partial_place place(int32_t i) const
        {
            const bool to_all = kVariant == IRIS_VARIANT_ONE_SHOT;
            return {at(i), to_all ? reduction_.target_of(i) : rank_, flag_};
        }

      private:
        const gpu_reduction &reduction_;
        int32_t rank_; /* one_shot: of the first place */
        int64_t flag_;
        uint64_t offset_; /* one_shot: into every rank's heap; else the only slot */
    };

    /* ---- reducing and publishing ---- */

    /* All that is left of the call; to be called once by every work-group. */
    IRIS_INLINE void reduce_and_publish()
    {
        if constexpr (kGathers)
            gather();
        else if constexpr (kVariant == IRIS_VARIANT_TWO_SHOT)
            two_shot();
        else if constexpr (kVariant == IRIS_VARIANT_ONE_SHOT)
            one_shot();
        else if constexpr (kVariant == IRIS_VARIANT_RING)
            ring();
        else
            accumulate();
    }

    /* All that is left when the tiles went straight to the output. */
    IRIS_INLINE void end()
    {
        deliver_and_end(wg_, call_, args_.ending);
    }

    IRIS_INLINE void clear_sums() const
    {
        clear_all_sums(wg_, args_.call, call_.half, layout_);
    }

  private:
    /* one_shot of a tensor: the partials tell every rank of every other, if there are any. */
    IRIS_INLINE bool is_local() const
    {
        return !Geometry::kProduct && kVariant == IRIS_VARIANT_ONE_SHOT && tiles() > 0;
    }

    /* A chunk of a tile's sum in rank `rank`'s staging. */
    IRIS_INLINE value_t *sum_chunk(int32_t rank, int64_t tile, int32_t chunk) const
    {
        return staged<value_t>(args_.call, call_.half, rank, layout_.partials_offset, tile,
                               layout_.accum_nbytes) +
               chunk * kChunk<T>;
    }

    /* Calls visit(chunk) for this thread's chunks of one of `pieces` pieces of a tile that hold
     * elements of the matrix. */
    template <class Visit>
    IRIS_INLINE void for_each_chunk(const iris_tile_coord &at, int32_t piece, int32_t pieces,
                                    Visit visit) const
    {
        const int32_t total = geometry_.chunks();
        const int32_t size = (total + pieces - 1) / pieces;
        const int32_t begin = piece * size;
        const int32_t end = begin + size < total ? begin + size : total;
        for (int32_t chunk = begin + wg_.thread; chunk < end; chunk += wg_.threads)
            if (exists(at, chunk))
                visit(chunk);
    }

    /* Reduces a piece of a tile, ((p_0 + p_1) + p_2) + ..., and publishes it; the partials lie
     * `stride` bytes apart. The latency of memory bounds it: kBatch chunks of kSources ranks are in
     * flight. */
    IRIS_INLINE void sum_piece(int64_t tile, const iris_tile_coord &at, int32_t piece,
                               const char *first, uint64_t stride, bool push) const
    {
        constexpr int32_t kBatch = kExchangeBatch<kResult, Geometry>;
        constexpr int32_t kSources = Geometry::kFewRegisters ? 2 : 4;
        const int32_t world = kGathers ? 1 : ranks();
        const int32_t total = geometry_.chunks();
        const int32_t size = (total + Geometry::kPieces - 1) / Geometry::kPieces;
        const int32_t begin = piece * size;
        const int32_t end = begin + size < total ? begin + size : total;
        const trace_span span(args_.call, is_leader(wg_), IRIS_TRACE_REDUCE, rank_, tile);

        IRIS_NO_UNROLL
        for (int32_t start = begin + wg_.thread; start < end; start += kBatch * wg_.threads) {
            values_t values[kBatch];
#pragma unroll
            for (int32_t k = 0; k < kBatch; ++k)
                begin_chunk<T, Geometry::kProduct>(values[k]);
#pragma unroll 1
            for (int32_t s = 0; s < world; s += kSources) {
                chunk16 c[kSources][kBatch];
#pragma unroll
                for (int32_t q = 0; q < kSources; ++q)
#pragma unroll
                    for (int32_t k = 0; k < kBatch; ++k) {
                        const int32_t chunk = start + k * wg_.threads;
                        if (chunk < end && s + q < world && exists(at, chunk))
                            c[q][k] = load_chunk(first + (uint64_t)(s + q) * stride +
                                                 geometry_.offset(chunk));
                    }
#pragma unroll
                for (int32_t q = 0; q < kSources; ++q)
#pragma unroll
                    for (int32_t k = 0; k < kBatch; ++k)
                        if (s + q < world)
                            reduce_chunk<T, Geometry::kProduct>(values[k], c[q][k], s + q == 0,
                                                                args_.reduce_op);
            }
#pragma unroll
            for (int32_t k = 0; k < kBatch; ++k) {
                const int32_t chunk = start + k * wg_.threads;
                if (chunk < end && exists(at, chunk))
                    publish(tile, at, chunk, values[k], push);
            }
        }
    }

    /* ---- two_shot ---- */

    IRIS_INLINE bool reduce_unit()
    {
        const int64_t index = next_unit_ / Geometry::kPieces;
        const int64_t tile = index * world_ + rank_;
        const iris_tile_coord at = coord(tile);
        if (!wait_partials(wg_, call_, tile, flag_of(index, next_unit_), flag_stride(), -1))
            return false;
        sum_piece(tile, at, (int32_t)(next_unit_ % Geometry::kPieces),
                  slot(rank_, layout_.partials_offset, index),
                  (uint64_t)schedule_.share_max * layout_.tile_nbytes, !kScatters);
        next_unit_ += wg_.count;
        return true;
    }

    /* A scattered result is the first half of it: it stays with the owner. */
    IRIS_INLINE void two_shot()
    {
        if (!open_results())
            return;
        IRIS_NO_UNROLL
        while (next_unit_ < uniform(owned_units()))
            if (!reduce_unit())
                return;
        finish();
    }

    /* ---- gathered products ---- */

    IRIS_INLINE void gather()
    {
        const int64_t units = schedule_.share_max * Geometry::kPieces;
        if (!open_results())
            return;
        IRIS_NO_UNROLL
        for (int64_t unit = wg_.index; unit < uniform(units); unit += wg_.count) {
            const int64_t tile = unit / Geometry::kPieces;
            const iris_tile_coord at =
                iris_share_tile_coord(&schedule_, rank_, tile, args_.share_m, args_.share_n);
            if (!wait_tile(wg_, call_, flag_of(tile, unit),
                           {IRIS_SIGNAL_PARTIAL, rank_, (int32_t)tile}))
                return;
            sum_piece(rank_ * schedule_.share_max + tile, at, (int32_t)(unit % Geometry::kPieces),
                      slot(rank_, layout_.partials_offset, tile), 0, true);
        }
        finish();
    }

    /* ---- one_shot ---- */

    IRIS_INLINE void one_shot()
    {
        const int64_t units = schedule_.tiles * Geometry::kPieces;
        IRIS_NO_UNROLL
        for (int64_t unit = wg_.index; unit < uniform(units); unit += wg_.count) {
            const int64_t tile = unit / Geometry::kPieces;
            const iris_tile_coord at = coord(tile);
            if (!wait_partials(wg_, call_, tile, flag_of(tile, unit),
                               schedule_.tiles * Geometry::kParts, -1))
                return;
            sum_piece(tile, at, (int32_t)(unit % Geometry::kPieces),
                      slot(rank_, layout_.partials_offset, tile),
                      (uint64_t)schedule_.tiles * layout_.tile_nbytes, false);
        }
        if (is_local())
            end_locally(wg_, call_);
        else
            end();
    }

    /* ---- ring ---- */

    IRIS_INLINE void ring()
    {
        const int32_t next = (rank_ + 1) % world_, last = world_ - 1;
        const int32_t previous = (rank_ + last) % world_;
        if (!open_results())
            return;
        IRIS_NO_UNROLL
        for (int64_t tile = wg_.index; tile < tiles(); tile += wg_.count) {
            const iris_tile_coord at = coord(tile);
            if (!wait_own(tile) ||
                (rank_ > 0 &&
                 !wait_tile(wg_, call_, tile, {IRIS_SIGNAL_PARTIAL, previous, (int32_t)tile})))
                return;
            const trace_span span(args_.call, is_leader(wg_), IRIS_TRACE_REDUCE, next, tile);
            for_each_chunk(at, 0, 1, [&](int32_t chunk) {
                values_t values;
                load_own(tile, chunk, values);
                if (rank_ > 0) {
                    const value_t *sum = sum_chunk(rank_, tile, chunk);
                    for (int i = 0; i < kChunk<T>; ++i)
                        values[i] = reduced(sum[i], values[i], args_.reduce_op);
                }
                if (rank_ < last) {
                    value_t *sum = sum_chunk(next, tile, chunk);
                    for (int i = 0; i < kChunk<T>; ++i)
                        push(sum + i, values[i]);
                    return;
                }
                conclude_chunk<T, Geometry::kProduct>(values, args_, world_);
                add_bias(at, chunk, values);
                const chunk16 c = pack(values, T{});
                store_own(at, chunk, c);
                if (world_ > 1)
                    store_result(next, tile, at, chunk, c);
            });
            if (world_ > 1)
                signal_tile(wg_, call_, next, rank_ < last ? tile : layout_.result_flags + tile);
        }
        if (rank_ != last)
            if (!pass_results_on(previous, next, last))
                return;
        finish();
    }

    IRIS_INLINE bool pass_results_on(int32_t previous, int32_t next, int32_t last)
    {
        IRIS_NO_UNROLL
        for (int64_t tile = wg_.index; tile < tiles(); tile += wg_.count) {
            const iris_tile_coord at = coord(tile);
            if (!wait_tile(wg_, call_, layout_.result_flags + tile,
                           {IRIS_SIGNAL_RESULT, previous, (int32_t)tile}))
                return false;
            if (next == last)
                continue;
            for_each_chunk(at, 0, 1, [&](int32_t chunk) {
                store_result(next, tile, at, chunk, load_received(tile, at, chunk));
            });
            signal_tile(wg_, call_, next, layout_.result_flags + tile);
        }
        return true;
    }

    /* ---- atomic, spinlock ---- */

    IRIS_INLINE void accumulate()
    {
        constexpr int32_t kPieces = kVariant == IRIS_VARIANT_ATOMIC ? Geometry::kPieces : 1;
        const int64_t units = schedule_.tiles * kPieces;
        IRIS_NO_UNROLL
        for (int64_t unit = wg_.index; unit < uniform(units); unit += wg_.count) {
            const int64_t tile = unit / kPieces;
            if (!wait_own(tile))
                return;
            IRIS_NO_UNROLL
            for (int32_t hop = 1; hop <= ranks(); ++hop)
                if (!add_to_sum((rank_ + hop) % world_, tile, (int32_t)(unit % kPieces), kPieces))
                    return;
        }
        deliver(wg_, call_);
        if (!wait_delivered(wg_, call_))
            return;
        /* This rank's own share of each of these sums was added by this very work-group. */
        IRIS_NO_UNROLL
        for (int64_t unit = wg_.index; unit < uniform(units); unit += wg_.count) {
            const int64_t tile = unit / kPieces;
            const iris_tile_coord at = coord(tile);
            for_each_chunk(at, (int32_t)(unit % kPieces), kPieces, [&](int32_t chunk) {
                const value_t *sum = sum_chunk(rank_, tile, chunk);
                values_t values;
                for (int i = 0; i < kChunk<T>; ++i)
                    values[i] = sum[i];
                publish(tile, at, chunk, values, false);
            });
        }
        call_end(wg_, call_, args_.ending);
    }

    IRIS_INLINE bool add_to_sum(int32_t target, int64_t tile, int32_t piece, int32_t pieces)
    {
        const iris_tile_coord at = coord(tile);
        uint32_t *lock = sum_lock(args_.call, call_.half, target, layout_, tile);
        if (kVariant == IRIS_VARIANT_SPINLOCK &&
            !lock_acquire(wg_, call_, lock, {IRIS_SIGNAL_LOCK, target, (int32_t)tile}))
            return false;
        const trace_span span(args_.call, is_leader(wg_), IRIS_TRACE_REDUCE, target, tile);
        for_each_chunk(at, piece, pieces, [&](int32_t chunk) {
            value_t *sum = sum_chunk(target, tile, chunk);
            values_t values;
            load_own(tile, chunk, values);
            for (int i = 0; i < kChunk<T>; ++i) {
                if constexpr (kVariant == IRIS_VARIANT_SPINLOCK)
                    push(sum + i, sum[i] + values[i]);
                else
                    atomic_add(sum + i, values[i]);
            }
        });
        if (kVariant == IRIS_VARIANT_SPINLOCK)
            lock_release(wg_, call_, lock);
        return true;
    }

    /* ---- what ring, atomic and spinlock share ---- */

    IRIS_INLINE bool wait_own(int64_t tile) const
    {
        return wait_tile(wg_, call_, layout_.own_flags + tile,
                         {IRIS_SIGNAL_PARTIAL, rank_, (int32_t)tile});
    }

    IRIS_INLINE void load_own(int64_t tile, int32_t chunk, values_t &values) const
    {
        unpack(load_chunk(slot(rank_, layout_.own_offset, tile) + geometry_.offset(chunk)), values,
               T{});
    }

    /* ---- the end ---- */

    /* Ends the call; an output off the heap first gets the results pushed into the staging. */
    IRIS_INLINE void finish()
    {
        const bool elsewhere = !Geometry::kProduct && args_.root >= 0 && args_.root != rank_;
        if (args_.output_offset != IRIS_STAGED || kScatters || elsewhere)
            return end();
        deliver(wg_, call_);
        if (!wait_delivered(wg_, call_))
            return;
        IRIS_NO_UNROLL
        for (int64_t tile = wg_.index; tile < uniform(schedule_.tiles); tile += wg_.count) {
            if (stored_by_itself(tile))
                continue;
            const iris_tile_coord at = received_coord(tile);
            for_each_chunk(at, 0, 1, [&](int32_t chunk) {
                store_own(at, chunk, load_received(tile, at, chunk));
            });
        }
        call_end(wg_, call_, args_.ending);
    }

    int64_t next_unit_ = wg_.index;
};

} // namespace iris

#endif
