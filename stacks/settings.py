"""The settings of a deployment: read from CDK context, checked at synth, all problems told at once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from neve.config import audit_percent_needed

BYTES_PER_MIB = 1024 * 1024


class SettingsInvalid(Exception):
    """One or more settings cannot be used; the message lists each with its key, value, range and remedy."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        settings = "1 setting" if len(problems) == 1 else f"{len(problems)} settings"
        super().__init__(
            f"neve: {settings} cannot be used; nothing was synthesized.\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + "\nAll settings are described in docs/settings.md."
        )


class OneOfThem(ValueError):
    """One of several values is out of its range; the message is that one."""


class Rule(Protocol):
    """What a setting may be. `read` returns the value or raises ValueError; `allowed` completes "must be ..."."""

    @property
    def allowed(self) -> str: ...

    def read(self, given: object) -> str | int | float: ...


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both allowed; or 0 as well, which is `off`."""

    low: int
    high: int
    unit: str
    off: bool = False

    @property
    def allowed(self) -> str:
        return f"{'0, or ' if self.off else ''}a whole number from {self.low} to {self.high} ({self.unit})"

    def read(self, given: object) -> int:
        # `cdk -c` hands over text, cdk.json may hold a number; a JSON `true` is neither.
        if isinstance(given, bool) or not re.fullmatch(r"\d{1,9}", str(given), re.ASCII):
            raise ValueError(given)
        number = int(str(given))
        if not self.low <= number <= self.high and not (self.off and number == 0):
            raise ValueError(given)
        return number


@dataclass(frozen=True)
class Mebibytes:
    """A size in MiB, with decimals, that comes to at least one byte."""

    high: int

    @property
    def allowed(self) -> str:
        return f"a number above 0, at most {self.high} (MiB)"

    def read(self, given: object) -> float:
        if isinstance(given, bool):
            raise ValueError(given)
        number = float(str(given))
        if not math.isfinite(number) or number > self.high or int(number * BYTES_PER_MIB) < 1:
            raise ValueError(given)
        return number


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"one of {', '.join(self.words)}"

    def read(self, given: object) -> str:
        if given not in self.words:
            raise ValueError(given)
        return str(given)


@dataclass(frozen=True)
class Text:
    """Text of a given pattern, which `allowed` puts into words."""

    pattern: str
    allowed: str

    def read(self, given: object) -> str:
        if not isinstance(given, str) or not re.fullmatch(self.pattern, given, re.ASCII):
            raise ValueError(given)
        return given


@dataclass(frozen=True)
class Several:
    """Up to `most` texts of one pattern, separated by commas. Blanks beside a comma are dropped."""

    pattern: str
    most: int
    allowed: str

    def read(self, given: object) -> str:
        if not isinstance(given, str):
            raise ValueError(given)
        several = [each.strip(" ") for each in given.split(",")] if given else []
        if len(several) > self.most:
            raise ValueError(given)
        for each in several:
            if not re.fullmatch(self.pattern, each, re.ASCII):
                raise OneOfThem(each)
        return ",".join(several)


# S3's rules (S3 user guide, "General purpose bucket naming rules"): among the names that they reserve are the aliases
# of access points and the buckets of other kinds.
_BUCKET = (
    r"(?!xn--|sthree-|amzn-s3-demo-|\d{1,3}(?:\.\d{1,3}){3}$)"
    r"(?!.*(?:\.\.|-s3alias$|--ol-s3$|\.mrap$|--x-s3$|--table-s3$))"
    r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
)

# A function's environment holds 4 KB, of which so many names take a third; the policies of its role hold 10,240
# characters.
_MOST_BUCKETS = 20

# CloudFormation hands out every character of an output that is not ASCII as a question mark.
_SITE_URL = (
    r"https?://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::\d{1,5})?/"
    r"(?:[A-Za-z0-9._~!$&'()*+;:@%-]+/)*(?:=[!-+\--~]*)?"
)
_MOST_SITE_URLS = 20

# Signs that mean themselves in a URL, in CloudFront's patterns of paths, and in a policy's resources.
_PREFIX = r"(?!\.neve/|\.\.?/)[A-Za-z0-9_.~-][A-Za-z0-9_.~/-]{0,199}"
_MOST_PREFIXES = 10

_BASE_URL = (
    r"https?://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::\d{1,5})?"
    r"(?:/[A-Za-z0-9._~-]+)*"
)
_MOST_BASE_URLS = 10

# Of the signs that S3 calls safe in keys those that mean nothing in a policy's resource.
_INVENTORY = rf"s3://{_BUCKET}/(?:[A-Za-z0-9!_.'()=-]+/)+"

# A Lambda runs at most 900 s; below 5 s a cold start alone would use the time up.
_TIMEOUT = Whole(5, 900, "seconds")

# What an event source mapping of SQS takes for MaximumConcurrency.
_AT_ONCE = Whole(2, 1000, "at once")

_YES_OR_NO = Choice(("yes", "no"))
_ONE_BUCKET = Text(f"|{_BUCKET}", "the name of one bucket, as S3 allows it, or nothing")

LONGEST_HORIZON_DAYS = 3650

RULES: Mapping[str, Rule] = {
    # Bucket names begin with the stack's name: lower case, and short enough to stay readable within their 63 letters.
    "name": Text(r"[a-z][a-z0-9-]{0,31}", "1 to 32 lower-case letters, digits and hyphens, a letter first"),
    "storage_class": Choice(("GLACIER", "DEEP_ARCHIVE", "GLACIER_IR")),
    "target_mib": Mebibytes(100),
    # SQS delays a message, which is the timer of a bundle, by at most 900 s.
    "max_age_s": Whole(1, 900, "seconds"),
    "max_members": Whole(1, 10_000, "members"),
    "collect_timeout_s": _TIMEOUT,
    "write_timeout_s": _TIMEOUT,
    "copy_timeout_s": _TIMEOUT,
    "sweep_timeout_s": _TIMEOUT,
    # 10,000 is the largest batch of an event source mapping on a standard queue.
    "collect_batch": Whole(1, 10_000, "events"),
    # AWS asks for at least 1 above 10 events a batch.
    "collect_window_s": Whole(1, 300, "seconds"),
    "collect_concurrency": _AT_ONCE,
    "write_concurrency": _AT_ONCE,
    "copy_concurrency": _AT_ONCE,
    "fetch_threads": Whole(1, 256, "threads"),
    "content_bucket": _ONE_BUCKET,
    "uploads_bucket": _ONE_BUCKET,
    "key_layout": Choice(("as-is", "hashed")),
    # Longer than the 14 days for which a queue may hold the message that would have brought an upload on its way.
    "attic_days": Whole(30, 3650, "days"),
    # SQS delays a message by at most 900 s.
    "release_after_s": Whole(1, 900, "seconds"),
    "uploads_timeout_s": _TIMEOUT,
    "uploads_concurrency": _AT_ONCE,
    "release_timeout_s": _TIMEOUT,
    "relay_timeout_s": _TIMEOUT,
    "upload_url_s": Whole(1, 600, "seconds"),
    "redirect_max_age_s": Whole(0, 86_400, "seconds"),
    "private_prefixes": Several(
        _PREFIX,
        _MOST_PREFIXES,
        "beginnings of keys such as private/, of letters, digits and _.~/-, separated by commas, "
        f"at most {_MOST_PREFIXES}, or nothing",
    ),
    "signing": Choice(("s3", "cloudfront")),
    # No role's credentials last for longer, and a URL ends with those that signed it.
    "signed_url_s": Whole(1, 43_200, "seconds"),
    "cdn_urls": Several(
        _BASE_URL,
        _MOST_BASE_URLS,
        "URLs such as https://img1.example.com, without a slash at the end, separated by commas, "
        f"at most {_MOST_BASE_URLS}, or nothing",
    ),
    "cdn_choice": Choice(("by-key", "random")),
    "cdn_certificate": Text(
        r"|arn:aws[a-z-]*:acm:us-east-1:\d{12}:certificate/[0-9a-f-]{36}",
        "the ARN of a certificate of ACM in us-east-1, or nothing",
    ),
    "cdn_key_group": Text(r"|[0-9a-f-]{36}", "the id of a key group of CloudFront, or nothing"),
    "cdn_key_id": Text(r"|[A-Z0-9]{5,32}", "the id of a public key of CloudFront, or nothing"),
    "cdn_key_parameter": Text(
        r"|/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){0,14}",
        "the name of a parameter of Systems Manager such as /neve/cdn-key, or nothing",
    ),
    "archived_answer": Choice(("not-found", "restore")),
    # CloudFront waits 30 s for an answer.
    "resolve_timeout_s": Whole(5, 30, "seconds"),
    "restore_buckets": Several(
        _BUCKET,
        _MOST_BUCKETS,
        f"names of buckets as S3 allows them, separated by commas, at most {_MOST_BUCKETS}, or nothing",
    ),
    "site_urls": Several(
        _SITE_URL,
        _MOST_SITE_URLS,
        "URLs such as https://host/ or https://host/path/, each perhaps with =key-prefix, separated by commas, "
        f"at most {_MOST_SITE_URLS}, or nothing",
    ),
    # 1,000 requests for thaws in a second are what S3 takes from an account.
    "restore_requests_per_s": Whole(1, 1000, "requests per second"),
    "restore_usd_per_day": Whole(0, 1_000_000, "US dollars"),
    "plan_concurrency": _AT_ONCE,
    "plan_timeout_s": _TIMEOUT,
    "extract_concurrency": _AT_ONCE,
    "extract_timeout_s": _TIMEOUT,
    "audit_every_h": Whole(1, 24, "hours", off=True),
    # The pass has to end 3 days before its horizon: in less than 4 there is no time for it.
    "audit_horizon_days": Whole(4, LONGEST_HORIZON_DAYS, "days", off=True),
    # A horizon of 4 days leaves one for the pass: all that is stored is thawed 30.4 times a month.
    "audit_budget_percent": Whole(1, 3100, "percent a month"),
    "audit_budget_usd": Whole(1, 1_000_000, "US dollars a month"),
    "audit_tier": Choice(("bulk", "standard", "expedited")),
    "audit_source": Choice(("read", "stated")),
    "audit_repair": Choice(("by-hand", "automatic")),
    # An alarm of CloudWatch looks back 7 days at most.
    "audit_silent_h": Whole(2, 168, "hours"),
    "audit_timeout_s": _TIMEOUT,
    "drill_every_month": _YES_OR_NO,
    "drill_bucket": _ONE_BUCKET,
    # Drill compares another file only if 30 s are left, and its sweep comes every 15 minutes.
    "drill_timeout_s": Whole(60, 900, "seconds"),
    "reconcile_every_week": _YES_OR_NO,
    "reconcile_grace_h": Whole(1, 720, "hours"),
    "reconcile_timeout_s": _TIMEOUT,
    "backfill_timeout_s": _TIMEOUT,
    # Each is an execution of a function, of which an account has 1,000 at once unless it asks for more.
    "backfill_shards_at_once": Whole(1, 1000, "shards"),
    "backfill_collect_concurrency": _AT_ONCE,
    "backfill_write_concurrency": _AT_ONCE,
    "inventory": Text(f"|{_INVENTORY}", "where S3 Inventory puts its reports, such as s3://bucket/prefix/, or nothing"),
    "alert_email": Text(r"|[^@\s,;]+@[^@\s,;]+\.[^@\s,;.]+", "one e-mail address, or nothing"),
    "lambda_platform": Choice(("arm64", "x86_64", "host")),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One deployment's settings. Each field is a CDK context key; RULES has what it may be."""

    name: str = "neve"
    storage_class: str = "GLACIER"
    target_mib: float = 25
    max_age_s: int = 20
    max_members: int = 2000
    collect_timeout_s: int = 60
    write_timeout_s: int = 300
    copy_timeout_s: int = 900
    sweep_timeout_s: int = 60
    collect_batch: int = 1000
    collect_window_s: int = 3
    collect_concurrency: int = 10
    write_concurrency: int = 20
    copy_concurrency: int = 10
    fetch_threads: int = 32
    content_bucket: str = ""
    uploads_bucket: str = ""
    key_layout: str = "as-is"
    attic_days: int = 30
    release_after_s: int = 900
    uploads_timeout_s: int = 300
    uploads_concurrency: int = 20
    release_timeout_s: int = 30
    relay_timeout_s: int = 60
    upload_url_s: int = 60
    redirect_max_age_s: int = 300
    private_prefixes: str = ""
    signing: str = "s3"
    signed_url_s: int = 300
    cdn_urls: str = ""
    cdn_choice: str = "by-key"
    cdn_certificate: str = ""
    cdn_key_group: str = ""
    cdn_key_id: str = ""
    cdn_key_parameter: str = ""
    archived_answer: str = "not-found"
    resolve_timeout_s: int = 10
    restore_buckets: str = ""
    site_urls: str = ""
    restore_requests_per_s: int = 100
    restore_usd_per_day: int = 100
    plan_concurrency: int = 2
    plan_timeout_s: int = 300
    extract_concurrency: int = 20
    extract_timeout_s: int = 300
    audit_every_h: int = 1
    audit_horizon_days: int = 365
    audit_budget_percent: int = 10
    audit_budget_usd: int = 100
    audit_tier: str = "bulk"
    audit_source: str = "read"
    audit_repair: str = "by-hand"
    audit_silent_h: int = 48
    audit_timeout_s: int = 900
    drill_every_month: str = "yes"
    drill_bucket: str = ""
    drill_timeout_s: int = 900
    reconcile_every_week: str = "yes"
    reconcile_grace_h: int = 24
    reconcile_timeout_s: int = 900
    backfill_timeout_s: int = 900
    backfill_shards_at_once: int = 10
    backfill_collect_concurrency: int = 2
    backfill_write_concurrency: int = 10
    inventory: str = ""
    alert_email: str = ""
    lambda_platform: str = "arm64"

    @property
    def target_bytes(self) -> int:
        """The size at which a bundle is full, in bytes."""
        return int(self.target_mib * BYTES_PER_MIB)

    @property
    def other_destinations(self) -> tuple[str, ...]:
        """The names of the buckets that restores may go to beside those of content and uploads, each once."""
        named = self.restore_buckets.split(",")
        return tuple(dict.fromkeys(name for name in named if name and name != self.uploads_bucket))

    @property
    def private(self) -> tuple[str, ...]:
        """The beginnings of the keys that are handed out by signed URLs only, each once."""
        return tuple(dict.fromkeys(prefix for prefix in self.private_prefixes.split(",") if prefix))

    @property
    def inventory_place(self) -> tuple[str, str]:
        """Bucket and prefix of S3 Inventory's reports; "" and "" without any."""
        bucket, _, prefix = self.inventory.removeprefix("s3://").partition("/")
        return bucket, prefix


