/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The core's public header: contexts, symmetric allocations, workspaces, operations. Free of
 * Python. Everything the extension module does goes through here.
 *
 * Objects are opaque and counted by reference (atomically; no lock, no GIL needed to release
 * one). A context outlives its closing as long as something refers to it: an allocation keeps
 * the heap mapped, so a tensor may be read after iris_context_close.
 *
 * "Collective" functions are called by all ranks, in the same order. A context may be used from
 * several threads, one at a time in collectives: a second one gets IRIS_ESTATE at once. On the cpu
 * that holds of every call beside one that may wait for a peer.
 * Functions that may wait for peers say so; the caller releases the GIL around them.
 */
#ifndef IRIS_IRIS_H
#define IRIS_IRIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/abi/abi.h"

struct iris_context;
struct iris_allocation;
struct iris_workspace;

/* ---- dtypes, operations, variants: names as Python and messages spell them ---- */

size_t iris_dtype_nbytes(enum iris_dtype dtype);
size_t iris_dtype_alignment(enum iris_dtype dtype); /* what addresses are multiples of; bytes */
bool iris_dtype_is_complex(enum iris_dtype dtype);
const char *iris_dtype_name(enum iris_dtype dtype);             /* "float32" ... */
const char *iris_operation_name(enum iris_operation operation); /* "matmul_all_reduce" ... */
const char *iris_reduce_op_name(enum iris_reduce_op op);        /* "sum" ... */
const char *iris_variant_name(enum iris_variant variant);       /* "two_shot" ..., NONE: "" */
/* false: no such name, *out untouched */
bool iris_variant_from_name(const char *name, enum iris_variant *out);
const char *iris_form_name(enum iris_form form); /* "tiles" ..., NONE: "" */
bool iris_form_from_name(const char *name, enum iris_form *out);
bool iris_operation_from_name(const char *name, enum iris_operation *out);

/* ---- context ---- */

struct iris_context_options {
    size_t heap_size;     /* bytes for allocations, > 0; rounded up to 4 KiB; equal on all ranks */
    size_t local_size;    /* bytes of the local arena; rounded and equal likewise; 0: none */
    const char *backend;  /* NULL: choose what is present; else "hip", "cuda", "cpu" */
    int rank, world_size; /* 0 <= rank < world_size <= IRIS_MAX_RANKS */
    int local_rank;       /* which device of the node */
    double timeout;       /* seconds, > 0: meeting, collectives, every wait inside a kernel */
    const char *run_key;  /* see bootstrap.h */
    int num_threads;      /* cpu: work-groups that run side by side; 0: choose */
    const char *kernel_directory; /* GPUs: where the code objects are */
    bool debug; /* compare every call's description on all ranks before it starts */
    /* See bootstrap.h; may be NULL. iris_members_check for a group. */
    enum iris_status (*check_meeting)(void *arg);
    void *check_meeting_arg;
};

/* Collective; may wait. IRIS_EINVAL on every rank when heap sizes or backends differ. */
enum iris_status iris_context_create(const struct iris_context_options *options,
                                     struct iris_context **out);
struct iris_context *iris_context_retain(struct iris_context *ctx);
void iris_context_release(struct iris_context *ctx); /* NULL is fine; closes when it is the last */
/* Leaves the peers, who then get IRIS_EPEER from what they still start together. Idempotent, not
 * collective. Allocations stay readable. Does nothing in a forked child. */
void iris_context_close(struct iris_context *ctx);
/* The same without waiting for anything; the peers hear that this rank was interrupted. */
void iris_context_close_now(struct iris_context *ctx);
bool iris_context_is_closed(const struct iris_context *ctx);
/* Whether this process is a forked child of the one that made the context. */
bool iris_context_is_inherited(const struct iris_context *ctx);
/* IRIS_ESTATE for a closed context or a forked child's: nothing can be started with it. */
enum iris_status iris_context_check(const struct iris_context *ctx);

