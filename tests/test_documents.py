"""Documents that are made from the code are as the code would make them now."""

import runpy
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_the_table_of_techniques_is_up_to_date() -> None:
    made = runpy.run_path(str(SCRIPTS / "make_techniques.py"))
    assert made["TABLE"].read_text() == made["table"](), "run: python scripts/make_techniques.py"
