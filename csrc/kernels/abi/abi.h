/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * What the host and the kernels both see: limits, the layout of shared memory, and the argument
 * structs, which are launched by value. Compiles as C11 and as HIP C++, includes nothing of the
 * runtime. Addresses are uint64_t so that one layout serves every compiler; the kernels turn them
 * into typed pointers in one place (tile.h).
 *
 * Who writes and who reads each shared word is said at the word. "Heap" memory is addressable by
 * every rank at the same offset from that rank's heap base.
 */
#ifndef IRIS_ABI_H
#define IRIS_ABI_H

#include <stdint.h>

#include "packet.h"
#include "scaling.h"

#define IRIS_MAX_RANKS 16

/* Flags that different ranks write lie this far apart, so that no two writers share a line. */
#define IRIS_FLAG_STRIDE 128

/* Offsets inside the heap are multiples of this. */
#define IRIS_HEAP_ALIGNMENT 256

enum iris_dtype {
    IRIS_DTYPE_F32 = 0,
    IRIS_DTYPE_F16 = 1,
    IRIS_DTYPE_BF16 = 2,
    /* Products are of the three above, and with scales of operands that are IRIS_IS_FLOAT8;
     * reductions are also of F64, I8, I32, I64, U8 and BOOL (as U8); the others can be allocated
     * and moved. */
    IRIS_DTYPE_F64 = 3,
    IRIS_DTYPE_I8 = 4,
    IRIS_DTYPE_I16 = 5,
    IRIS_DTYPE_I32 = 6,
    IRIS_DTYPE_I64 = 7,
    IRIS_DTYPE_U8 = 8,
    IRIS_DTYPE_BOOL = 9,
    IRIS_DTYPE_U16 = 10,
    IRIS_DTYPE_U32 = 11,
    IRIS_DTYPE_U64 = 12,
    IRIS_DTYPE_C64 = 13, /* two of F32: real, imaginary */
    IRIS_DTYPE_C128 = 14,
    IRIS_DTYPE_F8_E4M3FN = 15,
    IRIS_DTYPE_F8_E5M2 = 16,
    IRIS_DTYPE_F8_E4M3FNUZ = 17,
    IRIS_DTYPE_F8_E5M2FNUZ = 18,
    IRIS_DTYPE_F8_E8M0FNU = 19,
    IRIS_DTYPE_COUNT = 20,
    /* No tensor's: what rows of instances.def stand under that multiply float8 operands with
     * scales, by the dtype of the result: scaling.h. */
    IRIS_DTYPE_SCALED_F32 = 20,
    IRIS_DTYPE_SCALED_F16 = 21,
    IRIS_DTYPE_SCALED_BF16 = 22,
    IRIS_ROW_DTYPE_COUNT = 23
};

/* Operations: X(name, value, what callers call it). CLEAR_SUMS is a part of the sums in the
 * variants atomic and spinlock, COPY_MATRIX of products in the form "plain", never called by name.
 * ALL_GATHER_MATMUL_HBM_BUFFER has ALL_GATHER_MATMUL's kernel, with the product under way early.
 * COMPARE_CLOCKS: see clocks.hip.
 * ALL_TO_ALL_V is all_to_all with a size for each pair of ranks; it, SEND, RECV, PUT, GET, SIGNAL,
 * WAIT, SENDRECV and BATCH are agreed on between two ranks, or by one, and with nobody else. */
