/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The header and its extensions, to and from the disk.
 *
 * All lie in the first cluster: fields, extensions, the name of the backing
 * file.  What we do not know, fields and extensions, is kept byte for byte and
 * written back.  Nothing is taken over before it was checked; the limits are
 * in layout.h and are those of create.c, too.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>

#define FEATURE_ENTRY_BYTES 48
#define FEATURE_NAME_BYTES 46
#define BITMAPS_EXT_BYTES 24

/* Types of feature bits in the feature name table. */
enum { FEATURE_INCOMPATIBLE, FEATURE_COMPATIBLE, FEATURE_AUTOCLEAR };

typedef struct Feature {
    uint8_t type;
    uint8_t bit;
    const char *name;
} Feature;

/* The names that other programs show for bits that they do not know. */
static const Feature features[] = {
    { FEATURE_INCOMPATIBLE, 0, "dirty bit" },
    { FEATURE_INCOMPATIBLE, 1, "corrupt bit" },
    { FEATURE_INCOMPATIBLE, 2, "external data file" },
    { FEATURE_INCOMPATIBLE, 3, "compression type" },
    { FEATURE_INCOMPATIBLE, 4, "extended L2 entries" },
    { FEATURE_COMPATIBLE, 0, "lazy refcounts" },
    { FEATURE_AUTOCLEAR, 0, "bitmaps" },
    { FEATURE_AUTOCLEAR, 1, "raw external data" },
};

void qcow2_header_clear(Qcow2Header *header)
{
    g_free(header->unknown_fields);
    g_free(header->backing_file);
    g_free(header->backing_format);
    g_free(header->data_file);
    for (guint i = 0; header->unknown && i < header->unknown->len; i++) {
        g_free(g_array_index(header->unknown, Qcow2Extension, i).data);
    }
    if (header->unknown) {
        g_array_unref(header->unknown);
    }
    memset(header, 0, sizeof(*header));
}

/* --- reading -------------------------------------------------------------- */

/* Fields of the header that have not been compared with their limits. */
typedef struct Fields {
    Untrusted size;
    Untrusted crypt_method;
    Untrusted l1_size;
    Untrusted l1_offset;
    Untrusted reftable_offset;
    Untrusted reftable_clusters;
    Untrusted nb_snapshots;
    Untrusted snapshots_offset;
    Untrusted backing_offset;
    Untrusted backing_bytes;
    Untrusted refcount_order;
    Untrusted compression;
} Fields;

/* The first cluster, as far as the file has it. */
typedef struct Reader {
    const char *node_name;
    const char *filename;
    Qcow2Header *h;
    const uint8_t *buf;
    size_t bytes;
    Fields in;
    const uint8_t *backing;  /* the name, or NULL */
    uint32_t backing_bytes;
    const uint8_t *features; /* the image's own table of names, or NULL */
    size_t features_bytes;
    unsigned seen;           /* bits: known extensions, by index */
    GError **errp;
} Reader;

/* Refuse the image; @err is a positive errno. */
static int G_GNUC_PRINTF(3, 4)
refuse(const Reader *r, int err, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    return block_error(r->errp, err, "Node '%s': image '%s': %s", r->node_name,
                       r->filename, text);
}

/* --- reading: fields ------------------------------------------------------ */

/* A table of @bytes bytes, which a limit has passed, at @offset: aligned, and
 * within what can be named; then it is in @ret. */
static int check_table(const Reader *r, const char *what, Untrusted offset,
                       uint64_t bytes, uint64_t *ret)
{
    uint64_t cluster = UINT64_C(1) << r->h->cluster_bits;

    if (untrusted_bits(offset, cluster - 1)) {
        return refuse(r, EINVAL, "the %s at offset 0x%" G_GINT64_MODIFIER "x is "
                      "not aligned to a cluster", what,
                      untrusted_verbatim(offset));
    }
    if (untrusted_is(offset, 0) && bytes > 0) {
        return refuse(r, EINVAL, "the %s would lie in the header", what);
    }
    if (!untrusted_at_most(offset, QCOW2_MAX_HOST_OFFSET - (int64_t)bytes,
                           ret)) {
        return refuse(r, EINVAL, "the %s at offset 0x%" G_GINT64_MODIFIER "x of "
                      "%" G_GUINT64_FORMAT " bytes passes the largest offset",
                      what, untrusted_verbatim(offset), bytes);
    }
    return 0;
}

