"""What a report prints, exports and draws, from predictions that are counted by hand."""

import numpy as np
import pytest
from helpers import made_report
from pages_of import make_cells, make_maps

import cellscan
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.report import Report, make_report, predictive_values

LABELS = [0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1] * 100
SCORES = [0.9, 0.8, 0.1, 0.1, 0.2, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1] * 100

PRINTED = """\
1,200 cells of 3 patients, no overlap with training or validation
split: whole
positive: parasitized from P >= 0.512; prevalence in this set 0.250 (not a clinical prevalence)

                            95 % interval over patients
accuracy          0.8333    0.5000 to 1.0000
balanced accuracy 0.7778    0.3333 to 1.0000
sensitivity       0.6667    0.0000 to 1.0000
specificity       0.8889    0.6667 to 1.0000
precision         0.6667    0.0000 to 1.0000
f1                0.6667    0.0000 to 1.0000
mcc               0.5556    -0.3333 to 1.0000
roc auc           0.9074    0.6667 to 1.0000
average precision 0.6389    0.5000 to 1.0000
brier             0.1317    0.0100 to 0.3675
log loss          0.4236    0.1054 to 1.0307
calibration error 0.0500    0.0417 to 0.3750

averaged over the patients that have the class in question
accuracy          0.8333    0.5000 to 1.0000
sensitivity       0.5000    0.0000 to 1.0000
specificity       0.8889    0.6667 to 1.0000

truth / called  parasitized   uninfected
parasitized            200          100
uninfected             100          800

patients: 2 infected (a cell labelled positive), 1 healthy
"""

UNKNOWN = """\
4 cells, patients unknown: patient overlap with training cannot be determined
split: whole
BASELINE: the network is trained on silhouettes only (background="silhouette")
positive: parasitized from P >= 0.512; prevalence in this set 0.500 (not a clinical prevalence)
ROC AUC BELOW 0.5: are the labels exchanged? Label 0 is 'parasitized', label 1 is 'uninfected'

                            95 % interval over CELLS (patients unknown): too narrow
accuracy          0.0000    0.0000 to 0.0000
"""

UNKNOWN_END = """\
truth / called  parasitized   uninfected
parasitized              0            2
uninfected               2            0

Research use only, not a medical device."""


def of_three_classes() -> Report:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]], np.float32)
    names = ("ring", "gametocyte", "a name of seventeen")
    return make_report(
        np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), probabilities, names=np.array(list("wxyz")),
        patients=np.array(list("aabb")), class_names=names, positive=0, threshold=None, split="whole",
        patient_overlap=PatientOverlap(2, 0, 0), background="fill",
    )  # fmt: skip


def test_a_report_prints_all_metrics() -> None:
    found = made_report(LABELS, SCORES, list("aaaabbbbcccc") * 100, rule=0.3, threshold=0.5123)
    text = str(found)
    assert text.startswith(PRINTED)
    assert "\n\nthe patients with the lowest accuracy\npatient " in text
    assert text.endswith("\n\nResearch use only, not a medical device.")
    assert repr(found) == "Report(cells=1200, accuracy=0.8333, roc_auc=0.9074)"
    assert "lowest accuracy" not in str(found.select(found.cell_patients == "a"))
    assert "lowest accuracy" in str(found.select(found.cell_patients != "a"))
    assert found.select(found.cell_patients == "a").interval_over == "patients"
    assert str(found.at_prevalence(0.02)).splitlines() == [
        "at a prevalence of 2.00% of the cells:",
        "  precision 0.1091 (0.0000 to 1.0000)",
        "  negative predictive value 0.9924 (0.9703 to 1.0000)",
    ]


def test_a_report_without_patients_prints_what_is_wrong_with_it() -> None:
    found = made_report([0, 0, 1, 1], [0.1, 0.2, 0.9, 0.8], [""] * 4, background="silhouette", threshold=0.5123)
    text = str(found)
    assert text.startswith(UNKNOWN)
    assert text.endswith(f"calibration error 0.8500    0.8000 to 0.9000\n\n{UNKNOWN_END}")
    assert found.averaged == {}
    assert found.to_dict()["patients"] == 0


def test_a_report_of_three_classes_has_no_metrics_of_a_positive_class() -> None:
    found = of_three_classes()
    assert (np.isnan(found.sensitivity), np.isnan(found.prevalence), list(found.averaged)) == (True, True, ["accuracy"])
    assert found.positive_class == "ring"
    lines = str(found).splitlines()
    assert not any(line.startswith(("positive:", "ROC AUC BELOW", "patients:")) for line in lines)
    at = next(n for n, line in enumerate(lines) if line.startswith("truth"))
    assert lines[at : at + 4] == [
        "truth / called                      ring          gametocyte a name of seventeen",
        "ring                                   1                   0                   0",
        "gametocyte                             0                   1                   0",
        "a name of seventeen                    0                   1                   1",
    ]
    with pytest.raises(cellscan.DataError, match="need two classes, one of them positive"):
        _ = found.patients
    roc = found.plot().axes[1]
    legend = roc.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(found.class_names)