#define IRIS_OPERATIONS(X)                                                                         \
    X(NONE, 0, "")                                                                                 \
    X(BARRIER, 1, "barrier")                                                                       \
    X(MATMUL_ALL_REDUCE, 2, "matmul_all_reduce")                                                   \
    X(ALL_REDUCE, 3, "all_reduce")                                                                 \
    X(REDUCE_SCATTER, 4, "reduce_scatter")                                                         \
    X(ALL_GATHER, 5, "all_gather")                                                                 \
    X(BROADCAST, 6, "broadcast")                                                                   \
    X(ALL_TO_ALL, 7, "all_to_all")                                                                 \
    X(CLEAR_SUMS, 8, "clear_sums")                                                                 \
    X(GATHER, 9, "gather")                                                                         \
    X(SCATTER, 10, "scatter")                                                                      \
    X(REDUCE, 11, "reduce")                                                                        \
    X(ALL_REDUCE_RMSNORM, 12, "all_reduce_rmsnorm")                                                \
    X(SEND, 13, "send")                                                                            \
    X(RECV, 14, "recv")                                                                            \
    X(ALL_TO_ALL_V, 15, "all_to_all")                                                              \
    X(PUT, 16, "put")                                                                              \
    X(GET, 17, "get")                                                                              \
    X(SIGNAL, 18, "signal")                                                                        \
    X(WAIT, 19, "wait")                                                                            \
    X(MATMUL_REDUCE_SCATTER, 20, "matmul_reduce_scatter")                                          \
    X(MATMUL_ALL_GATHER, 21, "matmul_all_gather")                                                  \
    X(ALL_GATHER_MATMUL, 22, "all_gather_matmul")                                                  \
    X(ALL_GATHER_MATMUL_HBM_BUFFER, 23, "all_gather_matmul_hbm_buffer")                            \
    X(COMPARE_CLOCKS, 24, "compare_clocks")                                                        \
    X(SENDRECV, 25, "sendrecv")                                                                    \
    X(BATCH, 26, "batch")                                                                          \
    X(COPY_MATRIX, 27, "copy_matrix")                                                              \
    X(EXCHANGE, 28, "exchange")

enum iris_operation {
#define IRIS_OPERATION(name, value, text) IRIS_OP_##name = value,
    IRIS_OPERATIONS(IRIS_OPERATION)
#undef IRIS_OPERATION
        IRIS_OP_COUNT
};

/* Operations that gather an operand of their product. */
#define IRIS_IS_GATHERED_PRODUCT(operation)                                                        \
    ((operation) == IRIS_OP_ALL_GATHER_MATMUL ||                                                   \
     (operation) == IRIS_OP_ALL_GATHER_MATMUL_HBM_BUFFER)

/* Operations whose tiles are matrix products. */
#define IRIS_IS_PRODUCT(operation)                                                                 \
    ((operation) == IRIS_OP_MATMUL_ALL_REDUCE || (operation) == IRIS_OP_MATMUL_REDUCE_SCATTER ||   \
     (operation) == IRIS_OP_MATMUL_ALL_GATHER || IRIS_IS_GATHERED_PRODUCT(operation))

enum iris_variant {
    IRIS_VARIANT_NONE = 0,
    IRIS_VARIANT_ATOMIC = 1,
    IRIS_VARIANT_SPINLOCK = 2,
    IRIS_VARIANT_ONE_SHOT = 3,
    IRIS_VARIANT_TWO_SHOT = 4,
    IRIS_VARIANT_RING = 5,
    IRIS_VARIANT_LL = 6,
    IRIS_VARIANT_LL_TWO_SHOT = 7,
    IRIS_VARIANT_ONE_SHOT_LEGACY = 8, /* one_shot's kernel between host barriers */
    IRIS_VARIANT_COUNT = 9
};

/* How a product is joined with what goes on between ranks. */
enum iris_form {
    IRIS_FORM_NONE = 0,   /* open; of operations that are no product */
    IRIS_FORM_TILES = 1,  /* one kernel: large tiles, which travel as they are made */
    IRIS_FORM_DECODE = 2, /* one kernel for few rows: packets from the product's epilogue */
    IRIS_FORM_PLAIN = 3,  /* a product and a collective, one after the other */
    IRIS_FORM_COUNT = 4
};

/* What a rank knows when a call ends on its stream, beside its own result's completeness. */
enum iris_ending {
    IRIS_ENDING_TELLS = 0, /* nothing; but it has told the peers that its result is complete */
    IRIS_ENDING_WAITS = 1, /* that all ranks' results are complete: the peers have told it too */
    IRIS_ENDING_LOCAL = 2  /* nothing, nor does any rank want to; equal on all ranks */
};

