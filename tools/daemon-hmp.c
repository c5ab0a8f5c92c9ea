/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * human-monitor-command: for test scripts, the commands of bg-io on a node.
 *
 * They use the synchronous calls, so they run between two turns of the loop,
 * which they turn themselves.  What they print goes to standard output, as
 * with QEMU.  A node is let go of as soon as no request of theirs uses it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/daemon.h"
#include "tools/io-command.h"

/* What commands on one node share. */
typedef struct Session {
    char *node;
    IoSession io;
} Session;

struct DaemonHmp {
    GPtrArray *sessions; /* Session, the nodes in the order of first use */
    bool busy;           /* a command runs */
};

/* The command has no other way to find its daemon. */
static Daemon *the_daemon;

static Session *get_session(DaemonHmp *hmp, BlockGraph *graph,
                            const char *node)
{
    Session *session;

    for (guint i = 0; i < hmp->sessions->len; i++) {
        session = g_ptr_array_index(hmp->sessions, i);
        if (g_str_equal(session->node, node)) {
            return session;
        }
    }
    session = g_new0(Session, 1);
    session->node = g_strdup(node);
    session->io.graph = graph;
    session->io.share_all = true;
    session->io.tags = g_ptr_array_new_with_free_func(g_free);
    session->io.told = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                             NULL);
    g_ptr_array_add(hmp->sessions, session);
    return session;
}

static void free_session(Session *session)
{
    g_ptr_array_unref(session->io.tags);
    g_hash_table_unref(session->io.told);
    g_free(session->node);
    g_free(session);
}

void daemon_hmp_sweep(Daemon *daemon)
{
    DaemonHmp *hmp = daemon->hmp;

    for (guint i = 0; !hmp->busy && i < hmp->sessions->len; i++) {
        Session *session = g_ptr_array_index(hmp->sessions, i);

        if (session->io.blk && session->io.nr_aio == 0) {
            blk_unref(g_steal_pointer(&session->io.blk));
            session->io.perm = 0;
        }
    }
}

void daemon_hmp_let_go(Daemon *daemon)
{
    for (guint i = 0; i < daemon->hmp->sessions->len; i++) {
        Session *session = g_ptr_array_index(daemon->hmp->sessions, i);

        if (session->io.blk) {
            io_resume_all(&session->io);
        }
    }
}

void daemon_hmp_end(Daemon *daemon)
{
    for (guint i = 0; i < daemon->hmp->sessions->len; i++) {
        Session *session = g_ptr_array_index(daemon->hmp->sessions, i);

        io_close(&session->io);
        free_session(session);
    }
    g_ptr_array_unref(daemon->hmp->sessions);
    g_free(daemon->hmp);
}

/* --- the command line of the command -------------------------------------- */

/* The next word of @text, in quotes or not, with @ret_rest behind it. */
static char *next_word(const char *text, const char **ret_rest)
{
    GString *word = g_string_new(NULL);
    bool quoted;

    text += strspn(text, " ");
    quoted = *text == '"';
    text += quoted;
    while (*text && *text != (quoted ? '"' : ' ')) {
        if (quoted && *text == '\\' && text[1]) {
            text++;
            g_string_append_c(word, *text == 'n' ? '\n'
                                    : *text == 'r' ? '\r' : *text);
        } else {
            g_string_append_c(word, *text);
        }
        text++;
    }
    text += quoted && *text;
    *ret_rest = text;
    return g_string_free(word, FALSE);
}

typedef struct HmpCall {
    Daemon *daemon;
    const char *line;
    GString *reply;
} HmpCall;

/* These would take the node away from the session. */
static bool is_refused(const char *command)
{
    static const char *const names[] = { "open", "o", "close", "c", "quit",
                                         "q" };
    const char *rest;
    g_autofree char *word = next_word(command, &rest);

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (g_str_equal(names[i], word)) {
            return true;
        }
    }
    return false;
}

static int open_node(Session *session, GError **errp)
{
    BlockPerm perm = { .shared = BLK_PERM_ALL };
    BlockDriverState *bs = bdrv_find_node(session->io.graph, session->node);
    BlockBackend *blk;
    int ret;

    if (session->io.blk) {
        return 0;
    }
    if (!bs) {
        return block_error(errp, ENOENT, "Cannot find device='%s' nor "
                           "node-name='%s'", session->node, session->node);
    }
    blk = blk_new(session->io.graph, "qemu-io", &perm);
    ret = blk_insert_bs(blk, bs, errp);
    if (ret < 0) {
        blk_unref(blk);
        return ret;
    }
    session->io.blk = blk;
    return 0;
}

static void qemu_io(HmpCall *call, const char *args)
{
    DaemonHmp *hmp = call->daemon->hmp;
    g_autoptr(GError) error = NULL;
    g_autofree char *node = next_word(args, &args);
    g_autofree char *command = NULL;
    Session *session;

    if (g_str_equal(node, "-d")) {
        g_free(node);
        node = next_word(args, &args);
    }
    command = next_word(args, &args);
    if (!*node || !*command) {
        g_string_append(call->reply, "qemu-io: [-d] NODE \"COMMAND\"\r\n");
        return;
    }
    if (is_refused(command)) {
        g_string_append_printf(call->reply, "command \"%s\" not found\r\n",
                               command);
        return;
    }
    session = get_session(hmp, call->daemon->graph, node);
    if (open_node(session, &error) < 0) {
        g_string_append_printf(call->reply, "Error: %s\r\n", error->message);
        return;
    }
    io_command_run(&session->io, command);
}

static int run(void *opaque)
{
    HmpCall *call = opaque;
    const char *rest;
    g_autofree char *name = next_word(call->line, &rest);

    if (g_str_equal(name, "qemu-io")) {
        call->daemon->hmp->busy = true;
        qemu_io(call, rest);
        call->daemon->hmp->busy = false;
    } else {
        g_string_append_printf(call->reply, "unknown command: '%s'\r\n", name);
    }
    return 0;
}

QMP_OBJECT_TYPE(hmp_args, "q_obj_human-monitor-command-arg",
                QMP_NEED("command-line", qmp_str,
                         "qemu-io [-d] NODE \"COMMAND\""),
                QMP_MAY("cpu-index", qmp_int, "is not looked at"));

static json_t *coroutine_fn human_monitor_command(const QmpCall *call,
                                                  json_t *args, GError **errp)
{
    HmpCall hmp = { .daemon = the_daemon,
                    .line = qmp_arg_str(args, "command-line"),
                    .reply = g_string_new(NULL) };
    json_t *reply;

    qmp_co_run_outside(call->server, run, &hmp);
    reply = json_string(hmp.reply->str);
    g_string_free(hmp.reply, TRUE);
    return reply;
}

static const QmpCommand hmp_commands[] = {
    { "human-monitor-command", &hmp_args, &qmp_str, human_monitor_command,
      "For test scripts: a command of bg-io on a node; what it prints goes to "
      "the standard output of the daemon" },
    { .name = NULL },
};

void daemon_hmp_init(Daemon *daemon)
{
    daemon->hmp = g_new0(DaemonHmp, 1);
    daemon->hmp->sessions = g_ptr_array_new();
    the_daemon = daemon;
    qmp_server_add_commands(daemon->server, hmp_commands);
}
