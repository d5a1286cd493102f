"""CloudWatch's metrics, read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from neve.domain.actual import HOUR, Asked, Series
from neve.domain.tally import DIMENSION, NAMESPACE

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef


@dataclass(frozen=True)
class CloudWatchMetrics:
    """The metrics of neve, in the region and account of the client."""

    client: CloudWatchClient

    def sums(self, asked: Asked) -> Series:
        """The sums that are asked for; a metric without any is left out. One request, and one for each further page."""
        places = {f"m{number}": place for number, place in enumerate(asked.names)}
        queries: list[MetricDataQueryTypeDef] = [
            {
                "Id": id_,
                "MetricStat": {
                    "Metric": {
                        "Namespace": NAMESPACE,
                        "MetricName": name,
                        "Dimensions": [{"Name": DIMENSION, "Value": service}],
                    },
                    "Period": round(HOUR.total_seconds()),
                    "Stat": "Sum",
                },
            }
            for id_, (service, name) in places.items()
        ]
        found: dict[tuple[str, str], dict[datetime, float]] = {}
        pages = self.client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=asked.since, EndTime=asked.until
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                pairs = zip(result["Timestamps"], result["Values"], strict=True)
                found.setdefault(places[result["Id"]], {}).update(pairs)
        return {place: series for place, series in found.items() if series}