enum iris_reduce_op {
    IRIS_REDUCE_SUM = 0,
    IRIS_REDUCE_MAX = 1, /* NaN if any is */
    IRIS_REDUCE_MIN = 2,
    IRIS_REDUCE_PROD = 3,
    IRIS_REDUCE_AVG = 4, /* the sum over world_size; integers round towards zero */
    IRIS_REDUCE_COUNT = 5
};

/* The signals a work-group can wait for; recorded with a fault so that the host can say what was
 * missing. */
enum iris_signal {
    IRIS_SIGNAL_NONE = 0,
    IRIS_SIGNAL_ARRIVED = 1,   /* the peer started the call and published its record */
    IRIS_SIGNAL_PARTIAL = 2,   /* a partial tile from the peer */
    IRIS_SIGNAL_RESULT = 3,    /* a finished tile from the peer (ring) */
    IRIS_SIGNAL_DELIVERED = 4, /* the peer has pushed everything it owes this rank */
    IRIS_SIGNAL_DONE = 5,      /* the peer's own results are complete */
    IRIS_SIGNAL_LOCK = 6,      /* a spinlock's release */
    IRIS_SIGNAL_BARRIER = 7,   /* the peer reached the device barrier */
    IRIS_SIGNAL_CHUNK = 8,     /* a piece of a message from the peer */
    IRIS_SIGNAL_ROOM = 9,  /* the peer took a piece of a message, so that another one has room */
    IRIS_SIGNAL_SIZE = 10, /* no wait: the peer sent a message of another size */
    IRIS_SIGNAL_WORD = 11, /* the value of a user's word, see IRIS_OP_WAIT */
    IRIS_SIGNAL_UNIT = 12, /* a piece of the peer's shard of a gathered operand */
    IRIS_SIGNAL_CLOCK = 13 /* the peer's time */
};

/* Why waits end early: the low byte of iris_fault.abort; the culprit's rank stands above it, and
 * above that, for IRIS_ABORT_MISMATCH and IRIS_ABORT_PEER_LEFT, the low 16 bits of the board number
 * of a call. The hosts may be several calls ahead of the kernels, which must finish the calls
 * before the one that the ranks do not agree on; and those that a peer has taken part in before it
 * left, up to the one meant, get all that they wait for. */
enum iris_abort {
    IRIS_ABORT_NONE = 0,
    IRIS_ABORT_TIMEOUT = 1,      /* a wait of this rank passed its time limit */
    IRIS_ABORT_PEER_DIED = 2,    /* set by the host: a peer is gone */
    IRIS_ABORT_PEER_LEFT = 3,    /* set by the host: a peer closed its context */
    IRIS_ABORT_PEER_GAVE_UP = 4, /* set by a peer whose own wait timed out */
    IRIS_ABORT_MISMATCH = 5,     /* set by a peer's host: the ranks called different things */
    IRIS_ABORT_WENT_ON = 6,      /* set by the host: the rank called survivors() */
    IRIS_ABORT_INTERRUPTED = 7   /* set by the host of the culprit, whose call was interrupted */
};
#define IRIS_ABORT_WORD(reason, culprit) ((uint32_t)(reason) | ((uint32_t)(culprit) << 8))
#define IRIS_ABORT_WORD_AT(reason, culprit, number)                                                \
    (IRIS_ABORT_WORD(reason, culprit) | ((uint32_t)(number) << 16))
#define IRIS_ABORT_REASON(word) ((word) & 0xffu)
#define IRIS_ABORT_CULPRIT(word) ((int32_t)((word) >> 8 & 0xffu))
#define IRIS_ABORT_NUMBER(word) ((word) >> 16)

/* Numbers of calls that are not described on the board: replays of a graph, which could be any, and
 * what needs no agreement of all ranks. */
