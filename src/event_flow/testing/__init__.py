"""What tests of event-driven programs need: for now the virtual clock of the package's own tests.

Private for now: names may move or change with any version.
"""
