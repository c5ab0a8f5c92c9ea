#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The style that a machine can check.

    scripts/tidy.py [--lib PATH] [SOURCE_ROOT]

Prints a line for each problem and exits with 1 if there is one, with 77 (a
skipped test) if universal-ctags is missing.  --lib checks the symbols that the
shared library exports.  There is no list of exceptions.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FILE_LINES = 900
FUNCTION_LINES = 70
PARAMETERS = 6
PARAMETERS_PUBLIC = 7           # public calls keep the lists that people know
COLUMNS = 80
COLUMNS_TABLE = 100             # strings and rows of tables
PROJECT_INCLUDES = 8
IFS_PER_KLOC = {'util': 3.0, 'other': 1.0}

SOURCE_DIRS = ['include', 'util', 'block', 'monitor', 'sim', 'tools', 'tests',
               'bench', 'examples', 'scripts']
LIBRARY_DIRS = ['util', 'block', 'monitor', 'sim', 'tools']
IO_DIRS = ['util', 'block', 'monitor']
DRIVER_DIRS = ['block/filters', 'block/formats', 'block/protocols']

# Split, so that this file passes its own check.
LATER = re.compile(r'\b(TO' r'DO|FIX' r'ME|XX' r'X|HA' r'CK)\b')
UNDONE = re.compile(r'\b(st' r'ubs?|not imple' r'mented)\b', re.I)

# What looks like a call or a declaration to a regular expression, but is not.
NOT_FUNCTIONS = {'if', 'for', 'while', 'switch', 'return', 'sizeof', 'defined',
                 'coroutine_fn', '__attribute__'}

CTAGS_MACROS = ['BLOCK_API', 'coroutine_fn', 'G_BEGIN_DECLS', 'G_END_DECLS',
                'G_GNUC_PRINTF(a,b)', 'G_DEFINE_AUTOPTR_CLEANUP_FUNC(a,b)',
                'START_TEST(name)=static void name(int _i)', 'END_TEST',
                '__attribute__(a)']

problems = []


def problem(path, line, text):
    problems.append((str(path), line, text))


class Source:
    """A C file: its text, and the same without comments and strings."""

    def __init__(self, root, path):
        self.path = path
        self.text = (root / path).read_text(encoding='utf-8')
        self.lines = self.text.splitlines()
        self.code = blank_comments_and_strings(self.text)
        self.code_lines = self.code.splitlines()
        self.functions = []
        self.prototypes = []


