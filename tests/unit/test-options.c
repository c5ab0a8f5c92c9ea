/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options: all notations give one tree, each mistake gives a clear text, and
 * nothing that is typed, sent or stored can crash the parsers.
 */
#include "check-main.h"

#include <blockgraph/options.h>
#include <errno.h>
#include <string.h>

typedef BlockOptions *ParseFn(const char *text, GError **errp);

static BlockOptions *keyval(const char *text, GError **errp)
{
    return block_options_parse_keyval(text, "driver", errp);
}

/* @text parses to the tree that @json (sorted) shows. */
static void gives(ParseFn *parse, const char *text, const char *json)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockOptions) options = parse(text, &error);
    g_autofree char *shown = NULL;

    ck_assert_msg(options != NULL, "'%s': %s", text,
                  error ? error->message : "no error");
    ck_assert_ptr_null(error);
    shown = block_options_to_json(options);
    ck_assert_str_eq(shown, json);
}

/* @text is refused with EINVAL and a text that contains @needle. */
static void refuses(ParseFn *parse, const char *text, const char *needle)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockOptions) options = parse(text, &error);

    ck_assert_msg(options == NULL, "'%.80s' was accepted", text);
    ck_assert_ptr_nonnull(error);
    ck_assert_int_eq(block_error_code(error), EINVAL);
    ck_assert_msg(strstr(error->message, needle) != NULL,
                  "'%s' does not say '%s'", error->message, needle);
    ck_assert(!parse(text, NULL));
}

/* --- parsing -------------------------------------------------------------- */

START_TEST(all_notations_give_the_same_tree)
{
    const char *tree = "{\"driver\": \"raw\", \"file\": "
                       "{\"driver\": \"file\", \"filename\": \"x.img\"}}";

    gives(block_options_parse_json, tree, tree);
    gives(block_options_parse_json,
          "{\"file.filename\":\"x.img\",\"driver\":\"raw\","
          "\"file\":{\"driver\":\"file\"}}", tree);
    gives(keyval, "raw,file.driver=file,file.filename=x.img", tree);
    gives(keyval, "file.driver=file,driver=raw,file.filename=x.img", tree);
    gives(block_options_parse_filename,
          "json:{\"driver\":\"raw\",\"file.driver\":\"file\","
          "\"file.filename\":\"x.img\"}", tree);
}
END_TEST

START_TEST(a_plain_name_is_a_file_whatever_it_looks_like)
{
    gives(block_options_parse_filename, "a,b=c.img",
          "{\"driver\": \"file\", \"filename\": \"a,b=c.img\"}");
    gives(block_options_parse_filename, "nbd:x",
          "{\"driver\": \"file\", \"filename\": \"nbd:x\"}");
    gives(block_options_parse_filename, "\xff.img",
          "{\"driver\": \"file\", \"filename\": \"\xef\xbf\xbd.img\"}");
    refuses(block_options_parse_filename, "", "must not be empty");
    refuses(block_options_parse_filename, "json:", "JSON");
}
END_TEST

START_TEST(a_file_name_keeps_bytes_that_are_not_utf8)
{
    g_autoptr(BlockOptions) options =
        block_options_parse_filename("\xff.img", NULL);
    g_autoptr(BlockOptions) copy = block_options_clone(options);

    ck_assert_str_eq(block_options_peek_str(copy, "filename"), "\xff.img");
}
END_TEST

START_TEST(keyval_escapes_commas_and_keeps_equal_signs)
{
    gives(keyval, "", "{}");
    gives(keyval, "a=b=c,d=x,,y", "{\"a\": \"b=c\", \"d\": \"x,y\"}");
    gives(keyval, "a=,b=,,", "{\"a\": \"\", \"b\": \",\"}");
    gives(keyval, "x,,y,a=1", "{\"a\": \"1\", \"driver\": \"x,y\"}");
}
END_TEST

START_TEST(numbered_keys_make_lists)
{
    gives(keyval, "a.1=y,a.0=x", "{\"a\": [\"x\", \"y\"]}");
    gives(keyval, "a.0.k=x,a.1.k=y",
          "{\"a\": [{\"k\": \"x\"}, {\"k\": \"y\"}]}");
    gives(keyval, "a.0.0=x", "{\"a\": [[\"x\"]]}");
    gives(keyval, "a.00=x", "{\"a\": {\"00\": \"x\"}}");
    gives(keyval, "0=x", "{\"0\": \"x\"}");
    gives(block_options_parse_json, "{\"a.0\": 1, \"a.1\": [{\"b.c\": 2}]}",
          "{\"a\": [1, [{\"b\": {\"c\": 2}}]]}");
    refuses(keyval, "a.0=x,a.2=y", "List 'a' has no element 1");
    refuses(keyval, "a.4294967296=y", "List 'a' has no element 0");
    gives(keyval, "a.99999999999999999999=y",
          "{\"a\": {\"99999999999999999999\": \"y\"}}");
}
END_TEST

