#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may not be done with numbers from outside is refused.

    outside_numbers.py SOURCE_ROOT [COMPILER...]

The compiler refuses what C has no operators for; scripts/tidy.py, given a small
tree of wrong files, names the rest.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(sys.argv[1])
COMPILER = sys.argv[2:] or ['cc']
HEAD = '/* SPDX-License-Identifier: LGPL-2.1-or-later */\n'

# Bodies of void f(Untrusted u, Untrusted v, uint64_t n, uint8_t *p).
REFUSED_BY_COMPILER = [
    'n = u + 1;', 'n = u - v;', 'n = u * 2;', 'n = u << 3;', 'n = n / u;',
    'n = n % u;', 'n += u;', 'u++;', 'n = u;', 'n = (uint64_t)u;',
    'if (u > n) { n = 0; }', 'if (u == v) { n = 0; }', 'if (u) { n = 0; }',
    'n = u & 7;', 'p[u] = 0;', 'p += u;', 'u = n;', 'switch (u) { }',
    'n = -u;', 'n = !u;', 'while (n < u) { n++; }', 'memset(p, 0, u);',
]
ACCEPTED_BY_COMPILER = [
    'n = untrusted_bits(u, 7);', 'if (untrusted_above(u, n)) { n = 0; }',
    'if (untrusted_at_most(u, 9, &n)) { p += n; }', 'u = v;',
    'if (untrusted_add(u, v, &u)) { p[0] = 0; }',
]

READS = 'reads a number from outside'
LOOKS = 'looks into an Untrusted'
CASTS = 'takes bytes for integers'
COPIES = 'copies bytes to an integer'
CALCULATES = 'calculates with'
# A line of a function in block/, and what is said of it.
WRONG = [
    ('n = be_get32(p);', READS),
    ('n = GUINT64_FROM_BE(n);', READS),
    ('n = GUINT16_FROM_LE(n);', READS),
    ('n = be64toh(n);', READS),
    ('n = le32toh(n);', READS),
    ('n = ntohl(n);', READS),
    ('n = __builtin_bswap64(n);', READS),
    ('n = u.from_outside;', LOOKS),
    ('n = pu->from_outside;', LOOKS),
    ('n = *(const uint32_t *)p;', CASTS),
    ('n = *(uint64_t *)(p + 8);', CASTS),
    ('memcpy(&n, p, 8);', COPIES),
    ('n = untrusted_verbatim(u) + 8;', CALCULATES),
    ('n = untrusted_verbatim(untrusted_be32(p)) - 1;', CALCULATES),
    ('n = untrusted_word(u) * 2;', CALCULATES),
    ('n = untrusted_word(u) << 9;', CALCULATES),
    ('n = untrusted_verbatim(u) / 512;', CALCULATES),
    ('n = untrusted_verbatim(u) % 512;', CALCULATES),
    ('n = k + untrusted_verbatim(u);', CALCULATES),
    ('n = p[0] - (int64_t)untrusted_verbatim(u);', CALCULATES),
    ('n = k / untrusted_word(u);', CALCULATES),
    ('k += untrusted_verbatim(u);', CALCULATES),
    ('k = said + 1;', CALCULATES),
    ('k = 8 * said;', CALCULATES),
    ('k = 1 << said;', CALCULATES),
    ('k = n % said;', CALCULATES),
    ('k = s->kept - 1;', CALCULATES),
    ('k = n / s->kept;', CALCULATES),
    ('m = 8 / s->kept;', CALCULATES),
    ('m = 8 * (int64_t)o.s->kept;', CALCULATES),
    ('k = p[untrusted_verbatim(u)];', CALCULATES),
    ('m = p[said];', CALCULATES),
    ('m = names[s->kept];', CALCULATES),
]
RIGHT = [
    'n = untrusted_bits(u, 0xff) + 8;',
    'n = untrusted_word(u) & 7;',
    'n = untrusted_word(u) >> 62 | 1;',
    'if (untrusted_verbatim(u) == n) { k++; }',
    'printf("%d", (int)untrusted_verbatim(u));',
    'be_put64(p, untrusted_verbatim(u));',
    'k = said ? 1 : 2;',
    'k = said == p[k];',
    'k = -1; p++; k = n + 1;',
    'q->said = f(&said, *p, said);',
    'pu = &s->kept->next;',
]


def compiles(body):
    code = ('#include "util/untrusted.h"\n'
            'void f(Untrusted u, Untrusted v, uint64_t n, uint8_t *p);\n'
            'void f(Untrusted u, Untrusted v, uint64_t n, uint8_t *p)\n'
            '{ (void)u; (void)v; (void)n; (void)p; ' + body + ' }\n')
    flags = subprocess.run(['pkg-config', '--cflags', 'glib-2.0'], text=True,
                           check=True, stdout=subprocess.PIPE).stdout.split()
    return subprocess.run([*COMPILER, '-std=gnu17', '-fsyntax-only', '-x', 'c',
                           *flags, '-I', str(ROOT), '-'], input=code, text=True,
                          capture_output=True, check=False).returncode == 0


def check_compiler():
    wrong = [f'compiles: {body}' for body in REFUSED_BY_COMPILER
             if compiles(body)]
    return wrong + [f'does not compile: {body}'
                    for body in ACCEPTED_BY_COMPILER if not compiles(body)]


def function(lines):
    return ('static void f(void)\n{\n'
            '    said = untrusted_verbatim(u);\n'
            '    s->kept = untrusted_word(\n        u);\n'
            + ''.join(f'    {line}\n' for line in lines) + '}\n')


def tidy(tree):
    out = subprocess.run([sys.executable, ROOT / 'scripts/tidy.py', tree],
                         text=True, capture_output=True, check=False)
    if out.returncode == 77:
        sys.exit(77)
    return out.stdout.splitlines()


def check_lint(tree):
    (tree / 'block').mkdir()
    (tree / 'util').mkdir()
    wrong = HEAD + function([line for line, _ in WRONG])
    (tree / 'block/wrong.c').write_text(wrong)
    (tree / 'block/right.c').write_text(HEAD + function(RIGHT))
    (tree / 'block/table.c').write_text(
        HEAD + 'static const BlockOption options[] = {\n'
        '    { "a", BLOCK_OPTION_NUMBER, .help = "none" },\n'
        '    { "b", BLOCK_OPTION_SIZE, .max = 1, .help = "one" },\n'
        '    { NULL },\n};\n')
    shutil.copy(ROOT / 'util/untrusted.h', tree / 'util')
    said = tidy(tree)
    first = wrong.splitlines().index(f'    {WRONG[0][0]}') + 1
    problems = []
    for number, (line, what) in enumerate(WRONG, first):
        if not any(s.startswith(f'block/wrong.c:{number}: ') and what in s
                   for s in said):
            problems.append(f'not named: {line}')
    if not any(s.startswith('block/table.c:3: ') and 'limits' in s
               for s in said):
        problems.append('not named: an option without limits')
    ours = ('outside', 'Untrusted', 'untrusted', 'calculates', 'limits')
    problems += [s for s in said if not s.startswith('block/wrong.c:') and
                 not s.startswith('block/table.c:3:') and
                 any(word in s for word in ours)]
    return problems


def main():
    problems = check_compiler()
    with tempfile.TemporaryDirectory() as tree:
        problems += check_lint(Path(tree))
    for text in problems:
        print(text)
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
