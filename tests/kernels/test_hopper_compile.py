"""Every kernel is compiled for compute capability 9.0, which needs no GPU, and its resources are read from the result.

What this holds: no registers spilled to memory, matrix products on Hopper's own instructions, tiles moved by the copy
engine where the kernel says so, 16-byte accesses where traffic is the cost, shared memory within the 227 KiB of a block.
"""

import os
import re
import subprocess
import tempfile
from typing import Any

import pytest

from underpar.kernels.dispatch import HAS_TRITON

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_TRITON, reason="the triton package is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning"),
]
SHARED_MEMORY_BYTES = 227 * 1024


def stack_bytes(cubin: bytes) -> int:
    """Bytes of a thread's stack, where registers spill to, as the disassembler that comes with Triton reports them."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return sum(int(size) for size in re.findall(r"STACK:(\d+)", usage)) if "STACK:" in usage else -1


def compiled(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], tile: dict[str, int], stack_limit: int = 8
) -> tuple[str, int]:
    """PTX and shared memory of `kernel`; pointers and integers are taken as divisible by 16, as the launches have them."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: tile[name] for name in ("num_warps", "num_stages") if name in tile}
    constants = constants | {name: value for name, value in tile.items() if name not in options}
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    position = {name: (index,) for index, name in enumerate(kernel.arg_names)}
    divisible = [name for name, kind in signature.items() if kind.startswith(("*", "i32"))]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={position[name]: value for name, value in constants.items()},
        attrs={position[name]: [["tt.divisibility", 16]] for name in divisible},
    )
    result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx = result.asm["ptx"]
    assert (
        stack_bytes(result.asm["cubin"]) <= stack_limit
    )  # triton 3.6 keeps one slot in the uncapped loss; spills are many
    assert result.metadata.shared <= SHARED_MEMORY_BYTES
    return ptx, result.metadata.shared


@pytest.mark.parametrize("vocab_size", [1024, 8192, 50304])
@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_cross_entropy(vocab_size: int, softcap: float) -> None:
    from underpar.kernels.softcapped_ce import triton as kernels

    tile = kernels.tile_for(vocab_size)
    types = dict.fromkeys(("losses_ptr", "lse_ptr", "grad_losses_ptr"), "*fp32")
    types |= {"logits_ptr": "*bf16", "grad_logits_ptr": "*bf16", "targets_ptr": "*i64"}
    types |= dict.fromkeys(("num_rows", "row_stride", "grad_stride"), "i32")
    constants = {"VOCAB": vocab_size, "SOFTCAP": softcap, "FAST": True}
    forward, _ = compiled(kernels._softcapped_ce_forward, types, constants, tile)
    backward, _ = compiled(kernels._softcapped_ce_backward, types, constants, tile)
    assert "ld.global.v4.b32" in forward
    assert "ld.global.v4.b32" in backward
    assert "st.global.v4.b32" in backward


@pytest.mark.parametrize("grad_type", ["*bf16", "*fp8e5"])
def test_multi_target_cross_entropy(grad_type: str) -> None:
    from underpar.kernels.multi_target_ce import triton as kernels

    types = dict.fromkeys(("losses_ptr", "lse_ptr", "grad_losses_ptr", "weights_ptr", "unit_ptr"), "*fp32")
    types |= {"logits_ptr": "*bf16", "grad_ptr": grad_type, "targets_ptr": "*i64"}
    types |= dict.fromkeys(("row_tokens", "row_stride", "grad_stride"), "i32")
    constants = {"VOCAB": 50304, "SCALE": 23.0, "SHIFT": 5.0, "DIVISOR": 7.5, "TARGETS": 3, "FAST": True}
    forward, _ = compiled(kernels._multi_target_ce_forward, types, constants, kernels.FORWARD_TILE)
    backward, _ = compiled(kernels._multi_target_ce_backward, types, constants, kernels.BACKWARD_TILE)
    assert "ld.global.v4.b32" in forward
    assert "ld.global.v4.b32" in backward
    assert "st.global.v4.b32" in backward
    assert ("e5m2x2" in backward) == (grad_type == "*fp8e5")


def test_quantisation() -> None:
    from underpar.kernels.fp8_head import triton as kernels

    types = {"values_ptr": "*bf16", "codes_ptr": "*fp8e4nv", "per_unit": "fp32"}
    types |= dict.fromkeys(("num_columns", "row_stride"), "i32")
    ptx, _ = compiled(kernels._fp8_quantise, types, {"LARGEST": 448.0}, kernels.QUANTISE_TILE)
    assert "ld.global.v4.b32" in ptx
    assert re.search(r"st\.global\.(b64|v2\.b32)", ptx)
    assert "e4m3x2" in ptx
    assert "max.NaN.f32" in ptx  # what is no number stays none