START_TEST(keys_given_twice_or_in_two_ways_are_named)
{
    refuses(keyval, "a=1,a=2", "Option 'a' is given twice");
    refuses(keyval, "file=x,file.filename=y",
            "Option 'file' is given both as a value and as an object");
    refuses(keyval, "file.filename=y,file=x",
            "Option 'file' is given both as a value and as an object");
    refuses(keyval, "a.b.c=x,a.b=y", "Option 'a.b' is given both");
    refuses(block_options_parse_json, "{\"a\": 1, \"a\": 2}", "duplicate");
    refuses(block_options_parse_json, "{\"a\": {\"b\": 1}, \"a.b\": 2}",
            "Option 'a.b' is given twice");
    refuses(block_options_parse_json, "{\"a\": \"node\", \"a.b\": 2}",
            "Option 'a' is given both");
    refuses(block_options_parse_json, "{\"a\": [1], \"a.1\": 2}",
            "Option 'a' is given both");
}
END_TEST

START_TEST(bad_keyval_texts_are_named)
{
    refuses(keyval, "raw,", "empty element");
    refuses(keyval, ",", "empty element");
    refuses(keyval, "raw,,,a=1,", "empty element");
    refuses(keyval, "raw,qcow2", "Option 'qcow2' has no value");
    refuses(keyval, "=x", "empty");
    refuses(keyval, ".a=x", "empty");
    refuses(keyval, "a.=x", "empty");
    refuses(keyval, "a..b=x", "'a..b'");
    refuses(keyval, "a=\xff", "byte 2 is not part of valid UTF-8");
}
END_TEST

START_TEST(bad_json_texts_are_named)
{
    refuses(block_options_parse_json, "", "JSON");
    refuses(block_options_parse_json, "[]", "must be a JSON object");
    refuses(block_options_parse_json, "1", "must be a JSON object");
    refuses(block_options_parse_json, "{\n\"a\": }", "line 2");
    refuses(block_options_parse_json, "{} x", "end of file");
    refuses(block_options_parse_json, "{\"a\": \"\\u0000\"}", "\\u0000");
    refuses(block_options_parse_json, "{\"\\u0000\": 1}", "\\u0000");
    refuses(block_options_parse_json, "{\"a\": \"\xff\"}",
            "byte 7 is not part of valid UTF-8");
    refuses(block_options_parse_json, "{\"a\": \"\\ud800\"}", "Unicode");
    refuses(block_options_parse_json, "{\"a\": 9223372036854775808}",
            "integer");
    refuses(block_options_parse_json, "{\"a\": -9223372036854775809}",
            "integer");
    refuses(block_options_parse_json, "{\"a\": 1e999}", "real");
    refuses(block_options_parse_json, "{\"\": 1}", "empty");
    gives(block_options_parse_json, "{\"a\": -9223372036854775808}",
          "{\"a\": -9223372036854775808}");
}
END_TEST

/* "{"a":" @depth times, or "a." @depth times. */
static char *nested(const char *open, const char *middle, const char *close,
                    int depth)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < depth; i++) {
        g_string_append(text, open);
    }
    g_string_append(text, middle);
    for (int i = 0; i < depth; i++) {
        g_string_append(text, close);
    }
    return g_string_free(text, FALSE);
}

START_TEST(nesting_is_bounded_in_each_notation)
{
    static const int depths[] = { 65, 100, 2000, 100000 };
    g_autofree char *fine = nested("{\"a\":", "1", "}", 64);
    g_autofree char *fine_key = nested("a.", "a=1", "", 63);
    g_autoptr(BlockOptions) json = block_options_parse_json(fine, NULL);
    g_autoptr(BlockOptions) dotted = keyval(fine_key, NULL);

    ck_assert_ptr_nonnull(json);
    ck_assert_ptr_nonnull(dotted);
    for (size_t i = 0; i < G_N_ELEMENTS(depths); i++) {
        g_autofree char *objects = nested("{\"a\":", "1", "}", depths[i]);
        g_autofree char *lists = nested("[", "", "]", depths[i]);
        g_autofree char *in_list = g_strdup_printf("{\"a\":%s}", lists);
        g_autofree char *key = nested("a.", "a=1", "", depths[i]);
        g_autofree char *name = nested("a.", "a", "", depths[i]);
        g_autofree char *json_key = g_strdup_printf("{\"%s\":1}", name);

        refuses(block_options_parse_json, objects, "deeper than 64");
        refuses(block_options_parse_json, in_list, "deeper than 64");
        refuses(block_options_parse_json, json_key, "deeper than 64");
        refuses(keyval, key, "deeper than 64");
    }
}
END_TEST