#define IRIS_BOARD_REPLAY UINT32_MAX
#define IRIS_BOARD_DIRECT (UINT32_MAX - 1)

/* One per rank, side by side in memory that all ranks' hosts and kernels can write. `abort` is
 * polled by every wait of its rank; it is moved off 0 once, by compare-and-swap. The rank's own
 * wait that times out first fills the rest, for the hosts to read. */
struct iris_fault {
    uint32_t abort;     /* IRIS_ABORT_WORD */
    uint32_t operation; /* enum iris_operation */
    uint32_t signal;    /* enum iris_signal */
    uint32_t call;      /* signal value of the call */
    int32_t rank;       /* rank waited for */
    int32_t tile;       /* tile waited for, -1: the whole call */
    uint32_t wanted;
    uint32_t seen;
    uint32_t pad[24];
};

/* Where the waits of a rank sleep on the host (kernels/cpu/sync_doorbell.h), in the control
 * segment. */
#define IRIS_DOORBELL_CORES 16
struct iris_doorbell {
    uint32_t rings; /* slept on; changed by who wakes the sleepers, a peer or the rank itself */
    uint32_t pad[IRIS_FLAG_STRIDE / 4 - 1];
    /* [p]: the rank's work-groups that sleep until rank p signals; the rank's own, read by p. */
    uint32_t sleepers[IRIS_MAX_RANKS];
    uint32_t sleepers_pad[IRIS_FLAG_STRIDE / 4 - IRIS_MAX_RANKS];
    /* [g]: 1 + the core that a work-group with index g modulo their number waited on last, 0: it
     * has not waited yet; the rank's own, read by all. */
    uint32_t core[IRIS_DOORBELL_CORES];
    uint32_t core_pad[IRIS_FLAG_STRIDE / 4 - IRIS_DOORBELL_CORES];
};

struct iris_flag {
    uint32_t value;
    uint32_t pad[IRIS_FLAG_STRIDE / 4 - 1];
};

/* Where a rank wants the call's results: written by that rank into each peer's workspace before
 * its ARRIVED signal, read by the peer after it. */
#define IRIS_STAGED UINT64_MAX
struct iris_record {
    uint64_t output_offset; /* from the heap base, or IRIS_STAGED: into the result staging */
    int64_t stride_row;     /* elements */
    int64_t stride_col;
    uint64_t pad[13];
};

/* The head of a workspace, in heap memory. Indexed by the rank that writes. See docs/protocol.md
 * for what each signal promises and why none of them is ever reset between calls. */
struct iris_workspace_control {
    uint64_t calls;              /* calls completed; written by the last work-group of this rank */
    uint32_t work_groups_done;   /* work-groups of this rank that have left the current call */
    uint32_t work_groups_pushed; /* work-groups of this rank whose pushes are finished */
    uint32_t faulted;            /* 1: a work-group of this rank has written the rank's fault */
    uint32_t pad[27];
    struct iris_flag arrived[IRIS_MAX_RANKS];
    struct iris_flag delivered[IRIS_MAX_RANKS];
    struct iris_flag done[IRIS_MAX_RANKS];
    struct iris_record records[2][IRIS_MAX_RANKS]; /* by the call's parity */
};

/* Messages from one rank to another travel as chunks through slots in the receiver's heap, in order
 * within a lane: chunk c of a message takes lane c mod lanes (channel.h). Both ends of a lane count
 * its chunks, from the beginning of the context on. */
#define IRIS_CHANNEL_LANES 16
#define IRIS_CHANNEL_SLOTS 4
#define IRIS_CHANNEL_CHUNK 32768 /* bytes */

/* One lane of one pair of ranks, as it lies in the heap of each of the two. */
struct iris_channel_lane {
    struct iris_flag filled;  /* chunks that the peer has sent here; written by the peer */
    struct iris_flag drained; /* chunks from here that the peer has taken; written by the peer */
    uint64_t sent;            /* chunks sent from here; this rank's own */
    uint64_t received;        /* chunks taken here; this rank's own */
    uint64_t pad[14];
    uint64_t message_nbytes[IRIS_CHANNEL_SLOTS]; /* of the message that the slot's chunk is of;
                                                    written by the peer before `filled` */
    uint64_t message_pad[16 - IRIS_CHANNEL_SLOTS];
};

