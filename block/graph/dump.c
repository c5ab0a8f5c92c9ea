/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph as JSON, for people and tests.
 *
 * {"nodes": [{"node-name", "driver", "filename", "length", "read-only",
 *             "references", "drained", "perm", "shared-perm",
 *             "children": [{"name", "node-name", "role", "perm",
 *                           "shared-perm", "frozen"}]}],
 *  "roots": [{"name", "node-name", "perm", "shared-perm", "in-flight"}]}
 */
#include "block/graph/graph-int.h"

#include <jansson.h>
#include <stdlib.h>

static json_t *names_of_bits(uint64_t bits, const char *const *names,
                             unsigned nr_names)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < nr_names; i++) {
        if (bits & (1u << i)) {
            json_array_append_new(list, json_string(names[i]));
        }
    }
    return list;
}

static void dump_perm(json_t *object, const BlockPerm *perm)
{
    static const char *const names[] = { "consistent-read", "write",
                                         "write-unchanged", "resize" };

    json_object_set_new(object, "perm",
                        names_of_bits(perm->used, names, 4));
    json_object_set_new(object, "shared-perm",
                        names_of_bits(perm->shared, names, 4));
}

static json_t *dump_child(const BdrvChild *child)
{
    static const char *const roles[] = { "data", "metadata", "filtered", "cow",
                                         "primary" };
    json_t *object = json_object();

    json_object_set_new(object, "name", json_string(child->name));
    json_object_set_new(object, "node-name",
                        json_string(child->bs->node_name));
    json_object_set_new(object, "role",
                        names_of_bits(child->role, roles, 5));
    dump_perm(object, &child->perm);
    json_object_set_new(object, "frozen", json_boolean(child->frozen > 0));
    return object;
}

/* A file name may hold any bytes; JSON holds only UTF-8. */
static json_t *any_string(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    return json_string(valid);
}

static json_t *dump_node(BlockDriverState *bs)
{
    json_t *object = json_object();
    json_t *children = json_array();

    json_object_set_new(object, "node-name", json_string(bs->node_name));
    json_object_set_new(object, "driver", json_string(bs->drv->name));
    json_object_set_new(object, "filename", any_string(bdrv_filename(bs)));
    json_object_set_new(object, "length", json_integer(bdrv_length(bs)));
    json_object_set_new(object, "read-only",
                        json_boolean(bdrv_is_read_only(bs)));
    json_object_set_new(object, "references", json_integer(bs->refs));
    json_object_set_new(object, "drained", json_boolean(bdrv_is_drained(bs)));
    dump_perm(object, &bs->perm);
    LIST_FOREACH(link, &bs->children) {
        json_array_append_new(
            children, dump_child(LIST_ENTRY(link, BdrvChild, parent_link)));
    }
    json_object_set_new(object, "children", children);
    return object;
}

static json_t *dump_root(BlockRoot *root)
{
    json_t *object = json_object();

    json_object_set_new(object, "name", any_string(root->what));
    json_object_set_new(object, "in-flight",
                        json_integer(root_in_flight(root)));
    if (root->child) {
        json_object_set_new(object, "node-name",
                            json_string(root->child->bs->node_name));
        dump_perm(object, &root->child->perm);
    }
    return object;
}

char *block_graph_dump(BlockGraph *graph)
{
    json_t *dump = json_object();
    json_t *nodes = json_array();
    json_t *roots = json_array();
    char *text;
    char *copy;

    LIST_FOREACH(link, &graph->nodes) {
        json_array_append_new(
            nodes, dump_node(LIST_ENTRY(link, BlockDriverState, graph_link)));
    }
    LIST_FOREACH(link, &graph->roots) {
        json_array_append_new(
            roots, dump_root(LIST_ENTRY(link, BlockRoot, graph_link)));
    }
    json_object_set_new(dump, "nodes", nodes);
    json_object_set_new(dump, "roots", roots);
    text = json_dumps(dump, JSON_INDENT(2));
    json_decref(dump);
    copy = g_strdup(text); /* the caller frees with g_free() */
    free(text);
    return copy;
}
