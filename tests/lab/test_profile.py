"""Device time is divided without a rest, and every kernel falls into the class that a person would give it."""

from typing import Any

import pytest

from underpar.lab.profile import Work, kind_of, shares, summary, works

KERNELS = {
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64": "matmul",
    "nvjet_tst_192x192_64x4_2x1_v_bz_coopA_TNN": "matmul",
    "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16>": "matmul",
    "_up_kernel": "matmul",
    "_grad_pre_kernel": "matmul",
    "triton_tem_fused_mm_12": "matmul",
    "kernel_cutlass_kernel_flash_attncuteflash_fwd_sm90FlashAttentionForwardSm90": "attention",
    "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob": "attention",
    "fmha_cutlassF_bf16_aligned_64x64_rf_sm80": "attention",
    "ncclDevKernel_ReduceScatter_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "communication",
    "triton_red_fused__to_copy_add_mul_rsqrt_3": "elementwise",
    "void at::native::multi_tensor_apply_kernel": "elementwise",
    "_residual_norm_forward": "elementwise",
    "Memcpy DtoD (Device -> Device)": "elementwise",
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_told_by_name(name: str) -> None:
    assert kind_of(name) == KERNELS[name]


def event(name: str, start: float, length: float, category: str = "kernel") -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": length}


def test_what_runs_inside_the_optimiser_is_the_optimisers_but_for_communication() -> None:
    trace = [
        event("nvjet", 0, 5),
        event("underpar.optimiser", 10, 20, "gpu_user_annotation"),
        event("nvjet", 12, 5),
        event("ncclDevKernel_AllGather", 20, 5),
        event("nvjet", 30, 5),
        event("aten::mm", 0, 50, "cpu_op"),
        {"ph": "i", "cat": "kernel", "name": "no duration", "ts": 3},
    ]
    assert [work.kind for work in works(trace)] == ["matmul", "optimiser", "communication", "matmul"]


def test_shares_add_up_and_overlap_counts_as_computation() -> None:
    found = shares([
        Work(0, 10, "a", "matmul"),
        Work(5, 25, "b", "communication"),  # 5 hidden, 5 alone, then hidden again, then alone
        Work(15, 20, "c", "attention"),
        Work(35, 40, "d", "elementwise"),
    ])  # fmt: skip
    assert sum(found.values()) == pytest.approx(1.0)
    assert {kind: share * 40 for kind, share in found.items()} == pytest.approx(
        {"matmul": 10, "attention": 5, "elementwise": 5, "optimiser": 0, "communication": 10, "gaps": 10}
    )


def test_two_kernels_at_once_are_counted_once() -> None:
    found = shares([Work(0, 10, "a", "elementwise"), Work(0, 10, "b", "matmul"), Work(10, 20, "c", "elementwise")])
    assert (found["matmul"], found["elementwise"]) == (0.5, 0.5)


def test_the_summary_is_of_one_step() -> None:
    found = summary(
        [Work(0, 1000, "a", "matmul"), Work(1000, 1500, "n", "communication"), Work(2000, 3000, "a", "matmul")], 2
    )
    assert found["step_ms"] == 1.5
    assert found["busy_ms"] == pytest.approx(1.25)
    assert found["hidden_communication_ms"] == pytest.approx(0.0)
    assert found["largest"][0] == {"kernel": "a", "class": "matmul", "ms": 1.0, "calls": 1.0}
    assert shares([]) == {}
    assert summary([], 1)["step_ms"] == 0.0