/* ---- traces, see trace.h ---- */

enum iris_trace_kind {
    IRIS_TRACE_FETCH = 1,  /* a unit of a gathered operand is stored: `rank` whose it is */
    IRIS_TRACE_GEMM = 2,   /* a tile is multiplied, with what it waits for on the way */
    IRIS_TRACE_WAIT = 3,   /* for a signal of `rank` */
    IRIS_TRACE_REDUCE = 4, /* a piece of a tile is summed over the ranks and stored */
    IRIS_TRACE_SIGNAL = 5, /* what was stored for `rank` is published; -1: for several */
    IRIS_TRACE_KINDS = 6
};

/* Which threads of a work-group: all, or those with one of the roles of sm_90a's products. */
enum iris_trace_role {
    IRIS_TRACE_GROUP = 0,
    IRIS_TRACE_LOADER = 1,
    IRIS_TRACE_STORER = 2,
    IRIS_TRACE_EXCHANGE = 3,
    IRIS_TRACE_MATH = 4,
    IRIS_TRACE_ROLES = 5
};

/* From one moment to another of the device's clock. */
struct iris_trace_record {
    uint64_t begin, end;
    uint32_t what;  /* enum iris_trace_kind, << 8 iris_trace_role, << 16 iris_operation */
    uint32_t where; /* the work-group's index in the launch, << 16 the rank meant, 0xffff: none */
    int32_t index;  /* of the tile, flag or unit; -1: none */
    uint32_t call;  /* traced calls of the context before this one */
};

/* A rank's trace, in its device's memory; the records follow. */
struct iris_trace {
    uint32_t count; /* records so far, also of those that found no room */
    uint32_t capacity;
    int64_t clock_offset; /* this rank's clock minus rank 0's, see clocks.hip */
    uint64_t round_trip;  /* of the messages that told it: twice the bound of its error */
    uint64_t pad[5];
};

/* Packets of compare_clocks (clocks.hip). */
#define IRIS_CLOCK_ROUNDS 64
#define IRIS_CLOCK_RESULT IRIS_CLOCK_ROUNDS
#define IRIS_CLOCK_ANSWERS (IRIS_CLOCK_RESULT + 3)
#define IRIS_CLOCK_PACKETS(world_size) (IRIS_CLOCK_ANSWERS + (world_size) * IRIS_CLOCK_ROUNDS)

/* The first bytes of every kernel's arguments. */
struct iris_call_args {
    uint64_t heap_bases[IRIS_MAX_RANKS]; /* as mapped in this process */
    uint64_t control_offset;             /* struct iris_workspace_control, from the heap base */
    uint64_t flags_offset;               /* uint32_t flags[2][flags_count], from the heap base */
    uint64_t data_offset;                /* the staging buffers, from the heap base */
    uint64_t data_half_nbytes;           /* bytes of one parity's half of the staging */
    uint64_t packets_offset;             /* struct iris_packet, from the heap base; two halves */
    uint64_t packets_half_count;         /* packets of one parity's half */
    uint64_t bare_offset;                /* struct iris_packet, bare ones; two halves */
    uint64_t bare_half_count;            /* of one parity's half */
    uint64_t faults_address;             /* struct iris_fault[world_size], as the device sees it */
    uint64_t timeout_ticks;              /* of the device's clock */
    uint64_t completed;                  /* on the host, of calls without a counter: uint32_t, the
                                            work-groups that got through */
    uint64_t doorbells_address;          /* on the host: struct iris_doorbell[world_size] */
    uint32_t flags_count;                /* flags of one parity's half */
    int32_t rank;
    int32_t world_size;
    uint32_t operation;    /* enum iris_operation */
    uint32_t board_number; /* low 16 bits of the number that the hosts gave the call, or one of
                              those above */
    uint32_t traced_call;  /* see iris_trace_record.call */
    uint64_t trace;        /* struct iris_trace; traced kernels only */
};

