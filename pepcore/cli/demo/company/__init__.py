"""The policies and entities of the demo's company: data, no code. A package, so that they ship in the wheel."""
