"""Prints the table of planted faults: python -m tests.selftest.planted_table"""

from tests.selftest.planted.table import markdown

if __name__ == "__main__":
    print(markdown(), end="")
