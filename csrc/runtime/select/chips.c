/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The table of chips.
 */
#include "chips.h"

#include <string.h>

/* H100 and H200, SXM, NVLink. Fitted to benchmarks/calibrate.py on two H200s (tiles, senders,
 * variants; tests/api/measured_choices.json), to four H200s (the forms;
 * tests/api/measured_forms.json), and the form DECODE to two (docs/performance.md, "Few rows"). */
#define SM90_MODEL                                                                                 \
    .product_rate = 5.4e12, .wide_rate = 6.7e12, .narrow_rate = 5.0e12, .round_seconds = 0.5e-6,   \
    .reduce_rate = 40e9, .link_rate = 340e9, .sender_rate = 11e9, .sender_seconds = 12e-6,         \
    .shared_rate = 420e9, .shared_units = 81, .slowdown = 0.28, .slowdown_peer = 0.04,             \
    .one_hop_seconds = 2.8e-6, .two_hop_seconds = 4.0e-6, .hop_peer_seconds = 0.5e-6,              \
    .barrier_seconds = 11.3e-6, .packet_rate = 331e9, .memory_rate = 3.9e12,                       \
    .unit_cache_rate = 48e9, .cache_nbytes = 50e6, .unit_memory_rate = 26e9,                       \
    .launch_seconds = 1.5e-6, .library_rate = 6.0e12, .step_rate = 285e9,                          \
    .gather_seconds = 10.5e-6, .gather_rate = 330e9, .scatter_seconds = 23e-6,                     \
    .gathered_slowness = 1.2, .decode_seconds = 1.5e-6, .cluster_seconds = 0.7e-6,                 \
    .weights_unit_rate = {78e9, 42e9}, .stage_unit_rate = {124e9, 71e9}, .weights_rate = 3.7e12,   \
    .decode_packet_rate = 340e9, .decode_rows = 128, .meet_seconds = 12e-6, .pull_seconds = 8e-6,  \
    .pull_rate = 340e9

/* No such machine has been measured. The links are the sum of a GPU's Infinity Fabric links as
 * published; a product has one tile and senders of their own, so nothing else is chosen by a model
 * but the variants of all_reduce and all_gather, for which times are taken to be as on Hopper, and
 * into how many parts the form DECODE divides K: by the memory's rate as published, and 32 KiB that
 * a unit has on their way for a microsecond (decode_stream_cdna.h). */
#define CDNA_MODEL(links, memory)                                                                  \
    .wide_rate = 2e12, .narrow_rate = 2e12, .link_rate = (links), .reduce_rate = 40e9,             \
    .one_hop_seconds = 2.8e-6, .two_hop_seconds = 4.0e-6, .hop_peer_seconds = 0.5e-6,              \
    .barrier_seconds = 11.3e-6, .packet_rate = 331e9, .gather_seconds = 10e-6,                     \
    .gather_rate = 175e9, .gathered_slowness = 1, .memory_rate = (memory),                         \
    .stream_unit_rate = 33e9, .join_seconds = 2e-6, .join_rate = 20e9

static const struct iris_chip chips[] = {
    {"sm_90a", "cuda", true, true, true, true, 1, 132, 132, IRIS_FLOAT8_OCP, false, SM90_MODEL},
    {"gfx90a", "hip", true, false, false, false, 1, 104, 104, 0, false,
     CDNA_MODEL(250e9, 1.6e12)}, /* MI210, half of an MI250 */
    {"gfx942", "hip", true, false, false, false, 8, 304, 304, IRIS_FLOAT8_FNUZ, false,
     CDNA_MODEL(448e9, 5.3e12)}, /* MI300X */
    {"gfx950", "hip", true, false, false, false, 8, 256, 256, IRIS_FLOAT8_OCP, false,
     CDNA_MODEL(537e9, 8e12)}, /* MI350X */
    /* The host's choices go by caches and thread counts: see select_tiles.c. */
    {"cpu", "cpu", false, false, false, false, 1, 1, INT32_MAX, IRIS_FLOAT8_OCP | IRIS_FLOAT8_FNUZ,
     true, .link_rate = 10e9},
};

const struct iris_chip *iris_chip_find(const char *arch)
{
    for (size_t i = 0; i < sizeof chips / sizeof chips[0]; ++i)
        if (strcmp(chips[i].arch, arch) == 0)
            return &chips[i];
    return NULL;
}

const struct iris_chip *iris_chip_of(const char *arch, const char *backend)
{
    const struct iris_chip *chip = iris_chip_find(arch);

    for (size_t i = 0; chip == NULL && i < sizeof chips / sizeof chips[0]; ++i)
        if (strcmp(chips[i].backend, backend) == 0)
            chip = &chips[i];
    return chip;
}

bool iris_chip_takes(const struct iris_chip *chip, enum iris_dtype dtype)
{
    return IRIS_IS_FLOAT8(dtype) && (chip->float8 & IRIS_FLOAT8_BIT(dtype)) != 0;
}
