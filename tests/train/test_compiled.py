"""The compiled forward: few graphs, all of them before the clock."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from train_jobs import Memory, make_trainer

from underpar.data.context import Batch, packed_context
from underpar.model.compiled import compile_model, graphs_compiled
from underpar.train.events import Sinks
from underpar.train.loop import Trainer
from underpar.train.preparation import ragged_variants, rehearse


def compiled(folder: Path, data: Path, **options: Any) -> tuple[Trainer, Memory]:
    """A trainer whose forward is traced as on a GPU, and then run by plain torch."""
    torch._dynamo.reset()
    memory = Memory()
    trainer = make_trainer(folder, data, sinks=Sinks(required=[memory]), **options)
    trainer.forward = compile_model(trainer.model, backend="eager")
    return trainer, memory


@pytest.mark.parametrize("options", [{"kind": "rows"}, {"kind": "packed", "stack": "recurrent"}])
def test_the_warm_up_leaves_nothing_to_compile(tmp_path: Path, data: Path, options: dict[str, Any]) -> None:
    trainer, memory = compiled(tmp_path, data, warmup_steps=2, **options)
    before = graphs_compiled()
    result = trainer.run()
    assert graphs_compiled() - before == len(trainer.phases)
    assert result.recompilations == 0
    assert "recompilation" not in {e["event"] for e in memory.events}
    assert result.paused_seconds["compile"] > 0
    assert memory.events[0]["compile_seconds"] > 0


def test_what_compiles_while_the_clock_runs_is_counted_and_said(tmp_path: Path, data: Path) -> None:
    trainer, memory = compiled(tmp_path, data, warmup_steps=0)
    result = trainer.run()
    assert result.recompilations == 1
    assert [e for e in memory.events if e["event"] == "recompilation"] == [
        {"event": "recompilation", "step": 1, "graphs": 1}
    ]


def test_a_rehearsal_compiles_nothing(tmp_path: Path, data: Path) -> None:
    trainer, _ = compiled(tmp_path, data, stack="recurrent")
    before = graphs_compiled()
    rehearse(trainer)
    assert graphs_compiled() == before
    assert trainer.run().recompilations == 2  # and afterwards the compiler is back


def batch(documents: int, length: int = 256) -> Batch:
    inputs = torch.full((1, length), 5)
    inputs[0, :: length // documents] = 1
    return Batch(inputs, inputs, packed_context(inputs, 1, 32))


def test_one_graph_serves_any_number_of_documents(tmp_path: Path, data: Path) -> None:
    trainer, _ = compiled(tmp_path, data)
    sizes, before = set(), graphs_compiled()
    for documents in (2, 64, 128):
        one = batch(documents)
        assert one.context.cu_seqlens is not None
        sizes.add(len(one.context.cu_seqlens))
        trainer.forward(one.inputs, one.targets, one.context, trainer.phases[0])
    assert len(sizes) == 3
    assert graphs_compiled() - before == 1


def test_ragged_variants_are_the_shortest_offsets_that_a_loader_makes() -> None:
    found = ragged_variants([batch(4), batch(2)])
    assert [len(v.context.cu_seqlens) for v in found] == [64, 128, 192, 256]  # type: ignore[arg-type]
    for variant in found:
        assert variant.context.cu_seqlens is not None
        assert variant.context.cu_seqlens.tolist()[:10] == [0, 32, 64, 96, 128, 160, 192, 224, 256, 256]
        assert variant.context.cu_seqlens.dtype == torch.int32
        assert int(variant.context.cu_seqlens[-1]) == 256


def test_dense_rows_have_no_variants(tmp_path: Path, data: Path) -> None:
    assert ragged_variants(make_trainer(tmp_path, data).loader.step_at(0)) == []
    assert ragged_variants([]) == []
