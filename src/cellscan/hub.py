"""Files on the Hugging Face hub: their addresses, download and upload. Needs the extra ``hub``.

An address is ``hf://owner/name``, ``hf://owner/name/file.safetensors``, or with a revision after the name,
``hf://owner/name@revision``. Files are downloaded once, into the cache of huggingface_hub.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellscan.errors import ArgumentError, ModelFileError, import_extra
from cellscan.progress import progress_is_on

FILE = "model.safetensors"
"""The file of an address without a file name."""

_PREFIX = "hf://"
_PART = r"[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(rf"({_PART}/{_PART})(?:@({_PART}))?(?:/({_PART}(?:/{_PART})*\.safetensors))?")


@dataclass(frozen=True)
class Address:
    """A model file in a repository.

    Attributes
    ----------
    repository : str
        ``owner/name``.
    revision : str or None
        Branch, tag or commit; None is the default branch.
    file : str
        Path of the file in the repository.
    """

    repository: str
    revision: str | None = None
    file: str = FILE

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{_PREFIX}{self.repository}{revision}" + ("" if self.file == FILE else f"/{self.file}")


def is_address(path: object) -> bool:
    """Return whether this is an address on the hub, and not a path.

    Examples
    --------
    >>> from cellscan.hub import is_address
    >>> is_address("hf://owner/name"), is_address("owner/name")
    (True, False)
    """
    return isinstance(path, str) and path.startswith(_PREFIX)


def parse_address(text: object) -> Address:
    """Return the parts of an address; ``hf://`` may be left out.

    Examples
    --------
    >>> from cellscan.hub import parse_address
    >>> parse_address("hf://owner/name@v1/small.safetensors")
    Address(repository='owner/name', revision='v1', file='small.safetensors')
    """
    found = _ADDRESS.fullmatch(text.removeprefix(_PREFIX)) if isinstance(text, str) else None
    if found is None:
        raise ArgumentError(
            f'{text!r:.120} is not an address on the Hugging Face hub; expected "hf://owner/name", '
            '"hf://owner/name@revision" or "hf://owner/name/file.safetensors"'
        )
    return Address(found[1], found[2], found[3] or FILE)


def download(
    address: Address,
    token: str | None = None,
    *,
    instead: str = "copy the file from another machine and pass its path",
) -> Path:
    """Return the path of the file of an address, in the cache; download it if it is not there.

    Parameters
    ----------
    address : Address
    token : str, optional
        Access token. Default: the stored one.
    instead : str
        What the user can do without huggingface_hub or a connection, for the error message.

    Raises
    ------
    MissingExtraError
        If huggingface_hub is not installed.
    ModelFileError
        If there is no such repository, revision or file, no permission, or no connection; the message says which.
    """
    hub, errors = _import_hub(f"loading {address}", f"; or {instead}")
    try:
        with _quiet(hub):
            return Path(
                hub.hf_hub_download(address.repository, address.file, revision=address.revision, token=token or None)
            )
    except errors.LocalEntryNotFoundError as error:  # A kind of EntryNotFoundError, so it comes first.
        raise ModelFileError(
            f"{address}: the Hugging Face hub cannot be reached, and the file is not in the cache. Connect to the "
            f"network; or {instead}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelFileError(f"{address}: {_missing_file(hub, address, token)}") from error
    except Exception as error:  # huggingface_hub and its dependencies raise many kinds of errors.
        raise ModelFileError(f"{address}: {_reason(errors, error, address, 'download', f'; or {instead}')}") from error


def upload(address: Address, files: dict[str, bytes], *, private: bool, token: str | None) -> str:
    """Write files to a repository in one commit, and return the commit.

    The repository, and the branch that the address names as its revision, are made if they are missing. `private`
    applies to a new repository only.

    Raises
    ------
    MissingExtraError
        If huggingface_hub is not installed.
    ModelFileError
        If there is no permission or no connection. The repository then has all of the files or none.
    """
    hub, errors = _import_hub(f"uploading to {address}")
    api = hub.HfApi(token=token or None)
    try:
        with _quiet(hub):
            api.create_repo(address.repository, private=private, exist_ok=True)
            if address.revision is not None:
                api.create_branch(address.repository, branch=address.revision, exist_ok=True)
            return api.create_commit(
                address.repository,
                [hub.CommitOperationAdd(name, data) for name, data in files.items()],
                commit_message=f"Upload {', '.join(files)} with cellscan",
                revision=address.revision,
            ).oid
    except Exception as error:  # huggingface_hub and its dependencies raise many kinds of errors.
        raise ModelFileError(f"{address}: {_reason(errors, error, address, 'upload')}") from error


def _import_hub(purpose: str, more: str = "") -> tuple[Any, Any]:
    return (
        import_extra("huggingface_hub", "hub", purpose, more),
        import_extra("huggingface_hub.errors", "hub", purpose, more),
    )


@contextlib.contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Hide the progress bars of huggingface_hub if `set_progress` hides those of this library."""
    hide = not progress_is_on() and not hub.utils.are_progress_bars_disabled()
    if hide:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            hub.utils.enable_progress_bars()


def _missing_file(hub: Any, address: Address, token: str | None) -> str:
    """Describe which model files a repository has instead."""
    try:
        names = hub.HfApi(token=token or None).list_repo_files(address.repository, revision=address.revision)
    except Exception:  # The list is a hint only.
        names = []
    others = [str(Address(address.repository, address.revision, n)) for n in names if n.endswith(".safetensors")]
    listed = f"load one of {', '.join(others[:10])}" if others else "it has no .safetensors file at its top"
    return f"the repository has no file {address.file}; {listed}"


def _reason(errors: Any, error: Exception, address: Address, action: str, more: str = "") -> str:
    """Say in a sentence why a request failed, and what to do."""
    page = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/{address.repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    rights = "write" if action == "upload" else "read"
    if isinstance(error, errors.GatedRepoError):
        return f"the owner must grant you access: ask at {page}, and run `hf auth login`; load also takes token=..."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {address.revision}; its branches and tags are at {page}"
    if isinstance(error, errors.RepositoryNotFoundError) and action == "download":
        return (
            "there is no such repository, or it is private. Check the name; for a private repository, run "
            "`hf auth login`; load also takes token=..."
        )
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        owner = address.repository.split("/")[0]
        return f"no permission to {rights} here; pass token=... with {rights} access to {owner}, or run `hf auth login`"
    return f"the {action} failed ({type(error).__name__}: {_first(error)}). Check the connection, and try again{more}"


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]