/* The tables that are not empty do not lie on each other. */
static int check_tables_apart(const Reader *r)
{
    const Qcow2Header *h = r->h;
    uint64_t l1_end = h->l1_offset + h->l1_size * UINT64_C(8);
    uint64_t ref_end = h->reftable_offset +
                       ((uint64_t)h->reftable_clusters << h->cluster_bits);

    if (h->l1_size > 0 && h->l1_offset < ref_end &&
        h->reftable_offset < l1_end) {
        return refuse(r, EINVAL, "the L1 table and the refcount table overlap");
    }
    return 0;
}

static int check_size(const Reader *r)
{
    Qcow2Header *h = r->h;
    Qcow2Geometry geo;
    int64_t needed;

    qcow2_geometry_init(&geo, h->cluster_bits, h->refcount_order,
                        h->incompatible & QCOW2_INCOMPAT_EXTL2);
    if (!untrusted_at_most(r->in.size,
                           MIN(qcow2_max_size(&geo), BDRV_MAX_LENGTH),
                           &h->size)) {
        return refuse(r, EFBIG, "the disk's size of %" G_GUINT64_FORMAT
                      " bytes is above the limit for clusters of %"
                      G_GINT64_FORMAT " bytes", untrusted_verbatim(r->in.size),
                      geo.cluster_bytes);
    }
    if (!untrusted_at_most(r->in.l1_size, QCOW2_MAX_L1_BYTES / 8,
                           &h->l1_size)) {
        return refuse(r, EFBIG, "the L1 table of %u entries is too large",
                      (unsigned)untrusted_verbatim(r->in.l1_size));
    }
    needed = qcow2_l1_entries(&geo, h->size);
    if (h->l1_size < needed) {
        return refuse(r, EINVAL, "the L1 table of %u entries is too small for "
                      "a disk of %" G_GUINT64_FORMAT " bytes, which needs %"
                      G_GINT64_FORMAT, h->l1_size, h->size, needed);
    }
    return 0;
}

static int check_snapshots(const Reader *r)
{
    Qcow2Header *h = r->h;

    if (!untrusted_at_most(r->in.nb_snapshots, QCOW2_MAX_SNAPSHOTS,
                           &h->nb_snapshots)) {
        return refuse(r, EFBIG, "%u snapshots are too many",
                      (unsigned)untrusted_verbatim(r->in.nb_snapshots));
    }
    if (h->nb_snapshots == 0) {
        return 0; /* an offset means nothing then, and is not kept */
    }
    /* Its length is known only when it has been read. */
    return check_table(r, "snapshot table", r->in.snapshots_offset, 1,
                       &h->snapshots_offset);
}

static int check_fields(const Reader *r)
{
    Qcow2Header *h = r->h;
    int ret = check_size(r);

    if (ret == 0) {
        ret = check_table(r, "L1 table", r->in.l1_offset,
                          h->l1_size * UINT64_C(8), &h->l1_offset);
    }
    if (ret < 0) {
        return ret;
    }
    if (untrusted_is(r->in.reftable_clusters, 0)) {
        return refuse(r, EINVAL, "the image has no refcount table");
    }
    if (!untrusted_at_most(r->in.reftable_clusters,
                           QCOW2_MAX_REFTABLE_BYTES >> h->cluster_bits,
                           &h->reftable_clusters)) {
        return refuse(r, EFBIG, "the refcount table of %u clusters is too "
                      "large",
                      (unsigned)untrusted_verbatim(r->in.reftable_clusters));
    }
    ret = check_table(r, "refcount table", r->in.reftable_offset,
                      (uint64_t)h->reftable_clusters << h->cluster_bits,
                      &h->reftable_offset);
    if (ret == 0) {
        ret = check_tables_apart(r);
    }
    return ret == 0 ? check_snapshots(r) : ret;
}

