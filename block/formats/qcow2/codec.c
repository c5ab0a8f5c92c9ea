/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressing and decompressing a cluster, in worker threads.
 *
 * A codec is the working memory of one stream.  Codecs that are idle wait in
 * the pool of the image for the next cluster; more are made when all are busy,
 * and freed when enough wait.  So memory follows what runs at once, and a
 * quiet image keeps QCOW2_CODECS_KEPT of a kind at most.
 *
 * Compressed data is hostile.  The output is bounded by the caller's buffer,
 * the working memory by the window, and the time by input and output: each
 * step of a loop uses up some of either.
 */
#include "block/formats/qcow2/qcow2.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* Idle codecs of a kind that a pool keeps. */
#define QCOW2_CODECS_KEPT 8

/* Readers of the format may have no larger window than this for deflate. */
#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEM_LEVEL 9

/* The smallest window limit that zstd knows. */
#define ZSTD_WINDOW_LOG_MIN 10

typedef enum CodecKind {
    CODEC_DECODE,
    CODEC_ENCODE,
    CODEC_KINDS,
} CodecKind;

typedef struct Codec {
    struct Codec *next; /* in the pool */
    CodecKind kind;
    z_stream z;         /* zlib; opaque state is NULL unless initialised */
    ZSTD_CCtx *encoder; /* zstd */
    ZSTD_DCtx *decoder;
} Codec;

struct Qcow2CodecPool {
    /* Set by qcow2_codecs_new(), never changed after. */
    Qcow2Compression type;
    size_t cluster_bytes;

    Lock lock;

    /* Guarded by @lock. */
    Codec *idle[CODEC_KINDS];
    unsigned nr_idle[CODEC_KINDS];
};

Qcow2CodecPool *qcow2_codecs_new(Qcow2Compression type, int64_t cluster_bytes)
{
    Qcow2CodecPool *pool = g_new0(Qcow2CodecPool, 1);

    pool->type = type;
    pool->cluster_bytes = cluster_bytes;
    lock_init(&pool->lock, LOCK_RANK_DRIVER);
    return pool;
}

static void codec_free(Qcow2CodecPool *pool, Codec *codec)
{
    if (pool->type == QCOW2_COMPRESSION_ZSTD) {
        ZSTD_freeCCtx(codec->encoder);
        ZSTD_freeDCtx(codec->decoder);
    } else if (codec->kind == CODEC_DECODE) {
        inflateEnd(&codec->z);
    } else {
        deflateEnd(&codec->z);
    }
    g_free(codec);
}

void qcow2_codecs_free(Qcow2CodecPool *pool)
{
    if (!pool) {
        return;
    }
    for (int kind = 0; kind < CODEC_KINDS; kind++) {
        Codec *codec;

        while ((codec = pool->idle[kind])) {
            pool->idle[kind] = codec->next;
            codec_free(pool, codec);
        }
    }
    g_free(pool);
}

static bool codec_init_zlib(Codec *codec)
{
    if (codec->kind == CODEC_DECODE) {
        /* Others may have written with the largest window. */
        return inflateInit2(&codec->z, -MAX_WBITS) == Z_OK;
    }
    return deflateInit2(&codec->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                        -DEFLATE_WINDOW_BITS, DEFLATE_MEM_LEVEL,
                        Z_DEFAULT_STRATEGY) == Z_OK;
}

/* The base 2 logarithm of @bytes, rounded up. */
static int log2_up(size_t bytes)
{
    return bytes <= 1 ? 0 : 64 - __builtin_clzll(bytes - 1);
}

static bool codec_init_zstd(Qcow2CodecPool *pool, Codec *codec)
{
    int window_log = MAX(log2_up(pool->cluster_bytes), ZSTD_WINDOW_LOG_MIN);
    size_t ret;

    if (codec->kind == CODEC_ENCODE) {
        codec->encoder = ZSTD_createCCtx();
        return codec->encoder != NULL;
    }
    codec->decoder = ZSTD_createDCtx();
    if (!codec->decoder) {
        return false;
    }
    /* A frame names the window that its decoder has to keep. */
    ret = ZSTD_DCtx_setParameter(codec->decoder, ZSTD_d_windowLogMax,
                                 window_log);
    g_assert(!ZSTD_isError(ret));
    return true;
}

/* An idle codec or a new one; NULL if there is no memory.  In a worker. */
static Codec *codec_get(Qcow2CodecPool *pool, CodecKind kind)
{
    Codec *codec;
    bool ok;

    WITH_LOCK(&pool->lock) {
        codec = pool->idle[kind];
        if (codec) {
            pool->idle[kind] = codec->next;
            pool->nr_idle[kind]--;
            return codec;
        }
    }
    codec = g_try_new0(Codec, 1);
    if (!codec) {
        return NULL;
    }
    codec->kind = kind;
    ok = pool->type == QCOW2_COMPRESSION_ZSTD ? codec_init_zstd(pool, codec)
                                              : codec_init_zlib(codec);
    if (!ok) {
        g_free(codec); /* what failed has left nothing else */
        return NULL;
    }
    return codec;
}

