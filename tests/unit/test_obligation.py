from pepcore.core.obligation import compile
from pepcore.model import Obligation


def test_a_redacted_field_is_null():
    program = compile([Obligation("r", "redact", {"fields": ["/ssn"]})])
    assert program.run({"ssn": "123", "name": "Ada"}) == {"ssn": None, "name": "Ada"}
