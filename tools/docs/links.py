"From a name in backticks to its place in the reference"
import builtins
import re

TICKS = re.compile(r'(?<![`\[])`([A-Za-z_][\w.]*)(\([^`]*\))?`(?!`)')
LINKED = re.compile(r'\[(`[^`]+`)\]\(([^)\s]+)\)')
FENCED = re.compile(r'^(`{3,}|~{3,}).*?^\1[`~]*\s*$|^(?: {4}|\t)[^\n]*$|\[[^\]]*\]\([^)]*\)|\$[^$\n]+\$', re.M | re.S)


class Links:
    "Knows where each public name of the package stands in the reference"
    def __init__(self,
        modules, # the package's modules, in the order of their notebooks
        package, # the package's name
    ):
        self.modules, self.package = {m.name: i for i, m in enumerate(modules)}, package
        self.full, self.short = {}, {}
        for m in modules:
            self.full[m.name] = self.full[f"{package}.{m.name}"] = f"{m.name}.qmd"
            for s in [o for s in m.symbols for o in [s, *s.methods]]:
                where = f"{m.name}.qmd#{s.name}"
                for n in (s.name, f"{m.name}.{s.name}", f"{package}.{m.name}.{s.name}"): self.full.setdefault(n, where)
                if '.' in s.name: self.short.setdefault(s.name.rpartition('.')[2], []).append((m.name, where))

    def find(self,
        name, # what stands between the backticks
        module=None, # the module that the page is about, if any
        called=False, # are there parentheses behind the name?
    ):
        "Where `name` stands, seen from the folder of the reference, or None. A short name may be a method of the page's own module"
        own = [w for m, w in self.short.get(name, []) if m == module]
        where = self.full.get(name)
        if name in self.modules and not name.startswith(self.package): where = None   # `data`, `learner`: mostly other things
        if where and module and not where.startswith(f"{module}.qmd") and len(own) == 1: where = own[0]
        if where is None and len(own) == 1 and not hasattr(builtins, name): where = own[0]
        if where is None: return None
        # a plain word such as `train` means the function only once the reader has met it
        plain, there = name.islower() and '_' not in name and '.' not in name and not called, where.partition('.')[0]
        return None if plain and module and self.modules[there] > self.modules[module] else where

    def markdown(self,
        text, # Markdown
        module=None, # the module that the page is about, if any
        up='reference/', # from the page's folder to the reference
    ):
        "Link the names in backticks, code blocks and links left alone"
        def one(m):
            where = self.find(m[1], module, bool(m[2]))
            return f"[{m[0]}]({up}{where})" if where else m[0]
        out, at = [], 0
        for m in FENCED.finditer(text):
            out += [TICKS.sub(one, text[at:m.start()]), m[0]]
            at = m.end()
        return ''.join([*out, TICKS.sub(one, text[at:])])
