"""The model: one forward, walked along a layer plan, for training, scoring, calibration and adaptation alike."""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from underpar.core.config import Config, PositiveInt, Range, config, field
from underpar.core.errors import ConfigError
from underpar.core.phase import EVALUATION, Phase, WindowSizes
from underpar.core.roles import Role
from underpar.data.context import Context
from underpar.model.plan import (
    Backout,
    Fork,
    Join,
    LayerPlan,
    Pop,
    Push,
    Run,
    Topology,
    UNet,
    executions,
    recurrent_layers,
    skip_rows,
    validate_plan,
)  # fmt: skip
from underpar.nn.adapters import AdapterLayout, LoRA
from underpar.nn.attention import Attention
from underpar.nn.branch_scale import BranchScale, VectorScale
from underpar.nn.embeddings import Embedding, Head, TiedHead
from underpar.nn.fake_quantise import FakeQuantiser
from underpar.nn.frame import NO_VISIT, AddValues, Frame, PairedStream, Rotation, Visit, Visitor, cast
from underpar.nn.init import MatrixInit, UniformInit
from underpar.nn.lookback import Bigram, Smear, SparseTable
from underpar.nn.mlp import MLP
from underpar.nn.module import Module, parameter_roles
from underpar.nn.norm import NoGain, NormGain, NormScale, UnitScale, rms_norm
from underpar.nn.recurrence import RecurrenceMix
from underpar.nn.residual import AddedSkips, BackoutGain, InputMix, LaneMix, ResidualMix, Skips
from underpar.nn.stream import Stream
from underpar.nn.value_embedding import ValueTables


@config
class GPTConfig(Config):
    """The architecture, complete: an artifact stores this tree and can rebuild its model from it alone."""

    vocab_size: PositiveInt = 1024
    num_layers: Annotated[int, Range(at_least=1, at_most=1_000)] = 9
    """Bounded, as `model_dim` is, because an artifact's header is somebody else's claim until its tensors have been read."""
    model_dim: Annotated[int, Range(at_least=1, at_most=65_536)] = 512
    embedding: Embedding = field(default_factory=Embedding)
    bigram: Bigram | None = None
    smear: Smear | None = None
    value_embedding: ValueTables | None = None
    attention: Attention = field(default_factory=Attention)
    mlp: MLP = field(default_factory=MLP)
    branch_scale: BranchScale = field(default_factory=VectorScale)
    norm_scale: NormScale = field(default_factory=UnitScale)
    norm_gain: NormGain = field(default_factory=NoGain)
    residual: ResidualMix = field(default_factory=InputMix)
    topology: Topology = field(default_factory=UNet)
    skips: Skips = field(default_factory=AddedSkips)
    recurrence_mix: RecurrenceMix | None = None
    init: MatrixInit = field(default_factory=UniformInit)
    head: Head = field(default_factory=TiedHead)
    storage: Literal["float32", "bfloat16"] = "float32"
    """Of matrices, gates and tables; the token embedding and heads made from it have `embedding.param_dtype`, gains float32."""

    def check(self) -> None:
        if self.vocab_size > 65_536:
            raise ConfigError(f"vocab_size = {self.vocab_size} is over 65,536, the most that 16-bit shards can hold")
        self.attention.head_dim(self.model_dim)
        self.mlp.hidden_dim(self.model_dim)
        for looped in (False, True):
            validate_plan(self.topology.plan(self.num_layers, looped), self.num_layers)
        if self.recurrence_mix and not recurrent_layers(self.topology.plan(self.num_layers)):
            raise ConfigError("recurrence_mix is set, but no layer of the topology recurs; set it to None")
        if self.residual.takes_bigram != (self.bigram is not None and self.bigram.in_every_block):
            raise ConfigError(
                f"residual = {self.residual} and bigram = {self.bigram} do not fit: InjectedMix and BigramTable need each other"
            )

    def build(self) -> "GPT":
        """A freshly initialised model on the CPU, drawn from torch's default generator."""
        return GPT(self)