/* Version, and what is needed to know how long the first cluster is. */
static int read_first_fields(Reader *r)
{
    Qcow2Header *h = r->h;
    Untrusted version, cluster_bits;

    if (r->bytes < QCOW2_H_V2_BYTES) {
        return refuse(r, EINVAL, "%zu bytes are too short for an image of "
                      "format qcow2", r->bytes);
    }
    if (!untrusted_is(untrusted_be32(r->buf + QCOW2_H_MAGIC), QCOW2_MAGIC)) {
        return refuse(r, EINVAL, "is not of format qcow2");
    }
    version = untrusted_be32(r->buf + QCOW2_H_VERSION);
    if (!untrusted_at_most(version, 3, &h->version) || h->version < 2) {
        return refuse(r, ENOTSUP, "version %u of qcow2 is not supported",
                      (unsigned)untrusted_verbatim(version));
    }
    cluster_bits = untrusted_be32(r->buf + QCOW2_H_CLUSTER_BITS);
    if (!untrusted_at_most(cluster_bits, QCOW2_MAX_CLUSTER_BITS,
                           &h->cluster_bits) ||
        h->cluster_bits < QCOW2_MIN_CLUSTER_BITS) {
        return refuse(r, EINVAL, "clusters of 2^%u bytes are not supported",
                      (unsigned)untrusted_verbatim(cluster_bits));
    }
    return 0;
}

static void take_v2_fields(Reader *r)
{
    const uint8_t *buf = r->buf;

    r->in = (Fields){
        .size = untrusted_be64(buf + QCOW2_H_SIZE),
        .crypt_method = untrusted_be32(buf + QCOW2_H_CRYPT_METHOD),
        .l1_size = untrusted_be32(buf + QCOW2_H_L1_SIZE),
        .l1_offset = untrusted_be64(buf + QCOW2_H_L1_OFFSET),
        .reftable_offset = untrusted_be64(buf + QCOW2_H_REFTABLE_OFFSET),
        .reftable_clusters = untrusted_be32(buf + QCOW2_H_REFTABLE_CLUSTERS),
        .nb_snapshots = untrusted_be32(buf + QCOW2_H_NB_SNAPSHOTS),
        .snapshots_offset = untrusted_be64(buf + QCOW2_H_SNAPSHOTS_OFFSET),
        .backing_offset = untrusted_be64(buf + QCOW2_H_BACKING_OFFSET),
        .backing_bytes = untrusted_be32(buf + QCOW2_H_BACKING_SIZE),
        .refcount_order = untrusted(4),
    };
    r->h->header_length = QCOW2_H_V2_BYTES;
}

static int take_v3_fields(Reader *r)
{
    uint32_t cluster = UINT32_C(1) << r->h->cluster_bits;
    const uint8_t *buf = r->buf;
    Qcow2Header *h = r->h;
    Untrusted length;

    if (r->bytes < QCOW2_H_V3_BYTES) {
        return refuse(r, EINVAL, "the header ends with the file after %zu "
                      "bytes", r->bytes);
    }
    h->incompatible =
        untrusted_word(untrusted_be64(buf + QCOW2_H_INCOMPATIBLE));
    h->compatible = untrusted_word(untrusted_be64(buf + QCOW2_H_COMPATIBLE));
    h->autoclear = untrusted_word(untrusted_be64(buf + QCOW2_H_AUTOCLEAR));
    r->in.refcount_order = untrusted_be32(buf + QCOW2_H_REFCOUNT_ORDER);
    length = untrusted_be32(buf + QCOW2_H_HEADER_LENGTH);
    if (!untrusted_at_most(length, MIN(cluster, r->bytes),
                           &h->header_length) ||
        h->header_length < QCOW2_H_V3_BYTES || h->header_length % 8) {
        return refuse(r, EINVAL, "a header length of %u bytes is invalid",
                      (unsigned)untrusted_verbatim(length));
    }
    if (h->header_length > QCOW2_H_COMPRESSION) {
        r->in.compression = untrusted_byte(buf + QCOW2_H_COMPRESSION);
    }
    if (h->header_length > QCOW2_H_BYTES) {
        h->unknown_fields_bytes = h->header_length - QCOW2_H_BYTES;
        h->unknown_fields = g_memdup2(buf + QCOW2_H_BYTES,
                                      h->unknown_fields_bytes);
    }
    return 0;
}

