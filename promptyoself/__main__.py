"""``python -m promptyoself``."""

from promptyoself.cli import main

main()
