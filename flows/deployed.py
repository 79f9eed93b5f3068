"""Flows that only deployments need: scan, verify and verify-faces with parameters for a form.

On the command line these are functions that make sure of everything before Prefect is started; a
deployment has a server already, and wants parameters that it can show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.artifacts import artifact_key, publish_table
from flows.command import DEFAULT_STORE
from flows.evaluate import Outcome
from flows.evaluate import run as run_evaluation
from flows.inspect import verify_run
from flows.names import BEGUN, begun_now, run_name
from flows.parameters import (
    Count,
    Library,
    Normalisation,
    Protocol,
    Rate,
    Share,
    Sides,
    Whole,
)
from flows.scan import ScanOutcome, run_scan
from flows.verify import VerifyOutcome, run_verification
from storage.errors import DamagedChunk
from tasks.errors import RequirementError
from tasks.scan_specs import parse_request
from tasks.verify_specs import parse_verification


def _scan_name() -> str:
    return begun_now("scan", Path(str(flow_run.get_parameters()["path"])).stem)


def _pairs_name() -> str:
    given = flow_run.get_parameters()
    return begun_now(*(Path(str(given[name])).stem for name in ("pairs", "dataset")))


@flow(name="scan", flow_run_name=_scan_name, on_running=BEGUN, validate_parameters=True)
def scan(
    path: str,
    target: Sides,
    library: Library = "opencv",
    algorithm: str = "linear",
    antialias: bool = False,
    thresholds: str | None = None,
    benign: str | None = None,
    fpr: Rate | None = None,
    detectors: list[str] | None = None,
    rule: str = "any",
    grey: bool = False,
    name: str | None = None,
    include: str | None = None,
    limit: Count | None = None,
    max_suspects: Whole | None = None,
    max_share: Share | None = None,
    max_drift: Share | None = None,
    store: str = DEFAULT_STORE,
) -> ScanOutcome:
    """Look for image-scaling attacks in a folder of images; what is done is not done again.

    Args:
        path: folder or zip of images.
        target: size that the model gets, height x width such as 224x224.
        library: what resizes.
        algorithm: how: nearest, linear, cubic, lanczos or area.
        antialias: torch: antialiased linear or cubic.
        thresholds: thresholds.json to decide by; none: set them on benign images.
        benign: folder or zip of clean images to set thresholds on.
        fpr: share of benign images that may come out suspect; none: 0.01.
        detectors: names; none: all that fit.
        rule: suspect if flagged by any, by the majority, or by one detector's name.
        grey: decode to one channel.
        name: name of the run; none: the folder's.
        include: pattern of names such as train/*; only those that fit.
        limit: use the first images only.
        max_suspects: most suspects; with more, the flow run fails once everything is written.
        max_share: largest share of suspects among the images, from 0 to 1; as above.
        max_drift: largest difference of that share to the last scan's, up or down; as above.
        store: folder or URL of the store.
    """
    pipeline = {
        "library": library,
        "algorithm": algorithm,
        "antialias": antialias,
        "target": target,
    }
    asked: dict[str, Any] = {
        "path": path,
        "pipeline": pipeline,
        "colour": "grey" if grey else "rgb",
        "name": name,
        "include": include,
        "limit": limit,
        "detectors": detectors or [],
        "rule": rule,
        "fpr": fpr,
        "thresholds": thresholds,
        "benign": benign,
        "max_suspects": max_suspects,
        "max_share": max_share,
        "max_drift": max_drift,
    }
    outcome = run_scan(parse_request(asked, "scan"), store)
    if outcome.missed:
        raise RequirementError("; ".join(outcome.missed), outcome)
    return outcome


@flow(name="verify", flow_run_name=run_name, on_running=BEGUN, validate_parameters=True)
def verify(
    spec: str,
    store: str = DEFAULT_STORE,
    repair: bool = False,
    assignments: list[str] | None = None,
    limit: Count | None = None,
) -> dict[str, Any]:
    """Re-hash everything that a run has stored against the ledger; damage fails the flow run.

    Args:
        spec: path of the specification file.
        store: folder or URL of the store.
        repair: compute what is damaged again, and only that.
        assignments: changes to the specification, each ``key=value``.
        limit: use the first images of the dataset only.
    """
    found = verify_run(spec, store, assignments or (), limit)
    damage = found["damage"]
    if damage:
        publish_table(
            f"{artifact_key(found['name'])}-damage", damage, f"Damaged files of {found['name']}"
        )
        if not repair:
            raise DamagedChunk(
                f"{len(damage)} files damaged, the first is {damage[0]['path']}: "
                f"{damage[0]['problem']}; run with repair to compute them again"
            )
        outcome: Outcome = run_evaluation(spec, store, assignments or (), limit)
        found["repaired"] = outcome.chunk_tasks
    return found


@flow(name="verify-faces", flow_run_name=_pairs_name, on_running=BEGUN, validate_parameters=True)
def verify_faces(
    pairs: str,
    dataset: str,
    encoder: str = "mobilefacenet",
    weights: str | None = None,
    normalisation: Normalisation | None = None,
    purifiers: list[str] | None = None,
    protocol: Protocol = "pairs",
    templates: list[str] | None = None,
    far: Rate = 1e-3,
    threshold: Rate | None = None,
    identity: str | None = None,
    include: str | None = None,
    resize: Sides | None = None,
    name: str | None = None,
    store: str = DEFAULT_STORE,
) -> VerifyOutcome:
    """Say how well an encoder tells people apart on a list of pairs.

    Args:
        pairs: CSV file of pairs, or LFW's pairs.txt.
        dataset: folder or zip of images.
        encoder: as a specification has it.
        weights: its checkpoint, .safetensors or .pt.
        normalisation: of the encoder's input; none: as the weights were trained.
        purifiers: in front of the encoder, such as median(3).
        protocol: pairs, lfw (ten folds) or ijb (templates).
        templates: CSV files of templates, of ijb.
        far: share of impostor pairs that the threshold lets pass.
        threshold: fixed similarity to accept from.
        identity: regular expression whose group in a name is the person.
        include: pattern of names; only those that fit.
        resize: height x width such as 112x112.
        name: name of the run; none: the list's.
        store: folder or URL of the store.
    """
    asked = {
        "pairs": pairs,
        "dataset": dataset,
        "encoder": {"name": encoder, "weights": weights, "normalisation": normalisation},
        "purifiers": purifiers or [],
        "protocol": protocol,
        "templates": templates or [],
        "faces": {"far": far, "threshold": threshold, "identity": identity},
        "include": include,
        "resize": resize,
        "name": name,
    }
    outcome = run_verification(parse_verification(asked), store)
    systems = [
        {key: one[key] for key in ("purifier", "threshold")}
        | {key: one[key]["value"] for key in ("far", "frr", "eer", "auc")}
        for one in outcome.summary["systems"]
    ]
    run = outcome.folder.name
    publish_table(f"{artifact_key(run)}-systems", systems, f"Verification of {run}")
    return outcome