@dataclass(frozen=True)
class Together:
    """Settings that have to fit each other. `problem` says what is wrong with them and what to do; "" if they fit."""

    keys: tuple[str, ...]
    problem: Callable[[Settings], str]


def _too_fast(settings: Settings) -> str:
    if settings.storage_class != "DEEP_ARCHIVE" or settings.audit_tier != "expedited":
        return ""
    return (
        "audit_tier=expedited does not go with storage_class=DEEP_ARCHIVE, which S3 thaws by bulk and standard only. "
        "Use for example `-c audit_tier=bulk`."
    )


def _no_passes(settings: Settings) -> str:
    if settings.audit_every_h or not settings.audit_horizon_days:
        return ""
    return (
        f"audit_horizon_days={settings.audit_horizon_days} cannot be kept with audit_every_h=0, by which nothing is "
        "audited unless a person asks for it. Use `-c audit_horizon_days=0` beside it, or `-c audit_every_h=1`."
    )


def _out_of_budget(settings: Settings) -> str:
    horizon_days, percent = settings.audit_horizon_days, settings.audit_budget_percent
    if not horizon_days or audit_percent_needed(horizon_days) <= percent:
        return ""
    needed = audit_percent_needed(horizon_days)
    reached = next(days for days in range(4, LONGEST_HORIZON_DAYS) if audit_percent_needed(days) <= percent)
    return (
        f"audit_horizon_days={horizon_days} thaws {math.ceil(100 * needed) / 100:.2f} % of what is stored in a month, "
        f"and audit_budget_percent={percent} allows {percent} %. Use `-c audit_budget_percent={math.ceil(needed)}`, or "
        f"`-c audit_horizon_days={reached}`."
    )