/* The ranks of `parent` (a bit each) that meet for a group. */
struct iris_members {
    struct iris_context *parent;
    uint32_t ranks;
};
/* `arg`: a struct iris_members. IRIS_EPEER, naming it as the group does, if one of them will not
 * come: it has died, has closed `parent`, or goes on with its survivors. */
enum iris_status iris_members_check(void *arg);

/* Closes `ctx` and makes the context of those of its ranks that are left and call this too: all
 * that live, but for those that have not come within `timeout` seconds (NULL: the context's own),
 * counted on each from its own call. Ranks keep their order; ranks[i] is what rank i was called in
 * `ctx`, with room for IRIS_MAX_RANKS. Options are those of `ctx`; so is the heap's size. May wait.
 *
 * Allocations of `ctx` stay readable; its heap's memory goes with the last of them.
 *
 * IRIS_EPEER: this rank came too late, the others go on without it. IRIS_ESTATE: `ctx` is closed,
 * or belongs to the parent process. IRIS_EINVAL: the timeout; `ctx` is not closed then. Any other
 * error is this rank's own, and the others go on without it. */
enum iris_status iris_context_survivors(struct iris_context *ctx, const double *timeout,
                                        struct iris_context **out, int *ranks);
/* What the ranks met by, see iris_context_options. */
const char *iris_context_run_key(const struct iris_context *ctx);

int iris_context_rank(const struct iris_context *ctx);
int iris_context_world_size(const struct iris_context *ctx);
const char *iris_context_backend(const struct iris_context *ctx);
int iris_context_device_id(const struct iris_context *ctx); /* cpu: 0 */
int iris_context_compute_units(const struct iris_context *ctx);
size_t iris_context_heap_size(const struct iris_context *ctx);
/* Bytes of this rank's live allocations and workspaces, rounded as the heap rounds them. */
size_t iris_context_heap_used(const struct iris_context *ctx);
/* Bytes of the local arena, and of it of what is allocated, rounded. */
size_t iris_context_local_size(const struct iris_context *ctx);
/* Of the heap's memory on this rank: "shared" (cpu), "device" (cuda), and on hip "uncached",
 * "fine-grained" or "unknown". Where some rank's is one of the last two, nothing goes as packets.
 */
const char *iris_context_memory_kind(const struct iris_context *ctx);
size_t iris_context_local_used(const struct iris_context *ctx);
/* The most that the local arena can give now in one piece, without waiting for the device. */
size_t iris_context_local_room(const struct iris_context *ctx);
/* Base addresses of all ranks' heaps in this process; `out` has world_size entries. An address in
 * this rank's heap minus out[rank] plus out[p] is the same place in rank p's. */
void iris_context_heap_bases(const struct iris_context *ctx, uint64_t *out);

/* Collective; may wait. Host barrier: returns when all ranks have finished what `stream` held and
 * have arrived. */
enum iris_status iris_context_barrier(struct iris_context *ctx, void *stream);
/* Collective; on the cpu may wait. Orders the work of all ranks' streams: what a rank enqueued
 * before is complete and visible to what any rank enqueues after. No host synchronisation. */
enum iris_status iris_context_device_barrier(struct iris_context *ctx, void *stream);

/* Collective; may wait for the other ranks' hosts, and for no device. Tells all ranks `value`;
 * `out` gets theirs, world_size of them by rank. IRIS_EINVAL with one text on every rank when one
 * brings another call; the context stays usable. */
enum iris_status iris_context_exchange(struct iris_context *ctx, int64_t value, int64_t *out);
/* Collective; may wait for the other ranks' hosts, and for no device. Gives all ranks the `nbytes`,
 * equal on all, that `bytes` holds on rank `src`. Meant for small things: 8 KiB take one round of
 * the bootstrap's channel. IRIS_EPEER when a rank does not come in time. */
enum iris_status iris_context_broadcast(struct iris_context *ctx, void *bytes, size_t nbytes,
                                        int src);

/* ---- allocations ---- */

/* Collective; may wait. Uninitialised symmetric memory at one offset on all ranks. nbytes 0 gives
 * a valid address. IRIS_EHEAP on every rank when it does not fit, IRIS_EINVAL on every rank when
 * they ask for different sizes. A freed allocation's bytes are used again once every rank has
 * freed its own. */
