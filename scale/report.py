"""docs/scale.md: what the arithmetic and the simulation say, as tables and a few sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from textwrap import fill

from bench.report import paragraphs, table
from neve.domain.forecast import met
from neve.domain.prices import PriceList
from scale.capacity import HEADROOM, LONGER_WINDOW, Limit, Model, partitions
from scale.figures import RULES, Figure, Run, local, region
from scale.quotas import QUOTAS
from scale.thread import Arrivals, History, Outcome, Settings, Times, simulate, usd_per_million
from stacks.settings import Settings as Deployment

FILES = (1e6, 1e7, 1e8, 1e9, 1e10)
RATES = (10, 100, 1_000, 10_000)
WIDTH = 120
MOST_ENVIRONMENTS = 4
"""Of one function on the local cloud: neve_local.app."""


def count(value: float) -> str:
    """A number as people read it: 3.9 billion, 12 million, 1,234, 0.38."""
    for size, name in ((1e9, " billion"), (1e6, " million")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(value: float) -> str:
    """Bytes, in decimal units."""
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value / 1000:.3g} KB"


def hours(value: float) -> str:
    """A time that is given in hours."""
    if value >= 72:
        return f"{value / 24:,.0f} days"
    return f"{value:.1f} h" if value >= 1 else f"{math.ceil(value * 60)} min"


def dollars(value: float) -> str:
    """An amount, in cents below $100."""
    return f"${value:,.2f}" if value < 100 else f"${value:,.0f}"


def _page(*texts: str) -> str:
    """The texts, one below the other; sentences are broken into lines."""
    broken = (
        text if text.startswith(("|", "#", "- ")) else fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
        for text in texts
    )
    return paragraphs(*broken)


# -- On paper ---------------------------------------------------------------------------------------------------------


def paper(model: Model, prices: PriceList) -> str:
    """What can be reckoned: by rate, by number of files, what binds first, and from what it is reckoned."""
    return _page(
        "# Scale",
        "*Written by `make scale`; what is changed by hand is lost. `python -m scale --help` has other sizes, "
        "classes and settings.*",
        f"What neve takes at any size and rate, and which limit is met first. Files of {size(model.file_bytes)} in "
        f"archives of {model.members:,} ({size(model.archive_bytes)}), {model.settings.storage_class}, settings "
        f"{'as by default' if model.settings == Deployment() else 'as given'}, prices of {prices.region}, "
        f"{prices.checked}. Nothing of this size has ever run: processor time is as the bench has measured it on one "
        'machine, ways and quotas are as AWS states them or as assumed ("What it is reckoned from", below).',
        "## By rate",
        _by_rate(model, prices),
        "Dollars are for a million files archived, as `neve cost` reckons them. Collect, WriteArchive and "
        "CopyUpload are invocations at once, on average; CopyUpload only where uploads are offloaded. Units are "
        "DynamoDB's write units a second, with the partitions that a table needs for them.",
        "## What binds first",
        _limits(model),
        f'"Then" is where it binds with the setting as high as it goes. A setting is named with {HEADROOM - 1:.0%} '
        "of room.",
        "\n".join(_at_rate(model, rate) for rate in RATES),
        "When Collect fails for a while, events stay invisible until they are tried again, and count as in flight: "
        "at more than some 330 files/s an outage of six minutes fills a queue's 120,000. Then SQS hands out no more "
        "until some come back. Nothing is lost, and uploads go on.",
        "## By number of files",
        _by_files(model, prices),
        "Once: archiving all of it, in full bundles. A month: storage, index, audits and what is fixed, without "
        "restores. Backfill: how long it takes to archive what is there; first as set by default "
        f"({count(model.backfill()[0])} files/s, limited by `{model.backfill()[1]}`), then with "
        f"`backfill_write_concurrency={model.backfill_writers}` and "
        f"`backfill_collect_concurrency={model.backfill_collects}` ({count(model.backfill(raised=True)[0])} files/s, "
        f"limited by {model.backfill(raised=True)[1]}). A pass of Reconcile lists all versions, five shards at once.",
        "\n".join(
            f"- From {count(ending.files)} files on: {ending.what}. Change: {ending.remedy}."
            for ending in model.growing
        ),
        "## Restores",
        _restores(model),
        "Hours until all is in its place, without S3's own time to thaw (Bulk 5 to 12 h, or 48 h from "
        "DEEP_ARCHIVE). Picked by chance, one file in a hundred lies in nearly every archive. A whole "
        "collection of more than some hundred million files comes back sooner as whole archives, thawed by S3 Batch "
        "Operations and opened with tar ([format.md](format.md)).",
        "### By size, in short",
        "\n".join(_at_size(model, files) for files in FILES),
        "## Quotas",
        table(
            ("limit", "value", "how it is raised", "source"),
            [(each.what, f"{each.value:,.0f} {each.unit}", each.remedy, each.source) for each in QUOTAS],
        ),
        "## What it is reckoned from",
        _measured(model.figures),
        "Processor time is taken as if on one processor of Lambda with 1,769 MB, and longer where a function has "
        "less. Collect's batches are taken for as large as slow pollers make them; whether Lambda's own are faster "
        "AWS does not say.",
        table(
            ("by rule", "value", "source"),
            [(rule.what, f"{rule.value:g} {rule.unit}", rule.source) for rule in RULES],
        ),
    )


def _by_rate(model: Model, prices: PriceList) -> str:
    rows = []
    for rate in RATES:
        beyond = model.met(rate)
        units = model.archives_table_writes(rate)
        rows.append(
            (
                f"{rate:,}",
                dollars(model.usd_per_million(rate, prices)),
                count(model.archives_per_s(rate)),
                count(model.collects(rate)),
                count(model.writes(rate)),
                count(rate * model.copy_upload_s),
                f"{rate:,} ({partitions(rate)})",
                f"{count(units)} ({partitions(units)})",
                beyond[0].what if beyond else "nothing",
            )
        )
    head = (
        "files/s",
        "a million",
        "archives/s",
        "Collect",
        "WriteArchive",
        "CopyUpload",
        "units, `files`",
        "units, `archives`",
        "binds first",
    )
    return table(head, rows)


def _limits(model: Model) -> str:
    ordered = sorted((model.offloading, *model.limits), key=lambda limit: limit.binds_at)
    return table(
        ("limit", "used at 1,000 files/s", "of", "binds at", "then", "to change"),
        [
            (
                limit.what,
                count(limit.used(1_000)),
                f"{count(limit.most)} {limit.unit}",
                _rate(limit.binds_at),
                _rate(limit.ends_at) if limit.setting else "",
                limit.remedy,
            )
            for limit in ordered
        ],
    )


def _rate(files_per_s: float) -> str:
    return "never" if math.isinf(files_per_s) else f"{count(files_per_s)} files/s"


def _change(limit: Limit, rate: float) -> str:
    where = f"{limit.what} at {_rate(limit.binds_at)}"
    if not limit.setting:
        return f"{where}: {limit.remedy}"
    if limit.ends_at < rate:
        return f"{where}: `{limit.setting}={limit.ceiling:.0f}`, its highest, does for {_rate(limit.ends_at)}"
    return f"{where}: `{limit.setting}={limit.needed(rate)}`"


def _at_rate(model: Model, rate: float) -> str:
    beyond = [_change(limit, rate) for limit in (*_offloaded(model, rate), *model.met(rate))]
    following = model.next(rate)
    ahead = f"next {following.what}, at {_rate(following.binds_at)}"
    if not beyond:
        return f"- **{rate:,} files/s**: nothing binds; {ahead}."
    return "\n".join(
        (f"- **{rate:,} files/s**: what binds, in this order; {ahead}.", *(f"  - {each}." for each in beyond))
    )


def _offloaded(model: Model, rate: float) -> Iterable[Limit]:
    return (model.offloading,) if model.offloading.binds_at < rate else ()


def _by_files(model: Model, prices: PriceList) -> str:
    rows = []
    for files in FILES:
        once_usd, month_usd = model.usd(files, prices)
        started, _ = model.audits_at_once(files)
        rows.append(
            (
                count(files),
                size(model.archives(files) * model.archive_bytes),
                count(model.archives(files)),
                dollars(once_usd),
                dollars(month_usd),
                hours(files / model.backfill()[0] / 3600),
                hours(files / model.backfill(raised=True)[0] / 3600),
                hours(model.reconcile_h(files)),
                f"{count(model.audits_per_day(files))} ({started:.2g})",
            )
        )
    head = (
        "files",
        "archived",
        "archives",
        "once",
        "a month",
        "backfill",
        "raised",
        "reconcile",
        "audits a day (at once)",
    )
    return table(head, rows)


def _restores(model: Model) -> str:
    rows = []
    for files in FILES:
        scattered = met(model.plan(files), files / 100)
        wanted = (
            (model.archives(files / 100), files / 100),
            (scattered, files / 100),
            (model.archives(files), files),
        )
        parts = [model.restore(archives, each) for archives, each in wanted]
        slowest, second = sorted(parts[-1], key=lambda part: -parts[-1][part])[:2]
        rows.append((count(files), *(hours(max(each.values())) for each in parts), count(scattered), slowest, second))
    head = (
        "files",
        "1 %, side by side",
        "1 %, by chance",
        "100 %",
        "archives with 1 % by chance",
        "limited by",
        "then by",
    )
    return table(head, rows)


def _at_size(model: Model, files: float) -> str:
    passed = [ending for ending in model.growing if ending.files < files]
    slow, fast = (files / model.backfill(raised=raised)[0] / 3600 for raised in (False, True))
    whole = max(model.restore(model.archives(files), files).values())
    said = "nothing has to be changed" if not passed else "; ".join(f"{each.what}: {each.remedy}" for each in passed)
    return (
        f"- **{count(files)} files**: {said}. A backfill of all takes {hours(slow)}, or {hours(fast)} with the "
        f"setting raised; a restore of all {hours(whole)}."
    )


def _measured(figures: Mapping[str, Figure]) -> str:
    return table(
        ("measured", "value", "by", "on"),
        [(each.what, f"{each.value:,g} {each.unit}", f"`{each.command}`", each.date) for each in figures.values()],
    )


# -- Simulated --------------------------------------------------------------------------------------------------------

SIMULATED = {10: 4_000, 100: 15_000, 1_000: 60_000, 10_000: 200_000}
"""Files by rate: enough for a p99, and few enough for a quarter of a minute in all."""
PROMISE_S = 35.0
LONGER_WINDOW_S = 5
"""Where batches have to fill bundles: so long a slow poller takes for 500 events."""


def simulated(model: Model, run: Run, prices: PriceList) -> str:
    """What only a simulation tells: how long files wait, how large batches and archives get, what lanes are for."""
    times = region(dict(model.figures))
    settings = thread_settings(model)
    return _page(
        "## Simulated",
        "The thread by discrete events (`scale/thread.py`, simpy): uploads by chance, S3's delivery, the pollers of "
        "the mappings with their window and their growth, Collects that share an open bundle, timers, writers, "
        "starts of environments. Times are the figures and rules above. Latency is from the upload until the "
        "archive's last row.",
        _rates(model, settings, times, prices),
        f"As said above: with the settings named there, and a window of {LONGER_WINDOW_S} s where a longer one is. "
        "Where settings do not suffice, latency is that of a queue that grows as long as files come so fast; "
        f"{SIMULATED[10_000]:,} files are simulated, from nothing to that rate at once. Dollars count each poll of "
        "the events' queue: below some hundred files a second an answer rarely holds more than one message, and "
        "long polls make that about one request a file.",
        "### Window, age and number of pollers",
        _windows(settings, times, prices),
        f"Two pollers make larger batches than {settings.collect_concurrency} allowed (AWS begins with five), and that "
        f"saves parts and counters without waiting; each takes some {model.events_per_poller:.0f} events a second "
        "by the rules above. On a quiet queue a poll that is under way is not cut short by the window: AWS says that "
        "Lambda might wait for up to 20 seconds. So the timer of a bundle counts from the upload of its first "
        "file, for half of its age at the least.",
        "### Beside a backfill",
        _lanes(model, settings, times),
        "In queues and functions of its own a backfill costs the uploads nothing; in the same ones they wait for "
        "whatever was announced before them. (A slow one would even help: it fills their bundles.)",
        "### Against the local cloud",
        _against(model, run, settings),
        f"Part (c) of the bench ([benchmarks.md](benchmarks.md), {run.date}) against the same by simulation: one "
        f"reader of each queue, {MOST_ENVIRONMENTS} environments of a function, writers that share the machine at "
        "the pace of part (a), no uploads that slow them down. The median is mostly how long the first archive "
        "takes to write. It checks the bundles, timers and batches, not AWS's "
        "pollers, which the local cloud does not have.",
    )


def thread_settings(model: Model) -> Settings:
    """What the simulation takes of the deployment's settings."""
    given = model.settings
    return Settings(
        target_bytes=given.target_bytes,
        max_members=given.max_members,
        max_age_s=given.max_age_s,
        window_s=given.collect_window_s,
        collect_batch=given.collect_batch,
        collect_concurrency=given.collect_concurrency,
        write_concurrency=given.write_concurrency,
    )


