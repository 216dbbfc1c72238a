"""`python -m qaserve`."""

from qaserve.cli import main

main()
