"""Who may import whom, how large things may be, and where a broad except may stand.

A room is a module or a folder directly under batchq/. The tables below are the rules;
to change one is a decision, and its reason belongs beside the row.
"""

from __future__ import annotations

import ast
import graphlib
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pytest

PACKAGE: Final = Path(__file__).parent.parent / "batchq"
FILES: Final = sorted(PACKAGE.rglob("*.py"))

# ---- Who may import whom: a room, and the rooms below it that it may know.

CORE = {"core", "errors"}
ENGINE = CORE | {"hooks", "handle", "queue"}
QUEUE = CORE | {
    "hooks", "handle", "marks", "pump", "milestones", "nest", "entrance", "keeper", "blocking",
}  # fmt: skip
DURABLE = ENGINE | {
    "call_context", "handler", "job_handle", "ledger", "durable", "leases", "feeder", "calls",
    "settler", "ends", "memory_tier", "workers", "work_queue", "guard", "runner", "stop", "trouble",
}  # fmt: skip
MANAGER = DURABLE | {
    "settings", "stores", "bridge", "schedules", "campaigns", "flows", "admin", "intake",
    "registration", "registry", "at_work", "pending",
}  # fmt: skip
SHELF = {"handlers", "presets", "monitor", "instrument"}
EVERYTHING = MANAGER | SHELF | {"manager", "persistence", "shortcuts", "portal"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "core": CORE,
    "hooks": CORE,
    "settings": CORE,
    "call_context": CORE,
    "handle": CORE,
    "repeats": set(),  # how often something was, for the log
    "teller": CORE | {"hooks", "repeats"},
    "marks": set(),
    "carrier": CORE | {"marks"},
    "pump": CORE | {"hooks", "handle", "teller", "marks", "carrier"},
    "milestones": CORE | {"pump"},
    "nest": CORE,
    "saver": CORE,
    "entrance": CORE | {"handle", "pump"},
    "queue": QUEUE,
    "keeper": CORE | {"hooks", "nest", "saver"},
    "blocking": CORE | {"handle", "nest"},
    "work_queue": CORE | {"pump", "queue"},
    "job_handle": CORE | {"handle"},
    "handler": CORE | {"call_context", "exits", "handle", "job_handle", "bulk"},
    "exits": CORE,
    "bulk": CORE,
    "registration": CORE | {"hooks", "handler"},
    "stores": CORE,
    "persistence": CORE,
    "shortcuts": ENGINE,
    "bridge": CORE,
    "portal": CORE | {"bridge", "handle", "nest"},
    "ends": set(),  # who waits for jobs to end, by their numbers
    "ledger": ENGINE | {"nest", "stores"},
    # What all parts of a durable queue share: when it ends, and what it does about errors.
    "stop": set(),
    "trouble": CORE | {"hooks", "repeats"},
    "leases": CORE | {"ledger", "trouble"},
    "guard": {"handler", "leases"},
    "wake": CORE | {"ledger"},
    # The parts of a durable queue: when to claim, what is under way, how it is written down.
    "feeder": CORE | {"ledger", "leases", "trouble"},
    "calls": CORE | {"call_context"},
    "settler": CORE | {"hooks", "handler", "ledger", "leases", "feeder", "ends", "stop", "trouble"},
    "runner": CORE
    | {"calls", "call_context", "feeder", "handle", "handler", "leases", "settler", "stop"},
    "durable": ENGINE
    | {
        "work_queue",
        "call_context",
        "handler",
        "ledger",
        "leases",
        "guard",
        "feeder",
        "runner",
        "settler",
        "ends",
        "stop",
        "trouble",
    },
    "memory_tier": ENGINE | {"call_context", "handler", "job_handle", "calls", "bridge", "stop"},
    "workers": CORE | {"nest", "ledger", "stop"},
    "schedules": ENGINE | {"call_context", "handler", "ledger"},
    "campaigns": ENGINE | {"handler", "ledger"},
    "flows": ENGINE | {"handler", "ledger"},
    "admin": ENGINE | {"bridge", "job_handle", "ledger", "stores"},
    # The parts of a manager: where jobs come in, what has a name, what works now.
    "intake": CORE | {"admin", "bridge", "ends", "job_handle", "ledger", "pending"},
    "pending": CORE,
    "chores": CORE | {"ledger", "stores"},
    "registry": CORE | {"hooks", "handler", "job_handle", "memory_tier", "registration"},
    "at_work": DURABLE | {"registry", "wake", "chores"},
    "manager": MANAGER | {"nest", "signals"},
    "signals": {"exits"},
    "instrument": CORE | {"hooks"},
    "monitor": CORE | {"hooks", "admin", "manager"},
    "handlers": CORE | {"call_context"},
    "presets": CORE | {"handlers", "manager"},
    "testing": EVERYTHING,
    "web": EVERYTHING,
    "cli": EVERYTHING | {"web", "testing", "signals"},
    "django": EVERYTHING,
    "__main__": {"cli"},  # `python -m batchq` is the command line
}
NO_TRIO = {"errors", "core", "hooks", "settings", "call_context", "stores"}
# Decisions get time, draws and bytes as arguments: any history can be replayed. (`random` may
# be imported to name its type; the linter forbids drawing from it.)
NOT_IN_CORE = {
    "asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "pathlib", "secrets",
    "socket", "sqlite3", "subprocess", "threading", "time", "trio", "uuid",
}  # fmt: skip
YET_IN_CORE = {
    ("core/lot.py", "threading"): "what a caller holds may be looked at in any thread, as a list",
}

