/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The reduction exchange on a GPU: output tile = sum over ranks of a partial tile, in the variants
 * and with the protocol of reduce_exchange.h, split where a GPU splits: some threads compute
 * partial tiles, round them to T and store them where `partial_place` says, each followed by its
 * flag; others, or the same ones later, bring them on (`bring_on`). Partials always pass through
 * memory, this rank's own too.
 *   variant   a partial goes to              what is brought on, in pieces of a tile
 *   two_shot  its owner, rank tile mod W     owner: sum over ranks -> every rank's output
 *   one_shot  every rank                     every rank: sum over ranks -> its own output
 *   ring      this rank                      partial + sum from rank - 1 -> rank + 1; the result
 *                                            from the last rank on in the same direction
 *   atomic    this rank                      partial added to every rank's fp32 sum
 *   spinlock  this rank                      the same, under one lock per tile
 *
 * Who computes never waits before it has pushed everything, so waits form no circle. */
#ifndef IRIS_GPU_EXCHANGE_H
#define IRIS_GPU_EXCHANGE_H

#include "gpu_geometry.h"
#include "schedule.h"
#include "sync.h"
#include "tile_gpu.h"

namespace iris
{

template <typename T, iris_variant kVariant, class Geometry, result kResult> class gpu_exchange
{
    static constexpr bool kScatters = kResult == result::scattered;
    static constexpr bool kGathers = kResult == result::gathered;

  public:
    IRIS_INLINE gpu_exchange(work_group wg, const iris_reduce_args &args, const call_state &call,
                             exchange_shared *shared)
        : wg_(wg), args_(args), call_(call), geometry_(args), shared_(shared),
          schedule_(in_lanes(gpu_schedule<kResult>(args))),
          layout_(in_lanes(iris_reduce_layout_make(&schedule_, kScatters, kVariant, sizeof(T),
                                                   Geometry::kParts))),
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

    /* The i-th of partial_places() places of `tile`; the flag of its first part. */
    IRIS_INLINE partial_place place_of(int64_t tile, int32_t i) const
    {
        if constexpr (kGathers) {
            return {slot(rank_, layout_.partials_offset, tile), rank_, tile * Geometry::kParts};
        } else if constexpr (kVariant == IRIS_VARIANT_TWO_SHOT) {
            const int64_t index = rank_ * schedule_.share_max + tile / world_;
            const int32_t owner = iris_dealt_owner(&schedule_, tile);
            return {slot(owner, layout_.partials_offset, index), owner, index * Geometry::kParts};
        } else if constexpr (kVariant == IRIS_VARIANT_ONE_SHOT) {
            const int64_t index = rank_ * schedule_.tiles + tile;
            const int32_t target = (rank_ + 1 + i) % world_;
            return {slot(target, layout_.partials_offset, index), target, index * Geometry::kParts};
        } else {
            return {slot(rank_, layout_.own_offset, tile), rank_, layout_.own_flags + tile};
        }
    }

    /* ---- bringing them on ---- */

    /* All that is left of the call; to be called once by every work-group. */
    IRIS_INLINE void bring_on()
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

    /* Zeroes this rank's sums and locks for the call that follows, without being a call itself:
     * nobody touches them before the barrier that comes after it. */
    IRIS_INLINE void clear_sums() const
    {
        const uint64_t nbytes = layout_.own_offset;
        const uint64_t share =
            iris_round_up(iris_ceil_div((int64_t)nbytes, wg_.count), IRIS_TILE_ALIGNMENT);
        const uint64_t begin = share * (uint64_t)wg_.index;
        if (begin < nbytes)
            clear_bytes(wg_, heap_pointer<char>(args_.call, rank_, half_offset() + begin),
                        nbytes - begin < share ? nbytes - begin : share);
    }

  private:
    /* one_shot of a tensor: the partials tell every rank of every other, if there are any. */
    IRIS_INLINE bool is_local() const
    {
        return !Geometry::kProduct && kVariant == IRIS_VARIANT_ONE_SHOT && tiles() > 0;
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

    IRIS_INLINE uint64_t half_offset() const
    {
        return args_.call.data_offset + call_.half * args_.call.data_half_nbytes;
    }

    /* The index-th tile of T in the part of rank `rank`'s staging that begins at `part`. */
    IRIS_INLINE char *slot(int32_t rank, uint64_t part, int64_t index) const
    {
        return heap_pointer<char>(args_.call, rank,
                                  half_offset() + part + (uint64_t)index * layout_.tile_nbytes);
    }

    using value_t = acc_t<T>;
    using values_t = value_t[kChunk<T>];

    /* A chunk of a tile's sum in rank `rank`'s staging. */
    IRIS_INLINE value_t *sum_chunk(int32_t rank, int64_t tile, int32_t chunk) const
    {
        return heap_pointer<value_t>(args_.call, rank,
                                     half_offset() + layout_.partials_offset +
                                         (uint64_t)tile * layout_.accum_nbytes) +
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
        constexpr int32_t kBatch = kExchangeBatch, kSources = 4;
        const int32_t world = kGathers ? 1 : ranks();
        const int32_t total = geometry_.chunks();
        const int32_t size = (total + Geometry::kPieces - 1) / Geometry::kPieces;
        const int32_t begin = piece * size;
        const int32_t end = begin + size < total ? begin + size : total;

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

    IRIS_INLINE bool exists(const iris_tile_coord &at, int32_t chunk) const
    {
        return geometry_.row(chunk) < at.rows && geometry_.col(chunk) < at.cols;
    }

    IRIS_INLINE void add_bias(const iris_tile_coord &at, int32_t chunk, values_t &values) const
    {
        if (!Geometry::kProduct || args_.bias.address == 0)
            return;
        const matrix<T> bias = part_at < kScatters || kGathers > (args_.bias, at, chunk);
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
        store_run(output.data, output.stride_col, at.cols - geometry_.col(chunk),
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
            store_chunk(staged + geometry_.offset(chunk), c);
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
                store_chunk(device_pointer<char>(shared_->places[target].address) + offset, c);
                target = target + 1 < world ? target + 1 : 0;
            }
            return;
        }
        store_own(at, chunk, c);
        if (push)
            for (int32_t hop = 1; hop < ranks(); ++hop)
                store_result((rank_ + hop) % world_, tile, at, chunk, c);
    }

    /* ---- two_shot ---- */

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

    IRIS_INLINE bool bring_on_unit()
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
            if (!bring_on_unit())
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
                        sum[i] = values[i];
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
        uint32_t *lock =
            heap_pointer<uint32_t>(args_.call, target, half_offset() + layout_.locks_offset) + tile;
        if (kVariant == IRIS_VARIANT_SPINLOCK &&
            !lock_acquire(wg_, call_, lock, {IRIS_SIGNAL_LOCK, target, (int32_t)tile}))
            return false;
        for_each_chunk(at, piece, pieces, [&](int32_t chunk) {
            value_t *sum = sum_chunk(target, tile, chunk);
            values_t values;
            load_own(tile, chunk, values);
            for (int i = 0; i < kChunk<T>; ++i) {
                if constexpr (kVariant == IRIS_VARIANT_SPINLOCK)
                    sum[i] += values[i];
                else
                    atomic_add(sum + i, values[i]);
            }
        });
        if (kVariant == IRIS_VARIANT_SPINLOCK)
            lock_release(wg_, lock);
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
        return iris_dealt_owner(&schedule_, tile) == rank_;
    }

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

    const work_group wg_;
    const iris_reduce_args &args_;
    const call_state &call_;
    const Geometry geometry_;
    exchange_shared *const shared_;
    const iris_schedule schedule_;
    const iris_reduce_layout layout_;
    const int32_t rank_, world_;
    int64_t next_unit_ = wg_.index;
};

} // namespace iris

#endif
