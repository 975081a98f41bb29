"""From a torch module to a canonical ONNX graph: raw units in and out, opset 17, IR 8, the same bytes every time.

Everything that the model needs to see raw input is inside the graph: a cast for integer pixels, the scaler's mean and
scale. Names are set by position and metadata of the exporter is dropped, so that the same module gives the same bytes.
"""

from __future__ import annotations

import copy
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import onnx.checker
import onnx.compose
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from aeedge.errors import InputError
from aeedge_export.conversion.editing import closed, constant, opened
from aeedge_export.conversion.lowering import TORCH_OPSET, lower_opset
from aeedge_export.conversion.messages import FIXED_BATCH, chance, failure, first_line, node_place
from aeedge_export.conversion.operators import OPERATORS
from aeedge_export.networks.copying import copied

OPSET, IR_VERSION = 17, 8
_BRANCHES = {"If", "Loop", "Scan"}
_CHANCE = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
Module = TypeVar("Module", bound=nn.Module)
_NAMES = {
    "features": ("input", "features"),
    "encoder": ("input", "latent"),
    "decoder": ("latent", "reconstruction"),
}


def with_front_end(features: ModelProto, encoder: ModelProto) -> ModelProto:
    """An encoder of features as one of raw windows; the features stay in the graph as "features"."""
    named = {"rename_nodes": True, "rename_edges": True, "rename_initializers": True, "rename_outputs": False}
    inner = onnx.compose.add_prefix(encoder, "network/", **named, rename_inputs=True)
    model = onnx.compose.merge_models(
        features,
        inner,
        io_map=[("features", inner.graph.input[0].name)],
        name="encoder",
        producer_name=encoder.producer_name,
    )
    model.ir_version = encoder.ir_version
    onnx.checker.check_model(model, full_check=True)
    return model


@dataclass(frozen=True)
class Scaling:
    """`mean` and `scale`, float32, that broadcast to one row."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


class RawEncoder(nn.Module):
    """An encoder of scaled rows as one of raw rows: encoder((x - mean) / scale)."""

    def __init__(self, encoder: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.encoder = as_module(encoder, "encoder")
        self.mean, self.scale = _buffer(scaling.mean, 0.0), _buffer(scaling.scale, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *input_shape) raw, any dtype -> (n, *latent_shape)."""
        x = x.to(torch.float32, copy=True)  # a module may change its input in place
        x = x if self.mean is None else x - self.mean
        return _float32(self.encoder(x if self.scale is None else x / self.scale))


class RawDecoder(nn.Module):
    """A decoder of scaled rows as one of raw rows: decoder(z) * scale + mean."""

    def __init__(self, decoder: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.decoder = as_module(decoder, "decoder")
        self.mean, self.scale = _buffer(scaling.mean, 0.0), _buffer(scaling.scale, 1.0)

    def forward(self, z: Tensor) -> Tensor:
        """(n, *latent_shape) -> (n, *input_shape) raw, float32."""
        x = _float32(self.decoder(z.clone()))
        x = x if self.scale is None else x * self.scale
        return x if self.mean is None else x + self.mean


class _Method(nn.Module):
    """A bound method of a module (`vae.encode`) as a module, so that copies and evaluation mode reach its owner."""

    def __init__(self, method: MethodType) -> None:
        super().__init__()
        self.owner, self._function = method.__self__, method.__func__

    def forward(self, x: Tensor) -> Tensor:
        """What the method gives."""
        result: Tensor = self._function(self.owner, x)
        return result


def as_module(given: Any, role: str) -> nn.Module:
    """A module, or a bound method of one, as a module.

    Raises:
        InputError: it is neither: copies and evaluation mode would not reach what a function holds.
    """
    if isinstance(given, MethodType) and isinstance(given.__self__, nn.Module):
        return _Method(given)
    if not isinstance(given, nn.Module):
        raise InputError(
            f"{role}: expected a torch.nn.Module or a method of one, got {type(given).__name__}; write a module whose "
            "forward does the same"
        )
    if any(isinstance(part, torch.jit.ScriptModule) for part in given.modules()):
        raise InputError(
            f"{role}: expected a module as written, got a scripted or traced one (torch.jit), which torch cannot export"
        )
    return given


def _float32(result: Tensor) -> Tensor:
    """float64 and half precision as the float32 that bundles give; integers and what is no tensor stay as they are."""
    return result.to(torch.float32) if isinstance(result, Tensor) and result.is_floating_point() else result


def _buffer(values: NDArray[np.float32], neutral: float) -> nn.Parameter | None:
    """Constants of the graph, or None where they would change nothing."""
    if (values == neutral).all():
        return None
    return nn.Parameter(torch.from_numpy(np.array(values, np.float32)), requires_grad=False)


def check_one_input(module: nn.Module, role: str) -> None:
    """Refuse a module that needs a condition, a mask or a hidden state beside its rows, before anything is run.

    Raises:
        InputError: its `forward` has several parameters without a default, or none.
    """
    try:
        parameters = inspect.signature(getattr(module, "forward", module)).parameters.values()
    except (TypeError, ValueError):  # compiled code has none
        return
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in _ANY_NUMBER]
    if len(needed) > 1:
        raise InputError(
            f"{role}: expected a module of one input, forward takes {', '.join(needed[:-1])} and {needed[-1]}; bind "
            f"the others, as constants or from {needed[0]}, in a module of your own whose forward takes {needed[0]}"
        )
    if not parameters:
        raise InputError(f"{role}: expected a module of one input, forward takes none")


