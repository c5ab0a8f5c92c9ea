/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 images on simulated disks, made and checked by code that shares nothing
 * with the driver but the format's specification.
 */
#ifndef SIM_QCOW2_IMAGE_H
#define SIM_QCOW2_IMAGE_H

#include "sim/scenarios/scenarios.h"

/** What an image is like. */
typedef struct SimQcow2 {
    unsigned version;        /* 2 or 3 */
    unsigned cluster_bits;
    unsigned refcount_order;
    bool extended_l2;
    bool lazy_refcounts;
    int64_t size;            /* virtual, bytes */
    const char *backing;     /* name in the header, or NULL */
    const char *backing_format; /* at most 8 letters; NULL: "raw" */
} SimQcow2;

/** What an image was found to be. */
typedef struct SimQcow2Report {
    uint64_t leaks;          /* clusters with more refcount than references */
    uint64_t clusters;       /* of the file that are used */
    bool dirty;              /* the bit: refcounts are not to be believed */
    bool careful;            /* COPIED is missing somewhere (version 2) */
} SimQcow2Report;

/** Make an empty image on @disk, which is empty, durable at once. */
void sim_qcow2_make(BgSimDisk *disk, const SimQcow2 *how);

/** The name of the backing file in the header of the image on @disk, and its
 * format; NULL each if there is none.  g_free() both. */
void sim_qcow2_backing(BgSimDisk *disk, char **ret_file, char **ret_format);

/**
 * Check the metadata of the image on @disk as it is now: every reference lies
 * in the file and is counted, nothing is used twice, COPIED is told where it is
 * true and nowhere else, no reserved bit is set.  Leaks are reported only.
 * With the bit "dirty" refcounts may be wrong.
 *
 * Returns false with @errp saying what is corrupt.
 */
bool sim_qcow2_check(BgSimDisk *disk, SimQcow2Report *report, GError **errp);

/**
 * sim_qcow2_check(), and now and then the same by QEMU: if the environment has
 * BGSIM_QEMU_CHECK_EVERY=N, "qemu-img check" looks at each N-th image and must
 * find nothing but leaks.
 *
 * @when  for the text
 */
bool sim_qcow2_check_both(BgSimDisk *disk, const char *when, GError **errp);

/** Somebody who opens an image after a power cut. */
typedef struct SimQcow2Recovery {
    BgSim *sim;
    BgSimDisk *disk;         /* with the image */
    const char *options;     /* to open it with */
    /** Look at what it holds, and write; false with @errp. */
    bool (*use)(BlockBackend *blk, void *opaque, GError **errp);
    void *opaque;
} SimQcow2Recovery;

/** Whether it is sound before and after; else false with @errp. */
bool sim_qcow2_recovers(const SimQcow2Recovery *r, GError **errp);

#endif /* SIM_QCOW2_IMAGE_H */
