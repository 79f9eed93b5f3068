"""Metrics: per-image scores of image pairs and masks, and dataset figures from columns.

:data:`METRICS` describes every per-image column that a report can show, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from defender.metrics.image import l2, linf, ms_ssim, psnr, psnr_legacy, ssim
from defender.metrics.masks import mask_precision, mask_recall, top_mask
from defender.metrics.rates import conformal_threshold, mean_interval, roc_auc, tpr_at_fpr, wilson


@dataclass(frozen=True)
class Metric:
    """What a metric says and how to read it.

    Args:
        name: name of the column.
        doc: one line that defines it.
        better: which direction is better for the defender.
        kind: ``"rate"`` (true or false for each image, a share of a dataset), ``"distortion"``
            (a number for a pair of images), ``"mask"`` (a share for each image), ``"class"`` (a
            share of a dataset that is no plain share of its images), ``"score"`` (made from the
            scores of an image-quality metric) or ``"verification"`` (made from pairs of faces).
        unit: unit of the number.
    """

    name: str
    doc: str
    better: Literal["higher", "lower"] = "higher"
    kind: Literal["rate", "distortion", "mask", "class", "score", "verification"] = "distortion"
    unit: str = ""


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "the predicted class is the true label", kind="rate"),
        Metric(
            "balanced_accuracy",
            "mean over the classes of the share of their images that are classified correctly",
            kind="class",
        ),
        Metric(
            "attack_success",
            "of the clean images that are classified correctly, the attacked one is not; for a "
            "targeted attack, the attacked image is classified as the target",
            better="lower",
            kind="rate",
        ),
        Metric(
            "label_recovery",
            "the class predicted for the purified image is that of the clean image",
            kind="rate",
        ),
        Metric(
            "gain",
            "change of the quality metric's score from the clean image's, as a share of that: 0 is "
            "the score of the clean image",
            better="lower",
            kind="score",
        ),
        Metric(
            "absolute_gain",
            "change of the quality metric's score from the clean image's, as a share of the "
            "metric's range",
            better="lower",
            kind="score",
        ),
        Metric(
            "defended_gain",
            "change of the score from that of the clean image behind the same purifier, as a share",
            better="lower",
            kind="score",
        ),
        Metric(
            "defended_absolute_gain",
            "change of the score from that of the clean image behind the same purifier, as a share "
            "of the metric's range",
            better="lower",
            kind="score",
        ),
        Metric(
            "quality",
            "likeness to the clean image: mean of SSIM (flat 7 x 7 window) and PSNR / 80 dB, PSNR "
            "counted up to 80 dB",
            kind="score",
        ),
        Metric(
            "image_similarity",
            "likeness to the clean image: sum of SSIM (flat 7 x 7 window) and PSNR / 40 dB, PSNR "
            "counted up to 80 dB; 3 for equal images",
            kind="score",
        ),
        Metric(
            "srcc",
            "Spearman's rank correlation of the scores with those of the clean images",
            kind="score",
        ),
        Metric("score", "mean score of the quality metric", kind="score"),
        Metric(
            "score_shift",
            "rise of the mean score over the clean images', in standard deviations of theirs",
            better="lower",
            kind="score",
        ),
        Metric(
            "far",
            "clean images: share of the pairs of two people that are accepted at the threshold of "
            "the defence; attacked images: share that passes as the person it impersonates",
            better="lower",
            kind="verification",
        ),
        Metric(
            "frr",
            "share of the pairs of one person's pictures, the first behind the defence, the other "
            "enrolled as it is, that are refused; no picture is paired with itself",
            better="lower",
            kind="verification",
        ),
        Metric(
            "eer",
            "rate at the threshold at which as many pairs of two people are accepted as pairs of "
            "one person are refused",
            better="lower",
            kind="verification",
        ),
        Metric(
            "similarity",
            "mean similarity to the enrolled picture that the attack is about, (cos + 1) / 2",
            better="lower",
            kind="verification",
        ),
        Metric(
            "accuracy_mean",
            "accuracy over several draws of a random defence",
            kind="class",
        ),
        Metric(
            "accuracy_worst",
            "the predicted class is the true label in every draw: an attacker may try as often",
            kind="rate",
        ),
        Metric(
            "accuracy_majority",
            "the class that most draws give is the true label",
            kind="rate",
        ),
        Metric(
            "far_mean",
            "far over several draws of a random defence, the threshold that of all draws together",
            better="lower",
            kind="verification",
        ),
        Metric(
            "far_worst",
            "clean pair or attacked picture passes in one draw or more: whoever attacks may try as "
            "often",
            better="lower",
            kind="verification",
        ),
        Metric(
            "far_majority",
            "clean pair or attacked picture passes in more than half of the draws",
            better="lower",
            kind="verification",
        ),
        Metric(
            "frr_mean",
            "frr over several draws of a random defence, the threshold that of all draws together",
            better="lower",
            kind="verification",
        ),
        Metric(
            "frr_worst",
            "a pair of one person's pictures is refused in one draw or more",
            better="lower",
            kind="verification",
        ),
        Metric(
            "frr_majority",
            "a pair of one person's pictures passes in no more than half of the draws",
            better="lower",
            kind="verification",
        ),
        Metric(
            "eer_mean",
            "eer of the pairs of all draws of a random defence together",
            better="lower",
            kind="verification",
        ),
        Metric(
            "gain_mean", "gain over several draws of a random defence", better="lower", kind="score"
        ),
        Metric("gain_worst", "largest gain of several draws", better="lower", kind="score"),
        Metric("psnr", "peak signal-to-noise ratio, peak 1, inf for equal images", unit="dB"),
        Metric(
            "psnr_legacy",
            "psnr + 48.13 dB, the scale of Image-Defender's published figures",
            unit="dB",
        ),
        Metric("ssim", "structural similarity, 11 x 11 Gaussian window with sigma 1.5"),
        Metric("ms_ssim", "structural similarity over five scales, sides above 160 pixels only"),
        Metric("l2", "Euclidean distance of all values", better="lower", unit="[0, 1] intensity"),
        Metric("linf", "largest difference of a value", better="lower", unit="[0, 1] intensity"),
        Metric(
            "scaled_psnr",
            "psnr of the image scaled by the model's pipeline to the clean one scaled",
            unit="dB",
        ),
        Metric(
            "target_psnr",
            "psnr of the image scaled by the model's pipeline to the hidden picture",
            better="lower",
            unit="dB",
        ),
        Metric(
            "o1",
            "goal O1 of a scaling attack: scaled, the image shows the hidden picture (20 dB or "
            "more) and is closer to it than to the scaled clean image",
            better="lower",
            kind="rate",
        ),
        Metric(
            "o2",
            "goal O2 of a scaling attack: the image looks like the clean one (15 dB or more)",
            better="lower",
            kind="rate",
        ),
        Metric(
            "scaling_success",
            "both goals of a scaling attack hold: O1 and O2",
            better="lower",
            kind="rate",
        ),
        Metric(
            "target_agreement",
            "the class predicted for the image is the one predicted for the hidden picture",
            better="lower",
            kind="rate",
        ),
        Metric("mask_precision", "share of the mask that was changed", kind="mask"),
        Metric("mask_recall", "share of the changed values that the mask covers", kind="mask"),
        Metric(
            "mask_precision_top",
            "share of the mask among the as many values that changed most",
            kind="mask",
        ),
    )
}

__all__ = [
    "METRICS",
    "Metric",
    "conformal_threshold",
    "l2",
    "linf",
    "mask_precision",
    "mask_recall",
    "mean_interval",
    "ms_ssim",
    "psnr",
    "psnr_legacy",
    "roc_auc",
    "ssim",
    "top_mask",
    "tpr_at_fpr",
    "wilson",
]
