/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The board: how the hosts settle, call by call and without messages, which workspace storage all
 * of them use. See control.h for the memory and docs/protocol.md, "Choosing the storage".
 */
#ifndef IRIS_BOARD_H
#define IRIS_BOARD_H

#include "runtime/context.h"

/* Storage ids are 1 ... this, so that one fits a claim word. */
#define IRIS_MAX_STORAGE_ID 65535u

enum iris_board_kind {
    IRIS_BOARD_USE,    /* everybody uses `storage_id` */
    IRIS_BOARD_MAKE,   /* nobody has one that will do: all make one together, now */
    IRIS_BOARD_DIFFER, /* descriptions differ: all settle that together, now */
};

struct iris_board_verdict {
    enum iris_board_kind kind;
    uint32_t storage_id;
};

/* What a rank brings to a call. */
struct iris_board_offer {
    uint32_t signature;  /* of the description */
    uint32_t storage_id; /* the storage it would use, 0: it has none that will do */
    bool suits_all;      /* that has room for all ranks, wherever their outputs lie */
    bool stages;         /* this rank's results are staged */
};

/* Describes this rank's next call and settles the storage. A rank with a storage that suits all
 * waits for nobody. Any other waits until a peer has named one, or all have described this call;
 * then, if nobody stages results, the lowest rank's that has one will do for all. IRIS_EPEER when a
 * peer is gone or does not come. Under ctx->op_lock. */
enum iris_status iris_board_settle(struct iris_context *ctx, const struct iris_board_offer *offer,
                                   struct iris_board_verdict *out);

/* Describes this rank's next call, which uses no storage and tells all hosts a value; waits until
 * all have described it, and fills `out` with the values, by rank. IRIS_BOARD_DIFFER: a rank brings
 * another call; IRIS_BOARD_USE otherwise. IRIS_EPEER as above. Under ctx->op_lock. */
enum iris_status iris_board_exchange(struct iris_context *ctx, uint32_t signature, int64_t value,
                                     int64_t *out, enum iris_board_kind *kind);

/* After IRIS_BOARD_MAKE: writes the new storage into the call's claim, so that no old claim can
 * stand in a slot for so long that the call's number comes round again. */
void iris_board_claim_made(struct iris_context *ctx, uint32_t signature, uint32_t storage_id);

/* Waits until all ranks have described the current call, and so completed the one before. */
enum iris_status iris_board_wait_all(struct iris_context *ctx);

/* The storage that the current call's claim names, 0: none. */
uint32_t iris_board_claimed(const struct iris_context *ctx);

#endif
