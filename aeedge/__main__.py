"""`python -m aeedge`: the command, where scripts are not on the PATH."""

from aeedge.cli import main

main()