static int check_encryption(const Reader *r)
{
    Untrusted method = r->in.crypt_method;

    if (untrusted_above(method, 2)) {
        return refuse(r, EINVAL, "an encryption method number %u does not "
                      "exist", (unsigned)untrusted_verbatim(method));
    }
    if (!untrusted_at_most(method, 0, &r->h->crypt_method)) {
        return refuse(r, ENOTSUP, "it is encrypted (%s), which is not "
                      "supported", untrusted_is(method, 2) ? "LUKS" : "AES of "
                      "old versions");
    }
    return 0;
}

/* --- reading: extensions -------------------------------------------------- */

/* A text of an extension; NULL after a refusal, which sets @ret. */
static char *take_text(const Reader *r, const uint8_t *data, uint32_t bytes,
                       uint32_t max, const char *what)
{
    if (bytes > max) {
        refuse(r, EINVAL, "the %s of %u bytes is too long", what, bytes);
        return NULL;
    }
    if (memchr(data, 0, bytes)) {
        refuse(r, EINVAL, "the %s has a NUL byte in it", what);
        return NULL;
    }
    return g_strndup((const char *)data, bytes);
}

static int take_backing_format(Reader *r, const uint8_t *data, uint32_t bytes)
{
    if (bytes > 0) {
        r->h->backing_format = take_text(r, data, bytes,
                                         QCOW2_MAX_FORMAT_NAME,
                                         "name of the backing format");
        return r->h->backing_format ? 0 : -EINVAL;
    }
    return 0;
}

static int take_data_file(Reader *r, const uint8_t *data, uint32_t bytes)
{
    if (bytes > 0) {
        r->h->data_file = take_text(r, data, bytes, QCOW2_MAX_BACKING_NAME,
                                    "name of the data file");
        return r->h->data_file ? 0 : -EINVAL;
    }
    return 0;
}

static int take_features(Reader *r, const uint8_t *data, uint32_t bytes)
{
    r->features = data;
    r->features_bytes = bytes;
    return 0;
}

static int take_bitmaps(Reader *r, const uint8_t *data, uint32_t bytes)
{
    Qcow2Header *h = r->h;
    Untrusted nb, dir_bytes;

    if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        /* Written since by a program that does not know bitmaps: they are out
         * of date, and go with the next header that we write. */
        return 0;
    }
    if (bytes != BITMAPS_EXT_BYTES ||
        !untrusted_is(untrusted_be32(data + 4), 0)) {
        return refuse(r, EINVAL, "the extension for bitmaps is malformed");
    }
    h->has_bitmaps = true;
    nb = untrusted_be32(data);
    if (!untrusted_at_most(nb, QCOW2_MAX_BITMAPS, &h->nb_bitmaps) ||
        h->nb_bitmaps == 0) {
        return refuse(r, EINVAL, "a number of %u bitmaps is invalid",
                      (unsigned)untrusted_verbatim(nb));
    }
    dir_bytes = untrusted_be64(data + 8);
    if (!untrusted_at_most(dir_bytes, QCOW2_MAX_BITMAP_DIR_BYTES,
                           &h->bitmap_dir_bytes) ||
        h->bitmap_dir_bytes == 0) {
        return refuse(r, EINVAL, "a directory of %" G_GUINT64_FORMAT " bytes "
                      "for %u bitmaps is invalid",
                      untrusted_verbatim(dir_bytes), h->nb_bitmaps);
    }
    return check_table(r, "directory of bitmaps", untrusted_be64(data + 16),
                       h->bitmap_dir_bytes, &h->bitmap_dir_offset);
}

static int take_crypto(Reader *r, const uint8_t *data, uint32_t bytes)
{
    return refuse(r, ENOTSUP, "it is encrypted (LUKS), which is not "
                  "supported");
}

typedef struct KnownExtension {
    uint32_t magic;
    int (*take)(Reader *r, const uint8_t *data, uint32_t bytes);
} KnownExtension;