START_TEST(nesting_counts_dots_and_braces_but_not_text)
{
    g_autofree char *half = nested("a.", "a", "", 39);
    g_autofree char *both = g_strdup_printf("{\"%s\":{\"%s\":1}}", half, half);
    g_autofree char *deepest = nested("a.", "a", "", 63);
    g_autofree char *value = g_strdup_printf("{\"%s\":1}", deepest);
    g_autofree char *object = g_strdup_printf("{\"%s\":{}}", deepest);
    g_autoptr(BlockOptions) fine = block_options_parse_json(value, NULL);
    g_autofree char *brackets = nested("[", "", "", 70);
    g_autofree char *text = g_strdup_printf("{\"a\":\"\\\"%s\"}", brackets);
    g_autoptr(BlockOptions) options = block_options_parse_json(text, NULL);

    refuses(block_options_parse_json, both, "deeper than 64");
    refuses(block_options_parse_json, object, "deeper than 64");
    ck_assert_ptr_nonnull(fine);
    ck_assert_ptr_nonnull(options);
}
END_TEST

START_TEST(texts_and_names_have_a_longest_length)
{
    g_autofree char *text = g_malloc(2 << 20);
    g_autofree char *name = g_strnfill(128, 'n');
    g_autofree char *element = g_strdup_printf("%s=1", name);

    memset(text, ' ', 2 << 20);
    text[(2 << 20) - 1] = '\0';
    refuses(block_options_parse_json, text, "longer than 1048576");
    refuses(keyval, text, "longer than 1048576");
    refuses(keyval, element, "too long");
    gives(keyval, "123456789012345678901234567890=1",
          "{\"123456789012345678901234567890\": \"1\"}");
}
END_TEST

static const char *const corpus[] = {
    "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": "
    "\"a\\u00e9\\n\"}, \"l2-cache-size\": 1048576, \"x\": [1, 2.5, null, "
    "true, [[]], {}]}",
    "{\"children.0.driver\":\"a\",\"children.1\":{\"k.l\":-1e-3},\"a.b\":{}}",
    "qcow2,file.driver=file,file.filename=a,,b,children.0.x=1,children.1.x=2",
    "json:{\"driver\":\"raw\",\"file.filename\":\"x\",\"size\":\"1.5G\"}",
};

/* A tree or an error, never both; and a tree survives its own text. */
static void fuzz_one(ParseFn *parse, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockOptions) options = parse(text, &error);
    g_autoptr(BlockOptions) again = NULL;
    g_autofree char *shown = NULL;
    g_autofree char *shown_again = NULL;

    if ((options == NULL) == (error == NULL)) {
        ck_abort_msg("'%s': %s", text, error ? error->message : "nothing");
    }
    if (!options) {
        return;
    }
    shown = block_options_to_json(options);
    again = block_options_parse_json(shown, &error);
    if (!again) {
        ck_abort_msg("'%s' from '%s': %s", shown, text, error->message);
    }
    shown_again = block_options_to_json(again);
    if (strcmp(shown, shown_again) != 0) {
        ck_abort_msg("'%s' became '%s'", shown, shown_again);
    }
}

static void mutate(GRand *rand, GString *text)
{
    static const char spice[] = "{}[]\",:.=\\01e-u\xff\x80 \n";
    size_t at = g_rand_int_range(rand, 0, text->len + 1);
    size_t len = g_rand_int_range(rand, 0, 12);

    switch (g_rand_int_range(rand, 0, 4)) {
    case 0:
        g_string_insert_c(text, at,
                          spice[g_rand_int_range(rand, 0, sizeof(spice) - 1)]);
        break;
    case 1:
        g_string_erase(text, at, MIN(len, text->len - at));
        break;
    case 2:
        if (at < text->len) {
            text->str[at] = g_rand_int_range(rand, 1, 256);
        }
        break;
    default: {
        g_autofree char *part = g_strndup(text->str + at, len);

        g_string_insert(text, g_rand_int_range(rand, 0, text->len + 1), part);
    }
    }
}

