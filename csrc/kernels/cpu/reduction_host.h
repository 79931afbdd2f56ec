/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The reduction over ranks on the host: output tile = sum over ranks of a partial tile, in five
 * variants. (That of GPUs, gpu_reduction.h, is another algorithm with the same signals, and staging
 * as protocol/staging.h has it.) What a partial tile is, a matrix product or a piece of a tensor,
 * is the Producer's business, so that matmul_all_reduce, all_reduce and reduce_scatter are one
 * algorithm with three producers.
 *
 *   two_shot  each tile has an owner. The others push their partial into the owner's staging; the
 *             owner adds them in rank order and pushes the result into everybody's output.
 *   one_shot  everybody pushes every partial to everybody and adds all of them itself: one network
 *             hop, W times the traffic. For small outputs.
 *   ring      the sum runs 0 -> 1 -> ... -> W-1, each rank adding its partial; the result
 *             runs on W-1 -> 0 -> 1 -> ... -> W-2.
 *   atomic    everybody adds its partials to everybody's fp32 accumulators, element by element.
 *   spinlock  the same under one lock per tile.
 *
 * Floating point is added in fp32. The first three reduce in rank order and give the same bits on
 * all ranks in every run; the last two add in the order of arrival and do not promise it.
 *
 *   memory (in the heap)    written by             read by         ordered by
 *   partials, two_shot      peers, this rank's     owner           PARTIAL flag per (source, tile)
 *                           own slot by nobody
 *   partials, one_shot      all, own slot too      this rank       PARTIAL flag per (source, tile)
 *   partials, ring          rank - 1               this rank       PARTIAL flag per tile
 *   accumulators            all                    this rank       DELIVERED
 *   output or results       tile owners, ring: rank - 1            DELIVERED, ring: RESULT per tile
 *
 * A rank whose output lies outside the heap says so in its record; results for it are pushed into
 * the result staging and copied out at the end.
 *
 * No work-group waits before it has pushed all that its peers wait for in the same phase, and all
 * work-groups of all ranks are resident, so waits cannot form a circle.
 */
#ifndef IRIS_REDUCTION_HOST_H
#define IRIS_REDUCTION_HOST_H

#include "interruption.h"
#include "kernels/abi/schedule.h"
#include "kernels/base/tile.h"
#include "kernels/protocol/staging.h"
#include "kernels/protocol/sync.h"

