"""What `import foldfuse` and a first call load: Dynamo, which takes seconds, only where a user compiles with torch."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, torch, foldfuse as ff
model = ff.compile(ff.fold(lambda h, x: ff.tanh(h + x), init=ff.zeros(2)), ff.Seq(ff.f32[2]))
x = torch.randn(3, 4, 2, requires_grad=True)
model(x).sum().backward()
print(sorted(name for name in ("torch._dynamo", "triton", "sympy") if name in sys.modules))
graphs = []
compiled = torch.compile(model, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph)
assert torch.equal(compiled(x), model(x))
print(sum("_evaluate" in str(node.target) for graph in graphs for node in graph.graph.nodes))
"""


def test_dynamo_is_loaded_when_it_is_used_and_sees_a_program_as_one_call():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, calls = done.stdout.splitlines()
    assert loaded == "[]"
    assert calls == "1"
