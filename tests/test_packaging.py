"""pyproject.toml names every package of the tree, and nothing else; three folders are one."""

from __future__ import annotations

import tomllib
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, Final

import pytest

import gemmir

ROOT: Final = Path(__file__).parents[1]
PYPROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINKED: Final = ("passes", "backends")
"""Folders beside `gemmir` that are packages in it."""


def packages_under(top: str, name: str) -> set[str]:
    """The import names of the packages in folder `top`, imported as `name`."""
    inits = (ROOT / top).rglob("__init__.py")
    return {".".join((name, *init.parent.relative_to(ROOT / top).parts)) for init in inits}


def tree() -> set[str]:
    """Every package, whether or not the links in `gemmir` are followed."""
    linked = [packages_under(folder, f"gemmir.{folder}") for folder in LINKED]
    return packages_under("gemmir", "gemmir").union(*linked)


def test_every_package_is_listed() -> None:
    assert tree() == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_every_module_is_in_a_package() -> None:
    """A folder without `__init__.py` would be left out of the wheel."""
    for top in ("gemmir", *LINKED):
        folders = {module.parent for module in (ROOT / top).rglob("*.py")}
        assert [f for f in folders if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", LINKED)
def test_the_folder_is_the_package(folder: str) -> None:
    link = ROOT / "gemmir" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..", folder)
    assert PYPROJECT["tool"]["setuptools"]["package-dir"][f"gemmir.{folder}"] == folder


@pytest.mark.parametrize("folder", LINKED)
def test_nobody_may_import_the_folder_by_its_own_name(folder: str) -> None:
    banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert folder in banned


def test_types_are_part_of_the_package() -> None:
    assert (ROOT / "gemmir" / "py.typed").exists()
    assert PYPROJECT["tool"]["setuptools"]["package-data"]["*"] == ["py.typed"]


def test_the_installed_version_is_that_of_the_tree() -> None:
    assert version("gemmir") == PYPROJECT["project"]["version"]
    assert gemmir.__name__ == PYPROJECT["project"]["name"]


@pytest.mark.parametrize("group", ["console_scripts", "xdsl.universe"])
def test_entry_points_lead_somewhere(group: str) -> None:
    (found,) = (point for point in entry_points(group=group) if point.name == "gemmir")
    module, _, attribute = found.value.partition(":")
    assert hasattr(import_module(module), attribute)


def test_files_that_the_metadata_names_exist() -> None:
    project = PYPROJECT["project"]
    assert (ROOT / project["readme"]).is_file()
    assert all((ROOT / name).is_file() for name in project["license-files"])
