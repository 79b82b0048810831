"""Wire types, generated from coordinator.proto by `make proto`. Imported by the shells alone."""