static const KnownExtension known_extensions[] = {
    { QCOW2_EXT_BACKING_FORMAT, take_backing_format },
    { QCOW2_EXT_FEATURE_TABLE, take_features },
    { QCOW2_EXT_BITMAPS, take_bitmaps },
    { QCOW2_EXT_CRYPTO, take_crypto },
    { QCOW2_EXT_DATA_FILE, take_data_file },
};

static int take_extension(Reader *r, uint32_t magic, const uint8_t *data,
                          uint32_t bytes)
{
    Qcow2Extension unknown = { .magic = magic, .bytes = bytes };

    for (unsigned i = 0; i < G_N_ELEMENTS(known_extensions); i++) {
        if (known_extensions[i].magic != magic) {
            continue;
        }
        if (r->seen & 1u << i) {
            return refuse(r, EINVAL, "the header extension 0x%08x is there "
                          "twice", magic);
        }
        r->seen |= 1u << i;
        return known_extensions[i].take(r, data, bytes);
    }
    unknown.data = g_memdup2(data, bytes);
    g_array_append_val(r->h->unknown, unknown);
    return 0;
}

static int take_extensions(Reader *r, size_t end)
{
    size_t pos = r->h->header_length;

    while (pos + 8 <= end) {
        uint32_t magic = untrusted_verbatim(untrusted_be32(r->buf + pos));
        Untrusted length = untrusted_be32(r->buf + pos + 4);
        uint32_t bytes;
        int ret;

        pos += 8;
        if (magic == QCOW2_EXT_END) {
            return 0;
        }
        if (!untrusted_at_most(length, end - pos, &bytes)) {
            return refuse(r, EINVAL, "the header extension 0x%08x of %u bytes "
                          "passes the end of the header", magic,
                          (unsigned)untrusted_verbatim(length));
        }
        ret = take_extension(r, magic, r->buf + pos, bytes);
        if (ret < 0) {
            return ret;
        }
        pos += (bytes + UINT64_C(7)) & ~UINT64_C(7);
    }
    return 0;
}

/* --- reading: what fits together ------------------------------------------ */

/* The image's own name for an unknown bit, or a number.  g_free(). */
static char *feature_name(const Reader *r, unsigned bit)
{
    for (size_t pos = 0; pos + FEATURE_ENTRY_BYTES <= r->features_bytes;
         pos += FEATURE_ENTRY_BYTES) {
        const uint8_t *entry = r->features + pos;

        if (entry[0] == FEATURE_INCOMPATIBLE && entry[1] == bit && entry[2]) {
            g_autofree char *name = g_strndup((const char *)entry + 2,
                                              FEATURE_NAME_BYTES);

            return g_strdup_printf("'%s'", name);
        }
    }
    return g_strdup_printf("number %u", bit);
}

static int check_features(const Reader *r)
{
    uint64_t unknown = r->h->incompatible & ~QCOW2_INCOMPAT_MASK;
    g_autoptr(GString) names = NULL;

    if (!unknown) {
        return 0;
    }
    names = g_string_new(NULL);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (unknown >> bit & 1) {
            g_autofree char *name = feature_name(r, bit);

            g_string_append_printf(names, "%s%s", names->len ? ", " : "",
                                   name);
        }
    }
    return refuse(r, ENOTSUP, "it has features that are not supported: %s",
                  names->str);
}

static int check_compression(const Reader *r)
{
    Qcow2Header *h = r->h;
    bool bit = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;
    unsigned compression;

    if (!untrusted_at_most(r->in.compression, QCOW2_COMPRESSION_ZSTD,
                           &compression)) {
        return refuse(r, ENOTSUP, "compression type %u is not supported",
                      (unsigned)untrusted_verbatim(r->in.compression));
    }
    h->compression = compression;
    if (bit != (h->compression != QCOW2_COMPRESSION_ZLIB)) {
        return refuse(r, EINVAL, "compression type %u and the feature bit for "
                      "it contradict each other", h->compression);
    }
    return 0;
}