def _alarmed_by_its_own_pace(settings: Settings) -> str:
    every_h, silent_h = settings.audit_every_h, settings.audit_silent_h
    if silent_h >= 2 * every_h:
        return ""
    return (
        f"audit_silent_h={silent_h} is less than twice audit_every_h={every_h}: there would be an alarm whenever a "
        f"thaw takes longer than the one before. Use `-c audit_silent_h={2 * every_h}`."
    )


def _released_under_a_url(settings: Settings) -> str:
    release_s, url_s = settings.release_after_s, settings.upload_url_s
    if release_s > url_s:
        return ""
    shorter = f", or `-c upload_url_s={release_s - 1}`" if release_s > 1 else ""
    return (
        f"release_after_s={release_s} lets an upload go while a URL to it may still be valid, for "
        f"upload_url_s={url_s} seconds. Use `-c release_after_s={url_s + 1}`{shorter}."
    )


def _unsigned(settings: Settings) -> str:
    if settings.signing != "cloudfront":
        return ""
    missing = [key for key in ("cdn_key_group", "cdn_key_id", "cdn_key_parameter") if not getattr(settings, key)]
    if not missing:
        return ""
    return (
        f"signing=cloudfront needs {', '.join(missing)} as well: the key group that the distribution trusts, the id of "
        "a public key in it, and the parameter that holds its private key. Set them, or use `-c signing=s3`."
    )