# ---- Where `except Exception` (or broader) may stand: (file, function) -> reason.
# One row per function, named as Python's __qualname__ does, without "<locals>".

BROAD_EXCEPT: dict[tuple[str, str], str] = {
    ("bulk.py", "saying"): "the iterable is the user's code",
    ("core/attempt.py", "Judge._may_retry"): "the retry check is the user's code",
    ("core/payload.py", "Signature._decode_value"): "an annotation is the user's code",
    ("core/payload.py", "Signature._parameters"): "an annotation is the user's code",
    ("core/payload.py", "Signature._tried"): "a type's own checks are the user's code",
    ("core/payload.py", "Signature.encode"): "a type's own checks are the user's code",
    ("core/retry.py", "said"): "an error's own __str__ is the user's code",
    ("core/settling.py", "Settling.comes_again"): "the retry check is the user's code",
    ("core/settling.py", "Settling.permits"): "the retry check is the user's code",
    ("core/rich_admission.py", "RichAdmission.restore"): "the user's functions are asked anew",
    ("core/rich_admission.py", "RichAdmission._let_in"): "what merges two items is the user's",
    ("core/snapshot.py", "read"): "an item's type may run the user's code",
    ("core/snapshot.py", "write"): "an item's type may run the user's code",
    ("core/strategy.py", "plan"): "the batching strategy is the user's code",
    ("hooks.py", "Watchers.tell"): "a hook is the user's code, and may break nothing",
    ("handler.py", "AnyHandler._awaited"): "a handler is the user's code",
    ("handler.py", "AnyHandler._called"): "a handler is the user's code",
    ("pump.py", "Pump._call"): "the processor is the user's code",
    ("pump.py", "Pump._serve"): "the processor is the user's code",
    ("keeper.py", "Keeper.begin"): "closes the nest, and goes on",
    ("nest.py", "Nest.leave"): "unpacks the nursery's group; see GOES_ON_BY_ITSELF",
    ("ledger.py", "Ledger._commit"): "one bad command does not spoil its neighbours",
    ("ledger.py", "Ledger._try_alone"): "one bad command does not spoil its neighbours",
    ("feeder.py", "Feeder.answered"): "what has no place is let go of",
    ("chores.py", "Chores._try"): "an error outside handlers' code never ends a worker",
    ("chores.py", "Chores.end"): "an error outside handlers' code never ends a worker",
    ("feeder.py", "Feeder._supervised"): "an error outside handlers' code never ends a worker",
    ("leases.py", "Leases.extend_now"): "an error outside handlers' code never ends a worker",
    ("leases.py", "Leases._keep_extending"): "an error outside handlers' code never ends a worker",
    ("settler.py", "Settler._submit"): "an error outside handlers' code never ends a worker",
    ("durable.py", "DurableQueue._work_until_stop"): "the engine ends: nothing new has a place",
    ("workers.py", "Workers.__aenter__"): "what has begun to work is stopped in order",
    ("persistence/settings.py", "Persistence._ask"): "a storage may be the user's code",
    ("persistence/settings.py", "Persistence.load"): "what was acquired is given up first",
    ("testing/life.py", "Life._wait_for"): "the processor is the user's code",
    ("saver.py", "Saver.restore"): "what was acquired is given up first",
    ("bridge.py", "LoopThread._run"): "goes to the thread that waits for it",
    ("portal.py", "_Call.run"): "goes to the caller in another thread or loop",
}