def frozen(module: Module) -> Module:
    """A copy on the CPU in evaluation mode, so that exporting leaves the caller's module alone.

    weight_norm, spectral_norm, pruning and other parametrizations are replaced by the weights that they compute.

    Raises:
        InputError: weights that have no values or are not finite, or a module that cannot be copied.
    """
    plain = cast("Module", copied(module))
    for part in every_module(plain):
        part.cpu().eval()
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(part, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(part, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(part, hook._tensor_name)  # type: ignore[no-untyped-call]
        if is_parametrized(part):
            _fix_parametrized(part)
    return plain


def _fix_parametrized(module: nn.Module) -> None:
    """Replace parametrized weights by their values, unless these are random.

    torch's remove_parametrizations would change a class that the copy shares with the caller's module.
    """
    names = list(cast("nn.ModuleDict", module.parametrizations))
    values, again = ([getattr(module, name).detach().clone() for name in names] for _ in range(2))
    if all(map(torch.equal, values, again)):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, value in zip(names, values):
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def in_float32(module: Module, given: Callable[[], Tensor], role: str) -> Module:
    """A frozen module, or with a warning a float32 copy where it is in another precision and does not take float32.

    Args:
        module: RawEncoder or RawDecoder.
        given: makes two rows of input.
        role: "encoder" or "decoder".
    """
    tensors = [one for part in every_module(module) for one in (*part.parameters(), *part.buffers())]
    found = {str(one.dtype).removeprefix("torch.") for one in tensors if one.is_floating_point()} - {"float32"}
    if not found or not _fails(frozen(module), given):
        return module
    converted = frozen(module)
    for part in every_module(converted):
        part.float()
    if _fails(frozen(converted), given):
        return module
    warnings.warn(
        f"{role}: its weights are {' and '.join(sorted(found))}; a copy in float32 is exported, and is what the bundle "
        "is compared with",
        stacklevel=5,  # the caller, past `torch_defaults`
    )
    return converted


def _fails(module: nn.Module, given: Callable[[], Tensor]) -> bool:
    try:
        with torch.inference_mode():
            module(given())
    except Exception:  # whatever the caller's module raises
        return True
    return False


def every_module(root: nn.Module) -> list[nn.Module]:
    """A module and those that it holds: registered ones, and those in lists, tuples and dicts, which eval() misses."""
    found: dict[int, Any] = {}
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in found or not isinstance(one, (nn.Module, MethodType, list, tuple, set, dict)):
            continue
        found[id(one)] = one
        if isinstance(one, nn.Module):
            waiting += [*one.children(), *vars(one).values()]
        elif isinstance(one, MethodType):
            waiting.append(one.__self__)
        else:
            waiting += one.values() if isinstance(one, dict) else one
    return [one for one in found.values() if isinstance(one, nn.Module)]


def to_onnx(module: nn.Module, example: Tensor, role: str) -> ModelProto:
    """Convert a frozen module with one input and one output, whose first axis is the free batch size.

    Args:
        module: RawEncoder or RawDecoder.
        example: two or more rows of input.
        role: "encoder" or "decoder", which names input and output.

    Raises:
        InputError: torch cannot convert the module, or not with a free batch size.
    """
    given, free = (example[:2].contiguous(),), ({0: torch.export.Dim("n")},)
    try:
        with _quiet():
            model = _converted(module, role, args=given, dynamic_shapes=free)
            if isinstance(model.graph.inputs[0].shape[0], int):  # len(x) is a number, unless the code itself is read
                with suppress(Exception):
                    program = torch.export.export(module, given, dynamic_shapes=free, strict=True)
                    model = _converted(program, role)
            _check_no_chance(model, role)
            places = {node.op_type: node_place(node.metadata_props) for node in model.graph.all_nodes()}
            proto: ModelProto = ir.to_proto(model)
    except InputError:
        raise
    except Exception as error:  # torch raises many kinds
        raise InputError(f"{role}: expected a module that torch can export, but {failure(error)}") from error
    return _canonical(proto, role, places)


def _converted(module: nn.Module | torch.export.ExportedProgram, role: str, **options: Any) -> ir.Model:
    """What torch's exporter makes of a module, or of a program that was made of it before."""
    names = _NAMES[role]
    program = torch.onnx.export(
        module,
        **options,
        dynamo=True,
        external_data=False,
        opset_version=TORCH_OPSET,
        input_names=[names[0]],
        output_names=[names[1]],
        custom_translation_table=dict(OPERATORS),
        verbose=False,
    )
    assert program is not None
    return program.model


def _check_no_chance(model: ir.Model, role: str) -> None:
    """Refuse random numbers also where they change nothing, or too little to be seen, on the example."""
    for node in model.graph.all_nodes():
        training = constant(node.inputs[2]) if node.op_type == "Dropout" and len(node.inputs) > 2 else False
        if node.op_type in _CHANCE or training is None or np.any(training):
            raise InputError(f"{role}: {chance(node.metadata_props, node.op_type)}")


def _canonical(model: ModelProto, role: str, places: Mapping[str, str]) -> ModelProto:
    """The same computation with operators, weights, input and output alone.

    Args:
        model: as torch's exporter writes it.
        role: "encoder" or "decoder".
        places: where in the caller's module operators of each kind come from, for messages.
    """
    if kinds := sorted(_BRANCHES & places.keys()):
        raise InputError(
            f"{role}: expected no branch or loop in the graph, got {kinds[0]}{places[kinds[0]]}; use torch.where"
        )
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in model.graph.node}
    if domains - {""} or len(model.functions):
        raise InputError(f"{role}: expected standard ONNX operators, got some of {domains - {''}}; replace that layer")
    try:
        network = opened(model)
        lower_opset(network, OPSET)
        graph = _plain_graph(closed(network).graph, role)
        plain = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
        plain.ir_version, plain.producer_name = IR_VERSION, "aeedge"
        onnx.checker.check_model(plain, full_check=True)
    except InputError:
        raise
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = first_line(error)
        place = next((place for kind, place in places.items() if re.search(rf"\b{kind}\b", reason)), "")
        raise InputError(
            f"{role}: expected operators of opset {OPSET}, but {reason}{place}; replace that layer"
        ) from error
    return plain


def _plain_graph(graph: onnx.GraphProto, role: str) -> onnx.GraphProto:
    """Nodes and values numbered in order: names of torch's tracing vary with versions."""
    names = {value.name: value.name for value in [*graph.input, *graph.output]}
    weights = []
    for index, tensor in enumerate(graph.initializer):
        names.setdefault(tensor.name, f"w{index}")
        weights.append(onnx.numpy_helper.from_array(_values(tensor, role), names[tensor.name]))
    nodes = []
    for index, node in enumerate(graph.node):
        for position, name in enumerate(filter(None, node.output)):
            names.setdefault(name, f"v{index}" + (f"_{position}" if position else ""))
        plain = onnx.helper.make_node(
            node.op_type,
            [names[name] if name else "" for name in node.input],
            [names[name] if name else "" for name in node.output],
            name=f"{node.op_type}_{index}",
        )
        plain.attribute.extend(node.attribute)
        for attribute in plain.attribute:
            attribute.ClearField("doc_string")
        nodes.append(plain)
    ends = [[_plain_end(value, role) for value in values] for values in (graph.input, graph.output)]
    return onnx.helper.make_graph(nodes, role, *ends, initializer=weights)


def _plain_end(value: onnx.ValueInfoProto, role: str) -> onnx.ValueInfoProto:
    """Input or output, its first axis free."""
    kind = value.type.tensor_type
    if not kind.shape.dim or not kind.shape.dim[0].dim_param:
        raise InputError(
            f"{role}: expected a module for any batch size, torch found that it works for one only; {FIXED_BATCH}"
        )
    if re.fullmatch(r"u\d+", kind.shape.dim[0].dim_param):
        raise InputError(
            f"{role}: expected one result for each row, but how many there are follows the values of the rows"
        )
    shape = ["n", *(axis.dim_value for axis in kind.shape.dim[1:])]
    return onnx.helper.make_tensor_value_info(value.name, kind.elem_type, shape)


def _values(tensor: onnx.TensorProto, role: str) -> NDArray[Any]:
    """A weight's values; subnormal ones become zero, since they slow CPUs down a hundredfold and are negligible."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise InputError(f"{role}: expected weights inside the graph, got external data; models over 2 GB do not fit")
    values: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    if values.dtype == np.float32:
        values = np.where(np.abs(values) < np.finfo(np.float32).tiny, np.float32(0), values)
    return np.ascontiguousarray(values).reshape(values.shape)


def stamped(model: ModelProto, identity: str, role: str) -> bytes:
    """The bytes of the file, with the bundle's id and the role in its metadata."""
    model = copy.deepcopy(model)
    for key, value in (("aeedge.id", identity), ("aeedge.role", role)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporter, whose messages about its versions and dumps of its graphs do not concern users."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
