/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Launches that use one piece of device memory, in the order of the calls whatever their streams.
 */
#ifndef IRIS_STREAM_ORDER_H
#define IRIS_STREAM_ORDER_H

#include <stdbool.h>

#include "device/device.h"

/* Zeroed: nothing launched yet. The stream of the last launch that was not captured and, once a
 * second stream has been used, the end of that launch. */
struct iris_stream_order {
    bool used, shared;
    void *stream, *event;
};

/* Before a launch on `stream`, and after it. No-ops on synchronous devices, and while capturing:
 * there the graph's own order counts. */
enum iris_status iris_stream_order_before(const struct iris_device_ops *ops,
                                          struct iris_device *device,
                                          struct iris_stream_order *order, void *stream,
                                          bool capturing);
enum iris_status iris_stream_order_after(const struct iris_device_ops *ops,
                                         struct iris_device *device,
                                         struct iris_stream_order *order, void *stream,
                                         bool capturing);
/* `device` NULL: closed; its events went with it. */
void iris_stream_order_destroy(const struct iris_device_ops *ops, struct iris_device *device,
                               struct iris_stream_order *order);

#endif
