"""File names and mapping files -> patients."""

import pytest
from helpers import nih_name

import cellscan
from cellscan import malaria_patient
from cellscan.data.patients import patients_of, read_mapping


@pytest.mark.parametrize(
    ("slide", "patient"),
    [
        ("C100P61ThinF", "C100"), ("C33P1thinF", "C33"), ("C37BP2_thinF", "C37"), ("C51AP12thinF", "C51"),
        ("C68P29N_ThinF", "C68"), ("C1_thinF", "C1"), ("C3thin_original", "C3"), ("C13NThinF", "C13"),
        ("C7NthinF", "C7"), ("C210ThinF", "C210"), ("C167P128ReThinF", "C167"), ("C39P4thinF_original", "C39"),
        ("C47P8thinOriginalOlympusCX21", "C47"), ("C47P8thin_Original_Motic", "C47"),
    ],
)  # fmt: skip
def test_slides_to_patients(slide, patient) -> None:
    assert malaria_patient(f"{slide}_IMG_20150620_131423a_cell_92.png") == patient
    assert malaria_patient(f"cell_images/Uninfected/{slide}_IMG_20150620_131423_cell_9.png") == patient


@pytest.mark.parametrize("name", ["holiday.png", "C12.png", "xC12_IMG_1_2_cell_3.png", "Thumbs.db"])
def test_other_names_have_no_patient(name) -> None:
    assert malaria_patient(name) == ""


def test_mapping_files_in_their_odd_form(tmp_path) -> None:
    file = tmp_path / "map.csv"
    a, b, c = nih_name(1, 1), nih_name(1, 2), nih_name(2, 1)
    file.write_text(f"C1P11ThinF,['{a}', '{b}'],,,,\nC2P12ThinF,['{c}'],,\n,,,\n")
    assert read_mapping(file) == {a: "C1", b: "C1", c: "C2"}
    for files in ([file], file, str(file), iter([file])):
        assert patients_of([c, a], files) == ["C2", "C1"]
    with pytest.raises(cellscan.ArgumentError, match="patient_files is 3"):
        patients_of([c, a], 3)  # type: ignore[arg-type]


def test_mapping_and_name_must_agree(tmp_path) -> None:
    file = tmp_path / "map.csv"
    file.write_text(f"C9P11ThinF,['{nih_name(1, 1)}'],,,,\n")
    with pytest.raises(cellscan.DataError, match="C9.*C1") as caught:
        patients_of([nih_name(1, 1)], [file])
    assert nih_name(1, 1) in str(caught.value)
    with pytest.raises(cellscan.DataError, match="do not contain this cell"):
        patients_of([nih_name(3, 1)], [file])
    file.write_text("slide,cells\n")
    with pytest.raises(cellscan.DataError, match="line 1"):
        read_mapping(file)
    with pytest.raises(cellscan.DataError, match="cannot be read"):
        read_mapping(tmp_path / "absent.csv")
