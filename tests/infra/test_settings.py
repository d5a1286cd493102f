"""Promises of settings: each value is checked, all problems are told at once, and the documentation agrees."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import PROJECT
from stacks.settings import RULES, Settings, SettingsInvalid, Whole, read_settings

CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"
SIGNED = {
    "cdn_key_group": "11111111-2222-3333-4444-555555555555",
    "cdn_key_id": "K2JCJMDEHXQW5F",
    "cdn_key_parameter": "/neve/cdn-key",
}

REFUSED: dict[str, list[object]] = {
    "name": ["", "Neve", "9neve", "neve_1", "n" * 33, "neve!", 7],
    "storage_class": ["", "glacier", "STANDARD", "GLACIER ", None],
    "target_mib": ["0", "-1", "100.5", "nan", "inf", "", "25 MB", "1e-9", True, None],
    "max_age_s": ["0", "901", "-1", "1.5", "", "20s", "٢٠", True, None],
    "max_members": ["0", "10001"],
    "collect_timeout_s": ["4", "901"],
    "write_timeout_s": ["4", "901"],
    "copy_timeout_s": ["4", "901"],
    "sweep_timeout_s": ["4", "901"],
    "collect_batch": ["0", "10001"],
    "collect_window_s": ["0", "301"],
    "collect_concurrency": ["1", "1001"],
    "write_concurrency": ["1", "1001"],
    "copy_concurrency": ["1", "1001"],
    "fetch_threads": ["0", "257"],
    "content_bucket": ["Photos", "a,b", "arn:aws:s3:::photos"],
    "uploads_bucket": [
        "*",
        "Up",
        "up",
        "u" * 64,
        "my_uploads",
        "-uploads",
        "uploads.",
        "a..b",
        "10.0.0.1",
        "a,b",
        None,
    ],
    "key_layout": ["", "as_is", "Hashed"],
    "attic_days": ["0", "29", "3651"],
    "release_after_s": ["0", "901"],
    "uploads_timeout_s": ["4", "901"],
    "uploads_concurrency": ["1", "1001"],
    "release_timeout_s": ["4", "901"],
    "relay_timeout_s": ["4", "901"],
    "upload_url_s": ["0", "601"],
    "redirect_max_age_s": ["-1", "86401"],
    "private_prefixes": ["*", "/private/", "a b/", "%70rivate/", "x?/", ".neve/", "../", "a,,b", "p" * 201],
    "signing": ["", "S3", "none"],
    "signed_url_s": ["0", "43201"],
    "cdn_urls": ["img1.example.com", "https://img1.example.com/", "https://*.example.com", "https://a.b/?x", "https:/"],
    "cdn_choice": ["", "by_key", "hash"],
    "cdn_certificate": ["*", "arn:aws:acm:eu-west-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"],
    "cdn_key_group": ["*", "group"],
    "cdn_key_id": ["*", "k2jcj"],
    "cdn_key_parameter": ["neve", "/", "/neve/*", "/neve/"],
    "archived_answer": ["", "404", "restored"],
    "resolve_timeout_s": ["4", "31"],
    "restore_buckets": ["*", "press,*", "press,,books", "press,", "xn--press", "press--x-s3", "Press", ["press"]],
    "site_urls": ["example.org/", "https://example.org", "ftp://example.org/", "https://me@example.org/", "https://*/"],
    "restore_requests_per_s": ["0", "1001"],
    "restore_usd_per_day": ["-1", "1000001", "9.99"],
    "plan_timeout_s": ["4", "901"],
    "extract_timeout_s": ["4", "901"],
    "audit_every_h": ["-1", "25", "0.5", "off"],
    "audit_horizon_days": ["1", "3", "3651", "-1", "a year"],
    "audit_budget_percent": ["0", "3101", "8.5", "10 %"],
    "audit_budget_usd": ["0", "1000001", "9.99"],
    "audit_tier": ["", "Bulk", "slow"],
    "audit_source": ["", "yes"],
    "audit_repair": ["", "yes", "by hand"],
    "audit_silent_h": ["0", "1", "169"],
    "audit_timeout_s": ["4", "901"],
    "drill_every_month": ["", "true", True, "Yes"],
    "drill_bucket": ["*", "a,b", "s3://rehearsals"],
    "drill_timeout_s": ["59", "901"],
    "reconcile_every_week": ["", "false", False, "NO"],
    "reconcile_grace_h": ["0", "721"],
    "reconcile_timeout_s": ["4", "901"],
    "backfill_timeout_s": ["4", "901"],
    "backfill_shards_at_once": ["0", "1001"],
    "backfill_write_concurrency": ["1", "1001"],
    "backfill_collect_concurrency": ["1", "1001"],
    "plan_concurrency": ["1", "1001"],
    "extract_concurrency": ["1", "1001"],
    "inventory": ["reports", "s3://reports", "s3://reports/", "s3://reports/neve", "s3://re*/neve/", "s3://reports/*/"],
    "alert_email": ["ops", "ops@", "ops@example", "a@b.c, d@e.f", "ops@example.org\n"],
    "lambda_platform": ["", "aarch64", "ARM64"],
}


def test_every_setting_has_a_rule_and_a_default_that_keeps_it() -> None:
    assert [setting.name for setting in fields(Settings)] == list(RULES)
    assert set(REFUSED) == set(RULES)
    for key, rule in RULES.items():
        assert rule.read(getattr(Settings(), key)) == getattr(Settings(), key)


def test_an_empty_context_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()
    assert Settings().target_bytes == 25 * 1024 * 1024


def test_values_may_be_text_from_the_command_line_or_numbers_from_cdk_json() -> None:
    as_text = read_settings({"target_mib": "0.5", "max_age_s": "900", "alert_email": "ops@example.org"})
    as_numbers = read_settings({"target_mib": 0.5, "max_age_s": 900, "alert_email": "ops@example.org"})
    assert as_text == as_numbers == Settings(target_mib=0.5, max_age_s=900, alert_email="ops@example.org")
    assert as_text.target_bytes == 524_288


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_a_value_out_of_range_is_refused_with_key_value_range_and_remedy(key: str, value: object) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        read_settings({key: value})
    [problem] = refused.value.problems
    assert problem.startswith(f"{key}={value} must be {RULES[key].allowed}.")
    assert f"-c {key}={getattr(Settings(), key)}" in problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("content_bucket", "photos"),
        ("uploads_bucket", "uploads.example.org"),
        ("uploads_bucket", "123456789012-uploads-us-east-1-an"),
        ("restore_buckets", "press"),
        ("restore_buckets", ",".join(f"press-{number}" for number in range(20))),
        ("site_urls", "https://example.org/"),
        ("site_urls", "http://localhost:8080/media/2026/=files/,https://example.org/%C3%BC/=a=b?/"),
    ],
)
def test_names_of_buckets_and_urls_are_taken_as_they_are(key: str, value: str) -> None:
    assert getattr(read_settings({key: value}), key) == value


@pytest.mark.parametrize(
    "value",
    [
        "https://example.org/media",
        "https://example.org/?page=",
        "https://example.org/a b/",
        "https://example.org/ü/",
        "https://example.org/=ü",
        ",".join(f"https://example.org/{number}/" for number in range(21)),
    ],
)
def test_urls_that_keys_cannot_be_told_from_are_refused(value: str) -> None:
    with pytest.raises(SettingsInvalid, match="site_urls="):
        read_settings({"site_urls": value})


def test_of_several_names_the_wrong_one_is_told() -> None:
    with pytest.raises(SettingsInvalid, match=r"at most 20, or nothing\. What is wrong is 'My_Books'\."):
        read_settings({"restore_buckets": "press, My_Books"})


def test_an_upload_of_a_second_can_only_be_released_later() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        read_settings({"release_after_s": "1", "upload_url_s": "1"})
    [problem] = refused.value.problems
    assert problem.endswith("Use `-c release_after_s=2`.")


def test_private_prefixes_are_told_apart_and_each_once() -> None:
    assert read_settings({"private_prefixes": "a/, b-,a/"}).private == ("a/", "b-")
    assert read_settings({}).private == ()


def test_blanks_beside_commas_and_repeated_names_do_no_harm() -> None:
    settings = read_settings({"uploads_bucket": "uploads", "restore_buckets": "press, uploads ,press"})
    assert settings.other_destinations == ("press",)
    assert read_settings({}).other_destinations == ()


def test_all_problems_are_told_at_once() -> None:
    bad = {key: values[0] for key, values in REFUSED.items()}
    with pytest.raises(SettingsInvalid) as refused:
        read_settings({**bad, "max_agee_s": "5"})
    assert len(refused.value.problems) == len(bad) + 1
    for problem in refused.value.problems:
        assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"audit_budget_percent": "8"},
            (
                "audit_horizon_days=365 thaws 8.43 % of what is stored in a month, and audit_budget_percent=8 allows "
                "8 %. Use `-c audit_budget_percent=9`, or `-c audit_horizon_days=385`."
            ),
        ),
        (
            {"audit_horizon_days": "4"},
            (
                "audit_horizon_days=4 thaws 3043.75 % of what is stored in a month, and audit_budget_percent=10 allows "
                "10 %. Use `-c audit_budget_percent=3044`, or `-c audit_horizon_days=308`."
            ),
        ),
        (
            {"audit_every_h": "0"},
            (
                "audit_horizon_days=365 cannot be kept with audit_every_h=0, by which nothing is audited unless a "
                "person asks for it. Use `-c audit_horizon_days=0` beside it, or `-c audit_every_h=1`."
            ),
        ),
        (
            {"storage_class": "DEEP_ARCHIVE", "audit_tier": "expedited"},
            (
                "audit_tier=expedited does not go with storage_class=DEEP_ARCHIVE, which S3 thaws by bulk and standard "
                "only. Use for example `-c audit_tier=bulk`."
            ),
        ),
        (
            {"audit_every_h": "24", "audit_silent_h": "47"},
            (
                "audit_silent_h=47 is less than twice audit_every_h=24: there would be an alarm whenever a thaw takes "
                "longer than the one before. Use `-c audit_silent_h=48`."
            ),
        ),
        (
            {"release_after_s": "60"},
            (
                "release_after_s=60 lets an upload go while a URL to it may still be valid, for upload_url_s=60 "
                "seconds. Use `-c release_after_s=61`, or `-c upload_url_s=59`."
            ),
        ),
        (
            {"signing": "cloudfront", "cdn_key_id": "K2JCJMDEHXQW5F"},
            (
                "signing=cloudfront needs cdn_key_group, cdn_key_parameter as well: the key group that the "
                "distribution trusts, the id of a public key in it, and the parameter that holds its private key. Set "
                "them, or use `-c signing=s3`."
            ),
        ),
        (
            {"cdn_certificate": CERTIFICATE, "cdn_urls": "https://img1.example.com,http://img2.example.com"},
            (
                "cdn_certificate makes the hosts of cdn_urls names of the distribution, and 'http://img2.example.com' "
                "is not https:// with a host alone. Use for example `-c cdn_urls=https://img1.example.com`, or leave "
                "cdn_certificate out."
            ),
        ),
        (
            {"drill_bucket": "press", "uploads_bucket": "press"},
            (
                "drill_bucket=press is the uploads bucket, from which a drill's copies would go on to the content "
                "bucket. Name another one, or leave drill_bucket out."
            ),
        ),
        (
            {"content_bucket": "press", "uploads_bucket": "press"},
            (
                "uploads_bucket names the content bucket press as well: an upload would be copied onto itself, and "
                "then let go. Take it out of uploads_bucket, or give content_bucket another."
            ),
        ),
        (
            {"content_bucket": "press", "drill_bucket": "press", "restore_buckets": "books,press"},
            (
                "drill_bucket names the content bucket press as well: a drill restores there anyway, and into a "
                "second bucket beside it. Take it out of drill_bucket, or give content_bucket another. "
                "restore_buckets names the content bucket press as well: restores may go there anyway. Take it out "
                "of restore_buckets, or give content_bucket another."
            ),
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_with_their_figures(given: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        read_settings(given)
    assert refused.value.problems == (told,)


def test_remedies_against_settings_that_do_not_fit_help() -> None:
    for remedy in (
        {"audit_budget_percent": "8", "audit_horizon_days": "385"},
        {"audit_budget_percent": "9"},
        {"audit_horizon_days": "4", "audit_budget_percent": "3044"},
        {"audit_horizon_days": "308"},
        {"audit_budget_percent": "1", "audit_horizon_days": "3075"},
        {"audit_every_h": "0", "audit_horizon_days": "0"},
        {"audit_every_h": "0", "audit_horizon_days": "0", "audit_budget_percent": "1", "audit_silent_h": "2"},
        {"storage_class": "DEEP_ARCHIVE", "audit_tier": "standard"},
        {"storage_class": "GLACIER_IR", "audit_tier": "expedited"},
        {"audit_every_h": "24"},
        {"release_after_s": "61"},
        {"release_after_s": "2", "upload_url_s": "1"},
        {"signing": "cloudfront", **SIGNED},
        {"cdn_certificate": CERTIFICATE, "cdn_urls": "https://img1.example.com,https://img2.example.com"},
        {"cdn_urls": "http://127.0.0.1:8080/base"},
    ):
        read_settings(remedy)


def test_settings_are_not_held_against_one_that_is_refused_itself() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        read_settings({"audit_budget_percent": "ten", "audit_horizon_days": "30"})
    [problem] = refused.value.problems
    assert problem.startswith("audit_budget_percent=ten")


def test_the_place_of_inventory_reports_has_a_bucket_and_a_prefix() -> None:
    assert read_settings({"inventory": "s3://reports/neve/daily/"}).inventory_place == ("reports", "neve/daily/")
    assert read_settings({}).inventory_place == ("", "")


def test_a_mistyped_setting_is_not_ignored() -> None:
    with pytest.raises(SettingsInvalid, match=r"storage_clas=GLACIER is not a setting\. Did you mean storage_class\?"):
        read_settings({"storage_clas": "GLACIER"})


def test_the_context_of_cdk_itself_is_left_alone() -> None:
    context = {"@aws-cdk/core:flag": True, "aws:cdk:bundling-stacks": [], "availability-zones:account=1:region=x": []}
    assert read_settings(context) == Settings()


@given(st.integers())
def test_a_whole_number_is_taken_exactly_if_it_is_in_its_range(number: int) -> None:
    rule = Whole(5, 900, "seconds")
    for given_as in (number, str(number)):
        if 5 <= number <= 900:
            assert rule.read(given_as) == number
        else:
            with pytest.raises(ValueError, match=str(number)):
                rule.read(given_as)


def test_the_documentation_has_every_setting_with_its_default_and_range() -> None:
    page = (PROJECT / "docs" / "settings.md").read_text()
    for key, rule in RULES.items():
        default = getattr(Settings(), key)
        shown = f"`{default}`" if default != "" else "none"
        assert f"| `{key}` | {shown} | {rule.allowed} |" in page
