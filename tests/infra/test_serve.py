"""Promises of what serves files: nothing is public, what is private is signed, what is missing is told at once."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from neve.domain.layout import Layout, content_key
from stacks.private import guard
from tests.infra.templates import Templates
from tests.infra.test_functions import SERVE_SETTINGS
from tests.infra.test_storage import bucket_policy

PRIVATE = ("invoices/", "users/secret-")
PRIVATE_PATTERNS = ["invoices/*", "??/??/invoices/*", "users/secret-*", "??/??/users/secret-*"]
BUCKETS = ("ContentBucket", "UploadsBucket")
CLOUDFRONT = {"Service": "cloudfront.amazonaws.com"}


def distribution(templates: Templates, name: str) -> dict[str, Any]:
    found = templates.of_kind("AWS::CloudFront::Distribution")
    assert set(found) == {"Content", "Site"}
    config: dict[str, Any] = templates.rendered(found[name])["DistributionConfig"]
    return config


def cache_policy(templates: Templates, name: str) -> dict[str, Any]:
    config: dict[str, Any] = templates.of_kind("AWS::CloudFront::CachePolicy")[name].properties["CachePolicyConfig"]
    return config


def origins(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {origin["Id"]: origin for origin in config["Origins"]}


def remembered(config: dict[str, Any]) -> dict[int, int]:
    """For how many seconds CloudFront remembers an answer that is no success, by its status."""
    assert not any("ResponsePagePath" in each for each in config["CustomErrorResponses"])
    return {each["ErrorCode"]: each["ErrorCachingMinTTL"] for each in config["CustomErrorResponses"]}


def test_files_come_from_the_content_bucket_and_those_it_has_not_yet_from_the_uploads_bucket(
    templates: Templates,
) -> None:
    config = distribution(templates, "Content")
    [group] = config["OriginGroups"]["Items"]
    assert config["DefaultCacheBehavior"]["TargetOriginId"] == group["Id"]
    assert group["FailoverCriteria"]["StatusCodes"]["Items"] == [403, 404]
    members = [origins(config)[member["OriginId"]] for member in group["Members"]["Items"]]
    assert [member["DomainName"] for member in members] == [
        f"{bucket}.s3.us-east-1.amazonaws.com" for bucket in BUCKETS
    ]


def test_with_hashed_keys_the_uploads_bucket_which_has_other_keys_is_not_asked(
    synthesized: Callable[..., Templates],
) -> None:
    config = distribution(synthesized(**SERVE_SETTINGS), "Content")
    assert "OriginGroups" not in config
    [origin] = origins(config).values()
    assert origin["DomainName"].startswith("ContentBucket.")


def test_cloudfront_signs_what_it_asks_of_buckets_and_of_resolve(templates: Templates) -> None:
    controls = templates.of_kind("AWS::CloudFront::OriginAccessControl")
    for control in controls.values():
        config = control.properties["OriginAccessControlConfig"]
        assert (config["SigningBehavior"], config["SigningProtocol"]) == ("always", "sigv4")
    used = [
        templates.rendered(found)["DistributionConfig"]["Origins"]
        for found in templates.of_kind("AWS::CloudFront::Distribution").values()
    ]
    assert {origin["OriginAccessControlId"] for several in used for origin in several} == set(controls)
    [url] = templates.of_kind("AWS::Lambda::Url").values()
    assert url.properties["AuthType"] == "AWS_IAM"


def test_nobody_but_the_distribution_of_the_site_may_call_resolve(templates: Templates) -> None:
    permissions = [templates.rendered(each) for each in templates.of_kind("AWS::Lambda::Permission").values()]
    # Since October 2025 a function URL asks for both.
    assert {each["Action"] for each in permissions} == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    for permission in permissions:
        assert permission["Principal"] == "cloudfront.amazonaws.com"
        assert permission["SourceArn"] == "arn:aws:cloudfront::123456789012:distribution/Site"


@pytest.mark.parametrize("bucket", BUCKETS)
def test_only_distributions_of_this_account_may_read_and_are_told_what_is_missing(
    templates: Templates, bucket: str
) -> None:
    allowed = [each for each in bucket_policy(templates, bucket) if each["Effect"] == "Allow"]
    assert [(each["Action"], each["Resource"]) for each in allowed] == [
        (["s3:GetObject"], [f"{bucket}/*"]),
        # Without it S3 answers 403 for a file that is not there.
        (["s3:ListBucket"], [bucket]),
    ]
    for statement in allowed:
        assert statement["Principal"] == CLOUDFRONT
        assert statement["Condition"] == {
            "StringEquals": {"aws:SourceAccount": "123456789012"},
            "ArnLike": {"aws:SourceArn": "arn:aws:cloudfront::123456789012:distribution/*"},
        }


def test_the_root_of_the_distribution_is_no_listing_of_the_bucket(templates: Templates) -> None:
    config = distribution(templates, "Content")
    # What begins so is never a file of the application (neve.domain.upload).
    assert config["DefaultRootObject"].startswith(".neve/")


@pytest.mark.parametrize("bucket", BUCKETS)
def test_cloudfront_reads_neither_what_is_private_nor_what_is_neves_own(
    synthesized: Callable[..., Templates], templates: Templates, bucket: str
) -> None:
    def denied(of: Templates) -> list[str]:
        [statement] = [
            each for each in bucket_policy(of, bucket) if each["Effect"] == "Deny" and each["Principal"] == CLOUDFRONT
        ]
        assert statement["Action"] == ["s3:GetObject"]
        assert "Condition" not in statement
        resources = statement["Resource"]
        assert isinstance(resources, list)
        return [resource.removeprefix(f"{bucket}/") for resource in resources]

    assert denied(templates) == [".neve/*"]
    signed_by_s3 = synthesized(private_prefixes=",".join(PRIVATE))
    assert denied(signed_by_s3) == [".neve/*", *PRIVATE_PATTERNS]
    # Where CloudFront asks for the signature itself, it has to read.
    assert denied(synthesized(**SERVE_SETTINGS)) == [".neve/*"]


def test_private_files_are_handed_out_to_who_has_a_url_signed_with_the_key_of_the_setting(
    synthesized: Callable[..., Templates], templates: Templates
) -> None:
    config = distribution(synthesized(**SERVE_SETTINGS), "Content")
    behaviors = {each["PathPattern"]: each for each in config["CacheBehaviors"]}
    assert set(behaviors) == {f"/{pattern}" for pattern in PRIVATE_PATTERNS}
    for pattern, behavior in behaviors.items():
        assert behavior["TrustedKeyGroups"] == [SERVE_SETTINGS["cdn_key_group"]], pattern
    [guarding] = config["DefaultCacheBehavior"]["FunctionAssociations"]
    assert guarding["EventType"] == "viewer-request"
    assert "TrustedKeyGroups" not in config["DefaultCacheBehavior"]

    plain = distribution(templates, "Content")
    assert "CacheBehaviors" not in plain
    assert "FunctionAssociations" not in plain["DefaultCacheBehavior"]


def test_no_spelling_of_a_path_leads_around_the_signature() -> None:
    """The patterns of paths see what was sent; S3 looks for what that means."""
    hidden = [
        "/invoices/1",
        "/invoices%2F1",
        "/%69nvoices/1",
        "/users%2fsecret-x",
        "/ab/cd/invoices/1",
        "/ab%2Fcd/invoices/1",
    ]
    hidden += [f"/{content_key(f'{prefix}1', Layout.HASHED)}" for prefix in PRIVATE]
    shown = ["/invoice/1", "/public/invoices/1", "/users/secre", "/a/b/invoices/1", "/%2569nvoices/1", "/", "/invoices"]
    broken = ["/%", "/%ff"]
    asked = hidden + shown + broken
    script = (
        f"{guard(PRIVATE)}\nconst uris = {json.dumps(asked)};\n"
        "console.log(JSON.stringify(uris.map(uri => handler({request: {uri}}).statusCode || 200)));"
    )
    node = shutil.which("node")
    assert node, "CDK needs node"
    answered = subprocess.run([node, "-e", script], capture_output=True, text=True, timeout=60, check=True)
    statuses = dict(zip(asked, json.loads(answered.stdout), strict=True))
    assert statuses == dict.fromkeys(hidden, 403) | dict.fromkeys(shown, 200) | dict.fromkeys(broken, 400)


def test_no_query_string_reaches_s3_and_all_of_it_reaches_resolve(templates: Templates) -> None:
    def forwarded(name: str) -> dict[str, str]:
        asked = cache_policy(templates, name)["ParametersInCacheKeyAndForwardedToOrigin"]
        return {part: asked[f"{part}sConfig"][f"{part}Behavior"] for part in ("QueryString", "Header", "Cookie")}

    assert forwarded("ContentCaching") == {"QueryString": "none", "Header": "none", "Cookie": "none"}
    # Resolve keeps it in its redirect to the CDN: two that differ are two answers.
    assert forwarded("SiteCaching") == {"QueryString": "all", "Header": "none", "Cookie": "none"}
    for name in ("Content", "Site"):
        assert "OriginRequestPolicyId" not in distribution(templates, name)["DefaultCacheBehavior"]


def test_an_answer_is_kept_as_long_as_it_says_and_not_at_all_if_it_says_nothing(
    synthesized: Callable[..., Templates], templates: Templates
) -> None:
    site = cache_policy(templates, "SiteCaching")
    assert (site["MinTTL"], site["DefaultTTL"], site["MaxTTL"]) == (0, 0, 86_400)
    assert set(remembered(distribution(templates, "Site")).values()) == {0}
    assert {404, 500, 502, 503, 504} <= set(remembered(distribution(templates, "Site")))

    # A file under whose key another may be uploaded is not kept for longer than the redirect to it, unless it says so.
    content = cache_policy(templates, "ContentCaching")
    assert (content["MinTTL"], content["DefaultTTL"], content["MaxTTL"]) == (0, 300, 31_536_000)
    assert cache_policy(synthesized(**SERVE_SETTINGS), "ContentCaching")["DefaultTTL"] == 0
    assert remembered(distribution(templates, "Content")) == dict.fromkeys((403, 404, 500, 502, 503, 504), 10)


def test_viewers_use_tls_and_may_ask_by_http_2_and_3(templates: Templates) -> None:
    for name in ("Content", "Site"):
        config = distribution(templates, name)
        assert config["HttpVersion"] == "http2and3", name
        behavior = config["DefaultCacheBehavior"]
        assert behavior["ViewerProtocolPolicy"] == "redirect-to-https", name
        assert behavior["AllowedMethods"] == ["GET", "HEAD", "OPTIONS"], name
    assert distribution(templates, "Content")["DefaultCacheBehavior"]["Compress"] is True


def test_with_a_certificate_the_hosts_of_the_urls_are_names_of_the_distribution(
    synthesized: Callable[..., Templates], templates: Templates
) -> None:
    config = distribution(synthesized(**SERVE_SETTINGS), "Content")
    assert config["Aliases"] == ["img1.example.com", "img2.example.com"]
    assert config["ViewerCertificate"]["AcmCertificateArn"] == SERVE_SETTINGS["cdn_certificate"]
    assert config["ViewerCertificate"]["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert "Aliases" not in distribution(templates, "Content")
    elsewhere = distribution(synthesized(cdn_urls="http://127.0.0.1:8080"), "Content")
    assert "Aliases" not in elsewhere