def _raised(model: Model, settings: Settings, rate: float) -> Settings:
    """As the paragraphs say for this rate."""
    beyond = model.met(rate)
    needed = {limit.setting: limit.needed(rate) for limit in beyond if limit.setting}
    return replace(
        settings,
        window_s=LONGER_WINDOW_S if any(limit.remedy == LONGER_WINDOW for limit in beyond) else settings.window_s,
        collect_concurrency=needed.get("collect_concurrency", settings.collect_concurrency),
        write_concurrency=needed.get("write_concurrency", settings.write_concurrency),
    )


def arriving_at(rate: float, files: int, file_bytes: int = 100_000) -> Arrivals:
    """So many files; the end of the run, where the queue falls quiet, does not count: a fifth of its time at most."""
    return Arrivals(files=files, files_per_s=rate, file_bytes=file_bytes, tail_s=min(60.0, files / rate / 5))


def _rates(model: Model, settings: Settings, times: Times, prices: PriceList) -> str:
    rows = []
    for rate, files in SIMULATED.items():
        arrivals = arriving_at(rate, files, model.file_bytes)
        raised = _raised(model, settings, rate)
        for name, given in {"as by default": settings, "as said above": raised}.items():
            if name == "as by default" or given != settings:
                outcome = simulate(arrivals, given, times)
                rows.append((f"{rate:,}", name, *_outcome(outcome, model.file_bytes, prices)))
    head = (
        "files/s",
        "settings",
        "p50",
        "p99",
        "members",
        "archive",
        "batch",
        "Collect at once",
        "WriteArchive",
        "a million",
    )
    return table(head, rows)


