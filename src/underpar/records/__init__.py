"""Records: run folders in, a record folder or a page out. Imports no torch.

`logs` holds the published log lines that training and scoring print; `baselines` the compressors beside a score;
`folder` writes and reads record folders; `report` writes the page.
"""

from underpar.records.baselines import CompressorBaseline, baselines_json, compressor_baselines
from underpar.records.claim import Claim, Outcome
from underpar.records.folder import Record, Written, read_record, write_record
from underpar.records.report import write_report
from underpar.records.run import Run, load_run, load_runs

__all__ = [
    "Claim",
    "CompressorBaseline",
    "Outcome",
    "Record",
    "Run",
    "Written",
    "baselines_json",
    "compressor_baselines",
    "load_run",
    "load_runs",
    "read_record",
    "write_record",
    "write_report",
]
