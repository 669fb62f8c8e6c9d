"""The page of all messages, made from the source and docs/messages.yaml: python docs/messages.py

The messages come from the source by its syntax tree, so that none is written twice; what they mean is written by hand,
by topic. A message without a topic, and a topic without a message, is an error.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "theworld"
LOGGERS = re.compile(r"(?:log|logger|logging(?:\.\w+\(.*\))?)\.(\w+)")
LEVELS = ("warning", "error", "exception")
OF_LIBRARIES = {"gr.Error", "ArgumentTypeError"}
"""Classes of others whose text a user reads."""
REASONS = {"error", "bad", "first_line", "describe", "safe_line", "strerror", "explain", "with_place", "str", "fault"}
"""Names that stand for what another part said."""
CODES = {"EXIT_BROKEN_PROMISE": 1, "EXIT_BAD_INPUT": 2, "EXIT_RUN_AGAIN": 75, "EXIT_REQUEUE": 85}
SENTENCE = re.compile(r"[a-z]{2,}[,;:]? \W*[a-z]{2,}")
WORD = re.compile(r"\b(?!rank |node )[a-z]{4,}(?![.:\w])|" + SENTENCE.pattern)
"""What a message must have that is not put in, to say something by itself; a key's name is none."""


class Message(NamedTuple):
    """A text that can be printed, ``place`` as ``file.py:Class.function``; ``tag`` what it is if not an error of 2."""

    place: str
    text: str
    tag: str


@dataclass
class Topic:
    """Messages that mean the same: what they mean and what to do, by hand."""

    title: str
    text: str
    places: list[str]
    messages: list[Message] = field(default_factory=list)


class Source:
    """The package's files as syntax trees, its classes of errors, its constants and its functions."""

    def __init__(self, folder: Path = PACKAGE) -> None:
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.py"))}
        self.trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
        every = [node for tree in self.trees.values() for node in ast.walk(tree)]
        classes = {node.name: node for node in every if isinstance(node, ast.ClassDef)}
        self.errors = {name: node for name, node in classes.items() if self._is_error(name, classes)}
        self.functions = {node.name: node for node in every if isinstance(node, ast.FunctionDef)}
        self.constants: dict[str, str] = {}
        """The text of ``file:NAME``, also in files that import it."""
        for again in range(2):
            for file, tree in self.trees.items():
                for line in tree.body:
                    self.constants.update(self._names(line, file) if not again else self._imported(line, file))

    def _is_error(self, name: str, classes: dict[str, ast.ClassDef]) -> bool:
        if name not in classes:
            return name.endswith("Error") or name == "Exception"
        return any(self._is_error(ast.unparse(base), classes) for base in classes[name].bases)

    def _names(self, line: ast.stmt, file: str) -> dict[str, str]:
        if isinstance(line, ast.Assign) and (text := self.text(line.value, file)):
            return {f"{file}:{ast.unparse(line.targets[0])}": text}
        return {}

    def _imported(self, line: ast.stmt, file: str) -> dict[str, str]:
        if not isinstance(line, ast.ImportFrom) or line.module is None:
            return {}
        origin = line.module.partition(".")[2].replace(".", "/") + ".py"
        names = {f"{file}:{one.asname or one.name}": self.constants.get(f"{origin}:{one.name}") for one in line.names}
        return {name: text for name, text in names.items() if text}

    def tag(self, name: str) -> str:
        """The exit code that a class of errors leaves with, if not 2."""
        while name in self.errors:
            node = self.errors[name]
            codes = [line for line in node.body if isinstance(line, ast.Assign) and "exit_code" in named(line)]
            if codes:
                code = CODES[ast.unparse(codes[0].value)]
                return f"exit code {code}" if code != 2 else ""
            name = ast.unparse(node.bases[0])
        return ""

    def speaks(self, name: str) -> bool:
        """Whether a call logs, or makes an error."""
        return LOGGERS.fullmatch(name) is not None or name in self.errors or name in OF_LIBRARIES

    def text_at(self, name: str) -> int:
        """Which argument of an error's class is its text."""
        own = [line for line in getattr(self.errors.get(name), "body", []) if getattr(line, "name", "") == "__init__"]
        names = [argument.arg for argument in own[0].args.args[1:]] if own else []
        return names.index("reason") if "reason" in names else 0

    def text(self, node: ast.expr, file: str, values: list[ast.expr] | None = None) -> str:
        """A string as a reader sees it, with words in capitals for what is put in; "" if nothing of it is written here.

        Args:
            values: of a log line, what its ``%s`` stand for.
        """
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            rest = (self._put_in(value, file) for value in values or [])
            return re.sub(r"%[\d.,]*[sdfr]", lambda found: next(rest, "...") if values else found[0], node.value)
        if isinstance(node, ast.JoinedStr):
            text = ""
            for part in node.values:
                put_in = self._put_in(part.value, file) if isinstance(part, ast.FormattedValue) else ""
                text += " " * (put_in.isupper() and text[-1:].isalnum())
                text += put_in or self.text(part, file)
            return text
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.text(node.left, file) + self.text(node.right, file)
        return self.constants.get(f"{file}:{node.id}", "") if isinstance(node, ast.Name) else ""

    def _put_in(self, node: ast.expr, file: str) -> str:
        constant = self.constants.get(f"{file}:{node.id}") if isinstance(node, ast.Name) else None
        return constant or placeholder(node)

    def sentences(self, within: ast.AST, file: str) -> list[str]:
        """The sentences that are written in a function, but for those that it raises, logs or looks for itself."""
        found: list[str] = []
        left_out: set[int] = set()
        for node in ast.walk(within):
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if docstring or isinstance(node, ast.Compare) or called.startswith("re.") or self.speaks(called):
                left_out.update(map(id, ast.walk(node)))
            if id(node) not in left_out and isinstance(node, ast.Constant | ast.JoinedStr):
                left_out.update(map(id, ast.walk(node)))
                found.append(self.text(node, file))
        return [text for text in found if SENTENCE.search(text)]


