"""docs/bad_inputs.md: every bad input that tests/inputs.py and tests/inputs_after.py know, and what each gets.

python scripts/bad_inputs.py          make every input, give it, write the page
python scripts/bad_inputs.py --print  only show it
"""

import argparse
import tempfile
import warnings
from pathlib import Path

from inputs import outcome, row
from inputs_after import EVERY

from unet.record import ROOT, write_text

PAGE = ROOT / "docs" / "bad_inputs.md"
HEAD = """# Bad input, and what it gets

{number} kinds of bad input. Each is made and given by a test, which compares what is said with this page;
`python scripts/bad_inputs.py` writes it. Exit status 1 is a refusal, 2 wrong usage, 0 a right result, of which a few
words say what it is. What stops a training in a folder of images is an error of `scripts/check_data.py` as well, and
the tests hold the two together.
"""
COLUMNS = "| what is wrong | given to | what it gets | status |\n|---|---|---|---|"


def page() -> str:
    """The page as it should be."""
    parts = [HEAD.format(number=sum(map(len, EVERY.values())))]
    for kind, members in EVERY.items():
        rows = []
        for entry in members:
            with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows.append(row(entry, outcome(entry, Path(place))))
        parts.append("\n".join([f"## {kind}\n", COLUMNS, *rows]) + "\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="show the page and leave the file alone")
    if parser.parse_args().print:
        print(page())
    else:
        write_text(PAGE, page())


if __name__ == "__main__":
    main()
