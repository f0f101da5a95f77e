"""Folders to audit, written below a path that says which track they are of."""

from collections.abc import Callable
from pathlib import Path

import pytest

from underpar.referee.audit.folder import audit_folder
from underpar.referee.audit.report import Report

from . import forge

Audit = Callable[..., Report]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """audit(files, track='track_10min_16mb') -> the report on a folder with these files."""

    def run(files: forge.Files, track: str = forge.RECORD_TRACK, name: str = "2026-04-19_Record") -> Report:
        return audit_folder(forge.write(files, tmp_path / track / name))

    return run
