"""What the tests of obligations, programs and payloads share."""

import pytest

from pepcore.core.obligation import compile
from pepcore.errors import ObligationFault
from pepcore.model import Obligation


def program(*obligations):
    return compile([Obligation(f"o{i}", kind, properties) for i, (kind, properties) in enumerate(obligations)])


def faults(text, function, *arguments):
    with pytest.raises(ObligationFault) as caught:
        function(*arguments)
    assert text in str(caught.value)
    return caught.value


def fields(*paths):
    return {"fields": list(paths)}
