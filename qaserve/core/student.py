"""The student: one small network that stands in for routing and projection, and needs no search to do so.

It is taught (`train.distillation`) to take a unit question x to where routing and projection take it. Two forms:

transformer: f = linear out ∘ L encoder layers with H heads (Vaswani et al. 2017; feed-forward 2D, GELU) ∘ linear in. A
query is a sequence of length one. The softmax over one position is 1, so attention is a linear map of x: H changes
neither the number of parameters nor what the student can express; only L does. The plain form returns f(x). The
residual form returns x + f(x) (He et al. 2016) with f's last layer zero at the start: untrained, it leaves x alone.

slots: x + softmax(s · x Kᵀ) V with M learned keys K and values V, both (M, D), and a learned scale s: attention over a
compressed memory of the known questions, M rows instead of n, which is the shape of what question routing itself does.
"""

import math
import threading
from functools import cache
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from qaserve.common.errors import BundleError
from qaserve.schemas.record import Record

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

FIRST_SCALE = 20.0
"""Slots: s before training, 1/τ at the default temperature of routing, 0.05."""
TRAINING_DROPOUT = 0.1


NORM_EPSILON = 1e-5
Rows = NDArray[np.float32]


class StudentSpec(Record):
    """The shape of a student: all that its weights need to be read."""

    dimension: int = Field(ge=2, description="D.")
    heads: int = Field(1, ge=1, description="H; 1 where the form is slots.")
    layers: int = Field(1, ge=1, le=48, description="L; 1 where the form is slots.")
    residual: bool = True
    form: Literal["transformer", "slots"] = "transformer"
    slots: int = Field(0, ge=0, le=65_536, description="M; 0 where the form is transformer.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.form == "slots":
            if not self.slots or not self.residual or (self.heads, self.layers) != (1, 1):
                raise ValueError("the form slots needs slots of 1 or more, is residual, and has no heads or layers")
        elif self.slots:
            raise ValueError(f"{self.slots} slots are given, but the form is {self.form}")
        if self.dimension % self.heads:
            raise ValueError(f"{self.dimension} dimensions cannot be shared equally among {self.heads} heads")
        return self

    @property
    def name(self) -> str:
        """How tables call it: "6x3 residual", "6x3 plain", "slots 256"."""
        if self.form == "slots":
            return f"slots {self.slots}"
        return f"{self.heads}x{self.layers} {'residual' if self.residual else 'plain'}"

    @property
    def capacity(self) -> int:
        """H^L, what the proposal compares with the number of clusters; for slots, M."""
        return self.slots if self.form == "slots" else int(self.heads**self.layers)

    @property
    def parameters(self) -> int:
        """How many numbers are learned.

        Linear in and out: D² + D each. A layer: attention 4D² + 4D, feed-forward 4D² + 3D, two norms 4D.
        """
        d = self.dimension
        if self.form == "slots":
            return 2 * self.slots * d + 1
        return 2 * (d**2 + d) + self.layers * (8 * d**2 + 11 * d)


class Student:
    """A student that answers, in NumPy. Safe to share between threads: a forward pass changes nothing."""

    def __init__(self, spec: StudentSpec, tensors: dict[str, NDArray[np.float32]]) -> None:
        """Take the weights of a module made by `make_module`, by their names there."""
        self.spec = spec
        self.tensors = tensors

    @classmethod
    def of(cls, spec: StudentSpec, module: "Module") -> "Student":
        """The student that a torch module is."""
        return cls.from_bytes(spec, weights_of(module))

    @classmethod
    def from_bytes(cls, spec: StudentSpec, data: bytes) -> "Student":
        """Read what `to_bytes` wrote.

        Raises:
            BundleError: The bytes are not safetensors, a tensor is missing or unknown, or one has another shape or type
                or a value that is not finite.
        """
        try:
            tensors = load_tensors(data)
        except SafetensorError as error:
            raise _unusable(spec, f"the bytes are not safetensors: {error}") from error
        _check(spec, shapes_of(spec), tensors)
        return cls(spec, tensors)

    def to_bytes(self) -> bytes:
        """The weights as safetensors, float32; equal weights give equal bytes."""
        return save_tensors({name: np.ascontiguousarray(self.tensors[name]) for name in sorted(self.tensors)})

    def to_module(self) -> "Module":
        """The same student in torch, in eval mode."""
        import torch  # noqa: PLC0415

        with torch.device("meta"):  # shapes only: nothing is drawn at random to be overwritten
            module = _build(self.spec, None, 0.0)
        tensors = {name: torch.from_numpy(value.copy()) for name, value in self.tensors.items()}
        module.load_state_dict(tensors, assign=True)
        return module.eval()

    def project(self, x: ArrayLike) -> NDArray[np.float64]:
        """Stand in for routing and projection.

        Args:
            x: (D,) unit vector or (m, D) unit rows.

        Returns:
            float64 of the same shape, not normalised. Computed in float32.

        Raises:
            ValueError: x has another dimension than the student.
        """
        rows = np.asarray(x, dtype=np.float32)
        if rows.ndim not in {1, 2} or rows.shape[-1] != self.spec.dimension:
            raise ValueError(f"x is {rows.shape}; the student takes (D,) or (m, D) with D {self.spec.dimension}")
        batch = rows.reshape(-1, self.spec.dimension)
        moved = self._slots(batch) if self.spec.form == "slots" else self._transformer(batch)
        return moved.astype(np.float64).reshape(rows.shape)

    def _slots(self, x: Rows) -> Rows:
        logits = np.exp(self.tensors["log_scale"]) * (x @ self.tensors["keys"].T)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(x + shares / shares.sum(axis=1, keepdims=True) @ self.tensors["values"])

    def _transformer(self, x: Rows) -> Rows:
        """Layers as of torch's `TransformerEncoderLayer`, norms last: h = norm1(h + attention(h)), norm2(h + feed(h)).

        Attention over a single position is a linear map: out(value(h)).
        """
        d, hidden = self.spec.dimension, self._linear("enter", x)
        for layer in (f"layers.{number}" for number in range(self.spec.layers)):
            entry = self.tensors[f"{layer}.self_attn.in_proj_weight"], self.tensors[f"{layer}.self_attn.in_proj_bias"]
            value = hidden @ entry[0][2 * d :].T + entry[1][2 * d :]
            hidden = self._norm(f"{layer}.norm1", hidden + self._linear(f"{layer}.self_attn.out_proj", value))
            fed = self._linear(f"{layer}.linear2", _gelu(self._linear(f"{layer}.linear1", hidden)))
            hidden = self._norm(f"{layer}.norm2", hidden + fed)
        moved = self._linear("leave", hidden)
        return x + moved if self.spec.residual else moved

    def _linear(self, name: str, x: Rows) -> Rows:
        return np.asarray(x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"])

    def _norm(self, name: str, x: Rows) -> Rows:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(NORM_EPSILON))
        return np.asarray(scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"])


def _gelu(x: Rows) -> Rows:
    """GELU, x Φ(x), with erf after Abramowitz and Stegun, 7.1.26: its error is below 1.5e-7, that of float32."""
    z = np.abs(x) / np.float32(math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    erf = np.copysign(1 - series * np.exp(-(z**2)), x)
    return np.asarray(x * (1 + erf) / 2)


def shapes_of(spec: StudentSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by its name in the torch module."""
    d = spec.dimension
    if spec.form == "slots":
        return {"keys": (spec.slots, d), "values": (spec.slots, d), "log_scale": (1,)}
    layer = {
        "self_attn.in_proj_weight": (3 * d, d),
        "self_attn.in_proj_bias": (3 * d,),
        "self_attn.out_proj.weight": (d, d),
        "self_attn.out_proj.bias": (d,),
        "linear1.weight": (2 * d, d),
        "linear1.bias": (2 * d,),
        "linear2.weight": (d, 2 * d),
        "linear2.bias": (d,),
        **{f"{norm}.{part}": (d,) for norm in ("norm1", "norm2") for part in ("weight", "bias")},
    }
    ends = {"enter.weight": (d, d), "enter.bias": (d,), "leave.weight": (d, d), "leave.bias": (d,)}
    return ends | {f"layers.{number}.{name}": shape for number in range(spec.layers) for name, shape in layer.items()}


def make_module(
    spec: StudentSpec, seed: int, keys: ArrayLike | None = None, dropout: float = TRAINING_DROPOUT
) -> "Module":
    """An untrained network, on the CPU, in training mode. In both residual forms it returns x as it is.

    Args:
        spec: Its shape.
        seed: Equal seeds give equal weights; the caller's random state is left as it was.
        keys: (j, D) unit rows for the first j ≤ M slots, such as known questions; the other slots get random unit
            rows. Only for the form slots.
        dropout: Share of activations dropped in training, transformer only. Serving drops none.

    Raises:
        ValueError: The keys do not fit the spec.
    """
    import torch  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(spec, keys, dropout)


def _build(spec: StudentSpec, keys: ArrayLike | None, dropout: float) -> "Module":
    transformer, slots = _classes()
    if spec.form == "transformer":
        return transformer(spec, dropout)
    first = np.asarray(np.empty((0, spec.dimension)) if keys is None else keys, dtype=np.float32)
    if first.ndim != 2 or len(first) > spec.slots or first.shape[1] != spec.dimension:
        raise ValueError(f"keys are {first.shape}; {spec.name} takes at most ({spec.slots}, {spec.dimension})")
    return slots(spec, first)


def weights_of(module: "Module") -> bytes:
    """A module's weights as safetensors, float32, in the order of their names."""
    state = module.state_dict()
    return save_tensors({name: np.ascontiguousarray(state[name].cpu().float().numpy()) for name in sorted(state)})


def _check(spec: StudentSpec, expected: dict[str, tuple[int, ...]], tensors: dict[str, NDArray[np.generic]]) -> None:
    """Raise BundleError unless the tensors are the spec's."""
    odd = sorted(expected.keys() ^ tensors.keys())
    if odd:
        what = "unknown" if odd[0] in tensors else "missing"
        raise _unusable(spec, f"{len(tensors)} tensors were found, {len(expected)} are needed; {odd[0]} is {what}")
    for name, shape in expected.items():
        found = tensors[name]
        if found.shape != shape or found.dtype != np.float32:
            raise _unusable(spec, f"{name} is {found.dtype} {found.shape}, float32 {shape} is needed")
        if not np.isfinite(found).all():
            raise _unusable(spec, f"{name} holds a value that is not finite")


def _unusable(spec: StudentSpec, why: str) -> BundleError:
    return BundleError(
        f"the weights do not fit the student {spec.name} (D {spec.dimension}): {why}",
        hint="Train the student again, or activate another build.",
    )


_MAKING = threading.Lock()


def _classes() -> "tuple[type[Module], type[Module]]":
    """The two networks, made once; behind a lock, for torch's first import is not for two threads at once."""
    with _MAKING:
        return _make_classes()


@cache
def _make_classes() -> "tuple[type[Module], type[Module]]":
    import torch  # noqa: PLC0415 - seconds to import; only where a model runs
    from torch import nn  # noqa: PLC0415

    class Transformer(nn.Module):
        """(m, D) → (m, D); every row is a sequence of its own."""

        def __init__(self, spec: StudentSpec, dropout: float) -> None:
            super().__init__()
            d = spec.dimension
            self.residual = spec.residual
            self.enter = nn.Linear(d, d)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(d, spec.heads, 2 * d, dropout, activation="gelu", batch_first=True)
                for _ in range(spec.layers)
            )
            self.leave = nn.Linear(d, d)
            if spec.residual:
                nn.init.zeros_(self.leave.weight)
                nn.init.zeros_(self.leave.bias)

        def forward(self, x: "Tensor") -> "Tensor":
            hidden = self.enter(x).unsqueeze(1)
            for layer in self.layers:
                hidden = layer(hidden)
            moved: Tensor = self.leave(hidden.squeeze(1))
            return x + moved if self.residual else moved

    class Slots(nn.Module):
        """(m, D) → (m, D)."""

        def __init__(self, spec: StudentSpec, keys: NDArray[np.float32]) -> None:
            super().__init__()
            rows = nn.functional.normalize(torch.randn(spec.slots, spec.dimension), dim=1)
            if len(keys):
                rows[: len(keys)] = torch.from_numpy(keys)
            self.keys = nn.Parameter(rows)
            self.values = nn.Parameter(torch.zeros(spec.slots, spec.dimension))
            self.log_scale = nn.Parameter(torch.tensor([FIRST_SCALE]).log())

        def forward(self, x: "Tensor") -> "Tensor":
            shares = torch.softmax(self.log_scale.exp() * (x @ self.keys.T), dim=1)
            moved: Tensor = x + shares @ self.values
            return moved

    return Transformer, Slots
