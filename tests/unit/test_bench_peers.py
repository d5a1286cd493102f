"""How other tools are run beside neve, and what is counted of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import real_files, timed
from bench.counting import Counts, operation
from bench.peers import PeerFailed, requests_of
from bench.peers_tools import MOST_PATTERNS, SYNC, Site
from neve.domain.metering import Class
from neve.domain.prices import US_EAST_1, Bill


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "asked"),
    [
        ("GET", "/bucket/a/key", "", {}, "s3:GetObject"),
        ("GET", "/bucket/", "list-type=2&prefix=uploads", {}, "s3:ListObjectsV2"),
        ("GET", "/bucket", "prefix=", {}, "s3:ListObjects"),
        ("HEAD", "/bucket/", "", {}, "s3:HeadBucket"),
        ("PUT", "/bucket/key", "x-id=PutObject", {}, "s3:PutObject"),
        ("PUT", "/bucket/key", "", {"x-amz-copy-source": "other/key"}, "s3:CopyObject"),
        ("PUT", "/bucket/key", "partNumber=1&uploadId=u", {}, "s3:UploadPart"),
        ("PUT", "/bucket/key", "partNumber=1&uploadId=u", {"x-amz-copy-source": "other/key"}, "s3:UploadPartCopy"),
        ("POST", "/bucket/key", "uploads=", {}, "s3:CreateMultipartUpload"),
        ("POST", "/bucket/key", "uploadId=u", {}, "s3:CompleteMultipartUpload"),
        ("POST", "/", "", {"x-amz-target": "DynamoDB_20120810.PutItem"}, "dynamodb:PutItem"),
        ("POST", "/", "", {"x-amz-target": "AmazonSQS.SendMessage"}, "sqs:SendMessage"),
        ("POST", "/", "", {"authorization": "AWS4 Credential=k/20261122/us-east-1/sns/aws4_request, S"}, "sns:Request"),
    ],
)
def test_a_request_is_counted_as_what_it_asks_for(
    method: str, path: str, query: str, headers: dict[str, str], asked: str
) -> None:
    assert operation(method, path, query, headers) == asked


def test_what_is_written_is_charged_by_the_class_it_goes_into() -> None:
    asked = Counts(requests=Counter({"s3:PutObject": 1_000, "s3:HeadObject": 1_000, "s3:DeleteObject": 5}))

    def usd(storage_class: Class) -> float:
        return Bill(prices=US_EAST_1, uses=tuple(requests_of(asked, storage_class))).usd

    assert usd(Class.STANDARD) == pytest.approx(0.005 + 0.0004)
    assert usd(Class.GLACIER) == pytest.approx(0.03 + 0.0004)


def test_a_request_without_a_price_does_not_pass_as_free() -> None:
    with pytest.raises(PeerFailed, match="s3:SelectObjectContent"):
        requests_of(Counts(requests=Counter({"s3:SelectObjectContent": 1})), Class.STANDARD)


def test_a_pipe_is_timed_as_one_and_ends_as_its_last_command_does(tmp_path: Path) -> None:
    said = tmp_path / "said"
    first, second = ["sh", "-c", "echo abc; exit 3"], ["sh", "-c", "cat; exit 0"]

    took = _timed(said, [*first, timed.PIPE, *second])

    assert (took["status"], said.read_text()) == (0, "abc\n")
    assert _timed(said, first)["status"] == 3


def _timed(said: Path, words: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-S", timed.__file__, str(said), *words], stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_every_name_is_a_pattern_of_the_command(tmp_path: Path) -> None:
    names = [f"file-{number}" for number in range(MOST_PATTERNS)]
    site = Site(files=tmp_path, home=tmp_path, bucket="b", endpoint_url="")

    [command] = SYNC.restore(site, names, tmp_path)

    assert [word for word in command if word in set(names)] == names
    assert len(names) <= SYNC.most_names


def test_files_that_do_not_suffice_are_there_again_under_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("of a")
    (source / "b").write_text("of b")
    (source / "empty").write_text("")
    monkeypatch.setattr(real_files, "SOURCE", source)

    tree = real_files.make(tmp_path / "tree", 3)

    assert tree.sizes == {"a": 4, "b": 4, "again-1/a": 4}
    assert tree.copies == 1
    assert tree.has(source, ["a"]) is False
    (source / "b").unlink()
    (source / "empty").unlink()
    assert tree.has(source, ["a"]) is True