static int check_version3(const Reader *r)
{
    Qcow2Header *h = r->h;
    int ret = check_features(r);

    if (ret == 0) {
        ret = check_compression(r);
    }
    if (ret == 0 && !untrusted_at_most(r->in.refcount_order,
                                       QCOW2_MAX_REFCOUNT_ORDER,
                                       &h->refcount_order)) {
        ret = refuse(r, EINVAL, "refcounts of 2^%u bits are not supported",
                     (unsigned)untrusted_verbatim(r->in.refcount_order));
    }
    if (ret == 0 && (h->incompatible & QCOW2_INCOMPAT_EXTL2) &&
        h->cluster_bits < 14) {
        ret = refuse(r, EINVAL, "clusters of %u bytes are too small for "
                     "extended L2 entries", 1u << h->cluster_bits);
    }
    return ret;
}

/* Where the extensions end: at the name of the backing file. */
static int locate_backing(Reader *r, size_t *ret_end)
{
    Untrusted offset = r->in.backing_offset, bytes = r->in.backing_bytes;
    size_t pos;

    *ret_end = r->bytes;
    if (untrusted_is(offset, 0) || untrusted_is(bytes, 0)) {
        return 0;
    }
    if (!untrusted_at_most(bytes, QCOW2_MAX_BACKING_NAME,
                           &r->backing_bytes)) {
        return refuse(r, EINVAL, "the name of the backing file, of %u bytes, "
                      "is too long", (unsigned)untrusted_verbatim(bytes));
    }
    if (!untrusted_at_most(offset, (int64_t)r->bytes - r->backing_bytes,
                           &pos) ||
        pos < r->h->header_length) {
        return refuse(r, EINVAL, "the name of the backing file at offset 0x%"
                      G_GINT64_MODIFIER "x is not in the first cluster",
                      untrusted_verbatim(offset));
    }
    r->backing = r->buf + pos;
    *ret_end = pos;
    return 0;
}

static int take_backing(Reader *r)
{
    if (!r->backing) {
        return 0;
    }
    r->h->backing_file = take_text(r, r->backing, r->backing_bytes,
                                   QCOW2_MAX_BACKING_NAME,
                                   "name of the backing file");
    return r->h->backing_file ? 0 : -EINVAL;
}

/* All of the header, from the whole first cluster. */
static int parse(Reader *r)
{
    size_t end = 0;
    int ret;

    take_v2_fields(r);
    ret = r->h->version == 2 ? 0 : take_v3_fields(r);
    if (ret == 0) {
        ret = check_encryption(r);
    }
    if (ret == 0) {
        ret = locate_backing(r, &end);
    }
    if (ret == 0) {
        ret = take_extensions(r, end);
    }
    if (ret == 0) {
        ret = check_version3(r);
    }
    if (ret == 0) {
        ret = check_fields(r);
    }
    return ret < 0 ? ret : take_backing(r);
}

static int coroutine_fn read_cluster(Reader *r, BdrvChild *file)
{
    int64_t length = bdrv_co_getlength(bdrv_child_bs(file));
    uint8_t head[QCOW2_H_BYTES];
    g_autofree uint8_t *buf = NULL;
    int ret = length < 0 ? (int)length : 0;

    if (ret == 0) {
        r->buf = head;
        r->bytes = MIN(length, (int64_t)sizeof(head));
        ret = bdrv_co_pread(file, 0, sizeof(head), head, 0);
    }
    if (ret < 0) {
        return block_error_errno(r->errp, -ret, "Node '%s': could not read the "
                                 "header of image '%s'", r->node_name,
                                 r->filename);
    }
    ret = read_first_fields(r);
    if (ret < 0) {
        return ret;
    }
    r->bytes = MIN(length, INT64_C(1) << r->h->cluster_bits);
    buf = g_try_malloc(r->bytes);
    ret = buf ? bdrv_co_pread(file, 0, r->bytes, buf, 0) : -ENOMEM;
    if (ret < 0) {
        return block_error_errno(r->errp, -ret, "Node '%s': could not read the "
                                 "first cluster of image '%s'", r->node_name,
                                 r->filename);
    }
    r->buf = buf;
    /* Read again: another process may have changed it, if we share that. */
    if (!untrusted_is(untrusted_be32(buf + QCOW2_H_VERSION), r->h->version) ||
        !untrusted_is(untrusted_be32(buf + QCOW2_H_CLUSTER_BITS),
                      r->h->cluster_bits)) {
        return refuse(r, EBUSY, "the header changes while it is read");
    }
    return parse(r);
}