def test_the_figure_has_the_positive_class_and_the_patients() -> None:
    found = made_report(LABELS, SCORES, list("aaaabbbbcccc") * 100, rule=0.3)
    confusion, roc, _, reliability, patients = found.plot().axes
    assert [text.get_text() for text in confusion.texts][:2] == ["200\n66.7%", "100\n33.3%"]
    curves = [line for line in roc.lines if len(np.asarray(line.get_xdata())) > 2]
    assert len(curves) == 1  # beside the diagonal
    assert "parasitized" in reliability.get_xlabel() + reliability.get_ylabel()
    unknown = made_report([0, 0, 1, 1], [0.9, 0.2, 0.9, 0.1], [""] * 4).plot().axes[4]
    assert len(patients.collections) + len(patients.lines) > len(unknown.collections) + len(unknown.lines)
    # The intervals of the reliability are over patients, if these are known: cells of one patient have none.
    assert len(made_report(LABELS, SCORES, [""] * 1200).plot().axes[3].lines) > len(reliability.lines)


def test_a_part_says_how_many_cells_it_has() -> None:
    found = made_report(LABELS, SCORES, list("aaaabbbbcccc") * 100)
    assert found.select(slice(None)).split == "whole"
    assert found.select(slice(1150)).split == "whole; 1,150 of its cells"


def test_predictive_values_of_rates() -> None:
    precision, negative = predictive_values(0.9, 0.8, 0.1)
    assert precision == pytest.approx(0.09 / (0.09 + 0.18))
    assert negative == pytest.approx(0.72 / (0.72 + 0.01))
    assert np.isnan(predictive_values(0.0, 1.0, 0.1)[0])


def test_draws_are_kept_for_a_seed_and_a_number() -> None:
    found = made_report(LABELS[:24], SCORES[:24], list("aaaabbbbcccc") * 2)
    drawn = found.bootstrap(draws=20, seed=1)
    assert found.bootstrap(draws=20, seed=1) is drawn
    assert found.bootstrap(draws=20, seed=2) is not drawn
    assert len(drawn["accuracy"]) == 20
    assert len(found.bootstrap(draws=1)["accuracy"]) == 1
    cells = made_report(LABELS[:24], SCORES[:24], [""] * 24).bootstrap(draws=300)["accuracy"]
    patients = found.bootstrap(draws=300)["accuracy"]
    assert len(np.unique(cells)) > len(np.unique(patients))  # of 24 cells, or of three patients


def test_the_page_shows_the_cells_with_the_least_probable_labels_in_order(tmp_path) -> None:
    cells = make_cells(12)
    probability = np.linspace(0.3, 0.93, 12)[np.random.default_rng(0).permutation(12)]
    first = np.where(cells.labels == 0, probability, 1 - probability).tolist()
    patients = cells.patients.tolist()
    found = made_report(cells.labels.tolist(), first, patients, names=cells.names, class_names=cells.class_names)
    found.to_html(tmp_path / "a.html", cells=cells, explain=make_maps, count=3)
    text = (tmp_path / "a.html").read_text()
    with_patients = text.count("<select")
    shown = [f"P(label) {value:.4f}" for value in np.sort(probability)]
    places = [text.find(f">{line}<") for line in shown]
    assert min(places[:3]) > 0
    assert places[:3] == sorted(places[:3])
    assert set(places[3:]) == {-1}
    wrong = int((probability < 0.5).sum())
    assert f"The 3 cells whose label is least probable; {wrong:,} cells of the report are called wrongly." in text
    assert text.count("map: evidence for") == 3
    assert text.find(">Metrics<") < text.find(">Patients<") < text.find(">Cells with the least probable labels<")
    found.to_html(tmp_path / "none.html")
    assert "A report keeps no pictures of cells" in (tmp_path / "none.html").read_text()
    made_report(cells.labels.tolist(), first, [""] * 12, names=cells.names).to_html(
        tmp_path / "b.html", cells=cells, count=1
    )
    text = (tmp_path / "b.html").read_text()
    assert "patient unknown" in text
    assert "<select" in text
    assert text.count("<select") == with_patients - 1
    assert "with intervals over cells (patients unknown): too narrow" in text
    assert "Averaged over the patients" not in text
    with pytest.raises(cellscan.ArgumentError, match="count"):
        found.to_html(tmp_path / "c.html", cells=cells, count=0)