enum iris_status iris_allocation_create(struct iris_context *ctx, size_t nbytes,
                                        struct iris_allocation **out);
/* Not collective: memory of the local arena, at an address that only this rank knows. Peers write
 * results there as they do into symmetric memory, and nothing else: it has no place in their heaps.
 * From any thread. IRIS_EHEAP when it does not fit. On a GPU memory that was freed is used again
 * after the device has been waited for, which happens here when there is no other, unless `stream`
 * is being captured. */
enum iris_status iris_allocation_create_local(struct iris_context *ctx, size_t nbytes, void *stream,
                                              struct iris_allocation **out);
bool iris_allocation_is_local(const struct iris_allocation *allocation);
/* The context's number among those whose arenas torch's allocator can use as a pool: the N of the
 * exported function iris_c_pool_allocate_N; iris_c_pool_free goes with all of them. IRIS_ENOMEM:
 * there are too many. */
enum iris_status iris_context_pool(struct iris_context *ctx, int *out);

/* What `stream` is being captured into: *id, unique in the process, 0: it is not captured. */
enum iris_status iris_context_capture(const struct iris_context *ctx, void *stream, uint64_t *id);
/* Tells when nothing of what `stream` is being captured into exists or runs any more; where the
 * driver does not tell, never. Freed by the caller, at any time. IRIS_ENOMEM. */
struct iris_capture_watch;
enum iris_status iris_capture_watch_create(const struct iris_context *ctx, void *stream,
                                           struct iris_capture_watch **out);
bool iris_capture_watch_has_ended(const struct iris_capture_watch *watch);
void iris_capture_watch_free(struct iris_capture_watch *watch); /* NULL is fine */

struct iris_allocation *iris_allocation_retain(struct iris_allocation *allocation);
void iris_allocation_release(struct iris_allocation *allocation); /* NULL is fine; not collective */
void *iris_allocation_data(const struct iris_allocation *allocation);
size_t iris_allocation_nbytes(const struct iris_allocation *allocation);
/* Copies the first nbytes to or from host memory, after everything that the device has queued. Not
 * collective. IRIS_EDRIVER, IRIS_ESTATE in a forked child. */
enum iris_status iris_allocation_read(const struct iris_allocation *allocation, void *host,
                                      size_t nbytes);
enum iris_status iris_allocation_write(const struct iris_allocation *allocation, const void *host,
                                       size_t nbytes);
struct iris_context *
iris_allocation_context(const struct iris_allocation *allocation); /* borrowed */

/* ---- workspaces ---- */

/* A handle to buffers that one operation needs between its calls. Creating one allocates nothing
 * and is not collective; the first call that uses it does. IRIS_EINVAL for an operation that needs
 * none, IRIS_ESTATE in a closed context. */
bool iris_operation_has_workspace(enum iris_operation operation);
enum iris_status iris_workspace_create(struct iris_context *ctx, enum iris_operation operation,
                                       struct iris_workspace **out);
struct iris_workspace *iris_workspace_retain(struct iris_workspace *workspace);
void iris_workspace_release(struct iris_workspace *workspace);

struct iris_workspace_info {
    enum iris_operation operation;
    int64_t shape[3]; /* (M, N, K) of the last call, zeros before */
    enum iris_dtype dtype;
    int world_size;
    enum iris_variant variant;
    uint32_t call_counter; /* signal value of the last completed call; 0: none */
    size_t nbytes;         /* heap bytes held */
    bool prepared;
};
/* May synchronise with the device to read the counter. */
enum iris_status iris_workspace_info(struct iris_workspace *workspace,
                                     struct iris_workspace_info *out);
/* Whether it is the parent process's; then nothing else can be asked of it. */
bool iris_workspace_is_inherited(const struct iris_workspace *workspace);
/* Marks it unprepared: the next call agrees with the peers again, keeps what is still good. */
enum iris_status iris_workspace_reset(struct iris_workspace *workspace);
/* Gives its buffers back; call_counter is 0 until the next call. */
enum iris_status iris_workspace_clear(struct iris_workspace *workspace);
/* Test hook: makes `calls` the number of completed calls. Call it on all ranks with one value,
 * while none of them is inside a call, and between two barriers. */