static void codec_put(Qcow2CodecPool *pool, Codec *codec)
{
    WITH_LOCK(&pool->lock) {
        if (pool->nr_idle[codec->kind] < QCOW2_CODECS_KEPT) {
            codec->next = pool->idle[codec->kind];
            pool->idle[codec->kind] = codec;
            pool->nr_idle[codec->kind]++;
            return;
        }
    }
    codec_free(pool, codec);
}

/* --- in a worker ---------------------------------------------------------- */

/* One cluster on its way through a worker. */
typedef struct CodecCall {
    Qcow2CodecPool *pool;
    Codec *codec;
    const void *in;
    size_t in_bytes;
    void *out;
    size_t out_bytes; /* room; compressing: bytes written */
} CodecCall;

/* A stream that would go on behind the cluster is cut there, as others do. */
static int inflate_cluster(CodecCall *call)
{
    z_stream *z = &call->codec->z;
    int ret = inflateReset(z);

    g_assert(ret == Z_OK);
    z->next_in = (Bytef *)call->in;
    z->avail_in = call->in_bytes;
    z->next_out = call->out;
    z->avail_out = call->out_bytes;
    ret = inflate(z, Z_FINISH);
    if (ret == Z_MEM_ERROR) {
        return -ENOMEM;
    }
    if (z->avail_out > 0 || (ret != Z_STREAM_END && ret != Z_BUF_ERROR)) {
        return -EIO;
    }
    return 0;
}

static int deflate_cluster(CodecCall *call)
{
    z_stream *z = &call->codec->z;
    int ret = deflateReset(z);

    g_assert(ret == Z_OK);
    z->next_in = (Bytef *)call->in;
    z->avail_in = call->in_bytes;
    z->next_out = call->out;
    z->avail_out = call->out_bytes;
    ret = deflate(z, Z_FINISH);
    if (ret != Z_STREAM_END) {
        return ret == Z_OK || ret == Z_BUF_ERROR ? -ENOSPC : -EIO;
    }
    call->out_bytes -= z->avail_out;
    return 0;
}

/* A cluster may consist of several frames; the last one ends with it. */
static int unzstd_cluster(CodecCall *call)
{
    ZSTD_inBuffer in = { call->in, call->in_bytes, 0 };
    ZSTD_outBuffer out = { call->out, call->out_bytes, 0 };
    size_t ret = ZSTD_DCtx_reset(call->codec->decoder,
                                 ZSTD_reset_session_only);

    g_assert(!ZSTD_isError(ret));
    for (;;) {
        size_t in_before = in.pos, out_before = out.pos;

        ret = ZSTD_decompressStream(call->codec->decoder, &out, &in);
        if (ZSTD_isError(ret)) {
            return ZSTD_getErrorCode(ret) == ZSTD_error_memory_allocation
                       ? -ENOMEM
                       : -EIO;
        }
        if (ret == 0 && out.pos == out.size) {
            return 0;
        }
        if (in.pos == in_before && out.pos == out_before) {
            return -EIO; /* cut off, or more than a cluster */
        }
    }
}

static int zstd_cluster(CodecCall *call)
{
    size_t ret = ZSTD_compress2(call->codec->encoder, call->out,
                                call->out_bytes, call->in, call->in_bytes);

    if (!ZSTD_isError(ret)) {
        call->out_bytes = ret;
        return 0;
    }
    switch (ZSTD_getErrorCode(ret)) {
    case ZSTD_error_dstSize_tooSmall:
        return -ENOSPC;
    case ZSTD_error_memory_allocation:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

static int decompress_work(void *opaque)
{
    CodecCall *call = opaque;
    int ret;

    call->codec = codec_get(call->pool, CODEC_DECODE);
    if (!call->codec) {
        return -ENOMEM;
    }
    ret = call->pool->type == QCOW2_COMPRESSION_ZSTD ? unzstd_cluster(call)
                                                     : inflate_cluster(call);
    codec_put(call->pool, call->codec);
    return ret;
}

static int compress_work(void *opaque)
{
    CodecCall *call = opaque;
    int ret;

    call->codec = codec_get(call->pool, CODEC_ENCODE);
    if (!call->codec) {
        return -ENOMEM;
    }
    ret = call->pool->type == QCOW2_COMPRESSION_ZSTD ? zstd_cluster(call)
                                                     : deflate_cluster(call);
    codec_put(call->pool, call->codec);
    return ret;
}

/* --- in a coroutine ------------------------------------------------------- */

int coroutine_fn qcow2_decompress(Qcow2CodecPool *codecs, const void *in,
                                  size_t in_bytes, void *out,
                                  size_t out_bytes)
{
    CodecCall call = {
        .pool = codecs,
        .in = in,
        .in_bytes = in_bytes,
        .out = out,
        .out_bytes = out_bytes,
    };

    g_assert(in_bytes <= UINT_MAX && out_bytes <= UINT_MAX);
    return aio_co_work(decompress_work, &call);
}

int coroutine_fn qcow2_compress(Qcow2CodecPool *codecs, const void *in,
                                void *out, size_t *ret_bytes)
{
    CodecCall call = {
        .pool = codecs,
        .in = in,
        .in_bytes = codecs->cluster_bytes,
        .out = out,
        .out_bytes = codecs->cluster_bytes - 1,
    };
    int ret = aio_co_work(compress_work, &call);

    if (ret == 0) {
        *ret_bytes = call.out_bytes;
    }
    return ret;
}