START_TEST(mutated_texts_give_a_tree_or_an_error)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(_i);

    for (int round = 0; round < 3000; round++) {
        const char *seed =
            corpus[g_rand_int_range(rand, 0, G_N_ELEMENTS(corpus))];
        g_autoptr(GString) text = g_string_new(seed);
        int mutations = g_rand_int_range(rand, 0, 8);

        for (int i = 0; i < mutations; i++) {
            mutate(rand, text);
        }
        fuzz_one(block_options_parse_json, text->str);
        fuzz_one(keyval, text->str);
    }
}
END_TEST

/* --- tree ----------------------------------------------------------------- */

START_TEST(setters_replace_what_stands_in_the_way)
{
    g_autoptr(BlockOptions) options = block_options_new();
    BlockOptions *child = block_options_new();
    g_autofree char *shown = NULL;

    block_options_set_str(options, "file", "node0");
    block_options_set_str(options, "file.driver", "file");
    block_options_set_int(options, "a.b", INT64_MIN);
    block_options_set_int(options, "a.b", 7);
    block_options_set_bool(child, "x", true);
    block_options_set_tree(options, "t.u", child);
    shown = block_options_to_json(options);
    ck_assert_str_eq(shown, "{\"a\": {\"b\": 7}, \"file\": {\"driver\": "
                            "\"file\"}, \"t\": {\"u\": {\"x\": true}}}");
}
END_TEST

START_TEST(readers_and_setters_reach_into_lists)
{
    g_autoptr(BlockOptions) options = keyval("a.0.k=x,a.1.k=y", NULL);

    ck_assert_str_eq(block_options_peek_str(options, "a.1.k"), "y");
    ck_assert(!block_options_has(options, "a.2"));
    ck_assert(!block_options_has(options, "a.k"));
    block_options_set_str(options, "a.9", "z");
    ck_assert_str_eq(block_options_peek_str(options, "a.2"), "z");
    block_options_set_str(options, "a.0", "w");
    ck_assert(block_options_remove(options, "a.1"));
    ck_assert_str_eq(block_options_peek_str(options, "a.1"), "z");
}
END_TEST

START_TEST(removing_the_last_key_removes_the_object)
{
    g_autoptr(BlockOptions) options = keyval("a.b.c=1,d=2", NULL);

    ck_assert_uint_eq(block_options_count(options), 2);
    ck_assert(block_options_remove(options, "a.b.c"));
    ck_assert(!block_options_has(options, "a"));
    ck_assert(!block_options_remove(options, "a.b.c"));
    ck_assert(!block_options_remove(options, "d.e"));
    ck_assert_uint_eq(block_options_count(options), 1);
}
END_TEST

START_TEST(a_clone_is_independent)
{
    g_autoptr(BlockOptions) options = keyval("a.b=1", NULL);
    g_autoptr(BlockOptions) copy = block_options_clone(options);

    block_options_set_str(copy, "a.b", "2");
    ck_assert_str_eq(block_options_peek_str(options, "a.b"), "1");
}
END_TEST

START_TEST(keys_come_in_the_order_in_which_they_were_given)
{
    g_autoptr(BlockOptions) options = keyval("z=1,a=2,m.k=3", NULL);
    g_auto(GStrv) keys = block_options_keys(options);
    g_autofree char *joined = g_strjoinv(" ", keys);

    ck_assert_str_eq(joined, "z a m");
}
END_TEST

START_TEST(a_merge_adds_but_never_replaces)
{
    g_autoptr(BlockOptions) options = keyval("a.b=1,l.0=x,s=y", NULL);
    g_autoptr(BlockOptions) other =
        keyval("a.b=2,a.c.d=3,l.0=p,l.1=q,s.t=z,n.m=4", NULL);
    g_autofree char *shown = NULL;

    block_options_merge(options, other);
    block_options_set_str(other, "n.m", "changed");
    shown = block_options_to_json(options);
    ck_assert_str_eq(shown, "{\"a\": {\"b\": \"1\", \"c\": {\"d\": \"3\"}}, "
                            "\"l\": [\"x\"], \"n\": {\"m\": \"4\"}, "
                            "\"s\": \"y\"}");
}
END_TEST

