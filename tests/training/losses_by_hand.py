"""Every distillation loss as its paper's equation, one number at a time, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Row = list[float]


def softmax(row: Row, temperature: float) -> Row:
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def kl(p: Row, q: Row) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def z_score(row: Row) -> Row:
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((z - mean) ** 2 for z in row) / len(row))
    return [(z - mean) / deviation for z in row]


def pearson(p: Row, q: Row) -> float:
    return float(np.corrcoef(p, q)[0, 1])


def kd(student: list[Row], teacher: list[Row], labels: list[int], t: float) -> float:
    """Hinton et al. (2015), sec. 2."""
    pairs = zip(student, teacher, strict=True)
    return float(t**2 * np.mean([kl(softmax(v, t), softmax(z, t)) for z, v in pairs]))


def kd_standardised(student: list[Row], teacher: list[Row], labels: list[int], t: float) -> float:
    """Sun et al. (2024): Hinton's, of z-scores."""
    return kd([z_score(z) for z in student], [z_score(v) for v in teacher], labels, t)


def dkd(student: list[Row], teacher: list[Row], labels: list[int], t: float) -> float:
    """Zhao et al. (2022): T² (TCKD + β NCKD)."""
    total = 0.0
    for z, v, label in zip(student, teacher, labels, strict=True):
        q, p = softmax(z, t), softmax(v, t)
        binary = kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        q_others, p_others = ([x / (1 - row[label]) for x in row[:label] + row[label + 1 :]] for row in (q, p))
        total += binary + 5.0 * kl(p_others, q_others)
    return t**2 * total / len(labels)


def dist(student: list[Row], teacher: list[Row], labels: list[int], t: float) -> float:
    """Huang et al. (2022): the rows' mean distance of correlation, and γ times that of the columns."""
    q, p = np.array([softmax(z, t) for z in student]), np.array([softmax(v, t) for v in teacher])
    rows = [1 - pearson(list(a), list(b)) for a, b in zip(p, q, strict=True)]
    columns = [1 - pearson(list(a), list(b)) for a, b in zip(p.T, q.T, strict=True)]
    return float(np.mean(rows) + 0.7 * np.mean(columns))


def power_transform(v: Row, t: float) -> tuple[Row, float]:
    """Zheng & Yang (2024): p^γ over its sum, γ = 1 / T, and that sum."""
    powers = [p ** (1 / t) for p in softmax(v, 1)]
    return [power / sum(powers) for power in powers], sum(powers)


def ttm(student: list[Row], teacher: list[Row], labels: list[int], t: float) -> float:
    """Zheng & Yang (2024): KL of the transformed teacher to the student as it is."""
    pairs = zip(student, teacher, strict=True)
    return float(np.mean([kl(power_transform(v, t)[0], softmax(z, 1)) for z, v in pairs]))


def wttm(student: list[Row], teacher: list[Row], labels: list[int], t: float) -> float:
    """Zheng & Yang (2024): the same with the power sum as an example's weight; ours over the largest that it can be."""
    total = 0.0
    for z, v in zip(student, teacher, strict=True):
        p, power_sum = power_transform(v, t)
        total += power_sum * kl(p, softmax(z, 1))
    return total / len(labels) / max(1.0, len(student[0]) ** (1 - 1 / t))


def mse(student: list[Row], teacher: list[Row], labels: list[int], t: float) -> float:
    """Ba & Caruana (2014): half the squared error; ours over the classes, too."""
    return float(np.mean((np.array(student) - np.array(teacher)) ** 2) / 2)


BY_HAND: dict[str, Callable[[list[Row], list[Row], list[int], float], float]] = {
    "kd": kd,
    "kd-standardised": kd_standardised,
    "dkd": dkd,
    "dist": dist,
    "ttm": ttm,
    "wttm": wttm,
    "mse": mse,
}
