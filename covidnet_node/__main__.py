"""`python -m covidnet_node` is `covidnet-node`."""

from covidnet_node.cli import main

main()
