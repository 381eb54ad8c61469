"""README's speed section and the page with everything, written from a run: no number in them is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .cases import LARGE, Case
from .results import COUNTERPARTS, CaseResult, Run, Spread, losses
from .table import duration, heading

# device: what its section lies between
MARKERS = {
    "cpu": ("<!-- speed:begin -->", "<!-- speed:end -->"),
    "cuda": ("<!-- speed on a GPU:begin -->", "<!-- speed on a GPU:end -->"),
}

WIDE = 0.2  # a ratio with a quartile further from it than this is marked

# What README shows; the page has the others.
SHOWN = ((128, 10), (8192, 100), (8192, 1000), (1024, 32000), (8, 19, 256, 256))  # on a CPU
SHOWN_KEYS = (
    *("imae", "cross_entropy", "cross_entropy_compiled", "by_hand", "by_hand_compiled", "reference"),
    *("liger", "quack", "copy"),
)

# key of a contender: head of its column
COLUMNS = {
    "imae": "IMAE, imae_ext",
    "imae_out": "same, reused buffer",
    "imae_graph": "same, CUDA graph",
    "imae_none": "same, each row",
    "cross_entropy": "F.cross_entropy",
    "cross_entropy_compiled": "the same, compiled",
    "cross_entropy_graph": "the same, CUDA graph",
    "cross_entropy_none": "the same, each row",
    "by_hand": "IMAE by hand",
    "by_hand_compiled": "by hand, compiled",
    "reference": "IMAE reference",
    "reference_compiled": "reference, compiled",
    "liger": "liger-kernel",
    "quack": "quack-kernels",
    "copy": "copy, reused buffer",
}


def speed_section(run: Run) -> str:
    """Write a few cases of one dtype at the most threads measured, and where, when and how it was measured."""
    most, dtype = max(result.case.threads for result in run.results), run.results[0].case.dtype
    those = [result for result in _usual(run) if (result.case.threads, result.case.dtype) == (most, dtype)]
    shown = [result for result in those if _is_shown(result.case)] or those
    return "\n\n".join([*_under_heading(shown, SHOWN_KEYS), _how(shown, SHOWN_KEYS), _losses(run), _where(run)])


def speed_page(run: Run) -> str:
    """Write all of it: a table for each dtype and number of threads."""
    usual, parts = _usual(run), ["# Speed, case by case"]
    for name in dict.fromkeys(heading(result.case) for result in usual):
        parts += _under_heading([result for result in usual if heading(result.case) == name], tuple(COLUMNS))
    return "\n\n".join([*parts, _how(usual, tuple(COLUMNS)), _losses(run), _where(run)]) + "\n"


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


def _usual(run: Run) -> list[CaseResult]:
    """Refuse results whose commit is not known."""
    if not run.about["commit"]:
        raise ValueError("expected results that name their commit: without git's data, set IMAE_COMMIT when measuring")
    return [result for result in run.results if result.case.grad_output == 1 and result.case.leaf]


def _is_shown(case: Case) -> bool:
    return case.shape in SHOWN if case.device == "cpu" else case.copied >= 2 * LARGE


def _under_heading(results: Sequence[CaseResult], keys: Sequence[str]) -> list[str]:
    return [f"Forward and backward pass, {heading(results[0].case)}:", _table(results, keys)]


def _table(results: Sequence[CaseResult], keys: Sequence[str]) -> str:
    keys = [key for key in keys if any(key in result.timings for result in results)]
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
    text = f"{text} ({'~' if _width(ratio) > WIDE else ''}{ratio.median:.3g}x)"
    return f"**{text}**" if ratio.median < 1 else text


def _over_ours(result: CaseResult, key: str) -> Spread | None:
    return result.ratio(key, COUNTERPARTS.get(key, "imae"))


def _width(ratio: Spread) -> float:
    return max(ratio.high - ratio.median, ratio.median - ratio.low) / ratio.median


def _how(results: Sequence[CaseResult], keys: Sequence[str]) -> str:
    widths = [
        _width(ratio)
        for result in results
        for key in keys
        if key in result.timings and key != "imae" and (ratio := _over_ours(result, key)) is not None
    ]
    on_cpu = any(result.case.device == "cpu" for result in results)
    pages = " Others' times depend on whether the allocator has memory pages at hand: new ones take long."
    half = f"{100 * median(widths):.0f}%" if widths else ""
    wide = f"{100 * WIDE:.0f}%"
    spread = f" Half of these ratios have both quartiles within {half}; those with one beyond {wide} are marked ~."
    return (
        "Medians of rounds in which every contender runs in turn; in brackets the median, over the rounds, of its time "
        f"divided by that of IMAE in the same way.{spread if half else ''} Every pass makes and frees a gradient "
        f"buffer, but for those marked as reused.{pages if on_cpu else ''} *By hand* is a weighted cross-entropy with "
        "IMAE's gradient; the reference computes the loss's value too, by quadrature; a copy moves as many bytes. "
        "Bold: faster than IMAE. -: not run; small shapes are not compiled, and some references would take too much "
        "memory."
    )


def _losses(run: Run) -> str:
    """Name each rival that was faster, and the ratios over all dtypes and numbers of threads where it was."""
    found: dict[str, list[float]] = {}
    for result, key, ratio in losses(run.results):
        found.setdefault(f"{run.labels[key]} at {result.case.name}", []).append(ratio.median)
    named = [f"{name} ({min(ratios):.2f}x to {max(ratios):.2f}x)" for name, ratios in found.items()]
    return f"Faster than IMAE anywhere in the run: {'; '.join(named) if named else 'none'}."


def _where(run: Run) -> str:
    machine, versions = run.about["machine"], run.about["versions"]
    processor = f"{machine['cpu']}, {machine['cores']} cores, {machine['cpu_kernels']}"
    changes = {False: "", True: " with changes", None: ", perhaps with changes"}[run.about["commit_is_modified"]]
    commit = str(run.about["commit"])[:10] + changes
    return (
        f"{machine.get('gpu') or processor}; torch {versions['torch']}, Python {versions['python']}; commit {commit}; "
        f"{run.about['date']}; `{run.about['command']}`."
    )
