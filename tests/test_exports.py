"""What a module calls public exists, is sorted and says what it is."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import batchq

PACKAGE = Path(batchq.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(module_name(path) for path in PACKAGE.rglob("*.py"))


def load(name: str) -> ModuleType:
    """Import a module; skip where it stands on an extra that is not installed."""
    try:
        return import_module(name)
    except batchq.MissingExtra as error:
        pytest.skip(str(error))


def in_order(name: str) -> tuple[int, str]:
    """Sort as the linter does: constants, classes, then the rest."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name


def imported_for_checkers() -> dict[str, str]:
    """Return name -> module of what batchq/__init__.py imports under TYPE_CHECKING."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.name: node.module or ""
        for block in guarded
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_importable(name: str) -> None:
    module = load(name)
    names = list(getattr(module, "__all__", ()))
    assert names == sorted(set(names), key=in_order)
    assert [each for each in names if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name: str) -> None:
    assert load(name).__doc__


@pytest.mark.parametrize("name", batchq.__all__)
def test_every_public_name_has_a_docstring(name: str) -> None:
    value = getattr(batchq, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        # Its own one: an inherited docstring describes something else.
        assert value.__dict__.get("__doc__")
        for attribute, member in value.__dict__.items():
            if not attribute.startswith("_") and inspect.isroutine(member):
                assert inspect.getdoc(getattr(value, attribute)), f"{name}.{attribute}"


def test_the_lazy_table_the_checkers_imports_and_all_agree() -> None:
    assert imported_for_checkers() == batchq._MODULE_OF
    assert sorted(batchq._MODULE_OF) == sorted(batchq.__all__)


@pytest.mark.parametrize("name", batchq.__all__)
def test_a_public_name_is_public_where_it_is_defined(name: str) -> None:
    home = import_module(batchq._MODULE_OF[name])
    assert name in home.__all__
    assert getattr(batchq, name) is getattr(home, name)


def test_every_error_is_public() -> None:
    errors = import_module("batchq.errors")
    assert set(errors.__all__) <= set(batchq.__all__)
    members = vars(errors).items()
    classes = {name for name, it in members if getattr(it, "__module__", "") == "batchq.errors"}
    assert classes == set(errors.__all__)


def test_dir_lists_the_public_names() -> None:
    assert set(batchq.__all__) <= set(dir(batchq))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'batchq' has no attribute 'Queue'"):
        getattr(batchq, "Queue")  # noqa: B009 - a plain one fails in the type checker