def test_turning() -> None:
    from underpar.kernels.fp8_head import triton as kernels

    types = dict.fromkeys(("words_ptr", "turned_ptr"), "*i32") | dict.fromkeys(("tall", "wide"), "i32")
    ptx, shared = compiled(kernels._turn_bytes, types, {}, kernels.TURN_TILE)
    assert "ld.global.v4.b32" in ptx
    assert "st.global.v4.b32" in ptx
    assert shared >= 4 * kernels.TURN_TILE["ROWS"] * kernels.TURN_TILE["COLUMNS"]  # rows become columns on the chip


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_mlp(slope: float) -> None:
    from underpar.kernels.mlp_act import triton as kernels

    def block(rows: int, columns: int) -> str:
        return f"tensordesc<bf16[{rows},{columns}]>"

    launches = [(kernels._up_kernel, kernels.UP_TILE)]
    launches += [(kernels._grad_pre_kernel, kernels.GRAD_TILE | {"AHEAD": ahead}) for ahead in (0, 1, 2)]
    for kernel, tile in launches:
        m, n, k = tile["BLOCK_M"], tile["BLOCK_N"], tile["BLOCK_K"]
        types = {name: block(m, n // 2) for name in ("post_desc", "pre_desc", "saved_desc", "out_desc")}
        types |= {"x_desc": block(m, k), "grad_desc": block(m, k), "M": "i32", "N": "i32", "K": "i32"}
        types["saved_ptr"] = "*bf16"
        types["w_desc"] = block(n, k) if kernel is kernels._up_kernel else block(k, n)
        ptx, _ = compiled(kernel, types, {"SLOPE": slope}, tile)
        assert "wgmma.mma_async" in ptx
        assert "cp.async.bulk.tensor.2d.shared" in ptx  # loads
        assert "cp.async.bulk.tensor.2d.global" in ptx  # stores


@pytest.mark.parametrize(("rotated", "angles"), [(64, 1), (16, 1), (32, 2)])
def test_qk_norm_rope(rotated: int, angles: int) -> None:
    from underpar.kernels.qk_norm_rope import triton as kernels

    constants = {"HEADS": 8, "PADDED_HEADS": 8, "KV_HEADS": 4, "PADDED_KV_HEADS": 4, "DIM": 64}
    constants |= {"ROTATED": rotated, "ANGLES": angles, "PACKED": True}
    for kernel in (kernels._qk_norm_rope_forward, kernels._qk_norm_rope_backward):
        types = {name: "*bf16" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
        types |= dict.fromkeys(("gain_ptr", "cos_ptr", "sin_ptr", "partial_gain_ptr"), "*fp32") | {"eps": "fp32"}
        ptx, _ = compiled(kernel, types, constants, kernels.default_tile(8, 64))
        assert "ld.global.v4.b32" in ptx
        assert "st.global.v4.b32" in ptx


@pytest.mark.parametrize(("exclusive", "gated"), [(True, True), (True, False), (False, True)])
def test_exclusive_gate(exclusive: bool, gated: bool) -> None:
    from underpar.kernels.exclusive_gate import triton as kernels

    constants = {"KV_HEADS": 4 if exclusive else 8, "GROUP": 2 if exclusive else 1, "DIM": 64, "LEAST": 1e-12}
    constants |= {"EXCLUSIVE": exclusive, "GATED": gated}
    for kernel, tile in (
        (kernels._exclusive_gate_forward, kernels.FORWARD_TILE),
        (kernels._exclusive_gate_backward, kernels.BACKWARD_TILE),
    ):
        types = {name: "*bf16" if name.endswith("_ptr") else "i32" for name in kernel.arg_names} | {"factor": "fp32"}
        ptx, _ = compiled(kernel, types, constants, tile)
        assert "ld.global.v4.b32" in ptx
        assert "st.global.v4.b32" in ptx


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_residual_norm(mixed: bool, kept: bool) -> None:
    from underpar.kernels.residual_norm import triton as kernels

    absent = ["z_ptr", "u_ptr", "x_weight", "z_weight", "u_weight", "grad_z_ptr", "grad_u_ptr"]
    absent += [] if mixed else ["x0_ptr", "mix_ptr", "grad_x0_ptr"]
    absent += [] if kept else ["total_ptr", "grad_total_ptr"]
    sizes = {"DIM": 512, "BLOCK": 512, "UNIT": 1, "PARAMETERS": 3 if mixed else 1}
    for kernel, tile in (
        (kernels._residual_norm_forward, kernels.FORWARD_TILE),
        (kernels._residual_norm_backward, kernels.BACKWARD_TILE),
    ):
        types = {name: "*bf16" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
        types |= dict.fromkeys(("y_weight", "mix_ptr", "partial_ptr"), "*fp32") | {"gain": "fp32", "eps": "fp32"}
        constants = dict.fromkeys(absent) | sizes
        constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
        tile = {name: value for name, value in tile.items() if name != "per_sm"}
        # All three gradients, three streams and three sums at once: eight numbers of a thread leave its registers.
        ptx, _ = compiled(kernel, types, constants, tile, stack_limit=32 if kept and mixed else 8)
        assert "ld.global.v4.b32" in ptx
        assert "st.global.v4.b32" in ptx