def _drilled_into_uploads(settings: Settings) -> str:
    if not settings.drill_bucket or settings.drill_bucket != settings.uploads_bucket:
        return ""
    return (
        f"drill_bucket={settings.drill_bucket} is the uploads bucket, from which a drill's copies would go on to the "
        "content bucket. Name another one, or leave drill_bucket out."
    )


def _content_is_something_else(settings: Settings) -> str:
    name = settings.content_bucket
    if not name:
        return ""
    others = (
        ("uploads_bucket", settings.uploads_bucket, "an upload would be copied onto itself, and then let go"),
        ("drill_bucket", settings.drill_bucket, "a drill restores there anyway, and into a second bucket beside it"),
        ("restore_buckets", settings.restore_buckets, "restores may go there anyway"),
    )
    told = [
        f"{key} names the content bucket {name} as well: {why}. Take it out of {key}, or give content_bucket another."
        for key, named, why in others
        if name in named.split(",")
    ]
    return " ".join(told)


def _certified_for_nothing(settings: Settings) -> str:
    if not settings.cdn_certificate:
        return ""
    wrong = [url for url in settings.cdn_urls.split(",") if not re.fullmatch(r"https://[^/:]+", url)]
    if not wrong:
        return ""
    return (
        f"cdn_certificate makes the hosts of cdn_urls names of the distribution, and {wrong[0]!r} is not https:// with "
        "a host alone. Use for example `-c cdn_urls=https://img1.example.com`, or leave cdn_certificate out."
    )


