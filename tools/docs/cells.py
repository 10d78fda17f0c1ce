"What a code cell is to a reader: imports, checks of what stands above, the solution of an exercise, or part of the story"
import ast
import re
import symtable

HIDDEN = re.compile(r'^#\s*\|\s*(hide|default_exp|include: *false)\b', re.M)   # from readers
EXPORTED = re.compile(r'^#\s*\|\s*export([si])?\b.*\n?', re.M)
SOLUTION = re.compile(r'^#\s*\|\s*solution\b', re.M)
TESTER = re.compile(r'test_\w+|\w+_fail')
QUIET = re.compile(r'warnings\.|logging\.|os\.environ|matplotlib_inline|plt\.rcParams|set_matplotlib_formats')
SMALL = 4   # lines of a function or class that still is a helper of the checks
BLOCKS = ast.For | ast.While | ast.With | ast.If | ast.Try
DEFS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
IMPORTS = ast.Import | ast.ImportFrom
PLAIN = ast.Assert | ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr | ast.Delete | ast.Pass | ast.Continue | ast.Break


def kinds(
    cells, # a notebook's cells, their directives in place
):
    """Tell for each cell whether it is 'imports', 'checks', 'solution', or None, part of the story.

    Checks are a cell that exports and shows nothing, tests something, and otherwise only makes what the tests need: nothing of it is
    taken up by the story further down. So the cells are asked from the last one to the first."""
    out, live = [None]*len(cells), set()
    bodies = [statements(c['source']) if c['cell_type'] == 'code' else [] for c in cells]
    lasting = {o for body in bodies for n in body if isinstance(n, IMPORTS | DEFS) for o in bound(n)}   # nobody changes them
    for i, c in reversed(list(enumerate(cells))):
        if c['cell_type'] != 'code': continue
        body = bodies[i]
        if is_imports(body): out[i] = 'imports'
        elif hidden(c['source']): continue
        elif SOLUTION.search(c['source']): out[i] = 'solution'
        elif not c.get('outputs') and not EXPORTED.search(c['source']) and only_checks(body) and not takes(body, lasting) & live:
            out[i] = 'checks'
        else: live = live.difference(*map(bound, body)) | needed(body)
    return out


def hidden(
    source, # of a code cell, with its directives
):
    "Whether a reader of the site does not see it"
    exported = EXPORTED.search(source)
    return bool(HIDDEN.search(source)) or exported is not None and exported[1] != 's'


def statements(
    source, # of a code cell
):
    "Its statements, without magics; none if it is not Python"
    try: return ast.parse(re.sub(r'^[ \t]*[%!].*$', '', source, flags=re.M)).body
    except SyntaxError: return []


def is_imports(
    body, # statements of a cell
):
    "Imports and nothing else, but for what keeps them quiet"
    got = [isinstance(n, IMPORTS) for n in body]
    return any(got) and all(i or QUIET.match(ast.unparse(n)) for i, n in zip(got, body))


def imported(
    body, # statements of a cell
    package, # this package's name
):
    "What it imports from: others' packages by their first name, this package's own modules in full"
    names = []
    for n in body:
        if isinstance(n, ast.Import): names += [a.name for a in n.names]
        elif isinstance(n, ast.ImportFrom): names.append(n.module or '')
    return list(dict.fromkeys(o if o.startswith(f'{package}.') else o.partition('.')[0] for o in names if o))


# ---- what checks are

def is_check(
    node, # a statement
):
    "An assertion, or a call of a test function"
    if isinstance(node, ast.Assert): return True
    call = node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return call is not None and isinstance(call.func, ast.Name) and bool(TESTER.fullmatch(call.func.id))


def first_check(
    body, # statements of a cell of checks
):
    "The first statement that checks something, wherever it stands"
    return next(n for o in body for n in ast.walk(o) if is_check(n))


def only_checks(
    body, # statements of a cell
):
    "Whether they check something and otherwise only set up what that needs: values, calls, helpers of a few lines"
    def small(n):
        if isinstance(n, DEFS): return n.end_lineno - n.lineno < SMALL
        return isinstance(n, PLAIN) or isinstance(n, BLOCKS) and all(map(small, inner(n)))
    return all(map(small, body)) and any(is_check(n) for o in body for n in ast.walk(o))


def inner(
    node, # a statement with others in it
):
    "The statements within"
    parts = [node, *getattr(node, 'handlers', [])]
    return [o for p in parts for k in ('body', 'orelse', 'finalbody') for o in getattr(p, k, [])]


def takes(
    body, # statements
    lasting, # names of modules, functions and classes
):
    "The names that they set, and those of things that they change: whose attributes or items they set, or that they pass to a bare call"
    out, touched = set().union(*map(bound, body)), set()
    for n in (n for o in body for n in ast.walk(o)):
        if isinstance(n, ast.Attribute | ast.Subscript) and not isinstance(n.ctx, ast.Load): touched.add(root(n))
        if not isinstance(n, ast.Expr) or not isinstance(n.value, ast.Call) or is_check(n): continue
        func = n.value.func
        touched |= {root(func)} if isinstance(func, ast.Attribute) else {a.id for a in n.value.args if isinstance(a, ast.Name)}
    return out | touched - lasting


def root(
    node, # an expression such as `a.b[0].c()`
):
    "The name that it begins with; an empty one if it begins with none"
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call): node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ''


# ---- who needs whose names

def symbols(node): return symtable.symtable(ast.unparse(ast.fix_missing_locations(node)), '?', 'exec')


def bound(
    node, # a statement
):
    "The names that it sets at the top of its cell"
    return {s.get_name() for s in symbols(node).get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}


def loaded(
    table, # symbols
):
    "The names that it reads from the top of its cell, within functions, too"
    own = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (table.get_type() == 'module' or s.is_global())}
    return own.union(*map(loaded, table.get_children()))


def needed(
    body, # statements, in order
):
    "The names that they take from the cells above"
    out, have = set(), set()
    for n in body:
        heads = [(n.iter, n.target)] if isinstance(n, ast.For) else []
        if isinstance(n, ast.With): heads = [(o.context_expr, o.optional_vars) for o in n.items]
        for value, target in heads:
            out |= loaded(symbols(ast.Expr(value))) - have
            if target is not None: have |= bound(ast.Assign([target], ast.Constant(0)))
        out |= (needed(inner(n)) if heads else loaded(symbols(n))) - have
        if not isinstance(n, ast.If | ast.While | ast.Try): have |= bound(n)
    return out
