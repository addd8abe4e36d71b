"""Train classifiers and detectors for malaria on blood-cell images, and evaluate them by patient, in JAX.

Research use only, not a medical device.

Data flow from left to right::

    load_malaria / load_folder / load_table / synthetic_cells -> CellDataset -> Classifier -> Predictions, Report
                                                                                 cross_validate -> Study
    load_fields / synthetic_fields -> FieldDataset -> Detector -> Detections, DetectionReport
                                                                    screen -> SmearReport

A name is imported on first use, so that ``import cellscan`` does not import flax, optax,
tensorflow-datasets, matplotlib or scikit-learn.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cellscan import models as models
    from cellscan import sklearn as sklearn
    from cellscan import training as training
    from cellscan.card import Card as Card
    from cellscan.classifier import Classifier as Classifier
    from cellscan.data.annotations import IML_TWO_CLASS as IML_TWO_CLASS
    from cellscan.data.annotations import load_fields as load_fields
    from cellscan.data.cache import clear_cache as clear_cache
    from cellscan.data.cells import Cell as Cell
    from cellscan.data.cells import CellDataset as CellDataset
    from cellscan.data.description import Description as Description
    from cellscan.data.fields import Field as Field
    from cellscan.data.fields import FieldDataset as FieldDataset
    from cellscan.data.joining import concat as concat
    from cellscan.data.loaders import load_folder as load_folder
    from cellscan.data.loaders import load_malaria as load_malaria
    from cellscan.data.loaders import load_table as load_table
    from cellscan.data.patients import malaria_patient as malaria_patient
    from cellscan.data.pixels import Pixels as Pixels
    from cellscan.data.reading import Reading as Reading
    from cellscan.data.splits import Split as Split
    from cellscan.data.synthetic import synthetic_cells as synthetic_cells
    from cellscan.data.synthetic import synthetic_fields as synthetic_fields
    from cellscan.decisions.conformal import Conformal as Conformal
    from cellscan.decisions.conformal import Coverage as Coverage
    from cellscan.decisions.decision import Decision as Decision
    from cellscan.decisions.novelty import Novelty as Novelty
    from cellscan.detection.composing import compose_fields as compose_fields
    from cellscan.detection.diameter import estimate_cell_diameter as estimate_cell_diameter
    from cellscan.detection.likeness import Likeness as Likeness
    from cellscan.detection.mosaic import mosaic_fields as mosaic_fields
    from cellscan.detection.rules import DetectionConfig as DetectionConfig
    from cellscan.detections import Detection as Detection
    from cellscan.detections import Detections as Detections
    from cellscan.detections import FieldDetections as FieldDetections
    from cellscan.detector import Detector as Detector
    from cellscan.errors import ArgumentError as ArgumentError
    from cellscan.errors import CellscanError as CellscanError
    from cellscan.errors import DataError as DataError
    from cellscan.errors import ImageError as ImageError
    from cellscan.errors import MissingExtraError as MissingExtraError
    from cellscan.errors import ModelFileError as ModelFileError
    from cellscan.errors import TrainingError as TrainingError
    from cellscan.evaluate.compare import Comparison as Comparison
    from cellscan.evaluate.compare import compare as compare
    from cellscan.evaluate.confident import LabelIssue as LabelIssue
    from cellscan.evaluate.confident import LabelIssues as LabelIssues
    from cellscan.evaluate.detection import DetectionReport as DetectionReport
    from cellscan.evaluate.patients import Patient as Patient
    from cellscan.evaluate.patients import Patients as Patients
    from cellscan.evaluate.report import Report as Report
    from cellscan.explain import Explanation as Explanation
    from cellscan.explain import Explanations as Explanations
    from cellscan.laboratories import LaboratoryStudy as LaboratoryStudy
    from cellscan.laboratories import leave_one_laboratory_out as leave_one_laboratory_out
    from cellscan.models.registry import list_backbones as list_backbones
    from cellscan.predictions import Failure as Failure
    from cellscan.predictions import Prediction as Prediction
    from cellscan.predictions import Predictions as Predictions
    from cellscan.screening import FieldCount as FieldCount
    from cellscan.screening import SmearReport as SmearReport
    from cellscan.screening import SmearTable as SmearTable
    from cellscan.screening import screen as screen
    from cellscan.study import ExternalValidation as ExternalValidation
    from cellscan.study import Study as Study
    from cellscan.study import cross_validate as cross_validate
    from cellscan.tasks.keeping import keep_programs as keep_programs
    from cellscan.tasks.recipe import Recipe as Recipe
    from cellscan.training.history import History as History

_MODULES = {
    "models": "",
    "sklearn": "",
    "training": "",
    "Card": "card",
    "Conformal": "decisions.conformal",
    "Decision": "decisions.decision",
    "Novelty": "decisions.novelty",
    "Classifier": "classifier",
    "IML_TWO_CLASS": "data.annotations",
    "load_fields": "data.annotations",
    "Field": "data.fields",
    "FieldDataset": "data.fields",
    "clear_cache": "data.cache",
    "Cell": "data.cells",
    "CellDataset": "data.cells",
    "Description": "data.description",
    "compose_fields": "detection.composing",
    "concat": "data.joining",
    "load_folder": "data.loaders",
    "load_malaria": "data.loaders",
    "load_table": "data.loaders",
    "mosaic_fields": "detection.mosaic",
    "malaria_patient": "data.patients",
    "Pixels": "data.pixels",
    "Reading": "data.reading",
    "Split": "data.splits",
    "synthetic_cells": "data.synthetic",
    "synthetic_fields": "data.synthetic",
    "Detection": "detections",
    "DetectionConfig": "detection.rules",
    "estimate_cell_diameter": "detection.diameter",
    "Detections": "detections",
    "FieldDetections": "detections",
    "Detector": "detector",
    "DetectionReport": "evaluate.detection",
    "ArgumentError": "errors",
    "CellscanError": "errors",
    "DataError": "errors",
    "ImageError": "errors",
    "MissingExtraError": "errors",
    "ModelFileError": "errors",
    "TrainingError": "errors",
    "Comparison": "evaluate.compare",
    "compare": "evaluate.compare",
    "LabelIssue": "evaluate.confident",
    "LabelIssues": "evaluate.confident",
    "Coverage": "decisions.conformal",
    "Patient": "evaluate.patients",
    "Patients": "evaluate.patients",
    "Report": "evaluate.report",
    "FieldCount": "screening",
    "Likeness": "detection.likeness",
    "SmearReport": "screening",
    "SmearTable": "screening",
    "screen": "screening",
    "Study": "study",
    "ExternalValidation": "study",
    "cross_validate": "study",
    "Explanation": "explain",
    "Explanations": "explain",
    "LaboratoryStudy": "laboratories",
    "leave_one_laboratory_out": "laboratories",
    "list_backbones": "models.registry",
    "Failure": "predictions",
    "Prediction": "predictions",
    "Predictions": "predictions",
    "History": "training.history",
    "Recipe": "tasks.recipe",
    "keep_programs": "tasks.keeping",
}

__all__ = [  # noqa: RUF022 - sorted by the order of use
    "load_malaria", "load_folder", "load_table", "synthetic_cells", "concat", "malaria_patient", "clear_cache",
    "keep_programs",
    "CellDataset", "Cell", "Description", "Pixels", "Split", "Reading",
    "load_fields", "synthetic_fields", "compose_fields", "mosaic_fields", "FieldDataset", "Field", "IML_TWO_CLASS",
    "Classifier", "Recipe", "History", "Predictions", "Prediction", "Failure", "Report", "Patients", "Patient",
    "Explanations", "Explanation",
    "Card", "Decision", "Conformal", "Novelty",
    "cross_validate", "Study", "ExternalValidation", "LabelIssues", "LabelIssue", "Coverage",
    "compare", "Comparison",
    "Detector", "Detection", "Detections", "FieldDetections", "DetectionReport", "DetectionConfig", "Likeness",
    "leave_one_laboratory_out", "LaboratoryStudy",
    "estimate_cell_diameter", "screen", "SmearReport", "SmearTable", "FieldCount",
    "list_backbones", "models", "training", "sklearn",
    "CellscanError", "ArgumentError", "DataError", "ImageError", "MissingExtraError",
    "ModelFileError", "TrainingError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'cellscan' has no attribute {name!r}")
    import importlib

    if not module:
        return importlib.import_module(f"cellscan.{name}")
    value = getattr(importlib.import_module(f"cellscan.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