TOGETHER = (
    Together(("release_after_s", "upload_url_s"), _released_under_a_url),
    Together(("signing", "cdn_key_group", "cdn_key_id", "cdn_key_parameter"), _unsigned),
    Together(("cdn_certificate", "cdn_urls"), _certified_for_nothing),
    Together(("drill_bucket", "uploads_bucket"), _drilled_into_uploads),
    Together(("content_bucket", "uploads_bucket", "drill_bucket", "restore_buckets"), _content_is_something_else),
    Together(("storage_class", "audit_tier"), _too_fast),
    Together(("audit_every_h", "audit_horizon_days"), _no_passes),
    Together(("audit_horizon_days", "audit_budget_percent"), _out_of_budget),
    Together(("audit_every_h", "audit_silent_h"), _alarmed_by_its_own_pace),
)


def read_settings(context: Mapping[str, object]) -> Settings:
    """The settings in `context`, defaults where it says nothing.

    Keys with a colon, a slash or an at sign are CDK's own and left alone.
    Raises SettingsInvalid, naming every value out of its range, all that do not fit each other, and every key that is
    no setting.
    """
    defaults = {known.name: known.default for known in fields(Settings)}
    problems: list[str] = []
    refused: set[str] = set()
    values: dict[str, str | int | float] = {}
    for key, given in context.items():
        if key in RULES:
            try:
                values[key] = RULES[key].read(given)
            except OneOfThem as one:
                refused.add(key)
                problems.append(_out_of_range(key, given, defaults[key], f" What is wrong is {str(one)!r}."))
            except ValueError:
                refused.add(key)
                problems.append(_out_of_range(key, given, defaults[key]))
        elif not re.search(r"[:/@]", key):
            problems.append(_unknown(key, given))
    settings = Settings(**values)  # type: ignore[arg-type]  # each value was read by its own key's rule
    problems += [problem for each in TOGETHER if not refused & set(each.keys) if (problem := each.problem(settings))]
    if problems:
        raise SettingsInvalid(problems)
    return settings


def _out_of_range(key: str, given: object, default: object, detail: str = "") -> str:
    return (
        f"{key}={given!s} must be {RULES[key].allowed}.{detail} "
        f"Use for example `-c {key}={default}`, which is the default, or leave {key} out."
    )


def _unknown(key: str, given: object) -> str:
    near = difflib.get_close_matches(key, RULES, n=1)
    meant = f"Did you mean {near[0]}?" if near else f"The settings are {', '.join(RULES)}."
    return f"{key}={given!s} is not a setting. {meant} Correct it, or leave {key} out."
