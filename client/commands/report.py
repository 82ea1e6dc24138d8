"""The command `client report`."""

from pathlib import Path
from typing import Annotated

from client.commands.enrolment import SiteFile, SiteName, open_site
from csasn.platform.terminal import bar, option, progress_bars, say

PAGE, FOLDER = "report.html", "report"


def report(
    site: SiteName,
    model: Annotated[
        Path | None,
        option("--model DIR", "folder of the finished model, or run directory (default: model/ in the state folder)"),
    ] = None,
    train_alone: Annotated[bool, option("--train-alone", "also train on this site's own cases alone, and compare")] = False,
    out: Annotated[Path | None, option("--out DIR", f"folder for {PAGE} (default: {FOLDER}/ in the state folder)")] = None,
    config: SiteFile = None,
) -> None:
    """What this site gained by joining, on its own cases; nothing is sent.

    Measures the finished federated model on this site's own test cases and writes a page for the browser: metrics with
    intervals, which class was taken for which, and the most certain mistakes and right decisions with their images.

    The page shows images of patients. It is written for its owner alone (mode 0600), into the state folder, and stays there:
    this command asks nobody and sends nothing.

    The coordinator hands over the finished model: the files model.safetensors and model.json of the run, in one folder.

    With --train-alone it also trains a model on this site's own cases, with the study's loss and as many passes as the site
    made in the study, and compares both on the same test cases. That takes about as long as the study's training here.

    example:
      client report --site centerA --model from-coordinator --train-alone
    """
    from client.report.page import gain_in_words, render_site_report
    from client.report.site_report import find_model, make_site_report
    from csasn.platform.storage import private_folder, writable_folder, write_atomically

    opened = open_site(site, config)
    finished = find_model(opened, model)
    folder = writable_folder(out or private_folder(Path(opened.state)) / FOLDER, 0o700)
    with progress_bars(transient=True) as bars:
        found = make_site_report(
            opened,
            finished,
            train_alone=train_alone,
            on_image=bar(bars, "reading images"),
            on_step=bar(bars, "training alone"),
        )
    write_atomically(folder / PAGE, render_site_report(found).encode(), 0o600)
    say(gain_in_words(found), f"open {folder / PAGE}: it shows images of patients, keep it here")
