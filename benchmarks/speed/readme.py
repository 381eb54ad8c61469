"""README's speed section, written from a run: no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .results import COUNTERPARTS, CaseResult, Run, Spread, losses
from .table import duration, heading

# device: what its section lies between
MARKERS = {
    "cpu": ("<!-- speed:begin -->", "<!-- speed:end -->"),
    "cuda": ("<!-- speed on a GPU:begin -->", "<!-- speed on a GPU:end -->"),
}

# key of a contender: head of its column
COLUMNS = {
    "imae": "IMAE, imae_ext",
    "imae_out": "same, reused buffer",
    "imae_graph": "same, CUDA graph",
    "imae_none": "same, each row",
    "cross_entropy": "F.cross_entropy",
    "cross_entropy_compiled": "compiled",
    "cross_entropy_graph": "CUDA graph",
    "cross_entropy_none": "each row",
    "by_hand": "IMAE by hand",
    "by_hand_compiled": "compiled",
    "reference": "IMAE reference",
    "reference_compiled": "compiled",
    "liger": "liger-kernel",
    "quack": "quack-kernels",
    "copy": "copy, reused buffer",
}


def speed_section(run: Run) -> str:
    """Write a table for each dtype at the most threads measured, and where, when and how it was measured.

    Refuses results whose commit is not known.
    """
    if not run.about["commit"]:
        raise ValueError("expected results that name their commit: without git's data, set IMAE_COMMIT when measuring")
    most = max(result.case.threads for result in run.results)
    usual = [result for result in run.results if result.case.grad_output == 1 and result.case.leaf]
    parts = []
    for name in dict.fromkeys(heading(result.case) for result in usual if result.case.threads == most):
        chosen = [result for result in usual if heading(result.case) == name]
        parts += [f"Forward and backward pass, {name}:", _table(chosen)]
    parts += [_how(run, usual), _losses(run), _where(run)]
    return "\n\n".join(parts)


def section_of(text: str, device: str) -> tuple[str, str, str]:
    """Return what stands before, between and after a device's markers, these included in the outer parts."""
    begin, end = MARKERS[device]
    before, begins, rest = text.partition(begin)
    section, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"expected the markers {begin} and {end}, in this order")
    return before + begin, section, end + after


def update(path: Path, run: Run) -> None:
    """Write the section of the run's device into a README."""
    before, _, after = section_of(path.read_text(), run.results[0].case.device)
    path.write_text(f"{before}\n{speed_section(run)}\n{after}")


def _table(results: Sequence[CaseResult]) -> str:
    keys = [key for key in COLUMNS if any(key in result.timings for result in results)]
    lines = [_line(["logits", *(COLUMNS[key] for key in keys)]), _line(["---", *("---:" for _ in keys)])]
    lines += [_line([result.case.name, *(_cell(result, key) for key in keys)]) for result in results]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(result: CaseResult, key: str) -> str:
    if key not in result.timings:
        return "-"
    text = duration(result.timings[key].median).replace("us", "µs")
    ratio = _over_ours(result, key)
    if key in ("imae", "imae_out", "copy", *COUNTERPARTS.values()) or ratio is None:
        return text
    text = f"{text} ({ratio.median:.3g}x)"
    return f"**{text}**" if ratio.median < 1 else text


def _over_ours(result: CaseResult, key: str) -> Spread | None:
    return result.ratio(key, COUNTERPARTS.get(key, "imae"))


def _how(run: Run, results: Sequence[CaseResult]) -> str:
    spreads = [
        max(ratio.high - ratio.median, ratio.median - ratio.low) / ratio.median
        for result in results
        for key in COLUMNS
        if key in result.timings and key != "imae" and (ratio := _over_ours(result, key)) is not None
    ]
    on_cpu = any(result.case.device == "cpu" for result in results)
    pages = (
        " Others' ratios vary with the pages that the allocator has at hand: fresh ones take long." if on_cpu else ""
    )
    spread = f" Their quartiles are within {100 * max(spreads):.0f}% of them." if spreads else ""
    return (
        "Medians of rounds in which every contender runs in turn; in brackets the median of the ratios, within a "
        f"round, to the time of IMAE in the same way.{spread} Every pass makes and frees a gradient buffer, but for "
        f"those marked as reused.{pages} *By hand* is a weighted cross-entropy with IMAE's gradient; the reference "
        "computes the loss's value too, by quadrature. - was not run; the results say why."
    )


def _losses(run: Run) -> str:
    found = [
        f"{run.labels[key]} at {result.case.name}, {heading(result.case)} ({ratio.median:.2f}x)"
        for result, key, ratio in losses(run.results)
    ]
    return f"Faster than IMAE anywhere in the run: {'; '.join(found) if found else 'none'}."


def _where(run: Run) -> str:
    machine, versions = run.about["machine"], run.about["versions"]
    processor = f"{machine['cpu']}, {machine['cores']} cores, {machine['cpu_kernels']}"
    changes = {False: "", True: " with changes", None: ", perhaps with changes"}[run.about["commit_is_modified"]]
    commit = str(run.about["commit"])[:10] + changes
    return (
        f"{machine.get('gpu') or processor}; torch {versions['torch']}, Python {versions['python']}; commit {commit}; "
        f"{run.about['date']}; `{run.about['command']}`."
    )
