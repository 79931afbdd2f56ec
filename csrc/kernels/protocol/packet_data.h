/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The data of a packet: in memory, as elements, and on its way. Elements that are added up in fp32
 * travel in bare packets, 16 bytes in each; all others beside a signal, 8 bytes in each (sync.h,
 * NOTE [bare packets], NOTE [packets]).
 */
#ifndef IRIS_PACKET_DATA_H
#define IRIS_PACKET_DATA_H

#include "kernels/base/reduce_ops.h"
#include "packet_sync.h"

namespace iris
{

template <typename T> constexpr bool kTravelsBare = IRIS_TRAVELS_BARE(dtype_of<T>::value);
static_assert(!kTravelsBare<int32_t>, "a NaN is how a bare packet is empty");

template <typename T> constexpr int32_t kPacketWords = kTravelsBare<T> ? 2 : 1;
template <typename T> constexpr int32_t kPacketBytes = kPacketWords<T> * kWordBytes;
template <typename T> constexpr int32_t kPacketElements = kPacketWords<T> * kWord<T>;

template <typename T> struct alignas(kPacketBytes<T>) packet_data {
    uint64_t word[kPacketWords<T>];
};
template <typename T> using packet_values = acc_t<T>[kPacketElements<T>];

/* Elements of T, of which `count` exist, the rest zero. `aligned`: to the data of a packet. */
template <typename T>
IRIS_INLINE packet_data<T> load_data(const T *source, int64_t count, bool aligned)
{
    packet_data<T> data;
    if (aligned && count >= kPacketElements<T>) {
#if defined(IRIS_GPU)
        data = *reinterpret_cast<const packet_data<T> *>(source);
#else
        __builtin_memcpy(&data, source, sizeof data);
#endif
        return data;
    }
    IRIS_UNROLL
    for (int32_t i = 0; i < kPacketWords<T>; ++i)
        data.word[i] = load_word(source + i * kWord<T>, count - i * kWord<T>, false);
    return data;
}

template <typename T>
IRIS_INLINE void store_data(T *target, int64_t count, bool aligned, const packet_data<T> &data)
{
    if (aligned && count >= kPacketElements<T>) {
#if defined(IRIS_GPU)
        *reinterpret_cast<packet_data<T> *>(target) = data;
#else
        __builtin_memcpy(target, &data, sizeof data);
#endif
        return;
    }
    IRIS_UNROLL
    for (int32_t i = 0; i < kPacketWords<T>; ++i)
        store_word(target + i * kWord<T>, count - i * kWord<T>, false, data.word[i]);
}

template <typename T>
IRIS_INLINE void unpack_data(const packet_data<T> &data, packet_values<T> &values)
{
    IRIS_UNROLL
    for (int32_t i = 0; i < kPacketWords<T>; ++i) {
        acc_t<T> part[kWord<T>];
        unpack_word<T>(data.word[i], part);
        IRIS_UNROLL
        for (int32_t k = 0; k < kWord<T>; ++k)
            values[i * kWord<T> + k] = part[k];
    }
}

template <typename T> IRIS_INLINE packet_data<T> pack_data(const packet_values<T> &values)
{
    packet_data<T> data;
    IRIS_UNROLL
    for (int32_t i = 0; i < kPacketWords<T>; ++i) {
        acc_t<T> part[kWord<T>];
        IRIS_UNROLL
        for (int32_t k = 0; k < kWord<T>; ++k)
            part[k] = values[i * kWord<T> + k];
        data.word[i] = pack_word<T>(part);
    }
    return data;
}

/* The data as it is sent; who adds it up without sending it takes this too. */
template <typename T> IRIS_INLINE packet_data<T> sendable(packet_data<T> data)
{
    if constexpr (kTravelsBare<T>)
        for (int32_t i = 0; i < kPacketWords<T>; ++i)
            data.word[i] = not_empty(data.word[i]);
    return data;
}

/* Sends data that is sendable. `index` counts the packets of this call's half on rank `rank`, bare
 * ones and others apart. */
template <typename T>
IRIS_INLINE void send_data(const call_state &call, int32_t rank, int64_t index,
                           const packet_data<T> &data)
{
    if constexpr (kTravelsBare<T>)
        store_packet(bare_packet_at(call, rank, index), data.word[0], data.word[1]);
    else
        send_packet(call, packet_at(call, rank, index), data.word[0]);
}

/* The data of `count` <= kCount packets to this rank, `stride` apart, from the ranks `source`,
 * `source` + 1, ... but not from `except`. One thread's. */
template <typename T, int kCount>
IRIS_INLINE bool receive_data(const call_state &call, int64_t first, int64_t stride, int32_t source,
                              int32_t count, int32_t except, packet_data<T> (&data)[kCount],
                              iris_signal signal = IRIS_SIGNAL_PARTIAL)
{
    const int32_t self = call.args.rank;
    if constexpr (kTravelsBare<T>) {
        iris_packet packets[kCount] = {};
        if (!receive_bare_packets(call, bare_packet_at(call, self, first), stride, source, count,
                                  except, packets, signal))
            return false;
        IRIS_UNROLL
        for (int32_t q = 0; q < kCount; ++q)
            data[q] = {{packets[q].word[0], packets[q].word[1]}};
    } else {
        uint64_t words[kCount] = {};
        if (!receive_packets(call, packet_at(call, self, first), stride, source, count, except,
                             words, signal))
            return false;
        IRIS_UNROLL
        for (int32_t q = 0; q < kCount; ++q)
            data[q] = {{words[q]}};
    }
    return true;
}

} // namespace iris

#endif
