"""Compare the metrics of boundaries, objects, thin structures with values computed by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet.diagnostics.boundary import BoundaryDistance, BoundaryIoU, Trimap, boundary_mask, inner_rim
from unet.diagnostics.diagnose import LABEL_METRICS
from unet.diagnostics.objects import ObjectRecall
from unet.diagnostics.skeleton import SkeletonRecall
from unet.labels import IGNORE_INDEX

CLASSES = ("sea", "land", "lake")
X = IGNORE_INDEX


def labels(*rows: list[int]) -> np.ndarray:
    return np.array(rows if len(rows) > 1 else rows[0], np.uint8)


def scores(metric, target: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    metric.update(target, np.where(target == X, X, pred).astype(np.uint8))
    return metric.scores(CLASSES)


def square(size: int, begin: int, end: int, spatial_dims: int = 2) -> np.ndarray:
    """Return a cube of class 1 from ``begin`` to before ``end`` along every axis of an image of class 0."""
    image = np.zeros((size,) * spatial_dims, np.uint8)
    image[(slice(begin, end),) * spatial_dims] = 1
    return image


# Boundaries


def test_pixels_share_a_boundary_across_faces_and_not_across_corners_or_next_to_ignored_pixels():
    assert boundary_mask(labels([0, 0, 1, 1, 1, X, 0, 2])).tolist() == [0, 1, 1, 0, 0, 0, 1, 1]
    boundary = boundary_mask(labels([0, 0, 0], [0, 1, 0], [0, 0, 0]))
    assert boundary.tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@pytest.mark.parametrize(("spatial_dims", "count"), [(1, 2 + 2), (2, 8 + 12), (3, 26 + 54)])
def test_boundary_of_a_cube_of_three(spatial_dims: int, count: int):
    # Inside: the cube without its center. Outside: one layer on each face, 2 d faces of 3^(d - 1) pixels.
    assert boundary_mask(square(7, 2, 5, spatial_dims)).sum() == count


# Boundary IoU


def test_the_frame_is_part_of_a_contour_and_ignored_pixels_are_not():
    mask = np.ones((4, 6), bool)
    assert inner_rim(mask, ~mask, 1).sum() == 24 - 2 * 4
    mask[:, 3:] = False
    assert inner_rim(mask, ~mask, 1).sum() == 12 - 2 * 2, (
        "three columns: the third is next to ignored pixels, so the rim is at the frame only"
    )


def test_boundary_iou_of_a_square_moved_by_one():
    # 8 x 8 on 20 x 20: 2 % of the diagonal is 0.57 pixels, so rims are 1 wide. The true rim of 28 pixels and the
    # predicted one, a column further, share 7 pixels of each horizontal side and nothing else.
    target, pred = square(20, 4, 12), np.roll(square(20, 4, 12), 1, axis=1)
    result = scores(BoundaryIoU(3), target, pred)
    assert result["boundary/iou/land"] == pytest.approx(14 / (28 + 28 - 14))
    # The sea's rim: the image's frame of 76 and a ring around the square; its overlap with the other ring.
    ring, shared = 10 * 10 - 8 * 8, 2 * 9
    assert result["boundary/iou/sea"] == pytest.approx((76 + shared) / (76 + 2 * ring - shared))
    assert result["boundary/iou"] == pytest.approx((result["boundary/iou/land"] + result["boundary/iou/sea"]) / 2)
    assert "boundary/iou/lake" not in result


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_large_ratio_gives_the_iou(spatial_dims: int):
    target, pred = square(12, 3, 9, spatial_dims), square(12, 3, 8, spatial_dims)
    result = scores(BoundaryIoU(3, ratio=1), target, pred)
    assert result["boundary/iou/land"] == pytest.approx((5 / 6) ** spatial_dims)


def test_boundary_iou_accumulates_counts_over_the_split():
    metric = BoundaryIoU(3)
    line = labels([0, 0, 1, 1, 0, 0])
    scores(metric, line, line)  # rims of land: 2 of 2
    result = scores(metric, line, labels([0, 0, 0, 0, 0, 0]))  # 0 of 2
    assert result["boundary/iou/land"] == 0.5


# BF


def test_bf_of_a_boundary_one_pixel_off():
    target, pred = labels([0] * 5 + [1] * 5), labels([0] * 6 + [1] * 4)
    assert scores(BoundaryDistance(3, ratio=0.05), target, pred)["boundary/bf"] == 0  # half a pixel
    assert scores(BoundaryDistance(3, ratio=0.1), target, pred)["boundary/bf"] == 1  # one pixel


def test_bf_by_hand():
    # Boundary pixels of sea: truth 1, 4; prediction 1. Of land: truth 2, 3; prediction 2. The tolerance is zero.
    target, pred = labels([0, 0, 1, 1, 0, 0]), labels([0, 0, 1, 1, 1, 1])
    result = scores(BoundaryDistance(3, ratio=0), target, pred)
    f1 = 2 * 1 * 0.5 / 1.5  # precision 1, recall 1/2, of both classes
    assert result["boundary/bf"] == pytest.approx(f1)


def test_bf_is_the_mean_over_images_that_have_a_boundary():
    metric = BoundaryDistance(3, ratio=0)
    line, flat = labels([0, 0, 1, 1]), labels([0, 0, 0, 0])
    assert scores(metric, flat, line) == {}
    scores(metric, line, line)
    assert scores(metric, line, flat)["boundary/bf"] == 0.5


# NSD and HD95


def test_boundary_distances_of_a_square_moved_by_three_pixels():
    # Of the 28 boundary pixels of the true square, 14 are within one pixel of the predicted boundary: columns 6 to 11
    # of the top and the bottom, and the two pixels of the right side next to them. The left side is 3 away.
    target, pred = square(20, 4, 12), np.roll(square(20, 4, 12), 3, axis=1)
    result = scores(BoundaryDistance(3), target, pred)
    assert result["boundary/hd95/land"] == 3
    assert result["boundary/nsd/land"] == 14 / 28, "the same the other way round"
    assert result["boundary/missed/land"] == 0 and "boundary/hd95/lake" not in result


def test_distances_are_in_the_unit_of_the_spacing():
    target, pred = square(12, 3, 8, 3), np.roll(square(12, 3, 8, 3), 2, axis=0)
    metric = BoundaryDistance(3)
    metric.update(target, pred, (2.5, 1.0, 1.0))
    thick = metric.scores(CLASSES)
    assert thick["boundary/hd95/land"] == 5.0, "two voxels of 2.5 mm"
    assert thick["boundary/nsd/land"] == scores(BoundaryDistance(3), target, pred)["boundary/nsd/land"], "in voxels"
    metric = BoundaryDistance(3)
    metric.update(target, pred, (0.5, 0.5, 0.5))
    assert (
        metric.scores(CLASSES)["boundary/hd95/land"]
        == scores(BoundaryDistance(3), target, pred)["boundary/hd95/land"] / 2
    )


def test_an_image_without_the_predicted_class_is_missed_and_not_part_of_the_distance():
    metric = BoundaryDistance(3)
    image = square(12, 3, 9)
    metric.update(image, np.roll(image, 1, axis=0))
    metric.update(image, np.zeros_like(image))
    result = metric.scores(CLASSES)
    assert result["boundary/missed/land"] == 0.5
    assert result["boundary/hd95/land"] == 1
    assert result["boundary/nsd/land"] == 0.5, "all within one pixel in the first image, 0 in the second"


@pytest.mark.filterwarnings("ignore:monai.metrics:FutureWarning")
@given(begin=st.tuples(*[st.integers(2, 5)] * 2), end=st.tuples(*[st.integers(7, 12)] * 2), seed=st.integers(0, 99))
def test_boundary_distances_equal_those_of_monai(begin, end, seed: int):
    monai = pytest.importorskip(
        "monai.metrics", reason="MONAI is not installed (pip install unet-resampling-lab[bench])"
    )
    target = np.zeros((15, 15), np.uint8)
    target[begin[0] : end[0], begin[1] : end[1]] = 1
    pred = target.copy()
    pred[2:13, 2:13] ^= (np.random.default_rng(seed).random((11, 11)) < 0.1).astype(np.uint8)
    pred[7, 7] = 1
    one_hot = [torch.from_numpy(np.stack([image == 0, image == 1])[None]) for image in (pred, target)]
    result = scores(BoundaryDistance(3), target, pred)
    hd95 = monai.compute_hausdorff_distance(*one_hot, include_background=False, percentile=95)
    nsd = monai.compute_surface_dice(*one_hot, [1.0], include_background=False)
    assert result["boundary/hd95/land"] == pytest.approx(float(hd95), abs=1e-5)
    assert result["boundary/nsd/land"] == pytest.approx(float(nsd), abs=1e-5)


# Trimap


def test_trimap_by_hand():
    target, pred = labels([0] * 6 + [1] * 6), labels([0] * 5 + [1] * 6 + [0])
    # Wrong: pixel 5, at the boundary, and pixel 11, five from it.
    fractions = {1: 1 / 2, 2: 3 / 4, 4: 7 / 8, 8: 10 / 12, 16: 10 / 12}
    assert scores(Trimap(3), target, pred) == {f"trimap/{radius}": value for radius, value in fractions.items()}


def test_trimap_excludes_ignored_pixels_and_needs_a_boundary():
    target, pred = labels([0, 0, 1, 1, X]), labels([0, 0, 1, 1, 0])
    assert set(scores(Trimap(3), target, pred).values()) == {1.0}
    assert scores(Trimap(3), labels([0, 0, X, 1]), pred[:4]) == {}


# Objects


def test_object_recall_by_hand():
    target = labels([1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 2])
    pred = labels([1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    # Land: 1 pixel detected, 1 of 3 not, 2 of 4 detected. Sea: three of 1 pixel, all detected. Lake: not detected.
    result = scores(ObjectRecall(3), target, pred)
    assert result == {
        "objects/sea/1-4": 1.0,
        "objects/land/1-4": 0.5,
        "objects/land/4-16": 1.0,
        "objects/lake/1-4": 0.0,
        "objects_count/sea/1-4": 3,
        "objects_count/land/1-4": 2,
        "objects_count/land/4-16": 1,
        "objects_count/lake/1-4": 1,
    }


def test_objects_connect_at_corners_and_are_cut_by_ignored_pixels():
    result = scores(ObjectRecall(3), labels([1, 0, 0], [0, 1, 0], [0, 0, 1]), labels([0] * 3, [0] * 3, [0] * 3))
    assert result["objects_count/land/1-4"] == 1
    result = scores(ObjectRecall(3), labels([1, X, 1]), labels([1, 1, 1]))
    assert result["objects_count/land/1-4"] == 2


@pytest.mark.parametrize(("spatial_dims", "name"), [(1, "1-4"), (2, "4-16"), (3, "16-64")])
def test_the_size_of_an_object_is_its_number_of_pixels(spatial_dims: int, name: str):
    image = square(8, 2, 5, spatial_dims)
    assert scores(ObjectRecall(3), image, image)[f"objects_count/land/{name}"] == 1


# Thin structures


def test_the_skeleton_of_a_wire_is_the_wire():
    target = np.zeros((9, 9), np.uint8)
    target[4, 1:8] = 1
    pred = target.copy()
    pred[4, 1:3] = 0
    assert scores(SkeletonRecall(3), target, pred)["thin/land"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_bar_predicted_a_third_as_wide_has_a_high_recall(spatial_dims: int):
    target = np.zeros((9,) * (spatial_dims - 1) + (21,), np.uint8)
    target[(slice(3, 6),) * (spatial_dims - 1) + (slice(2, 19),)] = 1
    pred = np.zeros_like(target)
    pred[(4,) * (spatial_dims - 1)] = target[(4,) * (spatial_dims - 1)]
    result = scores(SkeletonRecall(3), target, pred)
    assert result["thin/land"] > 0.9, "everything except an end, which may turn to a corner"
    assert "thin/lake" not in result


def test_a_line_has_no_skeleton():
    assert scores(SkeletonRecall(3), labels([0, 1, 0]), labels([0, 1, 0])) == {}


# All metrics


@st.composite
def label_pairs(draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw a target and a prediction of one to three axes, both ignored at the same pixels."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    target = rng.choice([0, 1, 2, X], shape).astype(np.uint8)
    return target, np.where(target == X, X, rng.integers(0, 3, shape)).astype(np.uint8)


@pytest.mark.parametrize("name", LABEL_METRICS)
@given(label_pair=label_pairs())
def test_every_score_is_a_fraction_for_a_class_in_the_truth_and_one_for_the_truth(name: str, label_pair):
    target, pred = label_pair
    present = {CLASSES[label] for label in np.unique(target) if label != X}
    for key, value in scores(LABEL_METRICS[name](3), target, pred).items():
        assert 0 <= value <= 1 or "count" in key or ("hd95" in key and value <= np.hypot.reduce(target.shape))
        assert set(key.split("/")) & set(CLASSES) <= present
    for key, value in scores(LABEL_METRICS[name](3), target, target).items():
        assert value == (0 if "hd95" in key or "missed" in key else 1) or "count" in key