enum iris_status iris_workspace_set_calls(struct iris_workspace *workspace, uint64_t calls);
/* What every call asks first of the workspace it is given: IRIS_EINVAL unless it is one of `ctx`
 * for `operation`, naming both contexts or both operations; IRIS_ESTATE if `ctx` is closed. */
enum iris_status iris_workspace_check(const struct iris_workspace *workspace,
                                      const struct iris_context *ctx,
                                      enum iris_operation operation);
/* The context's own workspace for `operation`, for callers that pass none. Borrowed. */
enum iris_status iris_context_workspace(struct iris_context *ctx, enum iris_operation operation,
                                        struct iris_workspace **out);

/* ---- operations ---- */

enum { IRIS_MAX_DIMS = 8 };

/* A caller's tensor; strides in elements. */
struct iris_tensor {
    void *data;
    int ndim;
    int64_t shape[IRIS_MAX_DIMS];
    int64_t stride[IRIS_MAX_DIMS];
    enum iris_dtype dtype;
    bool on_cpu; /* which kind of memory; must be the context's */
    int device_id;
    bool read_only;
};

/* Whether all its elements lie in the symmetric heap; and whether they lie where peers can write
 * results, which is there or in the local arena. Without elements, which have no place, whether it
 * is on the context's device. */
bool iris_context_owns(const struct iris_context *ctx, const struct iris_tensor *tensor);
bool iris_context_reaches(const struct iris_context *ctx, const struct iris_tensor *tensor);

enum iris_choice { IRIS_OPEN = 0, IRIS_YES = 1, IRIS_NO = 2 };

/* Fields left 0 (variant NONE) are chosen by the runtime. */
struct iris_config {
    int32_t block_size_m, block_size_n, block_size_k;
    int32_t group_size_m;
    int32_t num_sms; /* work-groups; cpu: threads */
    int32_t num_xcds;
    int32_t num_fetch_sms; /* gathered operands: work-groups that only send, on sm_90a: that send */
    int32_t k_per_flag;    /* the same: steps of block_size_k per flag */
    bool m_contiguous;     /* the same: staged shards are contiguous along M, not K */
    enum iris_choice overlap;  /* the same: multiply what has come while the rest is under way */
    enum iris_variant variant; /* of a product: of its form TILES */
    enum iris_form form;       /* of a product */
    enum iris_choice batch_invariant; /* of a product: a row's bits do not depend on the others */
    enum iris_choice prefetch_b; /* the same: B may be read while launches in front still run */
};

/* Whether configs that leave batch_invariant open mean IRIS_YES. For all contexts of the process.
 */
void iris_set_batch_invariant(bool invariant);
bool iris_is_batch_invariant(void);

/* The same of prefetch_b. */
void iris_set_prefetch_b(bool prefetch);
bool iris_prefetches_b(void);

/* IRIS_EINVAL naming the field and the value. world_size 0 skips what depends on it. */
enum iris_status iris_config_validate(const struct iris_config *config, int world_size);
/* Fills the fields that are 0 for a product of this shape; what a call with config == NULL uses. */
enum iris_status iris_config_select(const struct iris_context *ctx, enum iris_operation operation,
                                    int64_t M, int64_t N, int64_t K, enum iris_dtype dtype,
                                    struct iris_config *config);

/* What a call with config == NULL would use on a chip of this kind ("sm_90a", "gfx942", ...,
 * "cpu"), there or not.
 * M, N, K as the operation's workspace tells them, shares of rows. IRIS_EINVAL. */
enum iris_status iris_auto_config(enum iris_operation operation, int64_t M, int64_t N, int64_t K,
                                  enum iris_dtype dtype, int world_size, const char *arch,
                                  struct iris_config *out);

/* What was weighed where a model chose: the candidates for a field of the config, and the time that
 * the model says each takes, in seconds, with its terms. */