class Block(Module):
    """x_in = mix(x, x0); x = x_in + attn_scale * attention(norm(x_in)); x = x + mlp_scale * mlp(norm(x))."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.norm_scale = layer, config.norm_scale.at(layer)
        self.residual = config.residual.build(config.model_dim)
        self.attention = config.attention.build(config.model_dim, layer, config.num_layers)
        self.mlp = config.mlp.build(config.model_dim)
        self.attn_gain = None if self.attention is None else config.norm_gain.build(config.model_dim)
        self.mlp_gain = config.norm_gain.build(config.model_dim)
        self.attn_scale: Tensor | None
        self.mlp_scale: Tensor | None
        for name in ("attn_scale", "mlp_scale"):
            initial = config.branch_scale.initial(config.model_dim)
            if initial is None or (name == "attn_scale" and self.attention is None):
                self.register_parameter(name, None)
            else:
                self.declare(name, initial, Role.GAIN)

    def read(self, stream: Stream, frame: Frame, *, keep_total: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        """The stream's sum if kept, what the block goes on with, and what attention reads."""
        return self.residual(stream, frame.x0, frame.bigram, self.norm_scale, keep_total)

    def attend(self, normed: Tensor, frame: Frame, add_values: AddValues | None, visit: Visit) -> Tensor:
        """What attention puts out, before its scale."""
        assert self.attention is not None
        assert self.attn_gain is not None
        normed = self.attn_gain(normed)
        return visit("attention", normed, self.attention(normed, frame, add_values, visit))

    def feed(self, normed: Tensor, frame: Frame, visit: Visit) -> Tensor:
        """What the MLP puts out, before its scale."""
        normed = self.mlp_gain(normed)
        return visit("mlp", normed, self.mlp(normed, frame.operand, visit))

    def forward(
        self, stream: Stream, frame: Frame, add_values: AddValues | None, visit: Visit, keep_total: bool = False
    ) -> tuple[Stream, Tensor | None]:
        """The stream behind the block, and the sum of the stream before it if kept."""
        total, x, normed = self.read(stream, frame, keep_total=keep_total)
        if self.attention is not None:
            attended = self.attend(normed, frame, add_values, visit)
            x, normed = Stream.of(x).plus(attended, self.attn_scale).normed(self.norm_scale)
        return Stream.of(x).plus(self.feed(normed, frame, visit), self.mlp_scale), total


