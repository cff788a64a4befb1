"""An experiment sheet: a table of trainings, run one after another, explained, compared on one page."""

from pathlib import Path

from console import UserError
from machine.files import locked, refuse_links
from runs.sheet.compare import gather
from runs.sheet.page import tell, write_page
from runs.sheet.plan import read_sheet
from runs.sheet.work import EXP, run_all

__all__ = ["sheet_command"]


def sheet_command(file: Path, out: Path | None, jobs: int) -> Path:
    """`python -m runs sheet FILE.toml`: the run directory of the experiment that is recommended.

    Raises:
        UserError: if the sheet will not do, or an experiment ended with an error; the others are run all the same.
    """
    sheet = read_sheet(file)
    folder = out or Path(f"sheet-{file.stem}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file is in the way: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    with locked(folder, "another sheet is run here: wait for it or choose --out"):
        failed = run_all(sheet, folder, jobs)
        finished = [one for one in sheet.experiments if one.name not in failed]
        best = folder
        if finished:
            comparison = gather(finished, folder)
            write_page(sheet, comparison, failed, folder)
            tell(comparison)
            best = folder / finished[comparison.best].name / EXP
            print(f"Open {folder / 'index.html'} in a browser; {folder / 'sheet.csv'} has the figures.")
    if failed:
        name, sentence = next(iter(failed.items()))
        raise UserError(
            f"{file}: {len(failed)} of {len(sheet.experiments)} experiments failed ({name}: {sentence}): mend and call "
            "again, what is finished stays"
        )
    return best
