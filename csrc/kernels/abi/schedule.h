/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * Which tile is where, whose, and when: all index arithmetic of the tiled operations, and the
 * layout of their staging buffers. Compiles as C11 for the host, which sizes workspaces with it,
 * and as HIP C++ for the kernels, which address them with it; so the two cannot disagree.
 *
 * The output is cut into tiles of block_m x block_n, numbered in groups of group_size_m tile rows,
 * down the rows first inside a group: consecutive tiles share a panel of B while a group's panels
 * of A stay in cache.
 *
 * On the cpu rank o owns the contiguous share [o T / W, (o + 1) T / W) of the T tiles. Each rank
 * walks the tiles from its successor's share on and ends with its own, so that at any time the
 * ranks push to different peers and everybody's own tiles find their partials waiting.
 *
 * On a GPU many tiles are under way at once, and tile t belongs to rank t mod W: all ranks walk the
 * tiles in one order, every wave of work-groups pushes to all peers alike, and a tile's partials
 * arrive together, so that results leave while later tiles are still computed.
 */
#ifndef IRIS_SCHEDULE_H
#define IRIS_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "target.h"
#include IRIS_TARGET_LANGUAGE

struct iris_tile_coord {
    int64_t row, col;   /* of the tile's first element */
    int32_t rows, cols; /* inside the matrix */
};

IRIS_FUNCTION int64_t iris_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

