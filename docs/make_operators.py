"""Writes docs/operators.md from the registry of operators: ``python docs/make_operators.py``."""

from __future__ import annotations

from pathlib import Path

from workbench import support_matrix
from workbench.files import write_atomically
from workbench.reports.support_page import operators_page

PAGE = Path(__file__).with_name("operators.md")

if __name__ == "__main__":
    write_atomically(PAGE, operators_page(support_matrix()).encode())