int coroutine_fn qcow2_header_read(BdrvChild *file, const char *node_name,
                                   Qcow2Header *header, GError **errp)
{
    Reader r = {
        .node_name = node_name,
        .filename = bdrv_filename(bdrv_child_bs(file)),
        .h = header,
        .errp = errp,
    };
    int ret;

    memset(header, 0, sizeof(*header));
    header->unknown = g_array_new(false, false, sizeof(Qcow2Extension));
    ret = read_cluster(&r, file);
    if (ret < 0) {
        qcow2_header_clear(header);
    }
    return ret;
}

/* --- writing -------------------------------------------------------------- */

/* Clusters from this size on have a fixed place for the name, and two. */
#define NAME_SLOTS_MIN_CLUSTER 4096
#define NAME_SLOT_BYTES 1024

/* The first cluster while it is put together. */
typedef struct Writer {
    uint8_t *buf;
    size_t bytes; /* of the cluster */
    size_t pos;   /* may pass bytes: then it does not fit */
    size_t name_slot; /* where the backing file's name goes if it can */
} Writer;

static void put_bytes(Writer *w, const void *data, size_t bytes)
{
    if (bytes > 0 && w->pos <= w->bytes && bytes <= w->bytes - w->pos) {
        memcpy(w->buf + w->pos, data, bytes);
    }
    w->pos += bytes;
}

static void put_extension(Writer *w, uint32_t magic, const void *data,
                          uint32_t bytes)
{
    static const uint8_t padding[8];
    uint8_t head[8];

    be_put32(head, magic);
    be_put32(head + 4, bytes);
    put_bytes(w, head, sizeof(head));
    put_bytes(w, data, bytes);
    put_bytes(w, padding, -bytes & 7);
}

static void put_fields(Writer *w, const Qcow2Header *h)
{
    uint8_t buf[QCOW2_H_BYTES] = { 0 };

    be_put32(buf + QCOW2_H_MAGIC, QCOW2_MAGIC);
    be_put32(buf + QCOW2_H_VERSION, h->version);
    be_put32(buf + QCOW2_H_CLUSTER_BITS, h->cluster_bits);
    be_put64(buf + QCOW2_H_SIZE, h->size);
    be_put32(buf + QCOW2_H_CRYPT_METHOD, h->crypt_method);
    be_put32(buf + QCOW2_H_L1_SIZE, h->l1_size);
    be_put64(buf + QCOW2_H_L1_OFFSET, h->l1_offset);
    be_put64(buf + QCOW2_H_REFTABLE_OFFSET, h->reftable_offset);
    be_put32(buf + QCOW2_H_REFTABLE_CLUSTERS, h->reftable_clusters);
    be_put32(buf + QCOW2_H_NB_SNAPSHOTS, h->nb_snapshots);
    be_put64(buf + QCOW2_H_SNAPSHOTS_OFFSET, h->snapshots_offset);
    if (h->version == 2) {
        put_bytes(w, buf, QCOW2_H_V2_BYTES);
        return;
    }
    be_put64(buf + QCOW2_H_INCOMPATIBLE, h->incompatible);
    be_put64(buf + QCOW2_H_COMPATIBLE, h->compatible);
    be_put64(buf + QCOW2_H_AUTOCLEAR, h->autoclear);
    be_put32(buf + QCOW2_H_REFCOUNT_ORDER, h->refcount_order);
    be_put32(buf + QCOW2_H_HEADER_LENGTH,
             QCOW2_H_BYTES + h->unknown_fields_bytes);
    buf[QCOW2_H_COMPRESSION] = h->compression;
    put_bytes(w, buf, sizeof(buf));
    put_bytes(w, h->unknown_fields, h->unknown_fields_bytes);
}