/* A matrix in ordinary device memory; strides in elements, any sign is the caller's business. */
struct iris_matrix_args {
    uint64_t address;
    int64_t stride_row;
    int64_t stride_col;
};

/* Reductions of products and of tensors: what the reduction over ranks needs, see reduction_host.h.
 */
struct iris_reduce_args {
    struct iris_call_args call;
    struct iris_matrix_args a;      /* all_reduce, reduce_scatter: the input */
    struct iris_matrix_args b;      /* matmul only */
    struct iris_matrix_args output; /* (M, N); of a scattered result this rank's share of it */
    struct iris_matrix_args bias;   /* address 0: none; strides 0 broadcast */
    uint64_t output_offset;         /* the output in the heap, or IRIS_STAGED */
    int64_t M, N, K;
    int64_t share_m, share_n; /* a scattered or gathered result: (r share_m, r share_n) is where
                                 rank r's share begins; one of them is 0. Both 0: none has one. A
                                 tensor's reduce_scatter has a row for each rank */
    int32_t block_m, block_n, block_k;
    int32_t group_size_m; /* tile rows per group of the tile order */
    uint32_t ending;      /* enum iris_ending */
    uint32_t reduce_op;   /* enum iris_reduce_op; of a product SUM */
    int32_t num_xcds;   /* XCDs, which the hardware gives work-groups to in turn; 1: not divided */
    int32_t root;       /* the only rank that gets the result, or -1: all get it */
    float reduce_scale; /* what a floating-point result is multiplied by: 1, or AVG's 1 / W */
    uint32_t pad;
};

/* How the tensor copy engine of a device that has one (sm_90a) is to read an operand. */
enum iris_tensor_map_kind {
    IRIS_TENSOR_MAP_NONE = 0, /* it cannot: odd strides or alignment; threads load the elements */
    IRIS_TENSOR_MAP_K = 1,    /* K is the contiguous dimension */
    IRIS_TENSOR_MAP_MN = 2    /* M, or N, is */
};

/* The driver's opaque description of a matrix to the tensor copy engine, which wants it aligned. */
struct iris_tensor_map {
    uint64_t opaque[16];
} __attribute__((aligned(64)));

/* The operations that are IRIS_IS_PRODUCT. */
struct iris_product_args {
    struct iris_reduce_args reduce; /* output and bias are of the result's dtype */
    struct iris_scaling scaling;    /* rows of instances.def under SCALED dtypes only */
    uint32_t a_map_kind;            /* enum iris_tensor_map_kind; only ever non-zero on sm_90a */
    uint32_t b_map_kind;
    uint32_t c_is_mapped; /* 1: a world of one, whose tiles the engine writes straight into C */
    uint32_t pad;
    struct iris_tensor_map a_map;
    struct iris_tensor_map b_map;
    struct iris_tensor_map c_map;
};

/* The tiles of an output; see schedule.h. */
struct iris_schedule {
    int64_t M, N;
    int32_t block_m, block_n;
    int64_t tiles_m, tiles_n, tiles;
    int64_t group_size_m; /* tile rows per group, 1 <= group_size_m <= tiles_m */
    int32_t world_size;
    int64_t share_max; /* tiles of the largest share */
};

/* A rank's shard of A, (rows, cols), travels in units of unit_rows x unit_cols, each with a flag,
 * and is staged in runs along K, or along M (m_contiguous). Shards of rows lie one after the other,
 * lines padded for the copy engines; so do shards of columns on a GPU. On the host, whose product
 * takes one matrix, shards of columns are joined. */
