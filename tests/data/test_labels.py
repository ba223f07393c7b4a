from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.data.labels import (
    CONVENTIONS,
    channel_from_name,
    convention_from_names,
    from_canonical,
    source_values,
    to_canonical,
)
from common.errors import InputError

ALL = [*CONVENTIONS, "1=ED,2=NCR,4=ET", "10=ET,20=ED,30=NCR"]
DTYPES = [np.uint8, np.int16, np.int64, np.uint16, np.float32, np.float64, ">i2"]
canonical_labels = arrays(np.uint8, array_shapes(max_dims=3, max_side=5), elements=st.integers(0, 3))


@given(canonical_labels, st.sampled_from(ALL), st.sampled_from(DTYPES))
def test_from_canonical_is_the_inverse_for_every_stored_type(label, convention, dtype):
    stored = from_canonical(label, convention).astype(dtype)
    back = to_canonical(stored, convention)
    assert back.dtype == np.uint8 and np.array_equal(back, label)


@given(st.sampled_from([convention for convention in ALL if convention != "brats"]), st.data())
def test_to_canonical_is_the_inverse(convention, data):
    label = data.draw(arrays(np.int32, 7, elements=st.sampled_from(sorted(source_values(convention)))))
    assert np.array_equal(from_canonical(to_canonical(label, convention), convention), label)


def test_values_of_each_source():
    assert to_canonical(np.array([0, 1, 2, 4]), "brats2018").tolist() == [0, 1, 2, 3]
    assert to_canonical(np.array([0, 1, 2, 3]), "decathlon").tolist() == [0, 2, 1, 3]
    assert to_canonical(np.array([0, 1, 2, 3]), "canonical").tolist() == [0, 1, 2, 3]


def test_label_values_of_brats_of_either_kind():
    assert to_canonical(np.array([0, 1, 2, 3]), "brats").tolist() == [0, 1, 2, 3]
    assert to_canonical(np.array([0, 1, 2, 4]), "brats").tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="holds 3 and 4, of which only one is ET"):
        to_canonical(np.array([0, 3, 4]), "brats")


def test_smallest_of_several_source_values_is_written_back():
    assert to_canonical(np.array([1, 3]), "1=NCR,3=NCR,2=ED,4=ET").tolist() == [1, 1]
    assert from_canonical(np.array([1]), "3=NCR,1=NCR,2=ED,4=ET").tolist() == [1]


def test_memory_order_is_kept():
    assert to_canonical(np.zeros((3, 4, 5), np.uint8, order="F"), "canonical").flags.f_contiguous
    assert to_canonical(np.zeros((3, 4, 5), np.uint8), "canonical").flags.c_contiguous


@pytest.mark.parametrize(
    ("label", "convention", "line"),
    [
        ([0, 3], "brats2018", "label value 3 is outside the convention 'brats2018' (values 0, 1, 2, 4)"),
        ([0, 4], "canonical", "label value 4 is outside the convention 'canonical' (values 0, 1, 2, 3)"),
        (np.int16([-1, 2]), "canonical", "label value -1 is outside the convention 'canonical' (values 0, 1, 2, 3)"),
        (np.int16([0, 257]), "canonical", "label value 257 is outside the convention 'canonical' (values 0, 1, 2, 3)"),
        (np.uint8([255]), "canonical", "label value 255 is outside the convention 'canonical' (values 0, 1, 2, 3)"),
        ([0.0, 1.5], "canonical", "label value 1.5 is not a whole number"),
        ([0.0, np.nan], "canonical", "label value nan is not a whole number"),
        ([0.0, np.inf], "canonical", "label value inf is outside the convention 'canonical' (values 0, 1, 2, 3)"),
        ([1j], "canonical", "label of type complex128 is not numbers"),
        (
            [1],
            "1=lesion",
            "label convention '1=lesion': '1=lesion' is not understood; use one of canonical, brats2018, decathlon, "
            "brats, or spell it out like '1=ED,2=NCR,3=ET' with the names background, NCR, ED, ET",
        ),
    ],
)
def test_bad_values_are_named(label, convention, line):
    with pytest.raises(InputError) as error:
        to_canonical(np.asarray(label), convention)
    assert str(error.value) == line


def test_a_value_that_the_source_cannot_express_is_named():
    with pytest.raises(InputError, match="label value 2 is outside"):
        from_canonical(np.array([0, 2]), "1=ET")


@pytest.mark.parametrize(
    ("labels", "convention"),
    [
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, "decathlon"),
        ({"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}, "decathlon"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}, "decathlon"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}, "decathlon"),
        ({"background": 0, "WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}, "brats2018"),
        ({"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor core": [3]}, "decathlon"),
        ({"WT": [1, 2, 3], "necrotic core": [1], "edema": [2], "ET": [3]}, "canonical"),
        ({"WT": [1, 2, 3], "TC": [1, 3]}, "1=TC,2=ED,3=TC"),
        ({"WT": [1, 2, 3], "ET": [3]}, "1=WT,2=WT,3=ET"),
        ({"background": 0, "NCR": 1, "SNFH": 2, "ET": 3}, "canonical"),
        ({"background": 0, "NETC": 1, "ED": 2, "ET": 4}, "brats2018"),
        ({"background": 0, "ET": 1, "oedema": 2, "necrosis": 3}, "1=ET,2=ED,3=NCR"),
        ({"background": 0, "lesion, any": 1}, "1=lesion  any"),
        ({"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3], "RC": [4]}, "1=NCR,2=ED,3=ET,4=RC"),
    ],
)
def test_convention_is_read_off_the_names(labels, convention):
    assert convention_from_names(labels) == convention


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (
            {"whole tumor": [1, 2, 3], "enhancing tumor": [3], "ET": [4]},
            "labels 'enhancing tumor' and 'ET' both mean ET; name them apart",
        ),
        ({"ET": "three"}, "label 'ET': 'three' is not a whole number; give the value that the label maps have"),
        ({"ET": [None]}, "label 'ET': None is not a whole number; give the value that the label maps have"),
    ],
)
def test_labels_that_cannot_be_understood(labels, line):
    with pytest.raises(InputError) as error:
        convention_from_names(labels)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("T1", "t1n"),
        ("t1gd", "t1c"),
        ("T1ce", "t1c"),
        ("FLAIR", "t2f"),
        ("T2w", "t2w"),
        ("T2-FLAIR", "t2f"),
        ("CT", None),
    ],
)
def test_channel_names(name, channel):
    assert channel_from_name(name) == channel
