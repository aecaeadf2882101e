"""The parts of the module's panel that are more than wiring."""
