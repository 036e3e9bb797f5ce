"""How fast Event Flow is, beside what people write by hand: `python -m benchmarks`, or `nox -s bench`."""
