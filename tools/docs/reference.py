"The reference: one page per module, with the parameters of every public name, and an index of all names"
import ast
import html
import re
from inspect import isclass, isroutine

from fastcore.docments import docments, empty

from .pages import source_url

SHORT = 400 # characters of a value that are shown


def code(text): return f"<code>{html.escape(text, quote=False)}</code>"
def cut(text, n=SHORT): return text if len(text) <= n else f"{text[:n].rstrip()} …"


def function_of(
    symbol, # a class, function, method or property
):
    "The function whose parameters are told: of a class, its constructor; None where it has none of its own in this package"
    if not isinstance(symbol.node, ast.ClassDef): return symbol.node
    return next((n for n in symbol.node.body if isinstance(n, ast.FunctionDef) and n.name == '__init__'), None)


def made_doc(
    symbol, # a value
):
    "What the docstring of a function says that was made by calling another one, such as a command; '' for other values"
    doc = getattr(symbol.obj, '__doc__', None) if isroutine(symbol.obj) else None
    return (doc or '').strip().partition('\n')[0]


def fields(
    cls, # the class statement of a dataclass
):
    "A dataclass's fields as arguments: (name, type, default)"
    for n in cls.body:
        if not isinstance(n, ast.AnnAssign): continue
        default = '' if n.value is None else ast.unparse(n.value)
        made = re.search(r'default_factory=(\w+)', default)
        yield n.target.id, ast.unparse(n.annotation), f"{made[1]}()" if made else default


