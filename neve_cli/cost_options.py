"""What a forecast is told of a collection: the options that the commands of `neve cost` share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neve.domain.forecast import Plan

LEAST_AUDIT_DAYS = 4
CLASSES = ("GLACIER", "DEEP_ARCHIVE", "GLACIER_IR")

TargetSize = Annotated[str, typer.Option(help="The setting target_mib: when a bundle is full.")]
Months = Annotated[int, typer.Option(min=1, max=1200, help="The term that sums are made for, in months.")]
Prices = Annotated[
    Path | None,
    typer.Option("--prices", help="A file of prices, as `neve cost prices --json` prints one.", show_default=False),
]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """How many files there are, how large they are, and in which class their archives lie."""

    files: Annotated[
        str | None, typer.Option("--files", help="How many files: 1000000, 10M, 2.5k.", show_default=False)
    ] = None
    mean_size: Annotated[
        str | None, typer.Option(help="The mean size of a file: 100KB, 1.5MB.", show_default=False)
    ] = None
    sizes: Annotated[
        Path | None,
        typer.Option("--sizes", help="A file with one size in bytes on each line; may be gzipped.", show_default=False),
    ] = None
    sample: Annotated[
        Path | None, typer.Option(help="A folder whose files are like all of them.", show_default=False)
    ] = None
    inventory: Annotated[
        str | None,
        typer.Option(
            metavar="S3://BUCKET/PREFIX/",
            help="The reports of an S3 Inventory of all versions: the newest one tells the size of each.",
            show_default=False,
        ),
    ] = None
    storage_class: Annotated[str, typer.Option(help=f"The archives' storage class: {', '.join(CLASSES)}.")] = "GLACIER"

    def plan(self, target_size: str = "25MiB") -> Plan:
        """The collection in archives of this size. Raises typer.BadParameter, and what reading an inventory raises."""
        from neve.domain.forecast import Plan  # noqa: PLC0415
        from neve.domain.metering import Class  # noqa: PLC0415
        from neve_cli.cost_sizes import Told, count, size_bytes, sizes  # noqa: PLC0415

        if self.storage_class not in CLASSES:
            raise typer.BadParameter(f"{self.storage_class!r} is no class of archives; there are {', '.join(CLASSES)}")
        target = size_bytes(target_size)
        if not 0 < target <= 100 * 1024 * 1024:
            raise typer.BadParameter("--target-size is above 0 and at most 100MiB, as the setting target_mib is")
        told = Told(
            files=count(self.files) if self.files is not None else None,
            mean=size_bytes(self.mean_size) if self.mean_size is not None else None,
            listed=self.sizes,
            sample=self.sample,
            inventory=self.inventory,
        )
        return Plan(sizes=sizes(told), storage_class=Class(self.storage_class), target_bytes=target)


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How files arrive, and what is done with them while they are kept."""

    rate: Annotated[
        float | None, typer.Option(min=0.0001, help="Files that arrive in a second.", show_default=False)
    ] = None
    new_per_day: Annotated[
        str | None, typer.Option(help="Files that arrive in a day: --rate in other words.", show_default=False)
    ] = None
    max_age: Annotated[
        int, typer.Option(min=1, max=900, help="The setting max_age_s: how long a bundle waits, seconds.")
    ] = 20
    restores: Annotated[str, typer.Option(help="Files restored one by one in a month.")] = "0"
    download: Annotated[bool, typer.Option("--download", help="Restored files are downloaded, and leave AWS.")] = False
    audits: Annotated[
        int,
        typer.Option(
            "--audits", min=0, help="The setting audit_horizon_days: each archive is audited in so many days."
        ),
    ] = 365
    no_reconcile: Annotated[bool, typer.Option("--no-reconcile", help="The setting reconcile_every_week is no.")] = (
        False
    )
    collect_window: Annotated[
        int, typer.Option(min=1, max=300, help="The setting collect_window_s: how long events are gathered, seconds.")
    ] = 3
    offload: Annotated[
        bool, typer.Option("--offload", help="The files come by the uploads bucket: what moving them takes, too.")
    ] = False
    attic_days: Annotated[
        int, typer.Option(min=1, help="With --offload: the setting attic_days, for which uploads stay.")
    ] = 30
    redirects: Annotated[str, typer.Option(help="Requests that Resolve answers in a month.")] = "0"
    replicate: Annotated[
        bool, typer.Option("--replicate", help="Each archive is written in another region as well.")
    ] = False

    def of(self, plan: Plan) -> Plan:
        """The plan, kept so. Raises typer.BadParameter."""
        from neve_cli.cost_sizes import count  # noqa: PLC0415

        if self.rate is not None and self.new_per_day is not None:
            raise typer.BadParameter("give --rate or --new-per-day, not both")
        if 0 < self.audits < LEAST_AUDIT_DAYS:
            raise typer.BadParameter(f"--audits is 0, or {LEAST_AUDIT_DAYS} days or more, as audit_horizon_days is")
        per_s = count(self.new_per_day) / 86_400 if self.new_per_day else self.rate
        return replace(
            plan,
            files_per_s=math.inf if per_s is None else per_s,
            max_age_s=self.max_age,
            restored_per_month=0.0 if self.restores == "0" else count(self.restores),
            downloaded=self.download,
            audit_horizon_days=self.audits,
            reconciled=not self.no_reconcile,
            collect_window_s=self.collect_window,
            offloaded=self.offload,
            attic_days=self.attic_days,
            redirects_per_month=0.0 if self.redirects == "0" else count(self.redirects),
            other_region=self.replicate,
        )
