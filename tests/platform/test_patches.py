"""What is replaced in Flower is there."""

import ast
import inspect
from types import SimpleNamespace

import flwr.supernode.start_client_internal as supernode_loop
import pytest

from client.flower.runtime import SHORTER_S
from csasn.errors import CsasnError
from csasn.platform.patches import patch


def test_a_name_that_is_not_there_is_refused():
    part = SimpleNamespace(kept=1)
    patch(part, "kept", 2)
    with pytest.raises(CsasnError, match="has no renamed to replace"):
        patch(part, "renamed", 3)
    assert part == SimpleNamespace(kept=2)


def test_every_wait_of_flowers_supernode_has_one_of_ours():
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(supernode_loop))) if isinstance(node, ast.Call)]
    waits = {ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "time.sleep"}
    assert waits == set(SHORTER_S)
