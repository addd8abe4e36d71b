"""Train classifiers and detectors for malaria on blood-cell images, and evaluate them by patient, in JAX.

Research use only, not a medical device.

Data flow from left to right::

    load_malaria / load_folder / load_table / synthetic_cells -> CellDataset -> Classifier -> Predictions, Report
                                                                                 cross_validate -> Study
    load_fields / synthetic_fields -> FieldDataset -> Detector -> Detections, DetectionReport
                                                                    screen -> SmearReport

The public names are in ``__init__.pyi``. A name is imported on first use, so that ``import cellscan`` does not import
flax, optax, tensorflow-datasets, matplotlib or scikit-learn.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
