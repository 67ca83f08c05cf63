"""Folders, lists and labels as people keep them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import InputSpec, open_samples
from calibrators.samples.folders import list_folder
from tests.unit.calibrators.pictures import INPUTS, SPEC, labels, names, picture, refusal


def test_flat_folder_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "C.jpeg", "ü ö.Png", "z.webp", "m.BMP"):
        picture(tmp_path / name)
    found = names(tmp_path)
    assert found == ["C.jpeg", "a.JPG", "b.png", "m.BMP", "z.webp", "ü ö.Png"]
    sample = next(iter(open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)))
    assert sample.inputs["x"].shape == (1, 3, 4, 4)
    assert (sample.label, sample.size) == (None, (5, 6))


def test_what_does_not_count(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in (".DS_Store", "._a.png", ".hidden.png", "Thumbs.db", "notes.txt", "a.png.part"):
        (tmp_path / name).write_bytes(b"\0")
    picture(tmp_path / "thumbnails" / "a.png")
    (tmp_path / "folder.png").mkdir()
    assert names(tmp_path) == ["a.png"]


def test_class_folders(tmp_path: Path) -> None:
    """ImageNet's and torchvision's layout."""
    for name in ("n02/b.JPEG", "n01/a.JPEG", "n01/deep/c.JPEG", "n10/d.JPEG", ".git/e.JPEG"):
        picture(tmp_path / name)
    (tmp_path / "empty").mkdir()
    samples = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    assert [(s.name, s.label) for s in samples] == [
        ("n01/a.JPEG", 0),
        ("n01/deep/c.JPEG", 0),
        ("n02/b.JPEG", 1),
        ("n10/d.JPEG", 2),
    ]
    assert samples.classes == ("n01", "n02", "n10")


@pytest.mark.parametrize(
    "parts", [("train", "val"), ("train2017", "val2017"), ("images",), ("calib", "extra", "test")]
)
@pytest.mark.parametrize("labelled", [False, True])
def test_parts_of_a_data_set_are_no_classes(
    parts: tuple[str, ...], labelled: bool, tmp_path: Path
) -> None:
    for name in parts:
        picture(tmp_path / name / "a.png")
    if labelled:
        (tmp_path / "labels.json").write_text('{"a.png": 0}')
    said = refusal(tmp_path)
    assert f"subfolders {', '.join(name for name in parts if name != 'extra')}, expected" in said
    assert str(tmp_path / parts[0]) in said


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus/a.png", "train/b.png"):
        picture(tmp_path / name)
    assert labels(tmp_path) == [0, 1]


def test_empty_folders(tmp_path: Path) -> None:
    assert "has no files, expected samples ending in .jpg, .jpeg, .png" in refusal(tmp_path)
    (tmp_path / "a.tiff").write_bytes(b"II*\0")
    (tmp_path / "b.HEIC").write_bytes(b"")
    assert "only files ending in .heic, .tiff" in refusal(tmp_path)
    assert ".npz, .npy; check the path or convert them" in refusal(tmp_path)


def test_links(tmp_path: Path) -> None:
    inside = picture(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.png").symlink_to(inside)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert names(tmp_path / "link") == ["a.png", "b.png"]
    outside = picture(tmp_path / "secret.png")
    (tmp_path / "data" / "c.png").symlink_to(outside)
    said = refusal(tmp_path / "data")
    assert f"c.png is a link to {outside}" in said
    assert "list the files in a .txt file" in said


def test_linked_class_folder_out_of_the_root(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError):
        open_samples(tmp_path / "data", inputs=INPUTS, preprocess=SPEC)


def test_model_that_takes_one_image_without_batch_axis(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 9)
    inputs = (InputSpec(name="x", dtype=np.dtype(np.float32), shape=(3, 4, 4)),)
    (sample,) = open_samples(tmp_path, inputs=inputs, preprocess=SPEC)
    assert sample.inputs["x"].shape == (3, 4, 4)
    np.savez(tmp_path / "a.npz", x=np.full((2, 4, 4, 3), 9, np.uint8))
    spec = Preprocess(resize=(4, 4), scale="1/255")
    rows = list(open_samples(tmp_path / "a.npz", inputs=inputs, preprocess=spec))
    assert len(rows) == 2
    np.testing.assert_array_equal(rows[1].inputs["x"], sample.inputs["x"])


def test_lists_of_files(tmp_path: Path) -> None:
    for name in ("images/b c.png", "images/a.png"):
        picture(tmp_path / name)
    far = picture(tmp_path / "far" / "d.png")
    listed = tmp_path / "data" / "val.txt"
    listed.parent.mkdir()
    (tmp_path / "data" / "e.png").symlink_to(far)
    listed.write_text(f"# calibration\n../images/b c.png 2\n../images/a.png 0\n{far} 1\ne.png 4\n")
    assert labels(listed) == [2, 0, 1, 4]
    assert names(listed)[:2] == ["../images/b c.png", "../images/a.png"]
    listed.write_text("../images/b c.png\n../images/a.png 0\n")
    assert len(names(listed)) == 2
    with pytest.raises(DataError, match="1 labels for 2 files"):
        labels(listed)


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n# nothing\n")
    assert "has no lines" in refusal(listed)
    listed.write_text("none.png\n")
    assert f"names {tmp_path / 'none.png'}" in refusal(listed)
    listed.write_bytes(b"\xff\xff")
    assert "UTF-8" in refusal(listed)


def test_description_of_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "coco128.yaml"
    path.write_text("path: ../coco\ntrain: images/train\nval: images/val\nnames: {0: person}\n")
    said = refusal(path)
    assert f"train: {tmp_path / '../coco' / 'images/train'}" in said
    assert f"val: {tmp_path / '../coco' / 'images/val'}" in said


def test_other_paths(tmp_path: Path) -> None:
    assert "none do not exist" in refusal(tmp_path / "none")
    (tmp_path / "model.pt").write_bytes(b"\x80\x02")
    assert "end in .pt, expected an image folder" in refusal(tmp_path / "model.pt")
    (tmp_path / "README").write_text("x")
    assert "end in nothing" in refusal(tmp_path / "README")


def test_a_single_image(tmp_path: Path) -> None:
    assert names(picture(tmp_path / "a.png")) == ["a.png"]


def test_images_need_a_spec_and_one_input(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(
        DataError,
        match=r"--preprocess with a preset .torchvision.* YAML file with at least 'scale: 1/255'",
    ):
        open_samples(tmp_path, inputs=INPUTS)
    two = (*INPUTS, InputSpec(name="ids", dtype=np.dtype(np.int64), shape=("N", 8)))
    with pytest.raises(DataError, match="expected data for x, ids"):
        open_samples(tmp_path, inputs=two, preprocess=SPEC)


def test_errors_name_the_image(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    samples = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    with pytest.raises(DataError, match=r"image .*b\.png cannot be decoded"):
        list(samples)
    assert next(iter(samples)).name == "a.png"
    free = (InputSpec(name="x", dtype=np.dtype(np.float32), shape=("N", 3, None, None)),)
    small = open_samples(tmp_path, inputs=free, preprocess=Preprocess(crop=(4, 7), scale=1))
    with pytest.raises(DataError, match=r"image .*a\.png: crop \[4, 7\]"):
        next(iter(small))
    wrong = open_samples(tmp_path, inputs=INPUTS, preprocess=Preprocess(resize=3, scale=1))
    with pytest.raises(DataError, match=r"a\.png has shape \[1, 3, 3, 3\] after") as caught:
        next(iter(wrong))
    assert "for images set crop or letterbox to [4, 4]" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"resize": [5, 4]}, ["[1, 3, 5, 4]", "x float32 [N, 3, 4, 4]", "letterbox to [4, 4]"]),
        ({"crop": 5}, ["[1, 3, 5, 5]"]),
        ({"letterbox": 5}, ["[1, 3, 5, 5]"]),
        ({"resize": [4, 4], "color": "gray"}, ["[1, 1, 4, 4]"]),
        ({"resize": 4, "color": "gray"}, ["[1, 1, ?, ?]"]),
        ({"resize": [4, 4], "layout": "nhw", "color": "gray"}, ["[1, 4, 4]"]),
        ({"resize": [4, 4], "layout": "nhwc"}, ["set 'layout: nchw'"]),
        ({"resize": [4, 4], "dtype": "uint8"}, ["is uint8, expected real values"]),
    ],
    ids=str,
)
def test_results_that_cannot_fit_are_refused_before_decoding(
    spec: dict[str, object], said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"never decoded")
    preprocess = Preprocess.from_dict({"scale": 1, **spec})
    with pytest.raises(DataError) as caught:
        open_samples(tmp_path, inputs=INPUTS, preprocess=preprocess)
    for part in ["the result of the preprocessing spec", *said]:
        assert part in str(caught.value)


def test_integer_models_need_an_integer_dtype(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    inputs = (InputSpec(name="x", dtype=np.dtype(np.uint8), shape=("N", 4, 4, 3)),)
    spec = Preprocess(resize=(4, 4), scale=1, layout="nhwc")
    with pytest.raises(DataError, match=r"is float32, expected uint8 .* set dtype"):
        open_samples(tmp_path, inputs=inputs, preprocess=spec)
    whole = Preprocess(resize=(4, 4), scale=1, layout="nhwc", dtype="uint8")
    (sample,) = open_samples(tmp_path, inputs=inputs, preprocess=whole)
    assert sample.inputs["x"].dtype == np.uint8


def test_limit_spreads_over_the_classes_and_slices_do_not_decode_the_rest(tmp_path: Path) -> None:
    for position in range(20):
        picture(tmp_path / f"class{position // 5}" / f"{position:02}.png", position)
    samples = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC, limit=4)
    assert [sample.label for sample in samples] == [0, 1, 2, 3]
    everything = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    every = [sample.name for sample in everything]
    for rows in (slice(3, None), slice(1, None, 4), slice(2, 9, 3), slice(0, 0), slice(50, None)):
        assert [sample.name for sample in everything[rows]] == every[rows]
        assert len(everything[rows]) == len(every[rows])
    assert [s.name for s in everything[2::3][1::2]] == every[2::3][1::2]
    (tmp_path / "class0" / "00.png").write_bytes(b"broken")
    assert len(list(everything[1:])) == 19
    with pytest.raises(DataError, match=r"\[-1:None:None\]"):
        everything[-1:]


def test_digests_follow_content_not_names(tmp_path: Path) -> None:
    for name, level in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        picture(tmp_path / name, level)
    first, second, third = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    assert first.digest == second.digest != third.digest
    assert len(first.digest) == 64


def test_what_is_not_used_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.npy", "notes.docx", "labels.json", "labels.npy", ".DS_Store"):
        picture(tmp_path / name) if name.endswith(".png") else (tmp_path / name).write_text("{}")
    (tmp_path / "old").mkdir()
    kinds = ((".png",), (".npy",))
    assert list_folder(tmp_path, kinds).unused == "2 files and 1 folder"
    classes = tmp_path / "classes"
    for name in ("cat", "dog"):
        (classes / name).mkdir(parents=True)
        picture(classes / name / "x.png")
    assert list_folder(classes, kinds).unused == ""
    (classes / "cat" / "x.tiff").write_bytes(b"")
    assert list_folder(classes, kinds).unused == "1 file"
