"""What every store must do, as tests: prove yours by them.

    pytest -p batchq.testing.plugin --pyargs batchq.testing.conformance
        --batchq-store 'sqlite:///{folder}/jobs.db' --batchq-store my_package.testing:open_store

kit.py       the stores under test, a clock that the tests move, short commands
model.py     the simplest model of a store; it shares nothing with what it judges
machine.py   every history of a store beside that model; needs Hypothesis
test_*.py    the rules, one by one; the invariants that a test proves stand in its docstring

Every test runs a second time with faults: calls that are not carried out are repeated, and
replies are lost; the answers must be the same.
"""
