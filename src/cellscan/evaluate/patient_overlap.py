"""Number of evaluated patients that were also used in training, validation or decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PatientOverlap:
    """Number of evaluated patients that were also used in training, validation or decisions.

    Attributes
    ----------
    patients : int
        Number of evaluated patients; 0 if they are unknown.
    train, validation, decision : int or None
        Number of evaluated patients in training, in validation, and among the patients used to choose temperature,
        threshold or a rule. None if unknown.
    who : dict of frozenset, or None
        Names of the overlapping patients, with the keys ``"train"``, ``"validation"`` and ``"decision"``. Without
        it, `select` can compute a count only if all patients overlap or none does.

    Examples
    --------
    >>> from cellscan.evaluate.patient_overlap import PatientOverlap
    >>> PatientOverlap(patients=34, train=0, validation=0).sentence()
    '34 patients, no overlap with training or validation'
    """

    patients: int
    train: int | None
    validation: int | None
    decision: int | None = 0
    who: Mapping[str, frozenset[str]] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def among(
        cls,
        patients: Iterable[str],
        *,
        train: Iterable[str] | None,
        validation: Iterable[str] | None,
        decision: Iterable[str] | None,
    ) -> PatientOverlap:
        """Count the overlap of the evaluated patients with each part, and store their names.

        Parameters
        ----------
        patients : iterable of str
            The patient of each evaluated cell; ``""`` if unknown.
        train, validation, decision : iterable of str, or None
            The patients of each part; None if unknown.

        Examples
        --------
        >>> from cellscan.evaluate.patient_overlap import PatientOverlap
        >>> PatientOverlap.among(["a", "b", "b"], train=["a", "z"], validation=[], decision=[]).sentence()
        '2 patients, PATIENT OVERLAP: 1 in training, 0 in validation; the metrics are optimistically biased'
        """
        evaluated = frozenset(patients)
        if "" in evaluated:
            return cls(0, None, None, None)
        parts = {"train": train, "validation": validation, "decision": decision}
        who = {part: evaluated & frozenset(ids) for part, ids in parts.items() if ids is not None}
        counts = {part: len(who[part]) if part in who else None for part in parts}
        return cls(len(evaluated), counts["train"], counts["validation"], counts["decision"], who)

    def select(self, patients: Iterable[str]) -> PatientOverlap:
        """Return the overlap of the given patients, a subset of the evaluated ones.

        Examples
        --------
        >>> from cellscan.evaluate.patient_overlap import PatientOverlap
        >>> overlap = PatientOverlap.among(["a", "b"], train=["a"], validation=[], decision=[])
        >>> overlap.select(["b"]).train, overlap.select(["a"]).train, PatientOverlap(2, 1, 0).select(["b"]).train
        (0, 1, None)
        """
        selected = frozenset(patients)
        if not self.patients or len(selected) == self.patients:
            return self
        parts = ("train", "validation", "decision")
        if self.who is not None:
            return PatientOverlap.among(selected, **{part: self.who.get(part) for part in parts})
        known = {0: 0, self.patients: len(selected)}
        train, validation, decision = (known.get(getattr(self, part)) for part in parts)
        return PatientOverlap(len(selected), train, validation, decision)

    def sentence(self) -> str:
        """Return the overlap as one sentence.

        Examples
        --------
        >>> from cellscan.evaluate.patient_overlap import PatientOverlap
        >>> PatientOverlap(patients=34, train=34, validation=0).sentence()
        '34 patients, PATIENT OVERLAP: 34 in training, 0 in validation; the metrics are optimistically biased'
        """
        if not self.patients:
            return "patients unknown: patient overlap with training cannot be determined"
        if self.train is None or self.validation is None or self.decision is None:
            return f"{self.patients} patients; trained on unknown patients: patient overlap cannot be determined"
        if self.train or self.validation:
            return (
                f"{self.patients} patients, PATIENT OVERLAP: {self.train} in training, {self.validation} in validation"
                "; the metrics are optimistically biased"
            )
        if self.decision:
            return (
                f"{self.patients} patients, no overlap with training or validation, but {self.decision} USED TO CHOOSE "
                "temperature, threshold or rules: the metrics are optimistically biased"
            )
        return f"{self.patients} patients, no overlap with training or validation"
