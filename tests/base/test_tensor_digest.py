"""The content of tensors as a text."""

from __future__ import annotations

import pytest
import torch

from pipeline.base.tensor_digest import digest_tensors

ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    "other",
    [
        ONES.to(torch.bfloat16),
        ONES.reshape(3, 2),
        ONES.nextafter(torch.tensor(2.0)),
        [ONES],
        {"samples": ONES},
    ],
)
def test_dtype_shape_bytes_and_place_count(other):
    assert digest_tensors(other) not in (None, digest_tensors(ONES))


def test_the_sign_of_zero_counts_and_nan_equals_itself():
    assert digest_tensors(torch.tensor(0.0)) != digest_tensors(torch.tensor(-0.0))
    assert digest_tensors(torch.tensor(torch.nan)) == digest_tensors(torch.tensor(torch.nan))


def test_memory_layout_and_the_order_of_a_mapping_do_not_count():
    assert digest_tensors(torch.eye(3)[:, :2]) == digest_tensors(torch.eye(3)[:, :2].contiguous())
    assert digest_tensors({"a": ONES, "b": 1}) == digest_tensors({"b": 1, "a": ONES})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.bool, torch.int64])
def test_every_dtype_has_a_digest(dtype):
    assert digest_tensors(torch.zeros(2).to(dtype))


@pytest.mark.parametrize("value", [object(), [torch.zeros(1), object()], torch.eye(2).to_sparse()])
def test_what_is_no_plain_tensor_has_none(value):
    assert digest_tensors(value) is None
