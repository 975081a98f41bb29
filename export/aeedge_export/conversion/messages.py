"""What torch's exporter says, as one sentence: the innermost cause, the layer or the line of the caller's code, advice.

The exporter wraps what went wrong in three errors with headers, terminal escapes and lists of next steps.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.fx.experimental.symbolic_shapes import ConstraintViolationError, GuardOnDataDependentSymNode

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\u2500-\u257f]")
_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)'|^(?:torch\.ops\.)?(aten\.\w+)")
_OURS = (
    *(str(Path(found).parent.resolve()) for found in (torch.__file__, __file__)),
    str(Path(sysconfig.get_path("stdlib")).resolve()),
)
_LENGTH = 200


def own_name(name: str) -> str:
    """The name of a layer in the caller's module, of its name in RawEncoder or RawDecoder; empty for that module."""
    own = name.partition(".")[2]
    return "" if own == "owner" else own.removeprefix("owner.")


def failure(error: Exception) -> str:
    """Why torch could not convert a module, and what to do; without the role."""
    chain = list(_chain(error))
    cause, place = chain[-1], _place(chain)
    text = first_line(cause)
    operator = next((found for one in chain if (found := _missing_operator(one))), None)
    if operator:
        return f"operator {operator} has no ONNX form{place}; replace it with operators that have one"
    if any(isinstance(one, GuardOnDataDependentSymNode) for one in chain):
        return f"a branch, a loop or a size follows the values of the rows{place}; use torch.where and fixed sizes"
    if any(isinstance(one, ConstraintViolationError) or "Constraints violated" in str(one) for one in chain):
        return f"it works for one batch size only{place}; {FIXED_BATCH}"
    return f"torch cannot convert it ({type(cause).__name__}: {text}){place}; write that part in another way"


FIXED_BATCH = "loops over rows, chunk(), tolist() and sizes of the batch as Python numbers fix it"


def first_line(error: BaseException) -> str:
    """The first line of a message that says anything, without escapes and box drawing."""
    lines = (_ESCAPES.sub("", line).strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:_LENGTH].rstrip(".;")


def node_place(metadata: Mapping[str, str]) -> str:
    """Layer and line of the caller's code that an ONNX node of torch's exporter comes from; empty where unknown."""
    scopes, kinds = (
        ast.literal_eval(metadata.get(f"pkg.torch.onnx.{key}", "[]")) for key in ("name_scopes", "class_hierarchy")
    )
    return _described(scopes[:-1], kinds[:-1], metadata.get("pkg.torch.onnx.stack_trace", ""))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, innermost last; not what was merely being handled when torch tried something else."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _missing_operator(error: BaseException) -> str | None:
    if type(error).__name__ not in ("DispatchError", "UnsupportedOperatorException"):
        return None
    found = _OPERATOR.search(str(error))
    return None if found is None else found.group(1) or found.group(2)


def _place(chain: Sequence[BaseException]) -> str:
    """Where in the caller's module the exporter failed: by the node that it could not translate, else by the trace."""
    for error in chain:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            node = frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node) and "nn_module_stack" in node.meta:
                stack = list(node.meta["nn_module_stack"].values())
                kinds = [kind if isinstance(kind, str) else kind.__name__ for _, kind in stack]
                return _described([name for name, _ in stack], kinds, node.meta.get("stack_trace") or "")
    for error in reversed(chain):
        lines = [f'File "{one.filename}", line {one.lineno},' for one in traceback.extract_tb(error.__traceback__)]
        if found := _line("\n".join(lines)):
            return f", {found}"
    return ""


def _described(scopes: Sequence[str], kinds: Sequence[str], stack: str) -> str:
    if len(scopes) < 2:
        return ""
    name, kind = own_name(scopes[-1]), kinds[-1].rpartition(".")[2]
    layer = f", in layer {name} ({kind})" if name else f", in {kind}.forward"
    line = _line(stack)
    return f"{layer}, {line}" if line else layer


def _line(stack: str) -> str:
    """The last line of a trace that is the caller's own code."""
    for file, line in reversed(re.findall(r'File "([^"]+)", line (\d+)', stack)):
        if not str(Path(file).resolve()).startswith(_OURS) and "<" not in file:
            return f"{Path(file).name} line {line}"
    return ""


def chance(metadata: Mapping[str, str], operator: str) -> str:
    """The sentence about a node that draws random numbers."""
    return (
        f"random numbers are drawn{node_place(metadata)} ({operator}), also in evaluation mode; return the mean "
        "instead of a sample, drop only while training (functional.dropout(x, p, self.training))"
    )