def _outcome(outcome: Outcome, file_bytes: int, prices: PriceList) -> tuple[str, ...]:
    return (
        f"{outcome.latency(0.5):.1f} s",
        f"{outcome.latency(0.99):.1f} s",
        count(outcome.members),
        size(outcome.members * file_bytes),
        count(outcome.batch),
        f"{outcome.collects_at_once}",
        f"{outcome.writes_at_once}",
        dollars(usd_per_million(outcome, prices)),
    )


WINDOW_FILES = {1: 3_000, 10: 4_000, 100: 8_000}


def window_grid(settings: Settings, times: Times) -> dict[tuple[int, Settings], Outcome]:
    """Runs of 100 KB files by rate and settings: pollers, window and age."""
    grid: dict[tuple[int, Settings], Outcome] = {}
    for rate, files in WINDOW_FILES.items():
        default = (settings.collect_concurrency, settings.window_s, settings.max_age_s)
        choices = (default, *product((2,), (1, 2, 3, 5, 10), (10, 20, 30)))
        for pollers, window_s, age_s in choices:
            given = replace(settings, collect_concurrency=pollers, window_s=window_s, max_age_s=age_s)
            grid[rate, given] = simulate(arriving_at(rate, files), given, times)
    return grid


def _windows(settings: Settings, times: Times, prices: PriceList) -> str:
    grid = window_grid(settings, times)
    rows = []
    for rate in WINDOW_FILES:
        kept = {
            given: usd_per_million(outcome, prices)
            for (at, given), outcome in grid.items()
            if at == rate and outcome.latency(0.99) <= PROMISE_S
        }
        best = min(kept, key=lambda given: kept[given], default=settings)
        shown = [given for at, given in grid if at == rate and given.max_age_s == settings.max_age_s]
        shown += [best] if best not in shown else []
        for given in shown:
            outcome = grid[rate, given]
            cost = dollars(usd_per_million(outcome, prices))
            rows.append(
                (
                    f"{rate}",
                    f"{given.collect_concurrency}",
                    f"{given.window_s:g} s",
                    f"{given.max_age_s:g} s",
                    count(outcome.batch),
                    count(outcome.members),
                    f"{outcome.latency(0.5):.1f} s",
                    f"{outcome.latency(0.99):.1f} s",
                    f"**{cost}**" if given == best else cost,
                )
            )
    said = (
        f"The cheapest with a p99 of at most {PROMISE_S:.0f} s is in bold; looked at were ages of 10, 20 and 30 s "
        "with two pollers."
    )
    head = (
        "files/s",
        "`collect_concurrency`",
        "`collect_window_s`",
        "`max_age_s`",
        "batch",
        "members",
        "p50",
        "p99",
        "a million",
    )
    return paragraphs(table(head, rows), said)


