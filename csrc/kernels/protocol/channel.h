/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * One lane of a message between two ranks (struct iris_channel_lane): its chunks c, c + lanes, ...
 * go through the lane's slots in the receiver's heap, one after the other.
 *
 *   memory                     written by   read by      ordered by
 *   slot, message_nbytes       sender       receiver     filled
 *   the slot again             sender       receiver     drained
 *   sent, received             this rank    this rank    the stream
 *
 * `filled` and `drained` count chunks from the beginning of the context on, modulo 2**32. Each has
 * one writer and only grows, and the two are never more than IRIS_CHANNEL_SLOTS apart, so a
 * difference tells all, at the wrap too. A sender needs the receiver only once the slots are full;
 * a message that fits into them is sent before anybody receives.
 */
#ifndef IRIS_CHANNEL_H
#define IRIS_CHANNEL_H

#include "kernels/abi/schedule.h"
#include "kernels/base/tile.h"
#include "sync.h"

namespace iris
{

class channel_lane
{
  public:
    channel_lane() = default; /* of no lane: to be assigned */

    /* This rank's end of lane `lane` to or from `peer`, with the message's part of it to move. */
    IRIS_INLINE channel_lane(const iris_message_args &args, bool sending, int32_t peer,
                             int32_t lane)
        : sending_(sending), peer_(peer), lane_(lane), chunk_((uint64_t)lane)
    {
        const iris_messages &messages = sending ? args.send : args.receive;
        address_ = device_pointer<char>(messages.address[peer]);
        nbytes_ = messages.nbytes[peer];
        const iris_channel_lane *own = lane_at(args, args.call.rank, peer);
        /* relaxed: written by an earlier launch of the stream. */
        count_ = (uint32_t)load_relaxed(sending ? &own->sent : &own->received);
    }

    IRIS_INLINE bool is_done() const
    {
        return chunk_ >= iris_message_chunks(nbytes_);
    }

    /* What the next chunk waits for: a full slot, or an empty one. */
    IRIS_INLINE const uint32_t *awaited_word(const iris_message_args &args) const
    {
        const iris_channel_lane *own = lane_at(args, args.call.rank, peer_);
        return sending_ ? &own->drained.value : &own->filled.value;
    }

    IRIS_INLINE bool is_satisfied(uint32_t seen) const
    {
        return sending_ ? count_ - seen < IRIS_CHANNEL_SLOTS : (int32_t)(seen - count_) > 0;
    }

    IRIS_INLINE wait_reason reason() const
    {
        return {sending_ ? IRIS_SIGNAL_ROOM : IRIS_SIGNAL_CHUNK, peer_, -1};
    }

    /* The count that `awaited_word` is to reach. */
    IRIS_INLINE uint32_t wanted() const
    {
        return sending_ ? count_ - IRIS_CHANNEL_SLOTS + 1 : count_ + 1;
    }

    /* Moves the next chunk, for which the wait is over. false: the sizes differ; the rank has given
     * up. */
    IRIS_INLINE bool step(work_group wg, const call_state &call, const iris_message_args &args)
    {
        const int32_t self = args.call.rank;
        const uint32_t slot = count_ % IRIS_CHANNEL_SLOTS;
        const uint64_t begin = chunk_ * IRIS_CHANNEL_CHUNK;
        const uint64_t left = nbytes_ - begin;
        const uint64_t nbytes = left < IRIS_CHANNEL_CHUNK ? left : IRIS_CHANNEL_CHUNK;
        iris_channel_lane *theirs = lane_at(args, peer_, self);

        if (sending_) {
            copy_bytes(wg, slot_at(args, peer_, self, slot), address_ + begin, nbytes);
            if (is_leader(wg))
                push(&theirs->message_nbytes[slot], nbytes_);
        } else {
            const uint64_t sent = lane_at(args, self, peer_)->message_nbytes[slot];
            if (sent != nbytes_) {
                if (is_leader(wg))
                    give_up(call, {IRIS_SIGNAL_SIZE, peer_, -1}, (uint32_t)nbytes_, (uint32_t)sent);
                return false;
            }
            copy_bytes(wg, address_ + begin, slot_at(args, self, peer_, slot), nbytes);
        }
        ++count_;
        chunk_ += (uint64_t)args.lanes;
        /* Also behind the receiver's reads: what is stored depends on them. */
        group_publish(wg);
        if (is_leader(wg)) {
            store_release(sending_ ? &theirs->filled.value : &theirs->drained.value, count_);
            wake(call.args, peer_);
        }
        return true;
    }

    /* After the last chunk. */
    IRIS_INLINE void close(work_group wg, const iris_message_args &args) const
    {
        iris_channel_lane *own = lane_at(args, args.call.rank, peer_);
        if (is_leader(wg))
            store_relaxed(sending_ ? &own->sent : &own->received, (uint64_t)count_);
    }

  private:
    /* On rank `at`, the lane that it shares with `peer`. */
    IRIS_INLINE iris_channel_lane *lane_at(const iris_message_args &args, int32_t at,
                                           int32_t peer) const
    {
        return heap_pointer<iris_channel_lane>(args.call, at, args.channels_offset) +
               (peer * args.lanes + lane_);
    }

    IRIS_INLINE char *slot_at(const iris_message_args &args, int32_t at, int32_t peer,
                              uint32_t slot) const
    {
        const uint64_t lanes = (uint64_t)(args.call.world_size * args.lanes);
        const uint64_t slots = (uint64_t)(peer * args.lanes + lane_) * IRIS_CHANNEL_SLOTS + slot;
        return heap_pointer<char>(args.call, at,
                                  args.channels_offset + lanes * sizeof(iris_channel_lane) +
                                      slots * IRIS_CHANNEL_CHUNK);
    }

    bool sending_;
    int32_t peer_, lane_;
    char *address_;
    uint64_t nbytes_;
    uint64_t chunk_; /* the next one of this lane's */
    uint32_t count_; /* chunks through this lane and direction before this one */
};

} // namespace iris

#endif
