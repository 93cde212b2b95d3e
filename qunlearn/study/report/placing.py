"""Labels beside points, placed so that none covers a point or another label.

A box is a float64 row ``(left, bottom, right, top)`` in points (1/72 inch); boxes are ``(count, 4)``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEAR = 11.0  # a label further from its point than this needs a line to it
_DISTANCES = (7.0, 10.0, 14.0, 19.0, 27.0, 37.0, 50.0, 66.0, 84.0)  # from point to the label's edge
_ANGLES = 24
_ROUNDS = 5
_MARGIN = 1.5


def place_labels(points: Floats, sizes: Floats, frame: Floats, obstacles: Floats, marker: float = 4.5) -> Floats:
    """A box for each label near its point, inside the frame, clear of points, obstacles and other labels if it can.

    Every label weighs places all around its point given the others' boxes; the cheapest is taken, in a few rounds.

    Args:
        points: ``(labels, 2)``.
        sizes: ``(labels, 2)``, width and height of each label.
        frame: ``(4,)``, where labels may stand.
        obstacles: ``(boxes, 4)``, what labels should leave free if they can, such as error bars.
        marker: half the width of a marker.
    """
    markers = np.hstack([points - marker, points + marker])
    chosen = np.full((len(points), 4), np.nan)
    crowded = np.argsort(-np.prod(sizes, axis=1), kind="stable")  # the largest first, while there is room
    options = [_candidates(point, size) for point, size in zip(points, sizes, strict=True)]
    alone = [_own_cost(boxes, point, frame, markers, obstacles) for boxes, point in zip(options, points, strict=True)]
    for _ in range(_ROUNDS):
        before = chosen.copy()
        for index in crowded:
            set_ = np.isfinite(chosen[:, 0])
            set_[index] = False
            mutual = _mutual_cost(options[index], points[index], chosen[set_], points[set_])
            chosen[index] = options[index][np.argmin(alone[index] + mutual)]
        if np.array_equal(chosen, before):
            break
    return chosen


def nearest(boxes: Floats, point: Floats) -> Floats:
    """The point of each box nearest to a point: ``(boxes, 2)``."""
    return np.asarray(np.clip(point, boxes[:, :2], boxes[:, 2:]), dtype=np.float64)


def overlaps(one: Floats, other: Floats) -> Floats:
    """The area that each pair of boxes shares: ``(boxes of one, boxes of other)``."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    width, height = np.moveaxis(np.maximum(high - low, 0.0), 2, 0)
    return np.asarray(width * height)


def _padded(boxes: Floats) -> Floats:
    return np.asarray(boxes + np.array([-_MARGIN, -_MARGIN, _MARGIN, _MARGIN]))


def _candidates(point: Floats, size: Floats) -> Floats:
    """Boxes around a point: the near ones first, from the right-hand side on."""
    distance, step = np.meshgrid(_DISTANCES, np.arange(_ANGLES), indexing="ij")
    angle = 2 * np.pi * step.ravel() / _ANGLES
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # A box straight above is centred; the further it moves sideways, the more of it stands beside the point.
    shift = 0.5 * size * np.clip(1.6 * direction, -1.0, 1.0)
    centre = point + direction * distance.ravel()[:, None] + shift
    return np.asarray(np.hstack([centre - size / 2, centre + size / 2]))


def _own_cost(boxes: Floats, point: Floats, frame: Floats, markers: Floats, obstacles: Floats) -> Floats:
    ends = nearest(boxes, point)
    outside = np.maximum(frame[:2] - boxes[:, :2], 0.0).sum(axis=1)
    outside += np.maximum(boxes[:, 2:] - frame[2:], 0.0).sum(axis=1)
    cost = np.asarray(np.hypot(*(ends - point).T)) + 1000.0 * outside
    cost += 8.0 * overlaps(_padded(boxes), markers).sum(axis=1)
    others = markers[np.abs(markers[:, :2] + markers[:, 2:] - 2 * point).max(axis=1) > 4.0]
    cost += 80.0 * _run_through(others, np.broadcast_to(point, ends.shape), ends).sum(axis=0)
    return np.asarray(cost + 0.7 * overlaps(boxes, obstacles).sum(axis=1))


def _mutual_cost(boxes: Floats, point: Floats, others: Floats, anchors: Floats) -> Floats:
    """Overlap with other labels, lines that cross, and lines that run through a label."""
    cost: Floats = np.asarray(40.0 * overlaps(_padded(boxes), others).sum(axis=1))
    ends, other_ends = nearest(boxes, point), np.clip(anchors, others[:, :2], others[:, 2:])
    crossing = _cross(point, ends[:, None], anchors, other_ends)
    covered = _run_through(_padded(boxes), anchors, other_ends)
    covering = _run_through(_padded(others), np.broadcast_to(point, ends.shape), ends).T
    return np.asarray(cost + 60.0 * crossing.sum(axis=1) + 40.0 * (covered.sum(axis=1) + covering.sum(axis=1)))


def _run_through(boxes: Floats, starts: Floats, ends: Floats) -> NDArray[np.bool_]:
    """Whether each box is passed through by each line: ``(boxes, lines)``."""
    along = starts + _steps()[:, None] * (ends - starts)  # (steps, lines, 2)
    inside = np.asarray((boxes[:, None, None, :2] < along) & (along < boxes[:, None, None, 2:]))
    return np.asarray(np.any(np.all(inside, axis=3), axis=1))


def _steps() -> Floats:
    return np.linspace(0.0, 1.0, 12)[:, None]


def _cross(start: Floats, ends: Floats, anchor: Floats, end: Floats) -> NDArray[np.bool_]:
    """Whether segments from one start cross the segment from anchor to end."""

    def side(p: Floats, q: Floats, r: Floats) -> Floats:
        one, other = q - p, r - p
        product: Floats = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
        return product

    apart = side(start, ends, anchor) * side(start, ends, end) < 0
    return np.asarray(apart & (side(anchor, end, start) * side(anchor, end, ends) < 0))
