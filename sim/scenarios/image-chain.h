/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chains of images on simulated disks, with drawn content in each, opened by
 * what the images say of their backing files.
 *
 * Image I is on the disk "dI", is called "/dI" in others, and its node is "nI"; 0
 * is the lowest.
 */
#ifndef SIM_IMAGE_CHAIN_H
#define SIM_IMAGE_CHAIN_H

#include "sim/scenarios/qcow2-image.h"

#define SIM_CHAIN_IMAGES 5
#define SIM_CHAIN_BYTES (128 * 1024) /* length of the highest */

/** One image. */
typedef struct SimChainImage {
    BgSimDisk *disk;
    char file_name[8];  /* a '/', and the name of the disk */
    char node_name[8];
    bool raw;
    int64_t length;
} SimChainImage;

/** The images, whether they are in use or not. */
typedef struct SimChain {
    BgSim *sim;
    SimChainImage images[SIM_CHAIN_IMAGES];
    int nr;
    bool read_only;     /* all but the highest are opened so */
    const char *discard;
    BgSimModel *model;  /* what the highest shows */
} SimChain;

/** Make the images, each naming the one below it, and fill them; their disks
 * have drawn manners.  @chain is zeroed.  False if that failed. */
bool sim_chain_make(BgSim *sim, SimChain *chain);

/** The image that the one at @i names, -1: none.  A name or format that is
 * wrong is an error: -2 with @errp. */
int sim_chain_below(const SimChain *chain, int i, GError **errp);

/** Open image @i and what is below it, as the images say.  NULL with @errp. */
BlockDriverState *sim_chain_open(const SimChain *chain, int i, GError **errp);

/** Which image the node @bs is. */
int sim_chain_index(const BlockDriverState *bs);

/** Check the metadata of all images, @when for the text.  Leaks are errors only
 * with @strict.  False with @errp. */
bool sim_chain_check(const SimChain *chain, const char *when, bool strict,
                     GError **errp);

#endif /* SIM_IMAGE_CHAIN_H */
