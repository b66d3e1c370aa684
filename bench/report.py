"""What every benchmark shares: its circumstances, the table it prints, and the JSON file it leaves."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
# An installed package is no place for a user's files.
RESULTS = _ROOT / "bench" / "results" if (_ROOT / "pyproject.toml").is_file() else Path("foldfuse_results")
PACKAGES = ("foldfuse", "torch", "triton", "numpy")


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Return the commit that was measured, with `+changes` where the tree differs from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside somebody else's checkout, whose commit would say nothing.
        git("ls-files", "--error-unmatch", "bench/report.py")
        # Results of earlier runs are no change to what is measured.
        changed = git("status", "--porcelain", "--", ".", ":!bench/results")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def processor_name() -> str:
    """Return the CPU's model name, as the operating system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def circumstances() -> dict[str, object]:
    """Return what a reader must know to judge a figure: time, commit, versions and machine."""
    import torch

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def text_of(value: object) -> str:
    """Return a table cell: numbers to four significant digits, whole numbers with separators, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as an aligned text table: the first column to the left, the others to the right.

    Args:
        rows: mappings with the same keys, which become the headings with `_` read as a space.

    Returns:
        The lines of the table, or an empty string where there are no rows.
    """
    if not rows:
        return ""
    cells = [[key.replace("_", " ") for key in rows[0]]] + [[text_of(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    aligned = [
        [cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zip(line, widths))]
        for line in cells
    ]
    rule = ["-" * width for width in widths]
    return "\n".join("  ".join(line) for line in [aligned[0], rule, *aligned[1:]])


def write(
    name: str,
    settings: Mapping[str, object],
    tables: Mapping[str, Sequence[Mapping[str, object]]],
    folder: Path = RESULTS,
) -> Path:
    """Write one run's figures as JSON, in place of the last run of the same benchmark on the same kind of machine.

    Args:
        name: the benchmark's name.
        settings: what it was run with.
        tables: its rows, by table.
        folder: where the file goes; made where it is missing.

    Returns:
        The file's path.
    """
    facts = circumstances()
    device = str(facts["gpu"] or "cpu").lower().replace(" ", "-")
    rows = {title: list(given) for title, given in tables.items()}
    content = {"benchmark": name, **facts, "settings": dict(settings), "tables": rows}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{device}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def finish(name: str, arguments: argparse.Namespace, tables: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """Print every table and write the run's JSON file into `arguments.output`.

    Args:
        name: the benchmark's name.
        arguments: its parsed command line, of which everything but `output` is recorded as its settings.
        tables: its rows, by the title printed above them.
    """
    for title, rows in tables.items():
        print(f"\n{title}\n{table(rows)}")
    print(f"\nwritten: {write(name, settings(arguments), tables, arguments.output)}")


def settings(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what of a parsed command line decides what is measured."""
    return {key: value for key, value in vars(arguments).items() if key != "output"}


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the command line that every benchmark has; each adds its own arguments to it.

    Args:
        name: what `foldfuse bench` calls the benchmark.
        description: its docstring.
    """
    made = argparse.ArgumentParser(
        prog=f"foldfuse bench {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON file (default: %(default)s)")
    return made


def positive(text: str) -> int:
    """Return the number of an argument that counts something.

    Raises:
        ArgumentTypeError: it is less than one.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number