static void put_features(Writer *w)
{
    uint8_t table[G_N_ELEMENTS(features)][FEATURE_ENTRY_BYTES];

    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < G_N_ELEMENTS(features); i++) {
        table[i][0] = features[i].type;
        table[i][1] = features[i].bit;
        memcpy(table[i] + 2, features[i].name, strlen(features[i].name));
    }
    put_extension(w, QCOW2_EXT_FEATURE_TABLE, table, sizeof(table));
}

static void put_bitmaps(Writer *w, const Qcow2Header *h)
{
    uint8_t data[BITMAPS_EXT_BYTES] = { 0 };

    be_put32(data, h->nb_bitmaps);
    be_put64(data + 8, h->bitmap_dir_bytes);
    be_put64(data + 16, h->bitmap_dir_offset);
    put_extension(w, QCOW2_EXT_BITMAPS, data, sizeof(data));
}

/* Everything; the table of names only if @with_features. */
static void encode(Writer *w, const Qcow2Header *h, bool with_features)
{
    size_t backing_bytes = h->backing_file ? strlen(h->backing_file) : 0;

    w->pos = 0;
    memset(w->buf, 0, w->bytes);
    put_fields(w, h);
    if (h->backing_format) {
        put_extension(w, QCOW2_EXT_BACKING_FORMAT, h->backing_format,
                      strlen(h->backing_format));
    }
    if (h->data_file) {
        put_extension(w, QCOW2_EXT_DATA_FILE, h->data_file,
                      strlen(h->data_file));
    }
    if (h->has_bitmaps) {
        put_bitmaps(w, h);
    }
    for (guint i = 0; h->unknown && i < h->unknown->len; i++) {
        const Qcow2Extension *e = &g_array_index(h->unknown, Qcow2Extension,
                                                 i);

        put_extension(w, e->magic, e->data, e->bytes);
    }
    /* What all others can do without comes last: see header-write.c. */
    if (with_features) {
        put_features(w);
    }
    put_extension(w, QCOW2_EXT_END, NULL, 0);
    if (backing_bytes > 0 && w->bytes >= NAME_SLOTS_MIN_CLUSTER &&
        w->pos <= w->name_slot) {
        w->pos = w->name_slot; /* does not move when something else grows */
    }
    if (backing_bytes > 0 && w->pos + backing_bytes <= w->bytes) {
        be_put64(w->buf + QCOW2_H_BACKING_OFFSET, w->pos);
        be_put32(w->buf + QCOW2_H_BACKING_SIZE, backing_bytes);
    }
    put_bytes(w, h->backing_file, backing_bytes);
}

int64_t qcow2_header_encode(const Qcow2Header *header, unsigned name_slot,
                            uint8_t *buf)
{
    Writer w = { .buf = buf, .bytes = (size_t)1 << header->cluster_bits,
                 .name_slot = (name_slot + 1) * NAME_SLOT_BYTES };

    g_assert(header->version == 2 || header->version == 3);
    encode(&w, header, header->version == 3);
    if (w.pos > w.bytes) {
        encode(&w, header, false); /* names of features are a courtesy */
    }
    return w.pos <= w.bytes ? (int64_t)w.pos : -ENOSPC;
}

int coroutine_fn qcow2_header_patch(Qcow2 *q, unsigned field, const void *buf,
                                    size_t bytes)
{
    g_assert(field + bytes <= QCOW2_H_BYTES);
    SIM_POINT("qcow2.header", bdrv_node_name(q->bs));
    return bdrv_co_pwrite(qcow2_file(q), field, bytes, buf, 0);
}

static int coroutine_fn patch_durable(Qcow2 *q, unsigned field,
                                      const void *buf, size_t bytes)
{
    int ret = qcow2_header_patch(q, field, buf, bytes);

    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(qcow2_file(q)));
}

int coroutine_fn qcow2_header_switch(Qcow2 *q, unsigned field, const void *buf,
                                     const void *old, size_t bytes)
{
    int ret = patch_durable(q, field, buf, bytes);

    if (ret < 0 && patch_durable(q, field, old, bytes) < 0) {
        /* Which of the two the disk has is not known; both are right. */
        qcow2_stop_writes(q, "could not change the header, nor leave it as "
                          "it was");
    }
    return ret;
}
