/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Order between streams.
 */
#include "stream_order.h"

enum iris_status iris_stream_order_before(const struct iris_device_ops *ops,
                                          struct iris_device *device,
                                          struct iris_stream_order *order, void *stream,
                                          bool capturing)
{
    if (capturing || !order->used || order->stream == stream)
        return IRIS_OK;
    if (order->event != NULL)
        return ops->event_wait(device, stream, order->event);
    /* The first change of streams: most memory never sees one, and is spared the events. */
    order->shared = true;
    return ops->synchronize(device);
}

enum iris_status iris_stream_order_after(const struct iris_device_ops *ops,
                                         struct iris_device *device,
                                         struct iris_stream_order *order, void *stream,
                                         bool capturing)
{
    if (capturing || !iris_device_traits(device)->is_gpu)
        return IRIS_OK;
    order->used = true;
    order->stream = stream;
    return order->shared ? ops->event_record(device, stream, &order->event) : IRIS_OK;
}

void iris_stream_order_destroy(const struct iris_device_ops *ops, struct iris_device *device,
                               struct iris_stream_order *order)
{
    if (order->event != NULL && device != NULL)
        ops->event_destroy(device, order->event);
    order->event = NULL;
}
