"""URLs for view layers: those that Resolve would redirect to, and the site's own where a pointer does not tell."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.aws.signing import CdnSigner, S3Signer
from neve.domain.layout import Layout
from neve.domain.pointer import InContent, OnHost, Pointer
from neve.domain.route import Asked, Kind, Known, Look, Rules, key_of, next_step
from neve.errors import Transient
from neve_edge.urls import Urls, connect
from tests.memory_offload import MemoryPointers
from tests.memory_serve import MemorySigner

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
SITE = "https://files.example.com"
RULES = Rules(
    layout=Layout.AS_IS,
    cdn_bases=("https://img1.example.com", "https://img2.example.com"),
    private_prefixes=("private/",),
    redirect_max_age_s=300,
    upload_url_s=60,
    signed_url_s=600,
)


def in_content(key: str) -> InContent:
    return InContent(
        key=key,
        content_key=f"aa/bb/{key}",
        content_version="c1",
        upload_version="u1",
        sequencer="1",
        size_bytes=3,
        etag="e",
        since=NOW,
    )


@dataclass
class Counting:
    """Pointers, and how they were asked for; they fail with `error`."""

    rows: dict[str, Pointer] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(MemoryPointers(self.rows), name)

    def get_many(self, keys: Any) -> Any:
        self.asked.append(list(keys))
        if self.error:
            raise self.error
        return MemoryPointers(self.rows).get_many(keys)


@dataclass
class View:
    """A view layer's Urls, its clock, and the pointers behind it."""

    now: float = 0.0
    pointers: Counting = field(default_factory=Counting)

    @property
    def urls(self) -> Urls:
        return Urls(
            pointers=self.pointers,
            rules=RULES,
            signer=MemorySigner("content"),
            site_url=SITE,
            remember_s=60,
            most=3,
            monotonic=lambda: self.now,
        )


@pytest.fixture
def view() -> View:
    return View()


def test_a_file_has_the_url_that_resolve_would_redirect_to(view: View) -> None:
    pointers: list[Pointer] = [in_content("a b"), in_content("private/a"), OnHost(key="c", url="http://h/c", since=NOW)]
    view.pointers.rows = {pointer.key: pointer for pointer in pointers}
    urls = view.urls.urls_for(["a b", "private/a", "c"])
    assert urls["private/a"] == "signed:content:GET:600:aa/bb/private/a"
    assert urls["c"] == "http://h/c"
    for pointer in pointers:
        answer = next_step(Asked(key=pointer.key), Known(looked=frozenset({Look.POINTER}), pointer=pointer), RULES)
        assert not isinstance(answer, Look)
        assert answer.kind is Kind.SIGNED or urls[pointer.key] == answer.location


def test_a_file_without_a_pointer_has_the_sites_url(view: View) -> None:
    assert view.urls.url_for("a b/ü+?.jpg") == f"{SITE}/a%20b/%C3%BC%2B%3F.jpg"


@pytest.mark.parametrize("key", ["", "a/../b", "k" * 1025, ".", "a\udcff"])
def test_what_resolve_refuses_is_left_to_it_and_not_looked_up(view: View, key: str) -> None:
    assert view.urls.url_for(key).startswith(f"{SITE}/")
    assert view.pointers.asked == []


@settings(max_examples=50, deadline=None)
@given(key=st.text(st.characters(codec="utf-8"), max_size=20))
def test_every_key_has_a_url_and_the_sites_own_leads_back_to_it(key: str) -> None:
    view = View()
    url = view.urls.url_for(key)
    assert url.startswith(f"{SITE}/")
    if view.pointers.asked:
        assert key_of(url.removeprefix(SITE)) == key


def test_many_files_are_looked_up_together_and_each_once(view: View) -> None:
    view.pointers.rows = {"a": in_content("a")}
    found = view.urls.urls_for(["b", "a", "b"])
    assert list(found) == ["b", "a"]
    assert view.pointers.asked == [["b", "a"]]


def test_a_url_on_the_cdn_is_remembered_for_a_while(view: View) -> None:
    view.pointers.rows = {"a": in_content("a")}
    urls = view.urls
    first = urls.url_for("a")
    view.now = 59
    assert urls.url_for("a") == first
    assert len(view.pointers.asked) == 1
    view.now = 60
    assert urls.url_for("a") == first
    assert len(view.pointers.asked) == 2


def test_what_may_change_the_next_moment_is_not_remembered(view: View) -> None:
    view.pointers.rows = {"h": OnHost(key="h", url="http://h/", since=NOW), "private/a": in_content("private/a")}
    urls = view.urls
    for _ in range(2):
        urls.urls_for(["h", "private/a", "none"])
    assert view.pointers.asked == [["h", "private/a", "none"]] * 2


def test_only_so_many_urls_are_remembered_the_newest(view: View) -> None:
    view.pointers.rows = {key: in_content(key) for key in "abcd"}
    urls = view.urls
    for key in "abcd":
        urls.url_for(key)
    view.pointers.asked.clear()
    urls.urls_for("bcda")
    assert view.pointers.asked == [["a"]]


@pytest.mark.parametrize(
    "error",
    [
        Transient("throttled"),
        EndpointConnectionError(endpoint_url="https://dynamodb"),
        ClientError({"Error": {"Code": "AccessDeniedException"}}, "BatchGetItem"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_table_that_cannot_be_read_breaks_no_page(
    view: View, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    view.pointers = replace(view.pointers, rows={"a": in_content("a")}, error=error)
    assert view.urls.url_for("a") == f"{SITE}/a"
    assert "pointers could not be read; 1 files get the site's URLs" in caplog.text


@pytest.fixture
def session() -> boto3.Session:
    return boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="eu-central-1")


def test_a_view_layer_connects_to_a_stack_by_its_outputs(session: boto3.Session) -> None:
    urls = connect(
        pointers_table="pointers",
        cdn_urls=["https://img1.example.com/"],
        site_url=f"{SITE}/",
        content_bucket="content-bucket",
        private_prefixes=["private/"],
        session=session,
    )
    assert (urls.site_url, urls.rules.cdn_bases) == (SITE, ["https://img1.example.com"])
    assert isinstance(urls.signer, S3Signer)
    signed = urls.signer.signed("private/a", head=False, lifetime_s=60)
    assert signed.startswith("https://content-bucket.s3.eu-central-1.amazonaws.com/private/a?X-Amz-Algorithm=")


def test_a_view_layer_signs_for_cloudfront_if_it_is_given_a_keys_id(session: boto3.Session) -> None:
    urls = connect(
        pointers_table="pointers",
        cdn_urls=["https://img1.example.com"],
        site_url=SITE,
        cdn_key_id="K2",
        cdn_key_parameter="/neve/cdn-key",
        session=session,
    )
    assert isinstance(urls.signer, CdnSigner)