# Where a BaseException is caught and not always raised again, because another travels on.
GOES_ON_BY_ITSELF = {
    ("nest.py", "Nest.leave"): "with an error of the block, a Cancelled is let go",
    ("bridge.py", "LoopThread._run"): "raised again by start() or stop(), in another thread",
}

# ---- Sizes [lines, docstrings not counted where not said otherwise].

MAX_FILE = 300
MAX_FILE_WITH_DOCSTRINGS = 450
MAX_FUNCTION = 40
MAX_FUNCTION_P90 = 20
MAX_FUNCTION_MEDIAN = 8
MAX_NESTED_FUNCTION = 10
MAX_NESTING = 3
MAX_POSITIONAL = 3
# Somebody else's code calls these by position: function -> who.
CALLED_BY_OTHERS: dict[str, str] = {
    "handle_RCPT": "aiosmtpd",
}
MAX_METHODS = 12
# QueueManager delegates in one line each.
# Batcher is the whole surface of the core, each method asks one room. Waiting answers its
# questions; RichWaiting the same, and takes in and changes what that one never has.
MAX_METHODS_OF: dict[str, float] = {
    "BatchedQueue": 18, "QueueManager": float("inf"), "Batcher": 16, "RichWaiting": 17,
    "Waiting": 13,
    # The contract is one surface; a store's rooms do the work. SQLite has a few more.
    "Store": 20, "MemoryStore": 20, "SqliteStore": 23, "FaultyStore": 20,
    # Each order has a twin that blocks.
    "Admin": 20,
    # A rule or an invariant each.
    "StoreMachine": 20,
}  # fmt: skip

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS: Final = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar,
    ast.Match,
)  # fmt: skip

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def imports_of(path: Path) -> set[str]:
    """Return every imported module and name, dotted; a relative one begins with a dot.

    It walks the whole syntax tree: imports in functions and for type checkers count.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(level=0, module=str(module)):
                names |= {f"{module}.{alias.name}" for alias in node.names}
            case ast.ImportFrom():
                names.add("." * node.level + (node.module or ""))
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                names.add(module)
    return names


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def within(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions_in(
    tree: ast.AST, prefix: str = "", *, nested: bool = False
) -> Iterator[tuple[str, Function, bool]]:
    """Yield (qualified name, function, whether it stands inside another function)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node, nested
            yield from functions_in(node, f"{prefix}{node.name}.", nested=True)
        elif isinstance(node, ast.ClassDef):
            yield from functions_in(node, f"{prefix}{node.name}.", nested=nested)
        else:
            yield from functions_in(node, prefix, nested=nested)


def lines_of_docstrings(tree: ast.AST) -> int:
    """Count the lines of every docstring, and of the strings that document attributes."""
    return sum(
        node.value.end_lineno - node.value.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.end_lineno is not None
    )


def length_of(function: Function) -> int:
    """Count a function's lines from its `def`, without docstrings."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - lines_of_docstrings(function)


def nesting_of(node: ast.AST) -> int:
    """Return how deep blocks stand inside blocks; an elif stands beside its if."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (Function, ast.ClassDef, ast.Lambda)):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        step = isinstance(child, BLOCKS) and not is_elif
        deepest = max(deepest, step + nesting_of(child))
    return deepest


def is_broad(caught: ast.expr | None) -> bool:
    """Say whether an except clause (or a suppress) catches Exception or more."""
    match caught:
        case None | ast.Name(id="Exception" | "BaseException" | "ExceptionGroup"):
            return True
        case ast.Name(id="BaseExceptionGroup"):
            return True
        case ast.Tuple(elts=names):
            return any(is_broad(name) for name in names)
    return False


