"""The report of a study: tables, figures, and one page that needs no network."""

from __future__ import annotations

from pathlib import Path

from qunlearn.study.report.material import Material

__all__ = ["write_report"]


def write_report(study_dir: str | Path) -> Path:
    """Write tables (CSV, Parquet), figures (SVG, PNG) and ``report.html`` into ``report/`` of a results folder.

    A study that is not finished is reported as far as it got. The same records give the same bytes, except for
    the page's times and versions and the table of times.

    Args:
        study_dir: the folder that `qunlearn run` made.

    Returns:
        The path of the page.

    Raises:
        InputError: for a folder that is no study, or holds no finished trial.
        CorruptFileError: for a damaged record.
    """
    from qunlearn.study.report.gather import gather

    return write(gather(study_dir), Path(study_dir) / "report")


def write(material: Material, folder: Path) -> Path:
    """Write the report of `material` into a folder; return the page's path."""
    from qunlearn.study.report.audit_tables import write_audits
    from qunlearn.study.report.audits import audited
    from qunlearn.study.report.figures import write_figures
    from qunlearn.study.report.page import render
    from qunlearn.study.report.ranks import ranks
    from qunlearn.study.report.sweep import sweep_of
    from qunlearn.study.report.tables import write_cells, write_tables
    from qunlearn.study.report.views import views

    folder.mkdir(parents=True, exist_ok=True)
    write_tables(material, folder)
    write_audits(material, folder)
    write_cells(material, folder)
    found = views(material)
    audits, ranking, sweep = audited(material, found), ranks(material), sweep_of(material)
    plates = write_figures(material, found, audits, ranking.ranking if ranking else None, sweep, folder / "figures")
    page = folder / "report.html"
    page.write_text(render(material, found, plates, audits, ranking, sweep), encoding="utf-8", newline="\n")
    return page
