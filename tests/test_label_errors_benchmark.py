"""Wrong labels beside cleanlab: tasks, tables and the picture of the suspects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.label_errors import results, sheet
from benchmarks.label_errors.__main__ import STORED, main
from benchmarks.label_errors.tasks import tasks


def row(method: str, noise: str = "symmetric", seed: int = 0, suspected: int = 20, hits: int = 15) -> results.Row:
    rate, wrong = ("0", "0") if noise == "none" else ("0.2", "20")
    return {
        **{"data": "wine", "noise": noise, "rate": rate, "seed": str(seed), "examples": "100", "method": method},
        **{"wrong": wrong, "suspected": str(suspected), "hits": str(hits), "auc": "0.9", "seconds": "1.50"},
    }


def test_tasks_have_exact_noise(tmp_path: Path) -> None:
    found = list(tasks("wine", 2, None, tmp_path))
    assert [(task.noise, task.rate, task.seed) for task in found[:4]] == [
        ("none", 0.0, 0),
        ("symmetric", 0.05, 0),
        ("symmetric", 0.2, 0),
        ("symmetric", 0.4, 0),
    ]
    assert len(found) == 13 and found[0].features.shape == (178, 13)
    for task in found:
        assert abs(task.wrong.sum() - task.rate * 178) <= 2
    rates = {task.rate for task in tasks("breast-cancer", 1, None, tmp_path) if task.noise == "asymmetric"}
    assert rates == {0.05, 0.2, 0.3}
    with pytest.raises(ValueError, match="expected --directory"):
        next(tasks("cifar10n", 1, None, tmp_path))


def test_the_table_shows_means_and_marks_the_best() -> None:
    rows = [
        *(row("imae_ext", seed=0, hits=16), row("imae_ext", seed=1, hits=20)),
        *(row("cleanlab, MLP", seed=seed, suspected=40, hits=20) for seed in (0, 1)),
        *(row("imae_ext", "none", suspected=3, hits=0), row("cleanlab, MLP", "none", suspected=1, hits=0)),
    ]
    assert results.quality_table(rows, ("imae_ext", "cleanlab, MLP")).splitlines()[2:] == [
        "| wine | none | 3.0% suspected | 1.0% suspected |",
        "| wine | symmetric 20% | **90.0, 90 ± 14 / 90 ± 14** | 90.0, 50 ± 0 / 100 ± 0 |",
    ]
    assert results.seconds_table(rows).splitlines()[2] == "| wine | 100 | 1.5 to 1.5 | 1.5 to 1.5 |"


def test_what_the_choice_costs() -> None:
    rows = [row("imae_ext", hits=16), row("imae_ext, chosen with the truth", hits=18)]
    assert "over 1 runs: median 10.0, mean 10.0, at most 10.0 points" in results.regret(rows)
    assert results.regret([]) == "no runs with noise"


def test_results_grow(tmp_path: Path) -> None:
    results.append(tmp_path / "r.csv", [row("imae_ext")])
    results.append(tmp_path / "r.csv", [row("cleanlab, MLP")])
    assert results.read(tmp_path / "r.csv") == [row("imae_ext"), row("cleanlab, MLP")]
    assert results.read(tmp_path / "none.csv") == []


def test_the_stored_tables_print(capsys: pytest.CaptureFixture) -> None:
    main(["--tables"])
    printed = capsys.readouterr().out
    rows = results.read(STORED)
    assert {each["data"] for each in rows} >= {"digits", "wine", "breast-cancer"}
    for each in rows:
        assert int(each["hits"]) <= min(int(each["suspected"]), int(each["wrong"])) <= int(each["examples"])
    page = (STORED.parents[3] / "docs/label_errors.md").read_text()
    for line in printed.splitlines():
        assert not line.startswith("| ") or line in page, line  # the page has what the command prints


def test_every_method_finds_something(tmp_path: Path, one_thread: None) -> None:
    methods = pytest.importorskip("benchmarks.label_errors.methods", exc_type=ImportError)
    task = next(task for task in tasks("wine", 1, None, tmp_path) if task.noise == "symmetric" and task.rate == 0.2)
    found = {each.method: methods.scores(task, each) for each in methods.find_all(task)}
    assert {*results.PIPELINES, *results.SHARED} == set(found)
    assert all(each["auc"] > 0.9 and each["hits"] > 25 for each in found.values())


# The picture


def suspects(**changes: object) -> list[sheet.Suspect]:
    image = np.full((8, 8), 128, dtype=np.uint8)
    known = {"image": image, "given": "cat", "predicted": "dog", "p": 0.125, "true": "dog"}
    return [sheet.Suspect(**known | changes)] * 23


def test_the_picture_fits_a_window() -> None:
    picture = sheet.draw(suspects(), "title")
    assert picture.width <= 900
    rows = 3
    assert picture.height < rows * 140 + 60
    pixels = np.asarray(picture)
    assert (pixels[80, 40] == 128).all()  # the first image
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 60)
    green = (pixels[..., 1] > 90) & (pixels[..., 0] < 60)
    assert red.sum() > 200 and green.sum() > 2 * red.sum() * 0.8  # two green lines, a red one


def test_long_labels_stay_below_their_image() -> None:
    short, long = (np.asarray(sheet.draw(suspects(given=name)[:1], "")) for name in ("cat", "c" * 80))
    assert short.shape == long.shape
    assert (long[sheet.HEAD :, sheet.MARGIN + sheet.TILE + 2 : sheet.MARGIN + sheet.TILE + sheet.MARGIN] == 255).all()


@pytest.mark.parametrize("shape", [(8, 8), (32, 32, 3), (10, 30), (200, 100, 3)])
def test_images_of_any_shape(shape: tuple[int, ...]) -> None:
    assert sheet.draw(suspects(image=np.zeros(shape, dtype=np.uint8)), "").width <= 900


def test_lists_of_both_commands_are_drawn(tmp_path: Path) -> None:
    images = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    images[2, ..., 0] = 255
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "cats").mkdir()
    Image.fromarray(images[2]).save(tmp_path / "cats/2.png")
    (tmp_path / "found.csv").write_text(
        "rank,index,file,given_label,predicted_label,p_given\n1,2,cats/2.png,cat,dog,0.01\n2,2,cats/2.png,cat,dog,0.9\n"
    )
    for source in (tmp_path / "images.npy", tmp_path):
        sheet.main([str(tmp_path / "found.csv"), str(source), "--to", str(tmp_path / "sheet.png"), "--count", "1"])
        pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
        assert (pixels[80, 40] == [255, 0, 0]).all()
    assert len(sheet.read(tmp_path / "found.csv", tmp_path, 5)) == 2


def test_what_the_picture_cannot_show_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros((3, 8, 8)))
    np.save(tmp_path / "few.npy", np.zeros((1, 8, 8), dtype=np.uint8))
    found = tmp_path / "found.csv"
    found.write_text("rank,index,given_label,predicted_label,p_given\n1,2,cat,dog,0.01\n")
    with pytest.raises(ValueError, match="expected uint8 images of shape"):
        sheet.read(found, tmp_path / "floats.npy", 1)
    with pytest.raises(ValueError, match="expected an image 2, got 1 images"):
        sheet.read(found, tmp_path / "few.npy", 1)
    with pytest.raises(ValueError, match="expected the columns file, given_label"):
        sheet.read(found, tmp_path, 1)
    with pytest.raises(ValueError, match="expected at least one suspect"):
        sheet.draw([], "")
    with pytest.raises(SystemExit):
        sheet.main([str(found), "--to", str(tmp_path / "sheet.png")])