class GPT(Module):
    """A decoder-only language model.

    `compute_dtype` is the dtype of the activations: weights are kept as declared and cast at use. `fake_quantiser`, when set,
    stands between the hidden matrices and their products in the phases that ask for it.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.fake_quantiser: FakeQuantiser | None = None
        self.plans = {looped: config.topology.plan(config.num_layers, looped) for looped in (False, True)}
        width, layers = config.model_dim, config.num_layers
        self.embedding = config.embedding.build(config.vocab_size, width)
        self.bigram = config.bigram.build(width) if config.bigram else None
        self.smear = config.smear.build(width) if config.smear else None
        heads, values = config.attention, config.value_embedding
        self.value_embedding = (
            values.build(config.vocab_size, layers, width, heads.num_kv_heads, heads.head_dim(width))
            if values
            else None
        )
        self.input_gain, self.output_gain = config.norm_gain.build(width), config.norm_gain.build(width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(layers))
        rows = max(map(skip_rows, self.plans.values()))
        self.skips = config.skips.build(rows, width) if rows else None
        self.lanes = LaneMix(layers) if any(isinstance(s, Fork) for s in self.plan) else None
        self.backout = BackoutGain() if any(isinstance(s, Backout) for s in self.plan) else None
        self.recurrent = recurrent_layers(self.plan)
        self.recurrence_mix = config.recurrence_mix.build(len(self.recurrent)) if config.recurrence_mix else None
        self.head = config.head.build(self.embedding, config.vocab_size, width)
        config.init.apply(self)
        if config.storage == "bfloat16":
            self._store_in(torch.bfloat16)

    def _store_in(self, dtype: torch.dtype) -> None:
        roles = parameter_roles(self)
        for name, param in self.named_parameters():
            if roles[name] in (Role.MATRIX, Role.GATE) or (
                roles[name] is Role.EMBEDDING and param is not self.embedding.weight
            ):
                param.data = param.data.to(dtype)

    @property
    def plan(self) -> LayerPlan:
        """The plan of evaluation."""
        return self.plans[EVALUATION.looped]

    def look_up(self, tokens: Tensor, ctx: Context) -> Tensor | None:
        """What a compiled `forward` is to be given as `looked_up`: (B, T, model_dim) of a table whose gradient is kept by rows,
        which only works outside of graphs. None where there is no such table, or nobody wants a gradient.
        """
        bigram = self.bigram
        return bigram.look_up(tokens, ctx) if isinstance(bigram, SparseTable) and torch.is_grad_enabled() else None

    def hidden(
        self,
        tokens: Tensor,
        ctx: Context,
        phase: Phase = EVALUATION,
        visitor: Visitor | None = None,
        looked_up: Tensor | None = None,
    ) -> Tensor:
        """Final normalised hidden states. tokens: (B, T) int64. Returns (B, T, model_dim) in `compute_dtype`."""
        frame = self._frame(tokens, ctx, phase, looked_up)
        return self.output_gain(self._walk(self.plans[phase.looped], frame, visitor).normed()[1])

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor,
        ctx: Context,
        phase: Phase = EVALUATION,
        visitor: Visitor | None = None,
        target_weights: Tensor | None = None,
        *,
        looked_up: Tensor | None = None,
    ) -> Tensor:
        """Loss of every position in nats: (B, T) int64 tokens and targets -> (B, T) float32.

        phase: constant of a compiled graph. visitor: see `underpar.nn.frame`. target_weights: (K,) float32; the loss is then
        the weighted sum over the next K tokens of the row, those beyond its end left out. looked_up: what `look_up` returned.
        """
        hidden = self.hidden(tokens, ctx, phase, visitor, looked_up)
        return self.head.losses(hidden, targets, _head_visit(visitor), target_weights)

    def logits(self, tokens: Tensor, ctx: Context, visitor: Visitor | None = None) -> Tensor:
        """(B, T, vocab_size) float32 soft-capped logits."""
        return self.head.logits(self.hidden(tokens, ctx, visitor=visitor), _head_visit(visitor))

    def _frame(self, tokens: Tensor, ctx: Context, phase: Phase, looked_up: Tensor | None = None) -> Frame:
        e = self.embedding(tokens, self.compute_dtype)
        injected = None
        if self.bigram is not None:
            dtype = self.compute_dtype
            bigram = self.bigram(tokens, ctx, dtype) if looked_up is None else looked_up.to(dtype)
            if self.config.residual.takes_bigram:
                injected = bigram
            else:
                e = e + bigram
        smears_after_norm = self.config.smear is not None and self.config.smear.after_norm
        if self.smear is not None and not smears_after_norm:
            e = self.smear(e, ctx)
        x0 = self.input_gain(rms_norm(e))
        if self.smear is not None and smears_after_norm:
            x0 = self.smear(x0, ctx)
        windows = self._windows(phase)
        values = None
        if self.value_embedding is not None:
            values = self.value_embedding.look_up(tokens, self.compute_dtype)
        fake = self.fake_quantiser if phase.quantised else None
        rotation = self._rotation(ctx.positions, ctx, windows)
        return Frame(x0, ctx, rotation, self._paired(ctx, windows), windows, values, injected, fake or cast)

    def _windows(self, phase: Phase) -> WindowSizes | None:
        chosen = self.config.attention.windows
        return None if chosen is None else phase.windows or chosen.sizes()

    def _rotation(self, positions: Tensor, ctx: Context, windows: WindowSizes | None) -> Rotation:
        attention = self.config.attention
        head_dim = attention.head_dim(self.config.model_dim)
        return Rotation(*attention.rope.tables(positions, head_dim, ctx.max_seqlen, windows.long if windows else None))

    def _paired(self, ctx: Context, windows: WindowSizes | None) -> PairedStream | None:
        if self.config.attention.pairs is None:
            return None
        slots = torch.stack((2 * ctx.positions, 2 * ctx.positions + 1), dim=1)
        tables = (table.unflatten(0, (-1, 2)) for table in self._rotation(slots.flatten(), ctx, windows))
        return PairedStream(Rotation(*tables), None if ctx.cu_seqlens is None else 2 * ctx.cu_seqlens)

    def _walk(self, plan: LayerPlan, frame: Frame, visitor: Visitor | None) -> Stream:
        walk = _Walk(Stream.of(frame.x0))
        execution = 0
        for step in plan:
            match step:
                case Run(layer, pass_number):
                    block = self.blocks[layer]
                    assert isinstance(block, Block)
                    values = self.value_embedding
                    add_values = values.adder(frame.values, layer) if values is not None else None
                    visit = visitor.at(execution, layer) if visitor else NO_VISIT
                    execution += 1
                    if walk.second is not None:
                        self._run_lanes(block, walk, frame, add_values, visit)
                        continue
                    walk.first, total = block(walk.first, frame, add_values, visit, walk.just_pushed)
                    walk.settle(total)
                    if self.recurrence_mix is not None and layer in self.recurrent:
                        row = self.recurrent.index(layer)
                        mixed = self.recurrence_mix(walk.first.total(), walk.last_pass(row), row, pass_number)
                        walk.this_pass.append(mixed)
                        walk.first = Stream.of(mixed)
                case Push():
                    walk.push()
                case Pop(row):
                    walk.first = self.skips(walk.first, walk.pop(), row, frame.x0)  # type: ignore[misc]
                case Backout():
                    walk.first = self.backout(walk.first, walk.pop())  # type: ignore[misc]
                case Fork():
                    walk.second = walk.first
                case Join(share):
                    walk.join(share)
        return walk.first

    def _run_lanes(self, block: Block, walk: "_Walk", frame: Frame, add_values: AddValues | None, visit: Visit) -> None:
        assert walk.second is not None
        assert self.lanes is not None
        first, _, attention_reads = block.read(walk.first, frame, keep_total=True)
        assert first is not None
        second, mlp_reads = walk.second.normed(block.norm_scale)
        branches = block.attend(attention_reads, frame, add_values, visit), block.feed(mlp_reads, frame, visit)
        scales = block.attn_scale, block.mlp_scale
        walk.first, walk.second = self.lanes((first, second), branches, scales, block.layer)

    def effective_phase(self, phase: Phase) -> Phase:
        """The phase that this model tells from `phase` no more: what it ignores is as in evaluation."""
        return Phase(
            looped=phase.looped or self.plans[False] == self.plans[True],
            quantised=phase.quantised and self.fake_quantiser is not None,
            windows=None if self.config.attention.windows is None else phase.windows,
        )

    def distinct_phases(self, phases: Iterable[Phase]) -> tuple[Phase, ...]:
        """Those of `phases` that differ to this model, in order: each compiles to a graph of its own."""
        return tuple(dict.fromkeys(map(self.effective_phase, phases)))

    def adapter_layout(self, chosen: LoRA) -> AdapterLayout:
        """The adapters that this model can have; pass `layout.visitor(rows)` as `visitor`."""
        block = self.blocks[0]
        assert isinstance(block, Block)
        width, hidden = self.config.model_dim, block.mlp.up.weight.shape[0]
        kv_dim = self.config.attention.num_kv_heads * self.config.attention.head_dim(width)
        whole = (width, width)
        sizes = {
            "q": whole, "k": (width, kv_dim), "v": (width, kv_dim), "out": whole, "attention": whole, "mlp": whole,
            "up": (width, hidden), "down": (hidden, width),
        }  # fmt: skip
        return AdapterLayout(chosen, sizes, executions(self.plan), (width, self.config.vocab_size))

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


def _head_visit(visitor: Visitor | None) -> Visit:
    return visitor.head() if visitor else NO_VISIT


class _Walk:
    """Where a forward pass stands in its plan: one stream or two lanes, what was saved, and the passes of recurrent layers."""

    def __init__(self, stream: Stream) -> None:
        self.first = stream
        self.second: Stream | None = None
        self.just_pushed = False
        self.this_pass: list[Tensor] = []
        self._saved: list[Stream] = []
        self._last_pass: list[Tensor] = []

    def push(self) -> None:
        self._saved.append(self.first)
        self.just_pushed = True

    def settle(self, total: Tensor | None) -> None:
        """The next block has added the saved stream up: keep one tensor instead of its terms."""
        if self.just_pushed and total is not None:
            self._saved[-1] = Stream.of(total)
        self.just_pushed = False

    def pop(self) -> Stream:
        self.just_pushed = False
        return self._saved.pop()

    def last_pass(self, row: int) -> list[Tensor]:
        """What the recurrent layers put out in the pass before; `row` 0 begins a pass."""
        if row == 0:
            self._last_pass, self.this_pass = self.this_pass, []
        return self._last_pass

    def join(self, share: float) -> None:
        """One stream again: `share` of the first lane and the rest of the second."""
        assert self.second is not None
        if share == 1.0:
            self.second = None
            return
        if share == 0.0:
            self.first, self.second = self.second, None
            return
        device = self.first.terms[0][0].device
        of_first, of_second = (torch.tensor(part, device=device) for part in (share, 1.0 - share))
        self.first, self.second = self.first.times(of_first) + self.second.times(of_second), None