def placeholder(node: ast.expr) -> str:
    """A word in capitals for an expression: ``{self.folder}`` is FOLDER, ``{len(names)}`` N, an error's text REASON."""
    if isinstance(node, ast.Attribute):
        word = node.attr
    elif isinstance(node, ast.Subscript):
        key = node.slice
        word = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else placeholder(node.value)
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func).split(".")[-1]
        if called in ("join", "sorted"):
            return "..."
        if called == "len" or (isinstance(node.func, ast.Name) and called in ("sum", "max", "min")):
            word = "n"
        else:
            word = called if called in REASONS or not node.args else placeholder(node.args[0])
    elif isinstance(node, ast.IfExp):
        word = placeholder(node.body)
    elif isinstance(node, ast.BoolOp):
        word = placeholder(node.values[0])
    elif isinstance(node, ast.Name):
        word = node.id
    elif isinstance(node, ast.Starred):
        return "..."
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return placeholder(node.left)
    else:
        word = "n" if isinstance(node, ast.BinOp) else "value"
    return "REASON" if word in REASONS else word.strip("_").upper()


def messages_of(source: Source) -> Iterator[Message]:
    """Every error that is made and every warning that is logged. A text that stands elsewhere is ""."""
    composed = {name for name, node in source.errors.items() if any(map(SENTENCE.search, own_text(source, node)))}
    for file, tree in source.trees.items():
        for place, call in calls(tree, ""):
            name, within = ast.unparse(call.func), place.split(".")[0]
            logged = LOGGERS.fullmatch(name)
            if logged is not None and logged[1] in LEVELS:
                yield Message(f"{file}:{place}", source.text(call.args[0], file, call.args[1:]), "warning")
                continue
            if within in source.errors and (name == "cls" or (name == "super().__init__" and within in composed)):
                name, at = within, 0
            elif (name in source.errors and name not in composed) or name in OF_LIBRARIES:
                at = source.text_at(name)
            else:
                continue
            if len(call.args) > at:
                found = texts(source, call.args[at], file)
                yield from (Message(f"{file}:{place}", text, source.tag(name)) for text in found)


def own_text(source: Source, node: ast.ClassDef) -> list[str]:
    """What an error's class puts round what it is given."""
    made = [call for place, call in calls(node, "") if ast.unparse(call.func) == "super().__init__"]
    return [source.text(call.args[0], "") for call in made if call.args]


def texts(source: Source, node: ast.expr, file: str) -> list[str]:
    """The texts that an argument may be: both of a choice, those of a function; [""]: not to be seen here."""
    if isinstance(node, ast.IfExp):
        return [*texts(source, node.body, file), *texts(source, node.orelse, file)]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in source.functions:
        return source.sentences(source.functions[ast.unparse(node.func)], file) or [""]
    return [source.text(node, file)]


