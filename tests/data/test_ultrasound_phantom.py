"""Generated ultrasound of the breast: that a record can be replayed, and what the images show."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from common.data.ultrasound_phantom import CLASSES, class_of, draw_ultrasound
from common.data.ultrasound_record import Ultrasound
from common.data.ultrasound_rendering import render_ultrasound, ultrasound_shape


@pytest.fixture(scope="module")
def scans() -> list[tuple[Ultrasound, np.ndarray, np.ndarray]]:
    """Records with images of about 128 x 128 and the lesions of all their masks."""
    rendered = []
    for index in range(32):
        phantom = draw_ultrasound(11, index)
        image, masks = render_ultrasound(phantom, 128)
        lesion = np.any([mask > 0 for mask in masks], axis=0) if masks else np.zeros(image.shape, bool)
        rendered.append((phantom, image.astype(float), lesion))
    return rendered


def test_ultrasound_record_survives_json_and_replays_to_the_bit():
    for index in (0, 1, 2):
        phantom = draw_ultrasound(5, index)
        again = Ultrasound.from_dict(json.loads(json.dumps(phantom.to_dict())))
        assert again == phantom == draw_ultrasound(5, index) and hash(again) == hash(phantom)
        (image, masks), (image_again, masks_again) = render_ultrasound(phantom, 64), render_ultrasound(again, 64)
        assert image.dtype == np.uint8 and image.shape == ultrasound_shape(phantom, 64)
        np.testing.assert_array_equal(image, image_again)
        np.testing.assert_array_equal(masks, masks_again)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 10**6))
def test_every_lesion_is_in_the_image_and_of_its_size(seed: int, index: int):
    phantom = draw_ultrasound(seed, index)
    image, masks = render_ultrasound(phantom, 64)
    assert phantom.kind == class_of(index) and len(masks) == len(phantom.lesions)
    assert len(masks) == 0 if phantom.kind == "normal" else 1 <= len(masks) <= 2
    for mask in masks:
        assert mask.dtype == np.uint8 and mask.shape == image.shape and set(np.unique(mask)) == {0, 255}
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    if masks:
        assert 0.015 < sum((mask > 0).mean() for mask in masks) < 0.13
        assert not np.all(masks, axis=0).any() or len(masks) == 1


def test_shares_of_the_classes():
    drawn = [draw_ultrasound(0, index).kind for index in range(64)]
    assert [drawn.count(kind) for kind in CLASSES] == [24, 24, 16]
    assert set(drawn[:3]) == set(CLASSES)


def test_benign_lesions_are_wider_and_malignant_ones_taller():
    ratios: dict[str, list[float]] = {"benign": [], "malignant": []}
    for index in range(60):
        phantom = draw_ultrasound(4, index)
        for mask in render_ultrasound(phantom, 64)[1]:
            rows, columns = np.nonzero(mask)
            ratios[phantom.kind].append(np.ptp(rows) / np.ptp(columns))
    assert np.mean(np.array(ratios["benign"]) < 1) == 1
    assert np.mean(np.array(ratios["malignant"]) > 1) > 0.9


def test_borders_are_smooth_or_spiculated(scans: list[tuple[Ultrasound, np.ndarray, np.ndarray]]):
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    for phantom, *_ in scans:
        for lesion in phantom.lesions:
            border = lesion.border(angle)
            spikes = ((border > np.roll(border, 1)) & (border >= np.roll(border, -1))).sum()
            if phantom.kind == "benign":
                assert border.std() < 0.1 and spikes <= 4
            else:
                assert border.std() > 0.03 and spikes >= 5


def test_lesions_are_darker_than_what_is_around(scans: list[tuple[Ultrasound, np.ndarray, np.ndarray]]):
    contrasts = []
    for phantom, image, lesion in scans:
        if phantom.kind == "normal":
            assert not lesion.any()
            continue
        around = ndimage.binary_dilation(lesion, iterations=6) & ~ndimage.binary_dilation(lesion)
        contrasts.append(image[around].mean() - image[lesion].mean())
    assert min(contrasts) > 15 and 30 < np.median(contrasts) < 110


def beside_and_below(phantom: Ultrasound, image: np.ndarray, lesion: np.ndarray) -> tuple[float, float]:
    """Mean grey in the middle columns below a lesion, and at the same depth on either side of it."""
    rows, columns = np.nonzero(lesion)
    middle, quarter = round(columns.mean()), max(np.ptp(columns) // 4, 1)
    deep = slice(rows.max() + 2, rows.max() + 2 + image.shape[0] // 6)
    below = image[deep, middle - quarter : middle + quarter + 1].mean()
    left, right = columns.min() - 5, columns.max() + 6
    sides = [image[deep, max(left - 12, 0) : max(left, 0)], image[deep, right : right + 12]]
    return below, float(np.concatenate([side.ravel() for side in sides]).mean())


def test_malignant_lesions_throw_shadows_and_cysts_the_opposite():
    shadows, echoes = [], []
    for index in range(80):
        phantom = draw_ultrasound(6, index)
        if len(phantom.lesions) != 1:
            continue
        # Other shadows are left out, and grey values shall not end at black.
        probe = dataclasses.replace(phantom.probe, slope=0.0, noise=-80.0, range=90.0)
        phantom = dataclasses.replace(phantom, shades=(), probe=probe)
        image, (mask,) = render_ultrasound(phantom, 64)
        below, beside = beside_and_below(phantom, image.astype(float), mask > 0)
        if phantom.kind == "malignant":
            shadows.append(beside - below)
        elif phantom.lesions[0].attenuation < -0.4:
            assert phantom.lesions[0].level < -25
            echoes.append(below - beside)
    assert len(shadows) > 20 and min(shadows) > 5 and np.median(shadows) > 20
    assert len(echoes) > 3 and np.median(echoes) > 5


def test_shadows_and_dark_lobules_without_lesion_are_in_no_mask():
    phantom = next(one for one in (draw_ultrasound(1, 8 * i + 2) for i in range(9)) if one.shades and one.lobules)
    assert phantom.kind == "normal"
    image, masks = render_ultrasound(phantom, 128)
    assert not masks
    for part in ("shades", "lobules"):
        without, _ = render_ultrasound(dataclasses.replace(phantom, **{part: ()}), 128)
        assert (ndimage.gaussian_filter(without.astype(float) - image, 3) > 12).mean() > 0.003, part


def test_no_threshold_finds_the_lesions(scans: list[tuple[Ultrasound, np.ndarray, np.ndarray]]):
    best = max(
        np.mean([dice(image <= threshold, lesion) for _, image, lesion in scans if lesion.any()])
        for threshold in range(0, 255, 5)
    )
    assert 0.1 < best < 0.5


def dice(found: np.ndarray, wanted: np.ndarray) -> float:
    return 2 * (found & wanted).sum() / max(found.sum() + wanted.sum(), 1)


def test_speckle_is_rayleigh_and_finer_in_depth():
    phantom = draw_ultrasound(0, 2)
    breast = dataclasses.replace(
        phantom.breast, borders=(-9.0, -8.0, -7.0, 90.0, 91.0, 92.0), tilt=0.0, texture=(0.0, 0.0, 0.0)
    )
    probe = dataclasses.replace(
        phantom.probe, looks=1, slope=0.0, uneven=0.0, noise=-90.0, gain=170.0, range=90.0, smoothing=0.0
    )
    plain = dataclasses.replace(phantom, breast=breast, probe=probe, lobules=(), shades=())
    image, _ = render_ultrasound(plain, 256)
    assert image.min() > 0 and image.max() < 255
    decibel = (image - 170.0) * 90 / 255
    envelope = 10 ** (decibel / 20)
    # Rayleigh: mean over standard deviation 1.91, and 5.57 dB.
    assert abs(envelope.mean() / envelope.std() - 1.91) < 0.1
    assert abs(decibel.std() - 5.57) < 0.3
    centred = envelope - envelope.mean()
    deep, sideways = (centred[3:] * centred[:-3]).mean(), (centred[:, 3:] * centred[:, :-3]).mean()
    assert sideways > 2 * deep
    # Images from more directions are smoother.
    smoother, _ = render_ultrasound(dataclasses.replace(plain, probe=dataclasses.replace(probe, looks=4)), 256)
    assert smoother.std() < 0.65 * image.std()


def test_one_breast_at_two_image_sizes():
    phantom = draw_ultrasound(4, 1)
    fine, coarse = (render_ultrasound(phantom, size)[1][0] > 0 for size in (256, 64))
    shrunk = np.asarray(Image.fromarray(fine).resize(coarse.shape[::-1], Image.Resampling.NEAREST))
    assert dice(shrunk, coarse) > 0.93