START_TEST(values_are_compared_in_depth)
{
    g_autoptr(BlockOptions) a = keyval("x.y.0=1,z=1", NULL);
    g_autoptr(BlockOptions) b = keyval("x.y.0=1,z=2", NULL);

    ck_assert(block_options_same(a, b, "x"));
    ck_assert(block_options_same(a, b, "absent.key"));
    ck_assert(!block_options_same(a, b, "z"));
    ck_assert(block_options_remove(b, "z"));
    ck_assert(!block_options_same(a, b, "z"));
    ck_assert(!block_options_same(b, a, "z"));
}
END_TEST

START_TEST(a_child_is_a_name_a_tree_null_or_absent)
{
    g_autoptr(BlockOptions) options = block_options_parse_json(
        "{\"n\": \"node0\", \"t\": {\"driver\": \"file\"}, \"z\": null, "
        "\"bad\": 5, \"empty\": \"\"}", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockOptions) tree = NULL;
    g_autofree char *name = NULL;
    BlockOptionsChild kind;

#define TAKE(key)                                                             \
    block_options_take_child(options, key, &kind, &name, &tree, &error)
    ck_assert_int_eq(TAKE("n"), 0);
    ck_assert_int_eq(kind, BLOCK_OPTIONS_CHILD_REFERENCE);
    ck_assert_str_eq(name, "node0");
    ck_assert_int_eq(TAKE("n"), 0);
    ck_assert_int_eq(kind, BLOCK_OPTIONS_CHILD_NONE);
    ck_assert_int_eq(TAKE("t"), 0);
    ck_assert_int_eq(kind, BLOCK_OPTIONS_CHILD_TREE);
    ck_assert_str_eq(block_options_peek_str(tree, "driver"), "file");
    ck_assert_int_eq(TAKE("z"), 0);
    ck_assert_int_eq(kind, BLOCK_OPTIONS_CHILD_NULL);
    ck_assert_int_eq(TAKE("bad"), -EINVAL);
    ck_assert_str_eq(error->message, "Option 'bad' expects a node name, an "
                                     "object or null, not 5");
    g_clear_error(&error);
    ck_assert_int_eq(TAKE("empty"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error->message, "names no node"));
#undef TAKE
}
END_TEST

/* --- tables --------------------------------------------------------------- */

typedef struct Target {
    char *filename;
    char *id;
    bool direct;
    int64_t workers;
    int64_t cluster;
    double rate;
    int discard;
    BlockOptions *extra;
} Target;

static const char *const discard_values[] = { "ignore", "unmap", NULL };

static const BlockOption table[] = {
    { "filename", BLOCK_OPTION_STRING, .required = true,
      .offset = offsetof(Target, filename), .help = "name of the file" },
    { "id", BLOCK_OPTION_STRING, "none", .offset = offsetof(Target, id) },
    { "cache.direct", BLOCK_OPTION_BOOL, "off",
      .offset = offsetof(Target, direct), .help = "bypass the page cache" },
    { "workers", BLOCK_OPTION_NUMBER, "4", 1, 64,
      .offset = offsetof(Target, workers), .help = "requests at a time" },
    { "cluster-size", BLOCK_OPTION_SIZE, "64k", 512, 2 << 20,
      .offset = offsetof(Target, cluster), .help = "bytes" },
    { "rate", BLOCK_OPTION_DOUBLE, .max = 10,
      .offset = offsetof(Target, rate), .help = "fraction" },
    { "discard", BLOCK_OPTION_ENUM, "unmap", .values = discard_values,
      .offset = offsetof(Target, discard), .help = "what a discard does" },
    { "extra", BLOCK_OPTION_TREE, .offset = offsetof(Target, extra) },
    { "file", BLOCK_OPTION_CHILD, .help = "where the data is" },
    { NULL, BLOCK_OPTION_END },
};

static const BlockOption *const known[] = { table, NULL };

#define WHAT "Node 'd0' (driver 'file')"

static int absorb(ParseFn *parse, const char *text, Target *t, GError **errp)
{
    g_autoptr(BlockOptions) options = parse(text, errp);
    int ret;

    ck_assert_ptr_nonnull(options);
    memset(t, 0xee, sizeof(*t));
    ret = block_options_absorb(options, table, t, WHAT, errp);
    if (ret == 0) {
        block_options_remove(options, "file");
        ret = block_options_check_empty(options, known, WHAT, errp);
        if (ret < 0) {
            block_options_clear(table, t);
        }
    }
    return ret;
}