struct iris_gather_layout {
    int64_t rows, cols; /* of a shard */
    int32_t unit_rows, unit_cols;
    int32_t group_rows;  /* rows of units that are sent together, column after column */
    int32_t skips_own;   /* cpu: a rank's own shard is read where it is, and has no place here */
    int64_t units_k;     /* side by side */
    int64_t units;       /* of a shard; unit (i, j) is number i * units_k + j */
    int64_t pitch;       /* elements from a line to the next */
    uint64_t shard_step; /* bytes from a staged shard to the next */
    uint64_t half_nbytes;
    int64_t flags_count; /* of one half: flag of unit u of rank r at r * units + u */
    /* A float8 operand's scales travel with the units that begin at column 0, under their flags: of
     * each row scale_cols floats, side by side, whatever kind the sender has. Rank r's begin
     * scales_offset + place * scales_step bytes into the half, with the place of its shard. */
    uint64_t scales_offset, scales_step;
    int32_t scale_cols; /* 1, or the shard's blocks of K; 0: there are no scales */
    uint32_t pad;
};

/* The tiles of a product whose A is gathered: this rank's rows first, whose operand is at hand,
 * then the peers' in turn, as they arrive together. */
struct iris_gather_schedule {
    struct iris_schedule tiles; /* with shards of rows, of a matrix whose shards are whole tiles */
    int64_t share_m;            /* rows of a shard, if they are joined along M, else 0 */
    int64_t share_tiles_m;      /* tile rows of one */
};

/* C = (the ranks' shards of A, joined along M or along K) @ B: the operations that are
 * IRIS_IS_GATHERED_PRODUCT. */
struct iris_gather_args {
    struct iris_product_args product; /* of the whole A; `a` is this rank's shard */
    struct iris_gather_layout layout;
    struct iris_gather_schedule schedule;
    struct iris_matrix_args gathered; /* where the joined A is wanted; address 0: nowhere */
    int64_t share_k;                  /* columns of a shard, if they are joined along K, else 0 */
    int32_t fetch_groups;   /* work-groups that only send, on the tensor cores of sm_90a those that
                               send at all; 0: each sends before it multiplies */
    int32_t idle_senders;   /* of those, on sm_90a, how many, the first, multiply nothing: all that
                               send, or 0 */
    uint32_t m_contiguous;  /* staged shards are contiguous along M, not K */
    uint32_t stages_own;    /* this rank's shard passes through its staging too */
    uint32_t waits_for_all; /* nothing is multiplied before everything has arrived */
    int32_t k_splits;       /* work-groups that share a tile's K: 1, or IRIS_K_SPLITS */
    int64_t split_tiles;    /* k_splits times the tiles */
    struct iris_tensor_map staged_maps[2]; /* sm_90a: by the call's half */
};

/* What becomes of the partial products of few rows, in the form DECODE. */
enum iris_decode_exchange {
    IRIS_DECODE_TO_ALL = 0,    /* each rank adds up everything */
    IRIS_DECODE_BY_OWNERS = 1, /* words are dealt to the ranks, which send their sums to all */
    IRIS_DECODE_SCATTER = 2,   /* a rank adds up its share of the result */
    IRIS_DECODE_GATHER = 3     /* nothing is added: all ranks' rows go to all */
};

/* The packets of a product of few rows: see iris_decode_layout_make. */
struct iris_decode_layout {
    int32_t exchange; /* enum iris_decode_exchange */
    int32_t world_size;
    int32_t rows, cols; /* of one rank's product */
    int32_t row_words;  /* words of eight elements in a row */
    int32_t share_rows; /* IRIS_DECODE_SCATTER: of a rank's share; one of them is 0 */
    int32_t share_cols;
    int32_t owned_groups; /* IRIS_DECODE_BY_OWNERS: groups of words of a row, at most */
    int64_t slots;        /* packets from one rank to one */
    int64_t results;      /* IRIS_DECODE_BY_OWNERS: index of the first sum */
    int64_t partials;     /* index of the first partial sum */
    int64_t packets;      /* of one half, all of them bare */
};

