"""The circuit cards, one TOML file a family; packaged as `qunlearn.circuits`."""
