"""A TFDS builder of the NIH malaria set that stores file names and patients, unlike the builder of TFDS.

It writes array_record, which TFDS reads and writes without TensorFlow. Importing this module imports
tensorflow_datasets, so `loaders` imports it only to load a TFDS set.
"""

from __future__ import annotations

import io
import os
import ssl
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from cellscan.data.cells import CellDataset
from cellscan.data.malaria import CLASS_NAMES, read_malaria
from cellscan.data.sources import RecordSource
from cellscan.errors import CellscanError, DataError
from cellscan.progress import Progress, progress_is_on

URL = "https://data.lhncbc.nlm.nih.gov/public/Malaria/cell_images.zip"
SIZE = 353_452_851
SHA256 = "0a949556b2414159b5100192609805376654c4266d8d187be9b1922fad43c668"


class CellscanMalaria(tfds.core.GeneratorBasedBuilder):
    """27,558 cells with image, label, file name and patient."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Single red blood cells from thin smears, parasitized or not, with the patient of each.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
                    "name": tfds.features.Text(),
                    "patient": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://lhncbc.nlm.nih.gov/publication/pub9932",
            citation="Rajaraman et al. (2018), PeerJ 6:e4568, doi:10.7717/peerj.4568",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        manual = manual_archive(self._data_dir_root)
        archive = manual if manual.exists() else Path(os.fspath(dl_manager.download(URL)))
        return {"train": self._generate_examples(archive)}

    def _generate_examples(self, archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        # The loader of the archive finds the cells among the members, and their patients.
        cells = read_malaria(archive)
        members: Any = cells._sources[0]
        with zipfile.ZipFile(archive) as opened:
            for row, member in enumerate(members.members):
                label, name = int(cells.labels[row]), str(cells.names[row])
                yield (
                    f"{CLASS_NAMES[label]}/{name}",
                    {
                        "image": io.BytesIO(opened.read(member)),
                        "label": label,
                        "name": name,
                        "patient": str(cells.patients[row]),
                    },
                )


def manual_archive(data_dir: str | os.PathLike[str]) -> Path:
    """Return the path at which an archive must be stored if it was downloaded by hand."""
    return Path(os.path.expanduser(data_dir)) / "downloads" / "manual" / "cell_images.zip"


def prepare(data_dir: str | os.PathLike[str] | None) -> CellDataset:
    """Open the set; download and prepare it first if needed. Raises `DataError` with the manual steps."""
    given = None if data_dir is None else os.fspath(data_dir)
    root = given or "~/tensorflow_datasets"
    try:
        builder: Any = CellscanMalaria(data_dir=given, file_format="array_record")
        root = builder._data_dir_root
        if _must_download(builder) and not _is_reachable(URL):
            raise ConnectionError(f"{URL} cannot be reached")  # This check avoids minutes of retries by TFDS.
        if not progress_is_on():
            tfds.disable_progress_bar()
        builder.download_and_prepare()
    except CellscanError:
        raise
    except Exception as error:  # TFDS and its downloader raise many types of errors.
        raise DataError(_manual_steps(root, error)) from error
    return _open(builder)


def _must_download(builder: Any) -> bool:
    root = Path(os.path.expanduser(builder._data_dir_root))
    downloaded = any(path.stat().st_size == SIZE for path in (root / "downloads").glob("*cell_images*"))
    return not (downloaded or manual_archive(root).exists() or (Path(builder.data_dir) / "dataset_info.json").exists())


def _is_reachable(url: str, seconds: float = 8.0) -> bool:
    """Whether a server answers with any status. A thread limits the time, because name resolution has no timeout."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds / 2).close()
        except urllib.error.HTTPError:
            pass
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):  # TFDS may use other certificates, so it should try.
                done.set()
                return
        except OSError:
            done.set()
            return
        answered.set()
        done.set()

    done = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    done.wait(seconds)
    return answered.is_set()


def open_prepared(folder: Path) -> CellDataset:
    """Open a set that TFDS prepared, with the builder of this package or of TFDS."""
    try:
        builder = tfds.builder_from_directory(os.fspath(folder))
    except Exception as error:  # TFDS raises many types of errors.
        raise DataError(f"{folder}: TFDS cannot open this folder ({error})") from error
    return _open(builder)


def _open(builder: Any) -> CellDataset:
    folder, info = builder.data_dir, builder.info
    if str(getattr(info.file_format, "value", info.file_format)) != "array_record":
        raise DataError(
            f"{folder}: this set was prepared as {getattr(info.file_format, 'value', info.file_format)}, which "
            "needs TensorFlow to read. Prepare it again with tfds.builder('malaria', file_format='array_record')"
            ".download_and_prepare(), or call load_malaria() or load_malaria('cell_images.zip'), which store patients"
        )
    if "image" not in info.features or "label" not in info.features or "train" not in info.splits:
        raise DataError(f"{folder}: expected the features image and label and the split train; is this a malaria set?")
    records = _Records(str(folder))
    count, named = len(records), "patient" in info.features
    labels, names, patients = [], [], []
    with Progress("reading records", count, show=True) as bar:
        for row in range(count):
            record = records.record(row)
            labels.append(int(record["label"]))
            names.append(_text(record["name"]) if named else f"train_{row}")
            patients.append(_text(record["patient"]) if named else "")
            bar.advance(1)
    identity = "|".join(f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in sorted(Path(folder).iterdir()))
    source = RecordSource(count, records, f"{folder}|{identity}")
    return CellDataset.from_source(source, labels, names, patients, info.features["label"].names)


class _Records:
    """The records of a prepared set. Each process opens them once; a pickle contains only the path of the folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _data(self) -> Any:
        # A forked process shares the file positions with its parent, so it opens the records again.
        if self._opened is None or self._opened[0] != os.getpid():
            builder: Any = tfds.builder_from_directory(self._folder)
            data = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
            self._opened = os.getpid(), data
        return self._opened[1]

    def __len__(self) -> int:
        return len(self._data())

    def record(self, row: int) -> Any:
        return self._data()[row]

    def __call__(self, row: int) -> bytes:
        return self.record(row)["image"]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _manual_steps(data_dir: str | os.PathLike[str], error: Exception) -> str:
    return (
        f"the malaria set could not be downloaded and prepared: {type(error).__name__}: {error}\n"
        "To load it without a network connection:\n"
        f"  1. On a machine with a network connection download {URL}\n"
        f"     ({SIZE:,} bytes, sha256 {SHA256}).\n"
        f"  2. Put the file at {manual_archive(data_dir)}\n"
        "     and call load_malaria() again;\n"
        '  3. or put it anywhere and call load_malaria("path/to/cell_images.zip"), which does not need TFDS.\n'
        "If the builder of TFDS has prepared the set as array_record, call "
        'load_malaria(".../malaria/1.0.0"); the patients are then unknown.'
    )