def arguments(
    symbol, # a class, function or method
):
    "Its parameters: (name, type, default), without `self`"
    fn = function_of(symbol)
    if fn is None: return list(fields(symbol.node)) if 'dataclass' in str(list(map(ast.unparse, symbol.node.decorator_list))) else []
    a = fn.args
    pos = [*a.posonlyargs, *a.args]
    defaults = [None]*(len(pos) - len(a.defaults)) + list(a.defaults)
    out = [(o.arg, o.annotation, d) for o, d in zip(pos, defaults)]
    if symbol.kind in ('method', 'property') or symbol.kind == 'class':
        if not any('staticmethod' in ast.unparse(d) for d in fn.decorator_list): out = out[1:]
    if a.vararg: out.append((f"*{a.vararg.arg}", a.vararg.annotation, None))
    out += [(o.arg, o.annotation, d) for o, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: out.append((f"**{a.kwarg.arg}", a.kwarg.annotation, None))
    text = lambda o: '' if o is None else ast.unparse(o)
    return [(n, text(t), text(d)) for n, t, d in out]


def comments(
    symbol, # a class, function or method
):
    "fastcore's docments of a name: {parameter: what is said of it}, with 'return'"
    try: return docments(symbol.obj, full=True, args_kwargs=True)
    except (TypeError, OSError, SyntaxError): return {}


def returned(
    symbol, # a function or method
):
    "The type that it says it returns, as written"
    fn = None if isinstance(symbol.node, ast.ClassDef) else symbol.node
    return ast.unparse(fn.returns) if fn is not None and fn.returns is not None else ''


def signature(
    symbol, # a class, function or method
):
    "How it is called: names and defaults; the types stand in the table"
    if symbol.kind == 'property': return symbol.name
    args = [f"{n}={d}" if d else n for n, _, d in arguments(symbol)]
    ret = f" -> {returned(symbol)}" if returned(symbol) else ''
    one = f"{symbol.name}({', '.join(args)}){ret}"
    return one if len(one) <= 88 else f"{symbol.name}(\n    " + ',\n    '.join(args) + f",\n){ret}"


class Pages:
    "Writes the reference"
    def __init__(self,
        modules, # the package's modules
        links, # where names lead to
        cfg, # nbdev's config
    ):
        self.modules, self.links, self.cfg = modules, links, cfg

    def inline(self, text, module):
        "A comment as HTML, names in backticks linked"
        def one(m):
            where = self.links.find(m[1], module) if re.fullmatch(r'[A-Za-z_][\w.]*', m[1]) else None
            return f'<a href="{where.replace(".qmd", ".html")}">{code(m[1])}</a>' if where else code(m[1])
        parts = re.split(r'(`[^`]+`)', text)
        return ''.join(re.sub(r'`([^`]+)`', one, o) if o.startswith('`') else html.escape(o, quote=False) for o in parts)

    def table(self, symbol):
        "The parameters of a name, as a table; empty if it has none"
        args, said = arguments(symbol), comments(symbol)
        if not args: return ''
        rows = []
        for name, anno, default in args:
            d = said.get(name.lstrip('*')) or {}
            guess = d.get('anno')
            if not anno and isclass(guess) and guess is not empty and guess is not type(None): anno = guess.__name__
            cells = [*(code(cut(o, 80)) if o else '' for o in (anno, default)), self.inline(d.get('docment') or '', symbol.module)]
            rows.append(f'<tr><th scope="row">{code(name)}</th>' + ''.join(f"<td>{o}</td>" for o in cells) + '</tr>')
        top = ''.join(f'<th scope="col">{o}</th>' for o in ('Parameter', 'Type', 'Default', 'Meaning'))
        body = f"<thead><tr>{top}</tr></thead>\n<tbody>\n" + '\n'.join(rows) + '\n</tbody>'
        return f'```{{=html}}\n<div class="sl-scroll" tabindex="0" role="region" aria-label="Parameters of {symbol.name}">' \
               f'<table class="table sl-params">\n{body}\n</table></div>\n```'

    def returns(self, symbol):
        "What comes back, if the code says so"
        anno, said = returned(symbol), (comments(symbol).get('return') or {}).get('docment') if symbol.kind != 'class' else ''
        if not anno and not said: return ''
        what = ': '.join(o for o in (f"`{anno}`" if anno else '', said) if o)
        return self.links.markdown(f"**Returns** {what}", symbol.module, '')

    def entry(self, symbol, page, level=2):
        "One name: how it is called, what it does, its parameters, where it comes from"
        name = symbol.name.replace('__', r'\_\_')
        where = f"[{symbol.section[0] or 'its page'}](../{page}.ipynb{'#' + symbol.anchor if symbol.anchor else ''})"
        parts = [f"{'#'*level} {name} {{#{symbol.name}}}",
                 f"::: {{.sl-from}}\n{symbol.kind} · [source]({source_url(symbol, self.cfg)}) · built in {where}\n:::"]
        if symbol.kind == 'value':
            return '\n\n'.join([*parts, f"```python\n{cut(ast.unparse(symbol.node))}\n```", made_doc(symbol)])
        bases = [ast.unparse(b) for b in getattr(symbol.node, 'bases', [])]
        doc = symbol.doc + (f" A kind of {', '.join(f'`{b}`' for b in bases)}." if bases else '')
        if bases and symbol.doc and symbol.doc[-1] not in '.!?': doc = doc.replace(' A kind of', '. A kind of', 1)
        sig = signature(symbol)
        if symbol.kind != 'class' or function_of(symbol) is not None or arguments(symbol): parts.append(f"```python\n{sig}\n```")
        parts += [self.links.markdown(doc, symbol.module, ''), self.table(symbol), self.returns(symbol)]
        told = [m for m in symbol.methods if m.doc]
        rest = [m for m in symbol.methods if not m.doc]
        parts += [self.entry(m, page, 3) for m in told]
        if rest:
            also = ', '.join(f'<a id="{m.name}" href="{source_url(m, self.cfg)}">{code(m.name.rpartition(".")[2])}</a>' for m in rest)
            parts.insert(len(parts) - len(told), f'```{{=html}}\n<p class="sl-also">Also defined: {also}.</p>\n```')
        return '\n\n'.join(o for o in parts if o)

    def page(self, m):
        "A module's page"
        front = f"---\ntitle: {self.cfg.lib_path.name}.{m.name}\ndescription: {ast_string(m.doc)}\ntoc-depth: 2\n---"
        intro = f"Built on the page [{m.page}](../{m.page}.ipynb) · " \
                f"[{m.name}.py]({self.cfg.git_url}/blob/{self.cfg.branch}/{self.cfg.lib_path.name}/{m.name}.py) on GitHub"
        return '\n\n'.join([front, f"::: {{.sl-from}}\n{intro}\n:::", *(self.entry(s, m.page) for s in m.symbols)]) + '\n'

    def index(self):
        "All public names, with one line each"
        out = ['---\ntitle: All names\ndescription: Every public function, class and value, module by module\n---']
        for m in self.modules:
            out.append(f"## {self.cfg.lib_path.name}.{m.name} {{#{m.name}}}\n\n{self.links.markdown(m.doc, m.name, '')}.")
            rows = []
            for s in m.symbols:
                says = made_doc(s) if s.kind == 'value' else s.doc.partition('\n')[0]
                said = self.inline(says, m.name) if says or s.kind != 'value' else code(cut(ast.unparse(s.node), 70))
                rows.append(f'<div><dt><a href="{m.name}.html#{s.name}"><code>{s.name}</code></a></dt><dd>{said}</dd></div>')
            out.append('```{=html}\n<dl class="sl-names">\n' + '\n'.join(rows) + '\n</dl>\n```')
        return '\n\n'.join(out) + '\n'

    def write(self, folder):
        "All pages into a folder. Returns their names, the index first"
        folder.mkdir()
        (folder/'index.qmd').write_text(self.index(), encoding='utf-8')
        for m in self.modules: (folder/f"{m.name}.qmd").write_text(self.page(m), encoding='utf-8')
        return ['index.qmd', *(f"{m.name}.qmd" for m in self.modules)]


def ast_string(
    text, # anything
):
    "Text as a YAML string in quotes"
    return '"' + text.replace('\\', r'\\').replace('"', r'\"').replace('\n', ' ') + '"'