/* Products of few rows. The rows of A are the tokens, B has the weights. */
struct iris_decode_args {
    struct iris_product_args product; /* c_map is not used */
    struct iris_decode_layout layout;
    int32_t splits; /* sm_90a: blocks of a cluster, which share a tile's K */
    /* gfx: rounds of a tile, which are dealt to the work-groups in portions of `quantum`; see
     * iris_decode_begin. */
    int32_t rounds, quantum, share, longer;
    /* sm_90a: the weights are loaded before the launch in front has ended, which does not write
     * them. */
    uint32_t prefetches_b;
};

/* all_gather, broadcast, all_to_all, gather, scatter: each sender r sends `nbytes` from
 * input + p * source_step to output + r * target_step of every receiver p. */
struct iris_copy_collective_args {
    struct iris_call_args call;
    uint64_t input;
    uint64_t output;
    uint64_t output_offset; /* in the heap, or IRIS_STAGED */
    uint64_t nbytes;
    uint64_t source_step; /* bytes */
    uint64_t target_step; /* bytes */
    uint32_t senders;     /* bit r: rank r sends */
    uint32_t receivers;   /* bit r: rank r receives, from all senders */
    uint32_t ending;      /* enum iris_ending */
    uint32_t pad;
};

/* One direction of an exchange: what rank r sends to, or gets from, every peer p. */
struct iris_messages {
    uint64_t address[IRIS_MAX_RANKS]; /* by p */
    uint64_t nbytes[IRIS_MAX_RANKS];
    uint32_t peers; /* bit p: there is a message, of 0 bytes or more */
    uint32_t pad;
};

/* send, recv, all_to_all with sizes. The message to this rank itself is copied. */
struct iris_message_args {
    struct iris_call_args call;
    struct iris_messages send, receive;
    uint64_t channels_offset; /* struct iris_channel_lane[world_size][IRIS_CHANNEL_LANES], then the
                                 slots in the same order; from the heap base */
    int32_t lanes;            /* in use, equal on all ranks */
    uint32_t pad;
};

/* put and get: bytes between two addresses of this process. */
struct iris_copy_args {
    struct iris_call_args call;
    uint64_t target;
    uint64_t source;
    uint64_t nbytes;
};

/* copy_matrix: (M, N) elements of 2 or 4 bytes, from source to target. */
struct iris_copy_matrix_args {
    struct iris_call_args call;
    struct iris_matrix_args source;
    struct iris_matrix_args target;
    int64_t M, N;
    uint32_t element_nbytes;
    uint32_t pad;
};

enum iris_signal_op {
    IRIS_SIGNAL_OP_SET = 0,
    IRIS_SIGNAL_OP_ADD = 1, /* wraps */
    IRIS_SIGNAL_OP_COUNT = 2
};

enum iris_compare {
    IRIS_COMPARE_EQ = 0,
    IRIS_COMPARE_NE = 1,
    IRIS_COMPARE_GT = 2,
    IRIS_COMPARE_GE = 3,
    IRIS_COMPARE_LT = 4,
    IRIS_COMPARE_LE = 5,
    IRIS_COMPARE_COUNT = 6
};

/* signal and wait. */
struct iris_word_args {
    struct iris_call_args call;
    uint64_t word; /* its address in this process */
    int32_t value;
    uint32_t how;     /* enum iris_signal_op; enum iris_compare */
    uint32_t consume; /* wait: subtract `value` from the word afterwards */
    uint32_t pad;
};

/* all_reduce_rmsnorm: `reduce` with rows of `N` elements, M of them; its reduce_scale is 1 / N. */
struct iris_rmsnorm_args {
    struct iris_reduce_args reduce;
    uint64_t residual; /* 0: none */
    uint64_t residual_out;
    uint64_t weight;
    float eps;
    uint32_t output_dtype; /* as the input, or float8 with the scales below: cpu only */
    uint64_t output_scale; /* of floats; 0: output has the input's dtype */
    int64_t scale_cols;    /* elements of a row that have one scale */
};

/* barrier, compare_clocks. */
struct iris_barrier_args {
    struct iris_call_args call;
};

#endif
