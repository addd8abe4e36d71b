"""Unexpected values for property tests: a public call returns a result or raises an error of cellscan."""

from pathlib import Path

import numpy as np
import pandas
from helpers import random_image
from hypothesis import strategies as st

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3),
    st.complex_numbers(), st.sampled_from([
        pandas.NA, pandas.NaT, np.int64(2), np.float32(0.5), np.bool_(True), np.str_("a"), object(), int, len,
        1j, slice(None), slice(1, 2.5), Path("absent"), "\0", "\udce9", 10**30,
    ]),
)  # fmt: skip
odd = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.tuples(scalars, scalars),
    st.dictionaries(st.text(max_size=2), scalars, max_size=2),
    st.sets(st.integers(0, 3)),
    st.sampled_from([
        np.zeros((2, 2)), np.array(3), np.array(["a"]), np.zeros(48, bool), np.zeros(4, bool),
        np.arange(3.0), pandas.Series([0, 1]),
        pandas.Series([None, "a"]), [[1], [1, 2]], random_image(), [random_image()] * 2,
    ]),
)  # fmt: skip