def broad_excepts_of(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Yield (innermost function, node) for each place that catches Exception or more."""
    tree = ast.parse(path.read_text())
    owners: dict[ast.AST, str] = {}
    for name, function, _ in functions_in(tree):  # outer functions come first
        owners |= dict.fromkeys(ast.walk(function), name)
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(type=caught) if is_broad(caught):
                yield owners.get(node, "<module>"), node
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress")) if any(
                is_broad(caught) for caught in node.args
            ):
                yield owners.get(node, "<module>"), node


def catches_base_exception(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return any("BaseException" in ast.dump(caught) for caught in getattr(node, "args", ()))
    return node.type is None or "BaseException" in ast.dump(node.type)


def reraises(node: ast.AST) -> bool:
    """Say whether a handler's own last statement is a bare `raise`."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    last = node.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def public_methods_of(node: ast.ClassDef) -> set[str]:
    """Return the names of a class's own public methods; properties are no methods."""
    return {
        method.name
        for method in node.body
        if isinstance(method, Function)
        and not method.name.startswith("_")
        and not any("property" in ast.unparse(mark) for mark in method.decorator_list)
        and not any(ast.unparse(mark).endswith(".setter") for mark in method.decorator_list)
    }


@each_file
def test_a_room_imports_only_what_its_row_allows(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the public names
    assert room in MAY_IMPORT, f"{room} has no row in MAY_IMPORT"
    names = imports_of(path)
    assert "batchq" not in names, "import from the module that defines a name"
    inside = {name.split(".")[1] for name in names if name.startswith("batchq.")}
    assert inside - {"__version__"} <= MAY_IMPORT[room] | {room}
    if room in NO_TRIO:
        assert "trio" not in {name.split(".")[0] for name in names}


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {}
    for path in FILES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(part for part in parts if part != "__init__")] = path
    del modules["batchq"]  # the public names
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for name in imports_of(path):
            while name and name not in modules:
                name = name.rpartition(".")[0]  # noqa: PLW2901 - up to the module that has it
            graph[module] |= {name} - {"", module}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle


@each_file
def test_imports_are_absolute(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.startswith(".")]


@each_file
def test_the_core_only_decides(path: Path) -> None:
    if room_of(path) in CORE:
        found = NOT_IN_CORE & {name.split(".")[0] for name in imports_of(path)}
        here = path.relative_to(PACKAGE).as_posix()
        assert found == {name for file, name in YET_IN_CORE if file == here}


@each_file
def test_a_file_stays_small(path: Path) -> None:
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= MAX_FILE_WITH_DOCSTRINGS
    assert lines - lines_of_docstrings(ast.parse(text)) <= MAX_FILE


@each_file
def test_functions_stay_small(path: Path) -> None:
    for name, function, nested in functions_in(ast.parse(path.read_text())):
        limit = MAX_NESTED_FUNCTION if nested else MAX_FUNCTION
        assert length_of(function) <= limit, f"{name} has more than {limit} lines"
        assert nesting_of(function) <= MAX_NESTING, f"{name} nests deeper than {MAX_NESTING}"


@each_file
def test_functions_take_few_positional_arguments(path: Path) -> None:
    for name, function, _ in functions_in(ast.parse(path.read_text())):
        if function.name.startswith("__") or function.name in CALLED_BY_OTHERS:
            continue  # Python calls those with two underscores, and says with what
        positional = [*function.args.posonlyargs, *function.args.args]
        own = [argument for argument in positional if argument.arg not in {"self", "cls"}]
        assert len(own) <= MAX_POSITIONAL, f"{name}: make some of them keyword-only"


def test_most_functions_are_much_smaller() -> None:
    lengths = [
        length_of(function)
        for path in FILES
        for _, function, _ in functions_in(ast.parse(path.read_text()))
    ]
    assert statistics.median(lengths) <= MAX_FUNCTION_MEDIAN
    assert statistics.quantiles(lengths, n=10)[-1] <= MAX_FUNCTION_P90


@each_file
def test_classes_stay_small(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            methods = public_methods_of(node)
            limit = MAX_METHODS_OF.get(node.name, MAX_METHODS)
            assert len(methods) <= limit, f"{node.name} has {len(methods)} public methods"


@each_file
def test_a_broad_except_stands_only_where_the_table_says(path: Path) -> None:
    found = {(within(path), function) for function, _ in broad_excepts_of(path)}
    listed = {place for place in BROAD_EXCEPT if place[0] == within(path)}
    assert found == listed


@each_file
def test_what_catches_base_exception_raises_it_again(path: Path) -> None:
    for function, node in broad_excepts_of(path):
        if (within(path), function) not in GOES_ON_BY_ITSELF:
            assert not catches_base_exception(node) or reraises(node), f"{function}: swallows"


def test_the_table_of_broad_excepts_names_files_that_exist() -> None:
    assert {file for file, _ in BROAD_EXCEPT} <= {within(path) for path in FILES}
    assert all(BROAD_EXCEPT.values()), "each row says why"