namespace iris
{

/* A producer has
 *     int64_t inner_dimension() const;                 K of the product, 0 without one
 *     void produce(work_group, accumulator &, const iris_tile_coord &) const;
 *     void produce_into(work_group, accumulator &, const iris_tile_coord &,
 *                       const matrix<T> &target) const;     the same, stored; the accumulator is
 *                                                           at its disposal
 */
template <typename T, class Producer> class rank_reduction
{
  public:
    rank_reduction(work_group wg, const iris_reduce_args &args, const Producer &producer,
                   iris_variant variant)
        : wg_(wg), args_(args), producer_(producer), call_(call_begin(args.call)),
          interruption_(call_),
          schedule_(iris_share_schedule_make(args.M, args.N, args.share_m, args.share_n,
                                             args.block_m, args.block_n, args.group_size_m,
                                             args.call.world_size)),
          layout_(
              iris_reduce_layout_make(&schedule_, scatters(), gathers(), variant, sizeof(T), 0)),
          acc_(accumulator_make<acc_t<T>>(wg, {args.block_m, args.block_n, args.block_k},
                                          producer.inner_dimension())),
          rank_(args.call.rank), world_(args.call.world_size)
    {
    }

    /* A scattered result is the first half of it: it stays with the owner. */
    void two_shot()
    {
        announce_output();
        for (int64_t step = wg_.index; step < schedule_.tiles; step += wg_.count) {
            if (interruption_.has_come())
                return;
            const int64_t tile = iris_tile_at(&schedule_, rank_, step);
            const int32_t owner = iris_block_owner(&schedule_, tile);
            if (owner != rank_) {
                push_product(owner, share_slot(owner, tile, rank_), share_flag(owner, tile, rank_),
                             tile);
                continue;
            }
            const iris_tile_coord at = produce(tile);
            /* Own tiles come last: all that the peers wait for has left this work-group. */
            if (!wait_partials(wg_, call_, tile, share_flag(owner, tile, 0), schedule_.share_max,
                               rank_))
                return;
            const trace_span span(call_.args, true, IRIS_TRACE_REDUCE, rank_, tile);
            tile_rank_sum<T>(wg_, acc_,
                             partial_slot(rank_, tile - iris_share_begin(&schedule_, rank_)),
                             (uint64_t)schedule_.share_max * layout_.tile_nbytes, args_.block_n,
                             world_, rank_, args_.reduce_op, size_of(at));
            conclude(at);
            if (!publish(tile, at))
                return;
        }
        deliver(wg_, call_);
        finish();
    }

    /* No reduction: this rank's product is a part of everybody's result. */
    void gather()
    {
        announce_output();
        for (int64_t local = wg_.index; local < schedule_.share_max; local += wg_.count) {
            if (interruption_.has_come())
                return;
            const int64_t tile = iris_share_begin(&schedule_, rank_) + local;
            const iris_tile_coord at = coord(tile);
            const matrix<T> own = own_output(at);
            {
                const trace_span span(call_.args, true, IRIS_TRACE_GEMM, rank_, tile);
                produce_output(iris_tile_coord_of(&schedule_, local), at, own);
            }
            const trace_span span(call_.args, true, IRIS_TRACE_REDUCE, rank_, tile);
            for (int32_t hop = 1; hop < world_; ++hop) {
                matrix<T> target;
                if (!find_result((rank_ + hop) % world_, tile, at, target))
                    return;
                copy_runs(wg_, size_of(at), constant(own), 1, [&](int32_t) { return target; });
            }
        }
        deliver(wg_, call_);
        finish();
    }

    void one_shot()
    {
        if (!is_local())
            announce_output();
        for (int64_t step = wg_.index; step < schedule_.tiles; step += wg_.count) {
            if (interruption_.has_come())
                return;
            const int64_t tile = iris_tile_at(&schedule_, rank_, step);
            const iris_tile_coord at = produce(tile);
            for (int32_t hop = 1; hop < world_; ++hop)
                push_partial((rank_ + hop) % world_, partial_of_all(schedule_, rank_, tile), at);
            /* Rounded like the peers' copies of it, so that all ranks add the same numbers. */
            tile_store(wg_, packed<T>(partial_slot(rank_, partial_of_all(schedule_, rank_, tile))),
                       acc_, size_of(at));
        }
        if (!is_local())
            deliver(wg_, call_);
        for (int64_t step = wg_.index; step < schedule_.tiles; step += wg_.count) {
            const int64_t tile = iris_tile_at(&schedule_, rank_, step);
            const iris_tile_coord at = coord(tile);
            if (!wait_partials(wg_, call_, tile, tile, schedule_.tiles, rank_))
                return;
            const trace_span span(call_.args, true, IRIS_TRACE_REDUCE, rank_, tile);
            tile_rank_sum<T>(wg_, acc_, partial_slot(rank_, tile),
                             (uint64_t)schedule_.tiles * layout_.tile_nbytes, args_.block_n, world_,
                             -1, args_.reduce_op, size_of(at));
            conclude(at);
            add_bias(at);
            tile_store(wg_, own_output(at), acc_, size_of(at));
        }
        if (is_local())
            end_locally(wg_, call_);
        else
            call_end(wg_, call_, args_.ending);
    }

    void ring()
    {
        const int32_t next = (rank_ + 1) % world_, last = world_ - 1;
        const int32_t previous = (rank_ + last) % world_;
        announce_output();
        for (int64_t tile = wg_.index; tile < schedule_.tiles; tile += wg_.count) {
            if (interruption_.has_come())
                return;
            const iris_tile_coord at = produce(tile);
            if (rank_ > 0) {
                if (!wait_tile(wg_, call_, tile, {IRIS_SIGNAL_PARTIAL, previous, (int32_t)tile}))
                    return;
                const trace_span span(call_.args, true, IRIS_TRACE_REDUCE, previous, tile);
                tile_reduce(wg_, acc_, constant(packed<acc_t<T>>(ring_slot(rank_, tile))),
                            args_.reduce_op, size_of(at));
            }
            if (rank_ < last) {
                tile_store(wg_, packed<acc_t<T>>(ring_slot(next, tile)), acc_, size_of(at));
                signal_tile(wg_, call_, next, tile);
                continue;
            }
            conclude(at);
            add_bias(at);
            tile_store(wg_, own_output(at), acc_, size_of(at));
            if (world_ > 1 && !forward_result(next, tile, at))
                return;
        }
        if (rank_ != last) {
            for (int64_t tile = wg_.index; tile < schedule_.tiles; tile += wg_.count) {
                const iris_tile_coord at = coord(tile);
                if (!wait_tile(wg_, call_, layout_.result_flags + tile,
                               {IRIS_SIGNAL_RESULT, previous, (int32_t)tile}))
                    return;
                if (next == last)
                    continue;
                /* Exact: fp32 holds every value of T. */
                tile_load(wg_, acc_, constant(received_result(tile, at)), size_of(at));
                if (!forward_result(next, tile, at))
                    return;
            }
        }
        deliver(wg_, call_);
        finish();
    }

    void atomic()
    {
        accumulate([this](int32_t target, int64_t tile, const iris_tile_coord &at) {
            const trace_span span(call_.args, true, IRIS_TRACE_REDUCE, target, tile);
            tile_atomic_add(wg_, packed<acc_t<T>>(ring_slot(target, tile)), acc_, size_of(at));
            return true;
        });
    }

    void spinlock()
    {
        accumulate([this](int32_t target, int64_t tile, const iris_tile_coord &at) {
            uint32_t *lock = sum_lock(args_.call, call_.half, target, layout_, tile);
            const matrix<float> sum = packed<acc_t<T>>(ring_slot(target, tile));
            if (!lock_acquire(wg_, call_, lock, {IRIS_SIGNAL_LOCK, target, (int32_t)tile}))
                return false;
            const trace_span span(call_.args, true, IRIS_TRACE_REDUCE, target, tile);
            tile_add_into(wg_, sum, acc_, size_of(at));
            lock_release(wg_, call_, lock);
            return true;
        });
    }

    void clear_sums()
    {
        clear_all_sums(wg_, args_.call, call_.half, layout_);
    }

  private:
    bool scatters() const
    {
        return has_shares() && !gathers();
    }

    bool gathers() const
    {
        return args_.call.operation == IRIS_OP_MATMUL_ALL_GATHER;
    }

    bool has_shares() const
    {
        return args_.share_m != 0 || args_.share_n != 0;
    }

    /* one_shot of a tensor: the result is rank-local, and the partials have told every
     * rank of every other. Without a tile nothing has. */
    bool is_local() const
    {
        return args_.ending == IRIS_ENDING_LOCAL && schedule_.tiles > 0;
    }

    static extent size_of(const iris_tile_coord &at)
    {
        return {at.rows, at.cols};
    }

    template <typename U> static matrix<const U> constant(const matrix<U> &m)
    {
        return {m.data, m.stride_row, m.stride_col};
    }

    /* A staged tile: block_n elements a row. */
    template <typename U> matrix<U> packed(char *slot) const
    {
        return {reinterpret_cast<U *>(slot), args_.block_n, 1};
    }

    char *partial_slot(int32_t rank, int64_t index) const
    {
        return staged<char>(args_.call, call_.half, rank, layout_.partials_offset, index,
                            layout_.tile_nbytes);
    }

    /* The slots of sums of ring, atomic and spinlock. */
    char *ring_slot(int32_t rank, int64_t tile) const
    {
        return staged<char>(args_.call, call_.half, rank, layout_.partials_offset, tile,
                            layout_.accum_nbytes);
    }

    char *result_slot(int32_t rank, int64_t tile) const
    {
        return staged<char>(args_.call, call_.half, rank, layout_.results_offset, tile,
                            layout_.tile_nbytes);
    }

    /* two_shot: the flag and the place of rank `source`'s partial of an owner's tile, which has a
     * place for each rank but itself. */
    int64_t share_flag(int32_t owner, int64_t tile, int32_t source) const
    {
        return partial_in_share(schedule_, source, tile - iris_share_begin(&schedule_, owner));
    }

    int64_t share_slot(int32_t owner, int64_t tile, int32_t source) const
    {
        return share_flag(owner, tile, source - (source > owner ? 1 : 0));
    }

    iris_tile_coord coord(int64_t tile) const
    {
        if (!has_shares())
            return iris_tile_coord_of(&schedule_, tile);
        const int32_t owner = iris_block_owner(&schedule_, tile);
        return iris_share_tile_coord(&schedule_, owner, tile - iris_share_begin(&schedule_, owner),
                                     args_.share_m, args_.share_n);
    }

    /* What lies in a matrix as large as this rank's share where one of its tiles does. */
    template <typename U>
    matrix<U> own_part(const iris_matrix_args &whole, const iris_tile_coord &at) const
    {
        return as_matrix<U>(whole).tile(at.row - rank_ * args_.share_m,
                                        at.col - rank_ * args_.share_n);
    }

    matrix<T> own_output(const iris_tile_coord &at) const
    {
        return scatters() ? own_part<T>(args_.output, at)
                          : as_matrix<T>(args_.output).tile(at.row, at.col);
    }

    /* Where this rank finds a result that was pushed to it. */
    matrix<T> received_result(int64_t tile, const iris_tile_coord &at) const
    {
        return args_.output_offset == IRIS_STAGED ? packed<T>(result_slot(rank_, tile))
                                                  : own_output(at);
    }

    void announce_output()
    {
        if (!scatters())
            announce(wg_, call_, args_.output_offset, args_.output.stride_row,
                     args_.output.stride_col);
    }

    iris_tile_coord produce(int64_t tile)
    {
        const iris_tile_coord at = coord(tile);
        const trace_span span(call_.args, true, IRIS_TRACE_GEMM, rank_, tile);
        producer_.produce(wg_, acc_, at);
        return at;
    }

    /* A tile of a result that is the product alone: `part` in this rank's matrices, `at` in all
     * ranks' result. */
    void produce_output(const iris_tile_coord &part, const iris_tile_coord &at,
                        const matrix<T> &output)
    {
        if (args_.bias.address == 0) {
            producer_.produce_into(wg_, acc_, part, output);
            return;
        }
        producer_.produce(wg_, acc_, part);
        add_bias(at);
        tile_store(wg_, output, acc_, size_of(at));
    }

    void conclude(const iris_tile_coord &at)
    {
        tile_conclude(wg_, acc_, args_.reduce_op, world_, args_.reduce_scale, size_of(at));
    }

    /* Products have one. */
    void add_bias(const iris_tile_coord &at)
    {
        if constexpr (kSumsInFloat<T>)
            if (args_.bias.address != 0)
                tile_add(wg_, acc_, own_part<const T>(args_.bias, at), size_of(at));
    }

    void push_partial(int32_t target, int64_t index, const iris_tile_coord &at)
    {
        tile_store(wg_, packed<T>(partial_slot(target, index)), acc_, size_of(at));
        signal_tile(wg_, call_, target, index);
    }

    /* The same for a partial that nobody needs here. */
    void push_product(int32_t target, int64_t slot, int64_t flag, int64_t tile)
    {
        {
            const trace_span span(call_.args, true, IRIS_TRACE_GEMM, rank_, tile);
            producer_.produce_into(wg_, acc_, coord(tile), packed<T>(partial_slot(target, slot)));
        }
        signal_tile(wg_, call_, target, flag);
    }

    /* Where rank `target` wants a result. Waiting for its arrival also means that nothing before
     * this call reads its output any more. */
    bool find_result(int32_t target, int64_t tile, const iris_tile_coord &at, matrix<T> &result)
    {
        if (!wait_arrived(wg_, call_, target))
            return false;
        const iris_record &record = call_.control->records[call_.half][target];
        if (record.output_offset == IRIS_STAGED) {
            result = packed<T>(result_slot(target, tile));
            return true;
        }
        const matrix<T> output = {heap_pointer<T>(args_.call, target, record.output_offset),
                                  record.stride_row, record.stride_col};
        result = output.tile(at.row, at.col);
        return true;
    }

    /* Stores the accumulator as rank `target`'s result. */
    bool push_result(int32_t target, int64_t tile, const iris_tile_coord &at)
    {
        matrix<T> result;
        if (!find_result(target, tile, at, result))
            return false;
        tile_store(wg_, result, acc_, size_of(at));
        return true;
    }

    /* Stores the accumulator, now a result of this rank's share, wherever it belongs. */
    bool publish(int64_t tile, const iris_tile_coord &at)
    {
        add_bias(at);
        if (args_.root >= 0 && args_.root != rank_)
            return push_result(args_.root, tile, at);
        tile_store(wg_, own_output(at), acc_, size_of(at));
        for (int32_t hop = 1; args_.root < 0 && !scatters() && hop < world_; ++hop)
            if (!push_result((rank_ + hop) % world_, tile, at))
                return false;
        return true;
    }

    bool forward_result(int32_t next, int64_t tile, const iris_tile_coord &at)
    {
        if (!push_result(next, tile, at))
            return false;
        signal_tile(wg_, call_, next, layout_.result_flags + tile);
        return true;
    }

    /* atomic and spinlock: `add` brings the accumulator into rank `target`'s sum of the tile. All
     * ranks have cleared their sums (clear_sums) and passed a barrier since. */
    template <class Add> void accumulate(Add add)
    {
        announce_output();
        for (int64_t step = wg_.index; step < schedule_.tiles; step += wg_.count) {
            if (interruption_.has_come())
                return;
            const int64_t tile = iris_tile_at(&schedule_, rank_, step);
            const iris_tile_coord at = produce(tile);
            for (int32_t hop = 1; hop <= world_; ++hop)
                if (!add((rank_ + hop) % world_, tile, at))
                    return;
        }
        deliver(wg_, call_);
        if (!wait_delivered(wg_, call_))
            return;
        /* This rank's own share of each sum was added by this very work-group. */
        for (int64_t step = wg_.index; step < schedule_.tiles; step += wg_.count) {
            const int64_t tile = iris_tile_at(&schedule_, rank_, step);
            const iris_tile_coord at = coord(tile);
            tile_load(wg_, acc_, constant(packed<acc_t<T>>(ring_slot(rank_, tile))), size_of(at));
            conclude(at);
            add_bias(at);
            tile_store(wg_, own_output(at), acc_, size_of(at));
        }
        call_end(wg_, call_, args_.ending);
    }

    /* Copies results that were pushed into the staging to an output outside the heap, then ends
     * the call. Which tiles were pushed: two_shot, all but the own share; ring, all but on the
     * last rank. */
    void finish()
    {
        if (args_.output_offset == IRIS_STAGED && !scatters() &&
            (args_.root < 0 || args_.root == rank_)) {
            if (!wait_delivered(wg_, call_))
                return;
            for (int64_t tile = wg_.index; tile < schedule_.tiles; tile += wg_.count) {
                if (stored_by_itself(tile))
                    continue;
                const iris_tile_coord at = coord(tile);
                tile_load(wg_, acc_, constant(received_result(tile, at)), size_of(at));
                tile_store(wg_, own_output(at), acc_, size_of(at));
            }
        }
        call_end(wg_, call_, args_.ending);
    }

    bool stored_by_itself(int64_t tile) const
    {
        if (layout_.result_flags != 0) /* ring */
            return rank_ == world_ - 1;
        return iris_block_owner(&schedule_, tile) == rank_;
    }

    const work_group wg_;
    const iris_reduce_args &args_;
    const Producer &producer_;
    const call_state call_;
    interruption interruption_;
    const iris_schedule schedule_;
    const iris_reduce_layout layout_;
    tile_accumulator<acc_t<T>> acc_;
    const int32_t rank_, world_;
};

/* Runs `variant` of the reduction. */
template <typename T, iris_variant kVariant, class Producer>
inline void run_reduction(work_group wg, const iris_reduce_args &args, const Producer &producer)
{
    rank_reduction<T, Producer> reduction(wg, args, producer, kVariant);
    if constexpr (kVariant == IRIS_VARIANT_TWO_SHOT)
        reduction.two_shot();
    else if constexpr (kVariant == IRIS_VARIANT_ONE_SHOT)
        reduction.one_shot();
    else if constexpr (kVariant == IRIS_VARIANT_RING)
        reduction.ring();
    else if constexpr (kVariant == IRIS_VARIANT_ATOMIC)
        reduction.atomic();
    else
        reduction.spinlock();
}

/* Partial tiles that are pieces of a tensor: all_reduce and reduce_scatter. */
template <typename T> struct tensor_producer {
    matrix<const T> input;

    int64_t inner_dimension() const
    {
        return 0;
    }

    void produce(work_group wg, tile_accumulator<acc_t<T>> &acc, const iris_tile_coord &at) const
    {
        tile_load(wg, acc, input.tile(at.row, at.col), {at.rows, at.cols});
    }

    void produce_into(work_group wg, tile_accumulator<acc_t<T>> &, const iris_tile_coord &at,
                      const matrix<T> &target) const
    {
        copy_runs(wg, {at.rows, at.cols}, input.tile(at.row, at.col), 1,
                  [&](int32_t) { return target; });
    }
};

} // namespace iris

#endif
