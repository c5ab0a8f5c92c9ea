/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bg-nbd --list: print what a server exports, as qemu-nbd does.
 */
#include <blockgraph/export.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/nbd-args.h"
#include "tools/tool-objects.h"
#include "tools/tool-print.h"

/* By bit of the flags; NULL: not printed. */
static const char *const flag_names[] = {
    NULL, "readonly", "flush", "fua", "rotational", "trim", "zeroes", "df",
    "multi", "resize", "cache", "fast-zero", "block-status-payload",
};

/* What comes from a server may be anything. */
static void print_text(const char *before, const char *text,
                       const char *after)
{
    g_autofree char *safe = tool_safe_text(text);

    printf("%s%s%s\n", before, safe, after);
}

static void print_listing(const BlockNbdListing *listing)
{
    print_text(" export: '", listing->name, "'");
    if (listing->description) {
        print_text("  description: ", listing->description, "");
    }
    if (listing->flags) {
        printf("  size:  %" G_GUINT64_FORMAT "\n", listing->bytes);
        printf("  flags: 0x%x (", listing->flags);
        for (size_t i = 0; i < G_N_ELEMENTS(flag_names); i++) {
            if (flag_names[i] && (listing->flags & (1u << i))) {
                printf(" %s", flag_names[i]);
            }
        }
        printf(" )\n");
    }
    if (listing->min_block) {
        printf("  min block: %u\n", listing->min_block);
        printf("  opt block: %u\n", listing->preferred_block);
        printf("  max block: %u\n", listing->max_block);
    }
    if (listing->contexts && listing->contexts[0]) {
        printf("  available meta contexts: %u\n",
               g_strv_length(listing->contexts));
        for (char **name = listing->contexts; *name; name++) {
            print_text("   ", *name, "");
        }
    }
}

static BlockOptions *address(const NbdArgs *args)
{
    BlockOptions *options = block_options_new();

    if (args->socket_path) {
        block_options_set_str(options, "addr.type", "unix");
        block_options_set_str(options, "addr.path", args->socket_path);
    } else {
        block_options_set_str(options, "addr.type", "inet");
        block_options_set_str(options, "addr.host",
                              args->bind ? args->bind : "localhost");
        block_options_set_str(options, "addr.port",
                              args->port ? args->port : "10809");
    }
    if (args->tls_creds) {
        block_options_set_str(options, "tls-creds", args->tls_creds);
    }
    if (args->tls_hostname) {
        block_options_set_str(options, "tls-hostname", args->tls_hostname);
    }
    return options;
}

int nbd_list(const NbdArgs *args)
{
    g_autoptr(GError) error = NULL;
    BlockGraph *graph = tool_graph_new(0);
    GPtrArray *list = NULL;

    if (!graph) {
        return EXIT_FAILURE;
    }
    if (blk_nbd_list(graph, address(args), &list, &error) == 0) {
        printf("exports available: %u\n", list->len);
        for (guint i = 0; i < list->len; i++) {
            print_listing(g_ptr_array_index(list, i));
        }
        g_ptr_array_unref(list);
    }
    tool_graph_free(graph);
    if (error) {
        tool_error("%s", error->message);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
