"""The graph of imports between the source files of a crate, and its circles.

A file imports another if it names an item or a module of the other, outside tests, in a `use` or in a path. A
re-export is followed to the file that defines the item. A file that only declares modules and re-exports their
items (most lib.rs and mod.rs) imports nothing: it is a table of contents.

The graph is read from the text, so it has limits: it does not expand macros, and a call of a method is no import.
"""

import os
import re

USE = re.compile(r"\buse\s+([^;]+);")
MODULE = re.compile(r"\bmod\s+(\w+)\s*(;|\{)")
ITEM = re.compile(r"\b(?:fn|struct|enum|trait|type|const|static|union|macro_rules!)\s+(\w+)")
HOLDS_ITEMS = re.compile(r"\b(?:fn|struct|enum|trait|type|const|static|union|impl|macro_rules!)\b")
PATH = re.compile(r"(?<![\w:])(\w+(?:::\w+)+)")


def leaves(tree, prefix=()):
    """Yields (path, name) of each item of a use tree: `a::{b, c as d}` gives a::b as b and a::c as d."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if brace:
        depth, start, body = 0, 0, rest.rstrip()[:-1]
        prefix += tuple(filter(None, (part.strip() for part in head.split("::"))))
        for position, char in enumerate(body + ","):
            depth += (char == "{") - (char == "}")
            if char == "," and depth == 0:
                if body[start:position].strip():
                    yield from leaves(body[start:position], prefix)
                start = position + 1
        return
    path, _, alias = tree.partition(" as ")
    path = prefix + tuple(part.strip() for part in path.split("::") if part.strip())
    if len(path) > 1 and path[-1] == "self":
        path = path[:-1]
    yield path, alias.strip() or path[-1]


class Module:
    """A source file as a module: its items, its child modules, its imports and the paths in its code."""

    def __init__(self, file, path, item_end):
        self.file, self.path = file, path
        code = file.code
        for start, end in file.test_spans:
            code = code[:start] + re.sub(r"[^\n]", " ", code[start:end]) + code[end:]
        inline = [(m.start(), item_end(code, m.start())) for m in MODULE.finditer(code) if m.group(2) == "{"]
        self.children = {m.group(1) for m in MODULE.finditer(code) if m.group(2) == ";"}
        self.items = {m.group(1) for m in ITEM.finditer(code)}
        self.items |= {m.group(1) for m in MODULE.finditer(code) if m.group(2) == "{"}
        self.names, self.paths, rest = {}, [], code
        for match in USE.finditer(code):
            inner = sum(start < match.start() < end for start, end in inline)
            for path, name in leaves(match.group(1)):
                path = self.outside(path, inner)
                self.paths.append((match.start(), path))
                if not inner and name not in ("_", "*"):
                    self.names[name] = path
            rest = rest[: match.start()] + re.sub(r"[^\n]", " ", match.group()) + rest[match.end() :]
        self.holds_items = bool(HOLDS_ITEMS.search(rest))
        for match in PATH.finditer(rest):
            inner = sum(start < match.start() < end for start, end in inline)
            self.paths.append((match.start(), self.outside(tuple(match.group(1).split("::")), inner)))

    @staticmethod
    def outside(path, inner):
        """The path as it would be written outside of the `inner` inline modules that enclose it."""
        while inner and path[0] == "super":
            path, inner = path[1:], inner - 1
        return path if path[:1] and path[0] in ("super", "crate") or not inner else ("self", *path)


class Crate:
    def __init__(self, source, files, item_end):
        self.modules = {}
        root = f"{source}/lib.rs" if any(f.path == f"{source}/lib.rs" for f in files) else f"{source}/main.rs"
        for file in files:
            if file.is_test_file or (file.path == f"{source}/main.rs" != root):
                continue
            path = os.path.relpath(file.path, source)[: -len(".rs")].split("/")
            path = () if file.path == root else tuple(path[:-1] if path[-1] == "mod" else path)
            self.modules[path] = Module(file, path, item_end)

    def resolve(self, module, path, seen=frozenset()):
        """Returns the module that defines what `path` names in `module`, or None if that is another crate."""
        first, rest = path[0], path[1:]
        if first == "crate":
            return self.walk(self.modules[()], rest, seen)
        if first == "self":
            return self.walk(module, rest, seen)
        if first == "super":
            above = self.modules.get(module.path[:-1]) if module.path else None
            return above and (self.resolve(above, rest, seen) if rest[:1] == ("super",) else self.walk(above, rest, seen))
        if first in module.children or first in module.names:
            return self.walk(module, path, seen)
        return None

    def walk(self, module, path, seen):
        if not path or path[0] == "*":
            return module
        first, rest = path[0], path[1:]
        if first in module.children and (child := self.modules.get((*module.path, first))):
            return self.walk(child, rest, seen)
        if first in module.items or first not in module.names:
            return module
        if (module.path, first) in seen:  # `use tokio::{self}`: a name that stands for itself is another crate's
            return None
        return self.resolve(module, (*module.names[first], *rest), seen | {(module.path, first)})

    def imports(self):
        """Returns, per file, the files that it imports and where it does so first."""
        graph = {module.file: {} for module in self.modules.values()}
        for module in self.modules.values():
            for position, path in module.paths if module.holds_items else ():
                target = self.resolve(module, path)
                if target and target is not module:
                    graph[module.file].setdefault(target.file, position)
        return graph


def circles(graph):
    """Returns the groups of files each of which imports all others of its group, directly or over others."""
    reached = {}
    for start in graph:
        found, todo = set(), list(graph[start])
        while todo:
            if (file := todo.pop()) not in found:
                found.add(file)
                todo += graph[file]
        reached[start] = found
    groups = []
    for file in sorted(graph, key=lambda file: file.path):
        if file in reached[file] and not any(file in group for group in groups):
            groups.append([file] + sorted((f for f in reached[file] - {file} if file in reached[f]), key=lambda f: f.path))
    return groups
