"""What `--checkpoints` may name, and what of it is never repeated."""

from pathlib import Path, PurePosixPath

import pytest

from tuner.errors import InputError
from tuner.stores.places import ObjectPath, lies_below, name_below, parsed_root, root_beside

SECRET = "hush-hush"


@pytest.mark.parametrize("text", ["s3://bucket/place", "S3://bucket/place/", "s3:/bucket/place", "s3://bucket//place"])
def test_an_address_is_a_bucket_and_a_place(text):
    assert parsed_root(text) == ObjectPath("s3://bucket", "place")
    assert str(parsed_root(text)) == "s3://bucket/place"
    assert parsed_root(parsed_root(text)) == parsed_root(text)


@pytest.mark.parametrize("text", ["gs://bucket/a/b", "az://container/a.b=c+d_e-f"])
def test_the_other_stores_have_addresses_too(text):
    assert str(parsed_root(text)) == text


@pytest.mark.parametrize("text", ["checkpoints", "/data/checkpoints", "../s3", "c:\\checkpoints", "s3", "a b/ü"])
def test_all_else_is_a_folder(text):
    assert parsed_root(text) == Path(text)
    assert parsed_root(Path(text)) == Path(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket", "s3://bucket/", "s3:///place", "s3://B/place", "s3://bucket/../other", "s3://bucket/a b",
        "s3://bucket/ü", "http://host/bucket/place", "file:///data/place", "abfss://container/place",
        f"s3://key:{SECRET}@bucket/place", f"s3://bucket/place?token={SECRET}", f"az://bucket/place#{SECRET}",
        f"s3://key:{SECRET}/bucket/place", f"s3://key%3A{SECRET}%40bucket/place",
        f"https://key:{SECRET}@host/bucket/place", f"s3:/key:{SECRET}@bucket/place",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_what_one_is_and_without_its_secret(text):
    with pytest.raises(InputError, match=r"://") as refused:
        parsed_root(text)
    assert SECRET not in str(refused.value)


def test_the_command_line_refuses_a_secret_without_repeating_it(tuner, tmp_path):
    run = tuner("verify", "study", "--checkpoints", f"s3://key:{SECRET}@bucket/place")
    assert run.code == 2
    assert "AWS_SECRET_ACCESS_KEY" in run.err
    assert SECRET not in run.err + run.out


def test_paths_of_a_bucket_are_put_together_and_taken_apart():
    root = parsed_root("s3://bucket/place")
    file = root / "study/trial-00001" / "latest.pt"
    assert (file.name, str(file.parent)) == ("latest.pt", "s3://bucket/place/study/trial-00001")
    assert file.relative_to(root) == PurePosixPath("study/trial-00001/latest.pt")
    assert name_below(file, root) == "study/trial-00001/latest.pt"
    assert lies_below(file, root)
    assert not lies_below(parsed_root("s3://bucket/place-2/x"), root)
    assert not lies_below(parsed_root("s3://other/place/x"), root)
    assert not lies_below(root / "../other/x", root)
    assert not lies_below(Path("/place/x"), root)
    assert not lies_below(root / "x", Path("/"))


def test_a_storage_keeps_an_address_as_it_is():
    assert root_beside(Path("/runs"), "checkpoints") == Path("/runs/checkpoints")
    assert root_beside(Path("/runs"), "s3://bucket/place") == ObjectPath("s3://bucket", "place")