START_TEST(absent_options_get_their_defaults)
{
    Target t;

    ck_assert_int_eq(absorb(keyval, "filename=x", &t, NULL), 0);
    ck_assert_str_eq(t.filename, "x");
    ck_assert_str_eq(t.id, "none");
    ck_assert(!t.direct);
    ck_assert_int_eq(t.workers, 4);
    ck_assert_int_eq(t.cluster, 65536);
    ck_assert(t.rate == 0);
    ck_assert_int_eq(t.discard, 1);
    ck_assert_ptr_null(t.extra);
    block_options_clear(table, &t);
    ck_assert_ptr_null(t.filename);
    ck_assert_ptr_null(t.id);
}
END_TEST

START_TEST(text_and_json_values_mean_the_same)
{
    static const char *const texts[] = {
        "filename=x,id=7,cache.direct=on,workers=0x10,cluster-size=1M,"
        "rate=2.5,discard=ignore,extra.0=a,file=node",
        "json:{\"filename\": \"x\", \"id\": \"7\", \"cache\": {\"direct\": "
        "true}, \"workers\": 16, \"cluster-size\": 1048576, \"rate\": 2.5, "
        "\"discard\": \"ignore\", \"extra\": [\"a\"], \"file\": null}",
    };

    for (int i = 0; i < 2; i++) {
        Target t;

        ck_assert_int_eq(absorb(i ? block_options_parse_filename : keyval,
                                texts[i], &t, NULL), 0);
        ck_assert_str_eq(t.id, "7");
        ck_assert(t.direct);
        ck_assert_int_eq(t.workers, 16);
        ck_assert_int_eq(t.cluster, 1048576);
        ck_assert(t.rate == 2.5);
        ck_assert_int_eq(t.discard, 0);
        ck_assert(block_options_is_list(t.extra));
        ck_assert_uint_eq(block_options_count(t.extra), 1);
        block_options_clear(table, &t);
    }
}
END_TEST

static const struct {
    const char *json;       /* beside the file name */
    const char *message;    /* behind WHAT */
} mistakes[] = {
    { "\"cache.direct\": \"maybe\"",
      "option 'cache.direct' expects on or off, not 'maybe'" },
    { "\"cache\": \"x\"",
      "option 'cache' expects an object with 'direct' in it" },
    { "\"cache.drect\": true",
      "unknown option 'cache.drect'; did you mean 'cache.direct'?" },
    { "\"filenam\": \"y\"",
      "unknown option 'filenam'; did you mean 'filename'?" },
    { "\"worksre\": 1", "unknown option 'worksre'; did you mean 'workers'?" },
    { "\"fil\": {\"driver\": \"x\"}",
      "unknown option 'fil'; did you mean 'file'?" },
    { "\"zzz\": {\"driver\": 1}", "unknown option 'zzz'" },
    { "\"zzz\": {}", "unknown option 'zzz'" },
    { "\"workers\": 0", "option 'workers' expects an integer from 1 to 64, "
      "not 0" },
    { "\"workers\": 1.0", "option 'workers' expects an integer from 1 to 64, "
      "not 1" },
    { "\"workers\": \"1x\"", "option 'workers' expects an integer from 1 to "
      "64, not '1x'" },
    { "\"workers\": \"99999999999999999999\"", "option 'workers' expects an "
      "integer from 1 to 64, not '99999999999999999999'" },
    { "\"workers\": \" 1\"", "option 'workers' expects an integer from 1 to "
      "64, not ' 1'" },
    { "\"workers\": null", "option 'workers' expects an integer from 1 to 64, "
      "not null" },
    { "\"cluster-size\": \"5T\"", "option 'cluster-size' expects a size "
      "(bytes, or such as 64k, 1.5G) from 512 to 2097152, not '5T'" },
    { "\"cluster-size\": -1", "option 'cluster-size' expects a size (bytes, "
      "or such as 64k, 1.5G) from 512 to 2097152, not -1" },
    { "\"rate\": \"inf\"", "option 'rate' expects a number from 0 to 10, not "
      "'inf'" },
    { "\"rate\": 10.5", "option 'rate' expects a number from 0 to 10, not "
      "10.5" },
    { "\"rate\": \"1e\"", "option 'rate' expects a number from 0 to 10, not "
      "'1e'" },
    { "\"discard\": \"on\"", "option 'discard' expects 'ignore' or 'unmap', "
      "not 'on'" },
    { "\"discard\": [1]", "option 'discard' expects 'ignore' or 'unmap', not "
      "a list" },
    { "\"id\": 5", "option 'id' expects a string, not 5" },
    { "\"extra\": \"x\"", "option 'extra' expects an object or a list, not "
      "'x'" },
    { "\"file\": true", "option 'file' expects a node name, an object or "
      "null, not true" },
};