def _lanes(model: Model, settings: Settings, times: Times) -> str:
    own = replace(
        settings, window_s=0, collect_concurrency=2, write_concurrency=model.settings.backfill_write_concurrency
    )
    rows = []
    for rate, files in ((10, 2_000), (100, 10_000)):
        arrivals = arriving_at(rate, files, model.file_bytes)
        announced = History(files=1_000_000, files_per_s=5_000)
        runs = {
            "alone": None,
            "a backfill of 5,000 files/s, own queues and functions": replace(announced, settings=own),
            "the same, in the same queues and functions": announced,
        }
        for name, history in runs.items():
            outcome = simulate(arrivals, settings, times, history=history)
            rows.append(
                (f"{rate} uploads/s, {name}", f"{outcome.latency(0.5):.1f} s", f"{outcome.latency(0.99):.1f} s")
            )
    return table(("", "p50", "p99"), rows)


def _against(model: Model, run: Run, settings: Settings) -> str:
    given = replace(settings, collect_concurrency=MOST_ENVIRONMENTS, write_concurrency=MOST_ENVIRONMENTS)
    arrivals = Arrivals(files=run.files, files_per_s=run.files_per_s, file_bytes=run.file_bytes)
    outcome = simulate(arrivals, given, local(dict(model.figures), run.file_bytes))
    pairs = (
        ("latency p50", outcome.latency(0.5), run.p50_s, "s"),
        ("latency p99", outcome.latency(0.99), run.p99_s, "s"),
        ("until all are archived", max(archive.at for archive in outcome.archives), run.until_all_s, "s"),
        ("archives", float(len(outcome.archives)), float(run.archives), ""),
        ("files in an archive", outcome.members, run.files / run.archives, ""),
    )
    head = (
        f"{run.files:,} files of {size(run.file_bytes)} at {run.files_per_s:,.0f}/s",
        "simulated",
        "measured",
        "deviation",
    )
    rows = [
        (
            name,
            f"{simulation:.4g} {unit}".strip(),
            f"{measured:.4g} {unit}".strip(),
            f"{simulation / measured - 1:+.0%}",
        )
        for name, simulation, measured, unit in pairs
    ]
    return table(head, rows)