IRIS_FUNCTION uint64_t iris_round_up(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

/* A work-group's place among all of a launch, from 0. Where the hardware gives work-groups to XCDs
 * in turn, those of one XCD stand side by side, since neighbouring tiles share operands in its L2;
 * not where they cannot be dealt evenly. */
IRIS_FUNCTION int32_t iris_place_in_order(int32_t index, int32_t count, int32_t xcds)
{
    if (xcds <= 1 || count % xcds != 0)
        return index;
    return index % xcds * (count / xcds) + index / xcds;
}

IRIS_FUNCTION struct iris_schedule iris_schedule_make(int64_t M, int64_t N, int32_t block_m,
                                                      int32_t block_n, int32_t group_size_m,
                                                      int32_t world_size)
{
    struct iris_schedule s;
    s.M = M;
    s.N = N;
    s.block_m = block_m;
    s.block_n = block_n;
    s.tiles_m = iris_ceil_div(M, block_m);
    s.tiles_n = iris_ceil_div(N, block_n);
    s.tiles = s.tiles_m * s.tiles_n;
    s.group_size_m = group_size_m < s.tiles_m ? group_size_m : s.tiles_m;
    s.world_size = world_size;
    s.share_max = iris_ceil_div(s.tiles, world_size);
    return s;
}

IRIS_FUNCTION struct iris_tile_coord iris_tile_coord_of(const struct iris_schedule *s, int64_t tile)
{
    const int64_t group_tiles = s->group_size_m * s->tiles_n;
    const int64_t first_row = tile / group_tiles * s->group_size_m;
    const int64_t left = s->tiles_m - first_row;
    const int64_t group_rows = left < s->group_size_m ? left : s->group_size_m;
    const int64_t inside = tile % group_tiles;
    struct iris_tile_coord c;
    int64_t rows, cols;

    c.row = (first_row + inside % group_rows) * s->block_m;
    c.col = inside / group_rows * s->block_n;
    rows = s->M - c.row;
    cols = s->N - c.col;
    c.rows = (int32_t)(rows < s->block_m ? rows : s->block_m);
    c.cols = (int32_t)(cols < s->block_n ? cols : s->block_n);
    return c;
}

/* ---- scattered results: the tiles are those of W shares of equal shape ---- */

/* share_m, share_n as in struct iris_reduce_args. Both 0: as iris_schedule_make. Else all but the
 * number of tiles is that of one share. */
IRIS_FUNCTION struct iris_schedule iris_share_schedule_make(int64_t M, int64_t N, int64_t share_m,
                                                            int64_t share_n, int32_t block_m,
                                                            int32_t block_n, int32_t group_size_m,
                                                            int32_t world_size)
{
    struct iris_schedule s =
        iris_schedule_make(share_m != 0 ? share_m : M, share_n != 0 ? share_n : N, block_m, block_n,
                           group_size_m, world_size);
    if (share_m != 0 || share_n != 0) {
        s.share_max = s.tiles;
        s.tiles *= world_size;
    }
    return s;
}

/* The `local`-th tile of rank `owner`'s share, in the whole matrix. */
IRIS_FUNCTION struct iris_tile_coord iris_share_tile_coord(const struct iris_schedule *s,
                                                           int32_t owner, int64_t local,
                                                           int64_t share_m, int64_t share_n)
{
    struct iris_tile_coord c = iris_tile_coord_of(s, local);
    c.row += owner * share_m;
    c.col += owner * share_n;
    return c;
}

/* The first tile that rank `rank` owns; for rank == world_size, the number of tiles. */
IRIS_FUNCTION int64_t iris_share_begin(const struct iris_schedule *s, int32_t rank)
{
    return rank * s->tiles / s->world_size;
}

IRIS_FUNCTION int32_t iris_block_owner(const struct iris_schedule *s, int64_t tile)
{
    /* The inverse of iris_share_begin: the largest rank whose share begins at or before `tile`. */
    return (int32_t)(((tile + 1) * s->world_size - 1) / s->tiles);
}

/* The `step`-th tile in rank `rank`'s order. */
IRIS_FUNCTION int64_t iris_tile_at(const struct iris_schedule *s, int32_t rank, int64_t step)
{
    const int64_t start = iris_share_begin(s, (rank + 1) % s->world_size);
    const int64_t tile = start + step;
    return tile < s->tiles ? tile : tile - s->tiles;
}

/* ---- ownership on a GPU ---- */

IRIS_FUNCTION int32_t iris_cyclic_owner(const struct iris_schedule *s, int64_t tile)
{
    return (int32_t)(tile % s->world_size);
}

/* How many tiles rank `rank` owns; the i-th of them is tile i * world_size + rank. */
IRIS_FUNCTION int64_t iris_dealt_count(const struct iris_schedule *s, int32_t rank)
{
    return (s->tiles - rank + s->world_size - 1) / s->world_size;
}

/* ---- packets ---- */

/* Words, each the data of a packet, are dealt to the ranks in blocks of this many: whole lines of
 * packets. */
#define IRIS_PACKET_BLOCK 64

/* Words of a row of all_reduce_rmsnorm, whose packets are bare. */
IRIS_FUNCTION int64_t iris_row_words(int64_t elements, uint64_t element_nbytes)
{
    return iris_ceil_div(elements * (int64_t)element_nbytes,
                         IRIS_PACKET_DATA_NBYTES(IRIS_DTYPE_F32));
}

/* A call by packets: see packets.h. */
struct iris_packet_layout {
    int64_t words;       /* at least 1, so that ranks without elements meet too */
    int64_t share_words; /* room for one rank's share of them */
    int64_t results;     /* ll_two_shot: index of the first result */
    int64_t world_size;
};

IRIS_FUNCTION struct iris_packet_layout iris_packet_layout_make(int64_t nbytes, int32_t word_nbytes,
                                                                int32_t world_size)
{
    struct iris_packet_layout l;
    const int64_t words = nbytes > 0 ? iris_ceil_div(nbytes, word_nbytes) : 1;
    const int64_t blocks = iris_ceil_div(words, IRIS_PACKET_BLOCK);

    l.words = words;
    l.share_words = iris_ceil_div(blocks, world_size) * IRIS_PACKET_BLOCK;
    l.results = world_size * l.share_words;
    l.world_size = world_size;
    return l;
}

IRIS_FUNCTION int32_t iris_packet_owner(const struct iris_packet_layout *l, int64_t word)
{
    /* 32 bits: a division of 64 would take a GPU longer than the rest of the address. */
    return (int32_t)((uint32_t)(word / IRIS_PACKET_BLOCK) % (uint32_t)l->world_size);
}

/* Where the word lies among those of its owner. */
IRIS_FUNCTION int64_t iris_packet_share_index(const struct iris_packet_layout *l, int64_t word)
{
    return (int64_t)((uint32_t)(word / IRIS_PACKET_BLOCK) / (uint32_t)l->world_size) *
               IRIS_PACKET_BLOCK +
           word % IRIS_PACKET_BLOCK;
}

/* Whether every rank owns something, as ll_two_shot needs: each then hears from each. */
IRIS_FUNCTION bool iris_packet_all_own(const struct iris_packet_layout *l)
{
    return iris_ceil_div(l->words, IRIS_PACKET_BLOCK) >= l->world_size;
}

/* ---- products of few rows, in the form DECODE ---- */

#define IRIS_DECODE_MAX_ROWS 256
/* Elements of a word, which is the data of a packet, and words that go together: a row of a tile of
 * 64 columns. Pairs of such rows are dealt to the ranks, so that neighbouring threads, which each
 * have a word, have the same owner, and neighbouring tiles and pairs have different ones. */
#define IRIS_DECODE_COLS 64
#define IRIS_DECODE_WORD 8
#define IRIS_DECODE_GROUP (IRIS_DECODE_COLS / IRIS_DECODE_WORD)
/* gfx: of K, what a wave multiplies at a time, and rows at most. */
#define IRIS_DECODE_STEP 64
#define IRIS_DECODE_WAVE_ROWS 128

/* A word of a rank's product: elements 8 word ... 8 word + 7 of a row. */
struct iris_decode_place {
    int32_t row, word;
};

/* rows, cols: of one rank's product, before anything is scattered or gathered. k_groups:
 * work-groups of a rank that may have sums of a tile that another one completes, each of which
 * leaves two packets for a word of 64 columns; 0: none. */
IRIS_FUNCTION struct iris_decode_layout
iris_decode_layout_make(int32_t exchange, int32_t rows, int32_t cols, int32_t share_rows,
                        int32_t share_cols, int32_t world_size, int32_t k_groups)
{
    struct iris_decode_layout l;
    const int32_t words = (cols + IRIS_DECODE_WORD - 1) / IRIS_DECODE_WORD;
    const int32_t groups = (words + IRIS_DECODE_GROUP - 1) / IRIS_DECODE_GROUP;

    l.exchange = exchange;
    l.world_size = world_size;
    l.rows = rows;
    l.cols = cols;
    l.row_words = words;
    l.share_rows = share_rows;
    l.share_cols = share_cols;
    l.owned_groups = (groups + world_size - 1) / world_size;
    if (exchange == IRIS_DECODE_BY_OWNERS)
        l.slots = (int64_t)((rows + 1) / 2) * l.owned_groups * (int64_t)(2 * IRIS_DECODE_GROUP);
    else if (exchange == IRIS_DECODE_SCATTER && share_cols != 0)
        /* A share may begin and end within a word. */
        l.slots = (int64_t)rows * (share_cols / IRIS_DECODE_WORD + 2);
    else
        l.slots = (int64_t)(exchange == IRIS_DECODE_SCATTER ? share_rows : rows) * words;
    l.results = world_size * l.slots;
    l.partials = l.results + (exchange == IRIS_DECODE_BY_OWNERS ? (int64_t)rows * words : 0);
    l.packets = l.partials + (int64_t)k_groups * rows * (int64_t)(2 * IRIS_DECODE_GROUP);
    return l;
}

/* gfx: in how many rounds a work-group's four waves multiply a tile of 64 columns. */
IRIS_FUNCTION int64_t iris_decode_rounds(int64_t rows, int64_t K)
{
    return iris_ceil_div(K, (int64_t)(rows > IRIS_DECODE_WAVE_ROWS ? 2 : 4) * IRIS_DECODE_STEP);
}

/* gfx: where the rounds of a work-group begin, those of all tiles counted one after the other. It
 * has `share` portions, of the first `longer` groups each one more. */
IRIS_FUNCTION int32_t iris_decode_begin(const struct iris_decode_args *args, int32_t group)
{
    return (group * args->share + (group < args->longer ? group : args->longer)) * args->quantum;
}

/* Whose round it is. */
IRIS_FUNCTION int32_t iris_decode_group_of(const struct iris_decode_args *args, int32_t round)
{
    const int32_t portion = (int32_t)((uint32_t)round / (uint32_t)args->quantum);
    const int32_t of_longer = args->longer * (args->share + 1);

    if (portion < of_longer)
        return (int32_t)((uint32_t)portion / (uint32_t)(args->share + 1));
    return args->longer + (int32_t)((uint32_t)(portion - of_longer) / (uint32_t)args->share);
}

/* Whether every rank owns a word, as IRIS_DECODE_BY_OWNERS needs: each then hears from each. */
IRIS_FUNCTION bool iris_decode_all_own(int64_t rows, int64_t cols, int32_t world_size)
{
    return (rows + 1) / 2 + iris_ceil_div(cols, IRIS_DECODE_COLS) > world_size;
}

/* Divisions below are of 32 bits without a sign: a GPU has no instruction for any, and takes longer
 * for others than for the rest of an address. */

/* IRIS_DECODE_BY_OWNERS: who adds up the word. */
IRIS_FUNCTION int32_t iris_decode_owner(const struct iris_decode_layout *l,
                                        struct iris_decode_place at)
{
    return (int32_t)(((uint32_t)at.row / 2 + (uint32_t)at.word / IRIS_DECODE_GROUP) %
                     (uint32_t)l->world_size);
}

/* The ranks whose share of the result has elements of the word: the first, and how many. */
IRIS_FUNCTION int32_t iris_decode_receivers(const struct iris_decode_layout *l,
                                            struct iris_decode_place at, int32_t *first)
{
    const uint32_t share = (uint32_t)l->share_cols;
    const uint32_t col = (uint32_t)at.word * IRIS_DECODE_WORD, cols = (uint32_t)l->cols;
    const uint32_t end = col + IRIS_DECODE_WORD < cols ? col + IRIS_DECODE_WORD : cols;

    *first = 0;
    if (l->exchange == IRIS_DECODE_BY_OWNERS) {
        *first = iris_decode_owner(l, at);
        return 1;
    }
    if (l->exchange != IRIS_DECODE_SCATTER)
        return l->world_size;
    if (share == 0) {
        *first = (int32_t)((uint32_t)at.row / (uint32_t)l->share_rows);
        return 1;
    }
    *first = (int32_t)(col / share);
    return (int32_t)((end - 1) / share) - *first + 1;
}

/* Where the word lies among those that a rank sends to `receiver`. */
IRIS_FUNCTION int64_t iris_decode_slot(const struct iris_decode_layout *l, int32_t receiver,
                                       struct iris_decode_place at)
{
    const uint32_t row = (uint32_t)at.row, word = (uint32_t)at.word;
    const uint32_t group = word / IRIS_DECODE_GROUP;

    if (l->exchange == IRIS_DECODE_BY_OWNERS)
        return (int64_t)(row / 2 * (uint32_t)l->owned_groups + group / (uint32_t)l->world_size) *
                   (int64_t)(2 * IRIS_DECODE_GROUP) +
               (int64_t)(row % 2 * IRIS_DECODE_GROUP) + word % IRIS_DECODE_GROUP;
    if (l->exchange == IRIS_DECODE_SCATTER && l->share_cols != 0)
        return (int64_t)row * ((uint32_t)l->share_cols / IRIS_DECODE_WORD + 2) + at.word -
               (uint32_t)(receiver * l->share_cols) / IRIS_DECODE_WORD;
    if (l->exchange == IRIS_DECODE_SCATTER)
        return (int64_t)(at.row - receiver * l->share_rows) * l->row_words + at.word;
    return (int64_t)row * l->row_words + at.word;
}

/* ---- messages ---- */

/* Even a message without bytes takes a chunk, to be compared. */
IRIS_FUNCTION uint64_t iris_message_chunks(uint64_t nbytes)
{
    return nbytes > IRIS_CHANNEL_CHUNK ? (nbytes + IRIS_CHANNEL_CHUNK - 1) / IRIS_CHANNEL_CHUNK : 1;
}

/* How many of a channel's lanes it uses. */
IRIS_FUNCTION int32_t iris_message_lanes(uint64_t nbytes, int32_t lanes)
{
    const uint64_t chunks = iris_message_chunks(nbytes);
    return chunks < (uint64_t)lanes ? (int32_t)chunks : lanes;
}

/* ---- gathered operands ---- */

IRIS_FUNCTION struct iris_gather_layout
iris_gather_layout_make(int64_t rows, int64_t cols, int32_t unit_rows, int32_t unit_cols,
                        int32_t group_rows, bool m_contiguous, bool joins_cols, bool skips_own,
                        uint32_t element_nbytes, int32_t scale_cols, int32_t world_size)
{
    const int64_t lines = m_contiguous ? cols : rows, run = m_contiguous ? rows : cols;
    struct iris_gather_layout l;

    l.rows = rows;
    l.cols = cols;
    l.unit_rows = unit_rows;
    l.unit_cols = unit_cols;
    l.group_rows = group_rows;
    l.skips_own = skips_own;
    l.units_k = iris_ceil_div(cols, unit_cols);
    l.units = iris_ceil_div(rows, unit_rows) * l.units_k;
    if (joins_cols) {
        l.pitch = m_contiguous ? run : run * world_size;
        l.shard_step = (uint64_t)(m_contiguous ? lines * run : run) * element_nbytes;
        l.half_nbytes = world_size > 1 ? (uint64_t)(lines * run * world_size) * element_nbytes : 0;
    } else {
        l.pitch = (int64_t)(iris_round_up((uint64_t)run * element_nbytes, 128) / element_nbytes);
        l.shard_step = (uint64_t)(lines * l.pitch) * element_nbytes;
        l.half_nbytes = l.shard_step * (uint64_t)(world_size - (skips_own ? 1 : 0));
    }
    l.flags_count = l.units * world_size;
    l.scale_cols = scale_cols;
    l.scales_step = iris_round_up((uint64_t)(rows * scale_cols) * 4, 128);
    l.scales_offset = scale_cols > 0 ? iris_round_up(l.half_nbytes, 128) : 0;
    if (scale_cols > 0)
        l.half_nbytes = l.scales_offset + l.scales_step * (uint64_t)world_size;
    l.pad = 0;
    return l;
}

/* The n-th unit that is sent: of the rows that the receivers multiply at a time the first columns,
 * then the next, as their products run along them. */
IRIS_FUNCTION int64_t iris_gather_unit_at(const struct iris_gather_layout *l, int64_t n)
{
    const int64_t units_m = iris_ceil_div(l->rows, l->unit_rows);
    const int64_t first_row = n / (l->group_rows * l->units_k) * l->group_rows;
    const int64_t left = units_m - first_row;
    const int64_t rows = left < l->group_rows ? left : l->group_rows;
    const int64_t inside = n % (l->group_rows * l->units_k);

    return (first_row + inside % rows) * l->units_k + inside / rows;
}

IRIS_FUNCTION struct iris_gather_schedule
iris_gather_schedule_make(int64_t M, int64_t N, int64_t share_m, int32_t block_m, int32_t block_n,
                          int32_t group_size_m, int32_t world_size)
{
    struct iris_gather_schedule s;
    s.share_m = share_m;
    s.share_tiles_m = iris_ceil_div(share_m, block_m);
    s.tiles = iris_schedule_make(share_m != 0 ? s.share_tiles_m * world_size * block_m : M, N,
                                 block_m, block_n, group_size_m, world_size);
    return s;
}

/* The step-th tile in rank `rank`'s order; *source is whose rows it has, with shards of rows. */
IRIS_FUNCTION struct iris_tile_coord iris_gather_tile_coord(const struct iris_gather_schedule *s,
                                                            int32_t rank, int64_t step,
                                                            int32_t *source)
{
    struct iris_tile_coord c = iris_tile_coord_of(&s->tiles, step);
    const int32_t peers = s->tiles.world_size - 1;
    int64_t row = c.row / s->tiles.block_m, left;

    *source = rank;
    if (s->share_m == 0)
        return c;
    if (row >= s->share_tiles_m) {
        const int64_t later = row - s->share_tiles_m;
        *source = (int32_t)((rank + 1 + later % peers) % s->tiles.world_size);
        row = later / peers;
    }
    row *= s->tiles.block_m;
    left = s->share_m - row;
    c.rows = (int32_t)(left < s->tiles.block_m ? left : s->tiles.block_m);
    c.row = *source * s->share_m + row;
    return c;
}

/* ---- staging ---- */

/* A staged tile is packed, block_n elements a row, and starts at a multiple of this. */
#define IRIS_TILE_ALIGNMENT 128

/* Byte offsets inside one half of a workspace's staging, and the flags of one half: the one place
 * that says what is staged, for the kernels that do and for the host that asks for the memory. On
 * the cpu a rank's own partial stays with it in two_shot. On a GPU a rank's own partials pass
 * through its staging too: other work-groups, or other waves, than those
 * that computed them reduce them. A GPU kernel may hand a partial tile over in `gpu_parts` parts,
 * each with its flag, in two_shot and one_shot. gpu_parts 0: the cpu. */
struct iris_reduce_layout {
    uint64_t tile_nbytes;     /* one staged tile of the operands' dtype */
    uint64_t accum_nbytes;    /* one staged tile of sums: fp32, or integers of the dtype */
    uint64_t partials_offset; /* two_shot: [source][share], on the cpu without the owner's;
                                 gathered: on a GPU [share], this rank's; one_shot: [source][tile];
                                 ring: [tile], sums; atomic, spinlock: [tile], float */
    uint64_t locks_offset;    /* spinlock: uint32_t[tile] */
    uint64_t own_offset;      /* GPUs; ring, atomic, spinlock: [tile], this rank's partials */
    uint64_t half_nbytes;     /* of all that is staged wherever the output lies */
    uint64_t results_offset;  /* two_shot, ring: [tile], results from peers for an output off the
                                 heap; the end of the half, there only if a rank has such one */
    uint64_t results_nbytes;
    int64_t result_flags; /* ring: index of the first RESULT flag */
    int64_t own_flags;    /* GPUs; ring, atomic, spinlock: index of the first flag of those */
    int64_t flags_count;
};

IRIS_FUNCTION struct iris_reduce_layout
iris_reduce_layout_make(const struct iris_schedule *s, bool scatters, bool gathers,
                        uint32_t variant, uint32_t element_nbytes, int32_t gpu_parts)
{
    const bool alone = s->world_size == 1, gpu = gpu_parts > 0;
    const int64_t sources = gathers ? (gpu ? 1 : 0) : gpu ? s->world_size : s->world_size - 1;
    const int64_t parts = gpu ? gpu_parts : 1;
    const uint64_t elements = (uint64_t)s->block_m * (uint64_t)s->block_n;
    const uint64_t tiles = (uint64_t)s->tiles;
    struct iris_reduce_layout l;

    l.tile_nbytes = iris_round_up(elements * element_nbytes, IRIS_TILE_ALIGNMENT);
    l.accum_nbytes =
        iris_round_up(elements * (element_nbytes > 4 ? element_nbytes : 4), IRIS_TILE_ALIGNMENT);
    l.partials_offset = 0;
    l.results_nbytes = 0;
    l.locks_offset = 0;
    l.own_offset = 0;
    l.half_nbytes = 0;
    l.result_flags = 0;
    l.own_flags = 0;
    l.flags_count = 0;
    switch (variant) {
    case IRIS_VARIANT_TWO_SHOT:
        l.flags_count = s->world_size * s->share_max * parts;
        l.half_nbytes = (uint64_t)(sources * s->share_max) * l.tile_nbytes;
        if (!scatters && !alone)
            l.results_nbytes = tiles * l.tile_nbytes;
        break;
    case IRIS_VARIANT_ONE_SHOT:
    case IRIS_VARIANT_ONE_SHOT_LEGACY:
        l.flags_count = s->world_size * s->tiles * parts;
        l.half_nbytes = (uint64_t)(s->world_size * s->tiles) * l.tile_nbytes;
        break;
    case IRIS_VARIANT_RING:
        l.result_flags = s->tiles;
        l.flags_count = 2 * s->tiles;
        l.half_nbytes = alone ? 0 : tiles * l.accum_nbytes;
        l.results_nbytes = alone ? 0 : tiles * l.tile_nbytes;
        break;
    case IRIS_VARIANT_ATOMIC:
    case IRIS_VARIANT_SPINLOCK:
        l.locks_offset = tiles * l.accum_nbytes;
        l.half_nbytes = l.locks_offset + iris_round_up(tiles * 4, IRIS_TILE_ALIGNMENT);
        break;
    default:
        break;
    }
    l.own_offset = l.half_nbytes;
    l.own_flags = l.flags_count;
    if (gpu && variant != IRIS_VARIANT_TWO_SHOT && variant != IRIS_VARIANT_ONE_SHOT) {
        l.half_nbytes += tiles * l.tile_nbytes;
        l.flags_count += s->tiles;
    }
    l.results_offset = l.half_nbytes;
    return l;
}

#endif