START_TEST(each_mistake_is_named_precisely)
{
    g_autofree char *text = g_strdup_printf("{\"filename\": \"x\", %s}",
                                            mistakes[_i].json);
    g_autofree char *message = g_strdup_printf("%s: %s", WHAT,
                                               mistakes[_i].message);
    g_autoptr(GError) error = NULL;
    Target t;

    ck_assert_int_eq(absorb(block_options_parse_json, text, &t, &error),
                     -EINVAL);
    ck_assert_str_eq(error->message, message);
    ck_assert_ptr_null(t.filename);
    ck_assert_ptr_null(t.id);
}
END_TEST

START_TEST(a_required_option_is_asked_for)
{
    g_autoptr(GError) error = NULL;
    Target t;

    ck_assert_int_eq(absorb(keyval, "workers=1", &t, &error), -EINVAL);
    ck_assert_str_eq(error->message, WHAT ": option 'filename' is required");
    g_clear_error(&error);
    ck_assert_int_eq(absorb(keyval, "filenam=x", &t, &error), -EINVAL);
    ck_assert_str_eq(error->message, WHAT ": option 'filename' is required; "
                     "is it what 'filenam' was meant to be?");
}
END_TEST

START_TEST(an_empty_object_around_known_options_is_no_mistake)
{
    Target t;

    ck_assert_int_eq(absorb(block_options_parse_json,
                            "{\"filename\": \"x\", \"cache\": {}}", &t, NULL),
                     0);
    block_options_clear(table, &t);
}
END_TEST

START_TEST(long_and_foreign_values_are_shown_shortened_and_valid)
{
    g_autoptr(BlockOptions) options = block_options_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *value = g_strnfill(1000, '\xff');
    Target t;

    block_options_set_str(options, "filename", "x");
    block_options_set_str(options, "discard", value);
    ck_assert_int_eq(block_options_absorb(options, table, &t, WHAT, &error),
                     -EINVAL);
    ck_assert(g_utf8_validate(error->message, -1, NULL));
    ck_assert_uint_lt(strlen(error->message), 400);
}
END_TEST

START_TEST(help_is_a_line_an_option)
{
    g_autofree char *help = block_options_help(table);
    g_auto(GStrv) lines = g_strsplit(help, "\n", 0);

    ck_assert_uint_eq(g_strv_length(lines), G_N_ELEMENTS(table));
    ck_assert_str_eq(lines[0], "  filename=<string>       "
                               "name of the file (required)");
    ck_assert_str_eq(lines[4], "  cluster-size=<size>     "
                               "bytes (default: 64k; from 512 to 2097152)");
    ck_assert_str_eq(lines[6], "  discard=<ignore|unmap>  "
                               "what a discard does (default: unmap)");
}
END_TEST

/* --- sizes ---------------------------------------------------------------- */

static const struct {
    const char *text;
    int ret;
    int64_t bytes;
} sizes[] = {
    { "0", 0, 0 }, { "512", 0, 512 }, { "64k", 0, 65536 },
    { "64K", 0, 65536 }, { "1b", 0, 1 }, { "1B", 0, 1 },
    { "1.5G", 0, 1610612736 }, { "0.1k", 0, 102 }, { "1.999999k", 0, 2047 },
    { "3m", 0, 3 << 20 }, { "2T", 0, INT64_C(2) << 40 },
    { "7E", 0, INT64_C(7) << 60 }, { "7.999999999999999999999E", 0, INT64_MAX },
    { "0x10000", 0, 65536 }, { "0XfF", 0, 255 }, { "0x1b", 0, 27 },
    { "0x7fffffffffffffff", 0, INT64_MAX },
    { "9223372036854775807", 0, INT64_MAX }, { "0010", 0, 10 },
    { "9223372036854775808", -ERANGE, 0 }, { "8E", -ERANGE, 0 },
    { "0x8000000000000000", -ERANGE, 0 }, { "16777216T", -ERANGE, 0 },
    { "18446744073709551617", -ERANGE, 0 },     /* 1 in 64 bits */
    { "0x10000000000000001", -ERANGE, 0 }, { "-1", -ERANGE, 0 },
    { "-1k", -ERANGE, 0 }, { "", -EINVAL, 0 }, { "k", -EINVAL, 0 },
    { "0x", -EINVAL, 0 }, { "0x1k", -EINVAL, 0 }, { "0x1.8", -EINVAL, 0 },
    { "1kk", -EINVAL, 0 }, { "1 k", -EINVAL, 0 }, { " 1", -EINVAL, 0 },
    { "+1", -EINVAL, 0 }, { "1.5", -EINVAL, 0 }, { "1.5b", -EINVAL, 0 },
    { "1.k", -EINVAL, 0 }, { ".5k", -EINVAL, 0 }, { "1e3", -EINVAL, 0 },
    { "1.5.5k", -EINVAL, 0 }, { "-", -EINVAL, 0 }, { "--1", -EINVAL, 0 },
    { "99999999999999999999999999x", -EINVAL, 0 }, { "1z", -EINVAL, 0 },
};