enum { IRIS_MAX_DECISIONS = 4, IRIS_MAX_CANDIDATES = 4, IRIS_MAX_TERMS = 3 };
struct iris_candidate {
    int32_t value; /* of the field: a number, an enum iris_variant or an enum iris_form */
    double terms[IRIS_MAX_TERMS], seconds;
};
struct iris_decision {
    const char *field, *terms[IRIS_MAX_TERMS]; /* names; NULL: no such term */
    struct iris_candidate candidates[IRIS_MAX_CANDIDATES];
    int count, chosen;
};
struct iris_explanation {
    struct iris_decision decisions[IRIS_MAX_DECISIONS];
    int count;
};
/* What a candidate's value is called where it is not a number, else NULL. */
const char *iris_decision_value_name(const struct iris_decision *decision, int32_t value);
/* Of a fused product, or of an all_reduce of N elements (M = K = 1), on such a chip. `config` may
 * be NULL. IRIS_EINVAL. */
enum iris_status iris_explain(enum iris_operation operation, int64_t M, int64_t N, int64_t K,
                              enum iris_dtype dtype, int world_size, const char *arch,
                              const struct iris_config *config, struct iris_explanation *out);

/* From now on every call that chooses says what it has chosen, and among what: `log` gets a text of
 * some lines, without a newline at its end, whenever a thread's call differs from the one before.
 * NULL: no more. For all contexts of the process. */
void iris_log_choices(void (*log)(const char *text));

struct iris_op_options {
    const struct iris_config *config; /* NULL: choose */
    struct iris_workspace *workspace; /* NULL: the context's */
    bool async_op; /* true: end when this rank's result is complete, not all ranks' */
    bool prepare;  /* true: agree and allocate, launch nothing (the preamble) */
    bool trace;    /* products: record what the work-groups do, see iris_trace_settle */
    enum iris_reduce_op reduce_op; /* reductions of tensors */
    void *stream;                  /* cpu: NULL */
    /* Products of float8 operands: their scales, float32; else NULL. See iris_matmul_all_reduce. */
    const struct iris_tensor *scale_a, *scale_b;
    /* all_to_all: rows (elements of dimension 0) from and to each rank; both NULL: equal parts. */
    const int64_t *output_sizes, *input_sizes;
};

/* All collective, all may wait, all with the argument checks of docs/api.md. */

/* C (M, N) = sum over ranks of A_r (M, K) @ B_r (K, N), + bias, which broadcasts to (M, N) and is
 * equal on all ranks. fp32, fp16, bf16, one dtype for all; fp32 accumulation. `bias` may be NULL.
 * A and B may have any strides, C any that do not make elements overlap.
 *
 * Or A and B are float8, each of a format of its own, with scales in the options, and C and bias
 * are fp32, fp16 or bf16. A scale is one element, or of A (M, 1), (M, ceil(K / 128)) or
 * (ceil(M / 128), ceil(K / 128)), of B (1, N), (ceil(K / 128), N) or
 * (ceil(K / 128), ceil(N / 128)). A's is A times what A's scale has for the place. */
enum iris_status iris_matmul_all_reduce(struct iris_context *ctx, const struct iris_tensor *C,
                                        const struct iris_tensor *A, const struct iris_tensor *B,
                                        const struct iris_tensor *bias,
                                        const struct iris_op_options *options);

/* The same, of which each rank gets its share: C (M / world_size, N) for dim 0, (M, N / world_size)
 * for dim 1, where bias broadcasts to C. In rank order: the same bits in every run. async_op has no
 * effect: nobody else writes or reads C. */
enum iris_status iris_matmul_reduce_scatter(struct iris_context *ctx, const struct iris_tensor *C,
                                            const struct iris_tensor *A,
                                            const struct iris_tensor *B,
                                            const struct iris_tensor *bias, int dim,
                                            const struct iris_op_options *options);

/* C (world_size * M, N): its r-th M rows = A_r (M, K) @ B_r (K, N) + bias_r, which broadcasts to
 * (M, N) and, like B, is each rank's own. Otherwise as iris_matmul_all_reduce. */