def calls(node: ast.AST, place: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls below a node, each with the names of the classes and functions around it."""
    for child in ast.iter_child_nodes(node):
        within = place
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            within = f"{place}.{child.name}".lstrip(".")
        elif isinstance(child, ast.Call):
            yield place, child
        yield from calls(child, within)


def read_parts(path: Path = DOCS / "messages.yaml") -> tuple[list[tuple[str, list[Topic]]], dict[str, str]]:
    """The parts of the page in their order, each with its topics; and places whose text stands elsewhere, and where."""
    read: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    parts = [
        (part["part"], [Topic(one["title"], one["text"].strip(), one["from"]) for one in part["topics"]])
        for part in read["parts"]
    ]
    return parts, read["elsewhere"]


def sort_in(source: Source, parts: list[tuple[str, list[Topic]]], elsewhere: dict[str, str]) -> list[str]:
    """Give each message to the topic that names its place most closely.

    A place is a file, ``file:Class``, or ``file:function``; ``file:name()`` takes in the sentences that are written in
    a function or constant, which others put into theirs.

    Returns:
        What is wrong: messages without a topic, places and texts without a message.
    """
    topics = {place: topic for _, of_part in parts for topic in of_part for place in topic.places}
    used, faults = set(), []
    for message in messages_of(source):
        if not WORD.search(message.text):
            used.add(message.place)
            if message.place not in elsewhere:
                faults.append(f"{message.place}: its text is not written there; say in docs/messages.yaml where it is")
            continue
        file, _, inner = message.place.partition(":")
        names = [f"{file}:{inner[:end]}" for end in range(len(inner), 0, -1) if (inner + ".")[end] == "."]
        place = next((name for name in [*names, file] if name in topics), None)
        if place is None:
            faults.append(f"{message.place}: no topic in docs/messages.yaml: {message.text}")
            continue
        used.add(place)
        topics[place].messages.append(message)
    for place in (place for place in topics if place.endswith("()")):
        file, _, name = place.removesuffix("()").partition(":")
        made = [node for node in ast.walk(source.trees[file]) if name.split(".")[-1] in named(node)]
        found = [Message(place, text, "") for node in made for text in source.sentences(node, file)]
        topics[place].messages.extend(found)
        used.update([place] if found else [])
    unused = [place for place in [*topics, *elsewhere] if place not in used]
    faults += [f"docs/messages.yaml: nothing comes from {place}" for place in unused]
    missing = [where for where in elsewhere.values() if where.endswith("()") and where not in topics]
    faults += [f"docs/messages.yaml: {where} is in no topic" for where in missing]
    empty = [topic.title for _, of_part in parts for topic in of_part if not topic.messages or not topic.text]
    return faults + [f"docs/messages.yaml: {title}: no message or no text" for title in empty]


def named(node: ast.AST) -> list[str]:
    """The names that a definition gives."""
    names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
    return names if isinstance(node, ast.Assign) else [getattr(node, "name", "")]


def page(parts: list[tuple[str, list[Topic]]]) -> str:
    """The page as Markdown."""
    lines = [HEAD]
    for part, topics in parts:
        lines.append(f"## {part}\n")
        for topic in topics:
            seen = dict.fromkeys((one.text, one.tag) for one in topic.messages)
            rows = [f"- `{text.strip()}`" + (f" ({tag})" if tag else "") for text, tag in seen]
            lines.append(f"### {topic.title}\n\n{topic.text}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(lines)


HEAD = """# Every message

Each error and warning that the code can print, by what it is about; search the page for words of the line that you
have. A word in capitals stands for what the line has there. An error is one line, `error: ...`, and leaves with exit
code 2 where nothing else is said; with 75 the same command goes on later. A line with a traceback and exit code 1 is a
fault of the code: please report it. What to look at first is in [troubleshooting.md](troubleshooting.md).

Made by `python docs/messages.py` from the source and docs/messages.yaml; do not edit it here.
"""


def main() -> None:
    """Write the page, or say what has no entry."""
    parts, elsewhere = read_parts()
    if faults := sort_in(Source(), parts, elsewhere):
        raise SystemExit("\n".join(faults))
    (DOCS / "messages.md").write_text(page(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