def blank_comments_and_strings(text):
    """The same text with blanks for what is no code; lines stay lines."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
                         r"|'(?:\\.|[^'\\\n])+'", re.S)
    return pattern.sub(lambda m: re.sub(r'[^\n]', ' ', m.group()), text)


def run_ctags(root, sources):
    """Fill in functions and prototypes, each a dict of ctags fields."""
    command = ['ctags', '--output-format=json', '--languages=C',
               '--langmap=C:.c.h', '--kinds-C=fp', '--fields=+neSK',
               '-f', '-', '-L', '-']
    for macro in CTAGS_MACROS:
        command += ['-D', macro if '=' in macro else macro + '=']
    by_path = {str(s.path): s for s in sources}
    out = subprocess.run(command, cwd=root, input='\n'.join(by_path),
                         text=True, check=True, stdout=subprocess.PIPE)
    for line in out.stdout.splitlines():
        tag = json.loads(line)
        source = by_path[tag['path']]
        if tag['kind'] == 'function':
            source.functions.append(tag)
        else:
            source.prototypes.append(tag)


def is_table_or_string(line):
    return '"' in line or re.match(r'\s*(\{|\.\w+ =|\[\w+\])', line)


def check_lines(source):
    if source.path.suffix == '.c' and len(source.lines) > FILE_LINES:
        problem(source.path, 1, f'{len(source.lines)} lines, at most '
                f'{FILE_LINES}: cut the file by its ideas')
    if 'SPDX-License-Identifier: LGPL-2.1-or-later' not in source.lines[0]:
        problem(source.path, 1, 'the first line is not the licence (SPDX)')
    for number, line in enumerate(source.lines, 1):
        width = len(line.expandtabs(8))
        limit = COLUMNS_TABLE if is_table_or_string(line) else COLUMNS
        if width > limit:
            problem(source.path, number, f'{width} columns, at most {limit}')


def check_words(root, path):
    text = (root / path).read_text(encoding='utf-8', errors='replace')
    for number, line in enumerate(text.splitlines(), 1):
        found = LATER.search(line) or UNDONE.search(line)
        if found:
            problem(path, number, f"'{found.group()}': finish it, or say "
                    'in an error text what is missing')


def count_parameters(signature):
    inner = signature.strip()[1:-1].strip()
    if inner in ('', 'void'):
        return 0
    depth, count = 0, 1
    for char in inner:
        depth += (char in '([{') - (char in ')]}')
        count += char == ',' and depth == 0
    return count


def check_functions(source, public):
    for tag in source.functions:
        length = tag.get('end', tag['line']) - tag['line'] + 1
        if length > FUNCTION_LINES:
            problem(source.path, tag['line'], f"{tag['name']}() has {length} "
                    f'lines, at most {FUNCTION_LINES}')
    for tag in source.functions + source.prototypes:
        count = count_parameters(tag.get('signature', '()'))
        limit = PARAMETERS_PUBLIC if tag['name'] in public else PARAMETERS
        if count > limit:
            problem(source.path, tag['line'], f"{tag['name']}() has {count} "
                    f'parameters, at most {limit}')


def comment_before(source, line):
    """The first line of the comment that ends right above what @line is in."""
    at = line - 2
    # A declaration begins behind a blank line, a comment, or another end.
    while at >= 0 and re.search(r'\S', source.code_lines[at]) and \
            not re.search(r'[;}]\s*$|^\s*#', source.code_lines[at]):
        at -= 1
    if at < 0 or not source.lines[at].rstrip().endswith('*/'):
        return ''
    while at > 0 and '/*' not in source.lines[at]:
        at -= 1
    return source.lines[at].strip()


def check_public_header(source):
    for tag in source.prototypes + source.functions:
        if not comment_before(source, tag['line']).startswith('/**'):
            problem(source.path, tag['line'], f"{tag['name']}() has no /** "
                    'comment directly before it')


def check_includes(source):
    found = re.findall(r'^#\s*include\s+("[^"]+"|<blockgraph/[^>]+>)',
                       source.text, re.M)
    if len(found) > PROJECT_INCLUDES:
        problem(source.path, 1, f'{len(found)} project headers, at most '
                f'{PROJECT_INCLUDES}')


def check_r126_seeks(source):
    """I/O is positional: a cursor is shared by all who use a descriptor."""
    for match in re.finditer(r'\blseek(?:64)?\s*\(([^;]*)', source.code):
        if not re.search(r'\bSEEK_(DATA|HOLE|END)\b', match.group(1)):
            problem(source.path, source.code.count('\n', 0, match.start()) + 1,
                    'moves the cursor of a file: use positional calls')


def check_stack_and_end(source):
    """No memory on the stack of a size from outside (-Wvla sees to arrays), and
    no end of the process where an image or a peer may lead."""
    calls = r'\b(alloca|g_alloca0?|g_newa0?|strn?dupa)\s*\('
    if source.path.parts[0] in ('block', 'monitor'):
        calls = calls.replace('(alloca', '(g_error|alloca')
    for match in re.finditer(calls, source.code):
        problem(source.path, source.code.count('\n', 0, match.start()) + 1,
                f'{match.group(1)}(): its size, or its cause, may come from '
                'outside')


# --- numbers from outside ----------------------------------------------------
#
# What an image or a peer has written is of type Untrusted (util/untrusted.h), and
# the compiler refuses to calculate with it.  Here is what it cannot see: readers
# beside those, looks into the struct, and arithmetic and places in arrays, as far
# as they stand on one
# line, on what two of the ways out return, which have compared it with nothing.
#
# Options and arguments of commands are plain integers.  They have been compared
# where they enter: numbers in options by option_read_value() with the limits in
# their table, which each must have; those of commands by qmp_type_check(), and
# the few of type "int" by what they are given to: block_resize, the speed of a
# job, throttle_check_config(), the table of job options.

OUTSIDE_READER = re.compile(r'\b(be_get\w*|G\w+_FROM_[BL]E|[bl]e(16|32|64)toh|'
                            r'ntoh(s|l|ll)|(__)?(builtin_)?bswap_?(16|32|64)|'
                            r'GU?INT(16|32|64)_SWAP_\w+)\s*\(')
OUTSIDE_MEMBER = re.compile(r'(\.|->)\s*from_outside\b')
OUTSIDE_CAST = re.compile(r'\((const\s+)?(u?int|gu?int)(16|32|64)(_t)?\s*\*\s*\)'
                          r'\s*\(*\s*(?!\(?\s*(const\s+)?void\b)[&*\w]')
OUTSIDE_COPY = re.compile(r'\bmemcpy\s*\(\s*&')
UNCHECKED = r'untrusted_(?:verbatim|word)\s*\('
# An operator with an operand on its left, so no sign, no pointer, no arrow.
OPERATOR = r'(?:<<|\+(?!\+)|-(?![->])|[*/%])=?'
BEFORE = r'[\w)\]]\s*' + OPERATOR + r'\s*(?:\(\w+\)\s*)*'
INDEX = r'[\w)\]]\s*\[\s*(?:\(\w+\)\s*)*'
UNCHECKED_NAME = re.compile(r'(->|\.)?\b(\w+)\s*=\s*(?:\(\w+\)\s*)?' + UNCHECKED)
OPTION_ROW = re.compile(r'\{\s*(?:\.name\s*=\s*)?"[\w.-]+"\s*,\s*(?:\.type\s*=\s*)?'
                        r'BLOCK_OPTION_(?:NUMBER|SIZE|DOUBLE)\b[^{}]*\}')


def line_of(source, position):
    return source.code.count('\n', 0, position) + 1


def behind_call(code, opening):
    """The rest of the line behind the call whose bracket is at @opening."""
    depth = 0
    for at in range(opening, len(code)):
        depth += (code[at] == '(') - (code[at] == ')')
        if depth == 0:
            return code[at + 1:].split('\n', 1)[0]
    return ''


def check_unchecked_calls(source):
    for match in re.finditer(UNCHECKED, source.code):
        before = source.code[:match.start()].rsplit('\n', 1)[-1]
        if re.search(BEFORE + r'$', before) or \
                re.search(INDEX + r'$', before) or \
                re.match(r'\s*' + OPERATOR,
                         behind_call(source.code, match.end() - 1)):
            problem(source.path, line_of(source, match.start()),
                    'calculates with a number that nothing was compared with')


def check_unchecked_name(source, name, first, end):
    """@name, perhaps with what leads to a member, in these lines."""
    whole = r'\w+(?:(?:->|\.)\w+)*' if name.startswith('(') else \
        r'(?:\w+(?:->|\.))*'
    used = re.compile(rf'(?:{BEFORE}|{INDEX}){whole}{name}\b(?!\s*\()|'
                      rf'(?:->|\.|\b){name}\s*{OPERATOR}')
    for number in range(first, end + 1):
        if used.search(source.code_lines[number - 1]):
            problem(source.path, number, f"calculates with '{name}', which "
                    'comes from outside and was compared with nothing')


def check_unchecked_names(source):
    for tag in source.functions:
        first, end = tag['line'], tag.get('end', tag['line'])
        body = '\n'.join(source.code_lines[first - 1:end])
        for match in UNCHECKED_NAME.finditer(body):
            if re.match(r'\s*(&(?!&)|>>)', behind_call(body, match.end() - 1)):
                continue        # a field of it
            name = ('(?:->|\\.)' if match.group(1) else '') + match.group(2)
            check_unchecked_name(source, name,
                                 first + body.count('\n', 0, match.start()), end)


def check_outside_numbers(source):
    if source.path.parts[0] not in LIBRARY_DIRS or \
            str(source.path) == 'util/untrusted.h':
        return
    rules = [(OUTSIDE_READER, 'reads a number from outside: use '
              'util/untrusted.h'),
             (OUTSIDE_MEMBER, 'looks into an Untrusted: use util/untrusted.h')]
    if source.path.parts[0] == 'block':
        rules += [(OUTSIDE_CAST, 'takes bytes for integers: use '
                   'util/untrusted.h'),
                  (OUTSIDE_COPY, 'copies bytes to an integer: use '
                   'util/untrusted.h')]
    for pattern, text in rules:
        for match in pattern.finditer(source.code):
            problem(source.path, line_of(source, match.start()), text)
    check_unchecked_calls(source)
    check_unchecked_names(source)
    for match in OPTION_ROW.finditer(source.text):
        if '.max' not in match.group():
            problem(source.path, source.text.count('\n', 0, match.start()) + 1,
                    'a number in options without limits')


def check_ifs(sources):
    for area, limit in IFS_PER_KLOC.items():
        chosen = [s for s in sources if s.path.suffix == '.c' and
                  s.path.parts[0] in LIBRARY_DIRS and
                  (s.path.parts[0] == 'util') == (area == 'util')]
        lines = sum(len(s.lines) for s in chosen)
        ifs = sum(len(re.findall(r'^\s*#\s*if', s.code, re.M)) for s in chosen)
        if lines and ifs > max(limit * lines / 1000, 3):
            problem(area, 0, f'{ifs} #if in {lines} lines of .c files, at '
                    f'most {limit:g} in 1000')


# --- coroutine_fn ------------------------------------------------------------

COROUTINE = re.compile(r'\bcoroutine_fn\b([^;{}()]*?)(?:\(\s*\*\s*(\w+)\s*\)|'
                       r'(\w+))\s*\(')
MEMBER = re.compile(r'\(\s*\*\s*(\w+)\s*\)\s*\(')


def coroutine_names(source):
    """(functions, members that point to functions) with the mark."""
    functions, members = set(), set()
    for match in COROUTINE.finditer(source.code):
        before = source.code[:match.start()].rsplit('\n', 1)[-1]
        if 'typedef' in before or '#' in before:
            continue
        if match.group(2):
            members.add(match.group(2))
        else:
            functions.add(match.group(3))
    return functions - NOT_FUNCTIONS, members


def plain_members(source):
    """Members that point to functions without the mark."""
    marked = coroutine_names(source)[1]
    return {m.group(1) for m in MEMBER.finditer(source.code)} - marked


def is_marked(source, tag, marked):
    """Whether the function @tag has the mark, here or in a header."""
    head = '\n'.join(source.code_lines[max(tag['line'] - 3, 0):tag['line']])
    head = re.split(r'[;}]', head)[-1]
    return 'coroutine_fn' in head or tag['name'] in marked


def check_coroutines(sources):
    headers = [s for s in sources if s.path.suffix == '.h']
    public, members, plain = set(), set(), set()
    for source in headers:
        names, pointers = coroutine_names(source)
        public |= names
        members |= pointers
    for source in sources:
        plain |= plain_members(source)
    members -= plain            # a name that means both tells us nothing
    for source in sources:
        if source.path.parts[0] == 'tests':
            continue            # they misuse on purpose, and run anyway
        own, own_members = coroutine_names(source)
        unmarked_here = {t['name'] for t in source.functions
                         if not is_marked(source, t, public | own)}
        marked = (public | own) - unmarked_here
        for tag in source.functions:
            if is_marked(source, tag, public | own):
                continue
            check_body(source, tag, marked, members | own_members - plain)


def check_body(source, tag, marked, members):
    first, end = tag['line'], tag.get('end', tag['line'])
    for number in range(first + 1, end + 1):
        line = source.code_lines[number - 1]
        for match in re.finditer(r'(->|\.)?\s*\b(\w+)\s*\(', line):
            through_pointer, name = match.groups()
            if name in (members if through_pointer else marked):
                problem(source.path, number, f"{tag['name']}() calls "
                        f'{name}(), a coroutine_fn, and is none')


# --- things that need other files or programs --------------------------------

def check_driver_tests(root, sources):
    tests = [p for p in (root / 'tests').rglob('*') if p.is_file()]
    words = '\n'.join(p.read_text(errors='replace') for p in tests)
    words += '\n'.join(p.name for p in tests)
    for source in sources:
        if source.path.suffix != '.c' or \
                not str(source.path.parent).startswith(tuple(DRIVER_DIRS)):
            continue
        in_folder = str(source.path.parent) not in DRIVER_DIRS
        name = source.path.parent.name if in_folder else source.path.stem
        if not re.search(rf'(?<![\w-]){re.escape(name)}(?![\w-])', words):
            problem(source.path, 1, f"no test names '{name}'")


def check_public_tests(sources):
    """Each public function is called by a test, by its name."""
    called = {name for s in sources if s.path.parts[0] == 'tests'
              for name in re.findall(r'(\w+)\s*\(', s.code)}
    for source in sources:
        if source.path.parts[0] != 'include':
            continue
        for tag in source.prototypes + source.functions:
            if tag['name'] not in called:
                problem(source.path, tag['line'], f"{tag['name']}() is "
                        'public, and no test calls it')


def manual_sections(text):
    """Heading word -> text, of each part of the manual."""
    sections = {}
    for part in re.split(r'^#+ +', text, flags=re.M)[1:]:
        heading, _, body = part.partition('\n')
        for word in re.findall(r'[\w-]+', heading):
            sections[word] = sections.get(word, '') + body
    return sections


def check_manual(root, sources):
    manual = root / 'docs/drivers.md'
    if not manual.exists():
        return
    sections = manual_sections(manual.read_text(encoding='utf-8'))
    entry = re.compile(r'\{\s*(?:\.name\s*=\s*)?"([\w.-]+)"\s*,\s*'
                       r'(?:\.type\s*=\s*)?BLOCK_OPTION_')
    for source in sources:
        if source.path.suffix != '.c' or \
                not str(source.path.parent).startswith(tuple(DRIVER_DIRS)):
            continue
        names = re.findall(r'^\s*\.name\s*=\s*"([\w-]+)"\s*,\s*\n\s*\.kind',
                           source.text, re.M)
        if str(source.path.parent) not in DRIVER_DIRS:
            names.append(source.path.parent.name)
        names = names or [source.path.stem]
        body = ''.join(sections.get(name, '') for name in names)
        for match in entry.finditer(source.text):
            if f'`{match.group(1)}`' not in body:
                line = source.text.count('\n', 0, match.start()) + 1
                problem(source.path, line, f"option '{match.group(1)}' is "
                        f"not in docs/drivers.md under '{names[0]}'")


def check_header_alone(root, path, flags):
    """Public headers as C11 for anybody, private ones as the build does."""
    public = path.parts[0] == 'include'
    std = ['-std=gnu11'] if public else ['-std=gnu17', '-D_GNU_SOURCE']
    command = [os.environ.get('CC', 'gcc'), '-x', 'c', '-fsyntax-only',
               '-Wall', '-Werror', *std, '-Iinclude', *flags]
    command += [] if public else ['-I.']
    command += ['-DBLOCK_SIM'] if path.parts[0] == 'sim' else []
    result = subprocess.run(command + [str(path)], cwd=root, text=True,
                            capture_output=True, check=False)
    if result.returncode != 0:
        errors = [line for line in result.stderr.splitlines()
                  if 'error' in line] or ['it does not compile']
        problem(path, 1, f'does not compile alone: {errors[0]}')


def check_headers_alone(root, headers):
    flags = subprocess.run(['pkg-config', '--cflags', 'glib-2.0', 'liburing',
                            'jansson'], text=True, check=True,
                           stdout=subprocess.PIPE).stdout.split()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda h: check_header_alone(root, h.path, flags),
                      headers))


def check_exports(root, library):
    script = (root / 'libblockgraph.map').read_text(encoding='utf-8')
    public = script.split('global:')[1].split('local:')[0]
    allowed = [re.escape(p).replace(r'\*', r'\w*')
               for p in re.findall(r'[\w*]+(?=;)', public)]
    out = subprocess.run(['nm', '-D', '--defined-only', library], text=True,
                         check=True, stdout=subprocess.PIPE).stdout
    for line in out.splitlines():
        _, kind, name = line.split()
        name = name.split('@')[0]
        if kind != 'A' and not any(re.fullmatch(p, name) for p in allowed):
            problem(library, 0, f'exports {name}, which has none of our '
                    'prefixes')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--lib', help='the shared library')
    parser.add_argument('root', nargs='?', default='.')
    args = parser.parse_args()
    root = Path(args.root).resolve()
    if not shutil.which('ctags'):
        print('universal-ctags is missing')
        return 77
    files = [p.relative_to(root) for d in SOURCE_DIRS
             for p in sorted((root / d).rglob('*')) if p.is_file()]
    for path in files:
        if path.suffix in ('.c', '.h', '.py', '.sh', '.build', '.S'):
            check_words(root, path)
    sources = [Source(root, p) for p in files if p.suffix in ('.c', '.h')]
    run_ctags(root, sources)
    public = {t['name'] for s in sources if s.path.parts[0] == 'include'
              for t in s.prototypes}
    for source in sources:
        check_lines(source)
        check_functions(source, public)
        if source.path.suffix == '.c':
            check_includes(source)
        if source.path.parts[0] == 'include':
            check_public_header(source)
        check_outside_numbers(source)
        if source.path.parts[0] in IO_DIRS:
            check_r126_seeks(source)
        if source.path.parts[0] in IO_DIRS + ['tools']:
            check_stack_and_end(source)
    check_ifs(sources)
    check_coroutines(sources)
    check_driver_tests(root, sources)
    check_public_tests(sources)
    check_manual(root, sources)
    check_headers_alone(root, [s for s in sources if s.path.suffix == '.h'])
    if args.lib:
        check_exports(root, args.lib)
    for path, line, text in sorted(set(problems)):
        print(f'{path}:{line}: {text}')
    print(f'{len(sources)} files, {len(set(problems))} problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