enum iris_status iris_matmul_all_gather(struct iris_context *ctx, const struct iris_tensor *C,
                                        const struct iris_tensor *A, const struct iris_tensor *B,
                                        const struct iris_tensor *bias,
                                        const struct iris_op_options *options);

/* C (M, N) = the ranks' A joined along gather_dim @ B, + bias, which broadcasts to (M, N) and, like
 * B, is each rank's own. A: this rank's (M / world_size, K) for gather_dim 0, (M, K / world_size)
 * for 1; B: (K, N). `joined`, (M, K), gets the joined A; it may be NULL, as may `bias`. Nobody else
 * writes or reads C, so async_op has no effect. overlapped: what has arrived is multiplied while
 * the rest is under way, else the product begins when all is there; two operations, each with its
 * workspaces. */
struct iris_gather_tensors {
    const struct iris_tensor *C, *A, *B, *bias, *joined;
};
enum iris_status iris_all_gather_matmul(struct iris_context *ctx,
                                        const struct iris_gather_tensors *tensors, int gather_dim,
                                        bool overlapped, const struct iris_op_options *options);

/* The collectives take contiguous tensors of any shape. */
/* output = input reduced over the ranks; fp32, fp16, bf16, int32, int64; any variant, but atomic
 * and spinlock only sums and averages of floating point. In place (output the very input) in all
 * but one_shot. */
enum iris_status iris_all_reduce(struct iris_context *ctx, const struct iris_tensor *output,
                                 const struct iris_tensor *input,
                                 const struct iris_op_options *options);
/* output (n) = this rank's n-element share of the reduction of the ranks' inputs (world_size * n).
 */
enum iris_status iris_reduce_scatter(struct iris_context *ctx, const struct iris_tensor *output,
                                     const struct iris_tensor *input,
                                     const struct iris_op_options *options);
/* The same as iris_all_reduce on rank dst alone; output is not looked at elsewhere, may be NULL. */
enum iris_status iris_reduce(struct iris_context *ctx, const struct iris_tensor *output,
                             const struct iris_tensor *input, int dst,
                             const struct iris_op_options *options);
/* residual_out = the sum of the ranks' inputs + residual, output = residual_out * weight /
 * sqrt(mean of its squares over the last dimension + eps); fp32, fp16, bf16, sums in fp32. The
 * output may be the input, residual_out may be residual. Variants ll and ll_two_shot, on the cpu
 * also one_shot and two_shot.
 *
 * On the cpu output may be float8, with a scale for each row, or for each 128 of it, in
 * output_scale, fp32: what the elements are to be multiplied by. It then shares memory with
 * nothing. */
struct iris_rmsnorm_tensors {
    const struct iris_tensor *output, *residual_out; /* as input */
    const struct iris_tensor *output_scale;          /* (..., 1), (..., ceil(n / 128)), or NULL */
    const struct iris_tensor *input;                 /* (..., n) */
    const struct iris_tensor *residual;              /* as input; NULL: none */
    const struct iris_tensor *weight;                /* (n) */
};
enum iris_status iris_all_reduce_rmsnorm(struct iris_context *ctx,
                                         const struct iris_rmsnorm_tensors *tensors, double eps,
                                         const struct iris_op_options *options);
/* Rank dst's output (world_size * n) = the ranks' inputs (n) in rank order; any dtype. Elsewhere
 * output is not looked at, may be NULL. */
enum iris_status iris_gather(struct iris_context *ctx, const struct iris_tensor *output,
                             const struct iris_tensor *input, int dst,
                             const struct iris_op_options *options);
/* output (n) = the own-rank-th part of rank src's input (world_size * n); any dtype. Elsewhere
 * input is not looked at, may be NULL. */
enum iris_status iris_scatter(struct iris_context *ctx, const struct iris_tensor *output,
                              const struct iris_tensor *input, int src,
                              const struct iris_op_options *options);
/* output (world_size * n) = the ranks' inputs (n) in rank order; any dtype. */
enum iris_status iris_all_gather(struct iris_context *ctx, const struct iris_tensor *output,
                                 const struct iris_tensor *input,
                                 const struct iris_op_options *options);