START_TEST(sizes_are_read_exactly_or_refused)
{
    int64_t bytes = -7;

    ck_assert_msg(block_parse_size(sizes[_i].text, &bytes) == sizes[_i].ret,
                  "'%s'", sizes[_i].text);
    ck_assert_int_eq(bytes, sizes[_i].ret == 0 ? sizes[_i].bytes : -7);
}
END_TEST

START_TEST(a_default_neither_replaces_nor_hides_what_was_said)
{
    static const struct { const char *before; bool value, same; } cases[] = {
        { "{\"a\": {\"b\": true}}", false, true },
        { "{\"a\": 5}", true, true },           /* stays, to be refused */
        { "{\"a\": {\"c\": 1}}", true, false },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(BlockOptions) options =
            block_options_parse_json(cases[i].before, NULL);
        g_autoptr(BlockOptions) before = block_options_clone(options);

        block_options_default_bool(options, "a.b", cases[i].value);
        ck_assert_int_eq(block_options_same(options, before, "a.b"),
                         cases[i].same);
        ck_assert(block_options_has(options, "a"));
        ck_assert_int_eq(block_options_has(options, "a.b"), i != 1);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *parse = tcase_create("parse");
    TCase *tree = tcase_create("tree");
    TCase *tables = tcase_create("tables");

    tcase_set_timeout(parse, 60);
    PROMISE(parse, all_notations_give_the_same_tree);
    PROMISE(parse, a_plain_name_is_a_file_whatever_it_looks_like);
    PROMISE(parse, a_file_name_keeps_bytes_that_are_not_utf8);
    PROMISE(parse, keyval_escapes_commas_and_keeps_equal_signs);
    PROMISE(parse, numbered_keys_make_lists);
    PROMISE(parse, keys_given_twice_or_in_two_ways_are_named);
    PROMISE(parse, bad_keyval_texts_are_named);
    PROMISE(parse, bad_json_texts_are_named);
    PROMISE(parse, nesting_is_bounded_in_each_notation);
    PROMISE(parse, nesting_counts_dots_and_braces_but_not_text);
    PROMISE(parse, texts_and_names_have_a_longest_length);
    tcase_add_loop_test(parse, mutated_texts_give_a_tree_or_an_error, 0, 8);
    suite_add_tcase(suite, parse);

    PROMISE(tree, setters_replace_what_stands_in_the_way);
    PROMISE(tree, readers_and_setters_reach_into_lists);
    PROMISE(tree, removing_the_last_key_removes_the_object);
    PROMISE(tree, a_clone_is_independent);
    PROMISE(tree, keys_come_in_the_order_in_which_they_were_given);
    PROMISE(tree, a_merge_adds_but_never_replaces);
    PROMISE(tree, values_are_compared_in_depth);
    PROMISE(tree, a_child_is_a_name_a_tree_null_or_absent);
    suite_add_tcase(suite, tree);

    PROMISE(tables, absent_options_get_their_defaults);
    PROMISE(tables, text_and_json_values_mean_the_same);
    tcase_add_loop_test(tables, each_mistake_is_named_precisely, 0,
                        G_N_ELEMENTS(mistakes));
    PROMISE(tables, a_required_option_is_asked_for);
    PROMISE(tables, an_empty_object_around_known_options_is_no_mistake);
    PROMISE(tables, long_and_foreign_values_are_shown_shortened_and_valid);
    PROMISE(tables, help_is_a_line_an_option);
    PROMISE(tables, a_default_neither_replaces_nor_hides_what_was_said);
    tcase_add_loop_test(tables, sizes_are_read_exactly_or_refused, 0,
                        G_N_ELEMENTS(sizes));
    suite_add_tcase(suite, tables);
    return check_main(suite);
}
