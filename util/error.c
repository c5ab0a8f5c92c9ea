/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors on the control path: one domain, errno as code, clean texts.
 */
#include <blockgraph/error.h>

#include <errno.h>

GQuark block_error_quark(void)
{
    return g_quark_from_static_string("blockgraph-error");
}

static bool is_visible(gunichar c)
{
    switch (g_unichar_type(c)) {
    case G_UNICODE_CONTROL:
    case G_UNICODE_FORMAT:
    case G_UNICODE_LINE_SEPARATOR:
    case G_UNICODE_PARAGRAPH_SEPARATOR:
    case G_UNICODE_SURROGATE:
        return false;
    default:
        return true;
    }
}

/*
 * Names from images and clients reach terminals, logs and JSON through error
 * texts: a control character there could forge lines or drive a terminal, one
 * that turns the direction of writing could make a name look like another, and
 * a byte that is not UTF-8 could make the whole reply impossible.
 */
static char *escape_controls(const char *text)
{
    GString *out = g_string_new(NULL);

    for (const char *p = text; *p; p++) {
        unsigned char c = *p;
        gunichar unichar = g_utf8_get_char_validated(p, -1);
        bool is_utf8 = unichar < (gunichar)-2;

        if (is_utf8 && is_visible(unichar)) {
            g_string_append_unichar(out, unichar);
            p = g_utf8_next_char(p) - 1;
        } else {
            g_string_append_printf(out, "\\x%02x", c);
        }
    }
    return g_string_free(out, FALSE);
}

static G_GNUC_PRINTF(4, 0) void
set_error(GError **errp, int err, bool with_errno, const char *fmt, va_list ap)
{
    g_autofree char *message = NULL;
    g_autofree char *clean = NULL;

    g_assert(err > 0);
    if (!errp) {
        return;
    }
    message = g_strdup_vprintf(fmt, ap);
    clean = escape_controls(message);
    if (with_errno) {
        g_set_error(errp, BLOCK_ERROR, err, "%s: %s", clean, g_strerror(err));
    } else {
        g_set_error_literal(errp, BLOCK_ERROR, err, clean);
    }
}

int block_error_errno(GError **errp, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    set_error(errp, err, true, fmt, ap);
    va_end(ap);
    return -err;
}

int block_error(GError **errp, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    set_error(errp, err, false, fmt, ap);
    va_end(ap);
    return -err;
}

int block_error_code(const GError *error)
{
    if (error->domain != BLOCK_ERROR || error->code <= 0) {
        return EIO;
    }
    return error->code;
}