/* tensor = rank src's tensor, in place; any dtype. */
enum iris_status iris_broadcast(struct iris_context *ctx, const struct iris_tensor *tensor, int src,
                                const struct iris_op_options *options);
/* output's r-th of world_size equal parts = rank r's input's own-rank-th; any dtype. With sizes in
 * the options it is a message for each pair of ranks, ordered with sends and receipts: what one
 * rank sends the other expects, and the workspace is not used. */
enum iris_status iris_all_to_all(struct iris_context *ctx, const struct iris_tensor *output,
                                 const struct iris_tensor *input,
                                 const struct iris_op_options *options);

/* ---- traces of calls with options.trace ---- */

struct iris_trace_info {
    size_t count;         /* records that there are */
    size_t dropped;       /* that found no room */
    int64_t clock_offset; /* the device's clock minus that of rank 0's */
    uint64_t round_trip;  /* of the messages that told it: twice the bound of its error */
    uint64_t ticks_per_second;
};

/* Collective; may wait. Waits for what the device was given and compares the ranks' clocks. */
enum iris_status iris_trace_settle(struct iris_context *ctx, struct iris_trace_info *out);
/* The first `count` records, in the order in which they ended. */
enum iris_status iris_trace_read(struct iris_context *ctx, struct iris_trace_record *out,
                                 size_t count);
/* Forgets all records. Waits for the device. */
enum iris_status iris_trace_clear(struct iris_context *ctx);

/* ---- operations of two ranks, or of one ----
 *
 * Agreed on with nobody but the other rank; work is ordered by the stream. On the cpu they return
 * when done. */

/* Sends a contiguous tensor's bytes to rank dst, which receives as many; another size there is
 * IRIS_EINVAL on both and breaks the context. Messages of one pair arrive in order. A message of up
 * to 128 KiB is buffered; for a larger one the receiver must come. */
enum iris_status iris_send(struct iris_context *ctx, const struct iris_tensor *tensor, int dst,
                           void *stream);
enum iris_status iris_recv(struct iris_context *ctx, const struct iris_tensor *tensor, int src,
                           void *stream);

/* Messages sent and received at once. */
struct iris_message {
    const char *name; /* of the tensor, for errors */
    const struct iris_tensor *tensor;
    int peer; /* this rank too, with a message and a receipt of as many bytes */
    bool receives;
};
enum { IRIS_MAX_MESSAGES = 1024 };
/* As if all of them had been started before one is waited for, so that ranks may send round a ring.
 * Messages of one pair of ranks go one after the other, in the order given. `operation` is SENDRECV
 * or BATCH. Nothing is started where one is wrong: no received tensor may share memory with another
 * of the call. */
enum iris_status iris_messages(struct iris_context *ctx, enum iris_operation operation,
                               const struct iris_message *messages, int count, void *stream);

/* Copies src to where dst, which is in the heap, lies on rank `peer`. Contiguous, one dtype. */
enum iris_status iris_rma_put(struct iris_context *ctx, const struct iris_tensor *dst,
                              const struct iris_tensor *src, int peer, void *stream);
/* Copies what lies where src, which is in the heap, is on rank `peer`. */
enum iris_status iris_rma_get(struct iris_context *ctx, const struct iris_tensor *dst,
                              const struct iris_tensor *src, int peer, void *stream);
/* Writes, or adds to, rank peer's `word`, one int32 in the heap, after everything before it on the
 * stream: what this rank put is visible to who has waited for the word. */
enum iris_status iris_rma_signal(struct iris_context *ctx, const struct iris_tensor *word, int peer,
                                 int32_t value, enum iris_signal_op op, void *stream);
/* Holds the stream until this rank's word compares so with `value`, signed; then subtracts value
 * from it if asked to. Bounded: IRIS_ETIMEDOUT. */
enum iris_status iris_rma_wait(struct iris_context *ctx, const struct iris_tensor *word,
                               int32_t value, enum iris_compare compare, bool consume,
                               void *stream);

#endif
