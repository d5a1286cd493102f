"""`neve cost prices --update`: what AWS's Price List answers, in the form in which it is documented, becomes prices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.stub import Stubber
from typer.testing import CliRunner

from neve.domain.prices import US_EAST_1, Charge, PriceList, parse_prices
from neve_cli import cost_prices
from neve_cli.cost_prices import RegionUnknown, Updated, update
from neve_cli.main import app
from neve_cli.price_rules import DEEP_ARCHIVE, RULES, S3, SERVICES, STORED, TRANSFER, product

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
Answers = dict[str, list[str]]


def item(attributes: Mapping[str, str], *steps: tuple[str, str, str], unit: str, description: str = "") -> str:
    """An item of PriceList: a document of JSON within the JSON. Steps are begin, end, US dollars for one unit."""
    sku = f"SKU{abs(hash(tuple(sorted(attributes.items()))))}"
    dimensions = {
        f"{sku}.JRTCKXETXF.{number}": {
            "unit": unit,
            "beginRange": begin,
            "endRange": end,
            "description": description,
            "appliesTo": [],
            "rateCode": f"{sku}.JRTCKXETXF.{number}",
            "pricePerUnit": {"USD": usd},
        }
        for number, (begin, end, usd) in enumerate(steps)
    }
    return json.dumps(
        {
            "product": {"productFamily": "", "attributes": {"locationType": "AWS Region", **attributes}, "sku": sku},
            "serviceCode": attributes.get("servicecode", ""),
            "terms": {
                "OnDemand": {
                    f"{sku}.JRTCKXETXF": {
                        "priceDimensions": dimensions,
                        "sku": sku,
                        "effectiveDate": "2026-11-01T00:00:00Z",
                        "offerTermCode": "JRTCKXETXF",
                        "termAttributes": {},
                    }
                }
            },
            "version": "20261101000000",
            "publicationDate": "2026-11-01T00:00:00Z",
        }
    )


def priced(charge: Charge, usd: str | None = None, *, prefix: str = "", **changes: Any) -> str:
    """An item for `charge` at its first place; at its standing price unless another is given."""
    place, standing = RULES[charge].places[0], US_EAST_1.prices[charge]
    attributes = {
        "usagetype": f"{prefix}{place.usage_type}",
        "operation": place.operation or "",
        "location": "US East (N. Virginia)",
        "servicecode": place.service,
        **place.others,
    }
    unit = min(RULES[charge].units, default="Requests")
    if usd is not None:
        return item(attributes, ("0", "Inf", usd), **{"unit": unit, **changes})
    prices = [standing.usd, *(beyond for _, beyond in standing.beyond)]
    ends = ["0", *(f"{quantity:.0f}" for quantity, _ in standing.beyond), "Inf"]
    steps = [(*range_, f"{one / standing.per:.16f}") for range_, one in zip(pairwise(ends), prices, strict=True)]
    return item(attributes, *steps, **{"unit": unit, **changes})


def answers(*, prefix: str = "", without: Sequence[Charge] = ()) -> Answers:
    """Every charge at its standing price, as the Price List has it."""
    found: Answers = {service: [] for service in SERVICES}
    for charge, rule in RULES.items():
        if charge not in without:
            found[rule.places[0].service].append(priced(charge, prefix=prefix))
    return found


def asked(given: Answers, *, standing: PriceList = US_EAST_1, region: str = "us-east-1", pages: int = 1) -> Updated:
    """What the command makes of these answers. Each service is asked for once; S3's answer comes in so many pages."""
    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    with Stubber(client) as stub:
        for service in SERVICES:
            name, value = ("fromLocation", "US East (N. Virginia)") if service == TRANSFER else ("regionCode", region)
            wanted = {
                "ServiceCode": service,
                "Filters": [{"Type": "TERM_MATCH", "Field": name, "Value": value}],
                "FormatVersion": "aws_v1",
                "MaxResults": 100,
            }
            if given[service] == ["unknown"]:
                stub.add_client_error("get_products", "NotFoundException", expected_params=wanted)
                continue
            count = pages if service == S3 else 1
            for page in range(count):
                answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": given[service][page::count]}
                if page < count - 1:
                    answer["NextToken"] = f"token{page}"
                stub.add_response(
                    "get_products", answer, wanted if not page else {**wanted, "NextToken": f"token{page - 1}"}
                )
        found = update(client, standing, region, NOW)
        stub.assert_no_pending_responses()
    return found


def problem(updated: Updated, charge: Charge) -> str:
    [kept] = [each for each in updated.kept if each.charge is charge]
    assert updated.prices.prices[charge].usd == US_EAST_1.prices[charge].usd
    return kept.problem


def test_there_is_a_rule_for_every_charge_and_none_beside() -> None:
    assert set(RULES) == set(Charge)
    assert SERVICES[0] == S3


def test_what_has_not_changed_is_the_list_that_stands_with_a_new_date() -> None:
    updated = asked(answers(), pages=3)
    assert updated.kept == ()
    assert [looked.charge for looked, _, _ in updated.changed] == []
    assert updated.prices.checked == "2026-11-22"
    assert {charge: price.usd for charge, price in updated.prices.prices.items()} == pytest.approx(
        {charge: price.usd for charge, price in US_EAST_1.prices.items()}
    )
    assert all(price.source.startswith("AWS Price List") for price in updated.prices.prices.values())


def test_prices_are_for_as_many_units_as_neve_counts_and_what_changed_is_told_with_what_it_was() -> None:
    given = answers(without=[Charge.SQS_REQUEST])
    given["AWSQueueService"] = [priced(Charge.SQS_REQUEST, "0.0000005", description="$0.50 per million requests")]
    [(looked, before, after)] = asked(given).changed
    assert (looked.charge, before.usd, after.usd, after.per) == (Charge.SQS_REQUEST, 0.4, 0.5, 1_000_000)


def test_another_region_has_a_prefix_in_its_usage_types_and_kms_the_name_of_the_region() -> None:
    given = answers(prefix="EUC1-")
    given["awskms"] = [priced(charge, prefix="eu-central-1-") for charge in (Charge.KMS_KEY_MONTH, Charge.KMS_REQUEST)]
    updated = asked(given, region="eu-central-1")
    assert updated.kept == ()
    assert updated.prices.region == "eu-central-1"


def test_some_services_name_even_us_east_1_in_their_usage_types() -> None:
    given = answers()
    for service in ("AmazonStates", "AmazonCloudWatch"):
        given[service] = [
            priced(charge, prefix="USE1-") for charge, rule in RULES.items() if rule.places[0].service == service
        ]
    assert asked(given).kept == ()


def test_usage_types_that_merely_end_alike_are_others() -> None:
    given = answers()
    given[S3].append(
        item({"usagetype": "Tables-TimedStorage-ByteHrs", "operation": ""}, ("0", "Inf", "9"), unit="GB-Mo")
    )
    given[S3].append(item({"usagetype": "Requests-Tier1", "operation": "Other"}, ("0", "Inf", "9"), unit="Requests"))
    assert asked(given).kept == ()


def test_steps_become_what_is_cheaper_beyond_and_free_tiers_are_left_out() -> None:
    given = answers(without=[Charge.S3_STANDARD_GB_MONTH, Charge.SNS_PUBLISH])
    steps = [("512000", "Inf", "0.019"), ("0", "51200", "0.022"), ("51200", "512000", "0.021")]
    attributes = {"usagetype": "TimedStorage-ByteHrs", "operation": "", "volumeType": "Standard"}
    given[S3].append(item({**attributes, "location": "US East (N. Virginia)"}, *steps, unit="GB-Mo"))
    free = [("0", "1000000", "0.0"), ("1000000", "Inf", "0.0000005")]
    given["AmazonSNS"] = [item({"usagetype": "Requests-Tier1"}, *free, unit="Requests")]
    updated = asked(given)
    assert updated.kept == ()
    prices = updated.prices.prices
    assert prices[Charge.S3_STANDARD_GB_MONTH].usd == 0.022
    assert prices[Charge.S3_STANDARD_GB_MONTH].beyond == ((51200, 0.021), (512000, 0.019))
    assert (prices[Charge.SNS_PUBLISH].usd, prices[Charge.SNS_PUBLISH].beyond) == (0.5, ())


def test_of_what_leaves_the_region_the_dearest_counts() -> None:
    given = answers(without=[Charge.OTHER_REGION_GB, Charge.INTERNET_GB])
    to = RULES[Charge.OTHER_REGION_GB].places[0].others
    given[TRANSFER] = [
        item({**to, "usagetype": "USE1-USE2-AWS-Out-Bytes"}, ("0", "Inf", "0.01"), unit="GB"),
        item({**to, "usagetype": "USE1-EUC1-AWS-Out-Bytes"}, ("0", "Inf", "0.02"), unit="GB"),
        priced(Charge.INTERNET_GB, "0.0"),
        priced(Charge.INTERNET_GB, "0.09"),
    ]
    updated = asked(given)
    assert updated.kept == ()
    assert updated.prices.prices[Charge.OTHER_REGION_GB].usd == 0.02
    assert updated.prices.prices[Charge.INTERNET_GB].usd == 0.09


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([], "no such product"),
        ([priced(Charge.LOG_GB, "0.5"), priced(Charge.LOG_GB, "0.25")], "several products match, at 0.25, 0.5"),
        ([priced(Charge.LOG_GB, unit="GB-Mo")], "its unit is 'GB-Mo'"),
        ([priced(Charge.LOG_GB, "50")], "far off"),
        ([priced(Charge.LOG_GB, "0.0")], "far off"),
        ([priced(Charge.LOG_GB, "0.6", description="$0.50 per GB log data ingested")], "it says 0.6 for one"),
        ([item({"usagetype": "DataProcessing-Bytes"}, unit="GB")], "no price on demand"),
        ([item({"usagetype": "DataProcessing-Bytes"}, ("0", "9", "1"), ("10", "Inf", "2"), unit="GB")], "follow each"),
        ([item({"usagetype": "DataProcessing-Bytes"}, ("5", "Inf", "1"), unit="GB")], "follow each"),
        ([item({"usagetype": "DataProcessing-Bytes"}, ("0", "5", "1"), unit="GB")], "follow each"),
    ],
)
def test_what_is_not_answered_without_doubt_stays_as_it_was_and_is_named(items: list[str], told: str) -> None:
    given = answers(without=[Charge.LOG_GB])
    given["AmazonCloudWatch"] += items
    updated = asked(given)
    assert told in problem(updated, Charge.LOG_GB)
    assert updated.prices.prices[Charge.LOG_GB].checked == "autumn 2026"


def test_what_was_free_does_not_become_dear_unseen() -> None:
    given = answers(without=[Charge.GLACIER_BULK_GB])
    given[S3].append(priced(Charge.GLACIER_BULK_GB, "0.0025"))
    assert "far off 0" in problem(asked(given), Charge.GLACIER_BULK_GB)


def test_a_count_in_gigabytes_is_none() -> None:
    given = answers(without=[Charge.ALARM_MONTH])
    given["AmazonCloudWatch"].append(priced(Charge.ALARM_MONTH, unit=min(STORED)))
    assert "its unit is" in problem(asked(given), Charge.ALARM_MONTH)


def test_where_two_services_list_a_price_both_have_to_agree() -> None:
    given = answers()
    bulk = json.loads(priced(Charge.DEEP_ARCHIVE_BULK_GB, "0.005"))
    given[S3].append(json.dumps(bulk))
    assert "several products" in problem(asked(given), Charge.DEEP_ARCHIVE_BULK_GB)


def test_a_service_that_the_price_list_does_not_have_leaves_its_prices_as_they_were() -> None:
    given = {**answers(), DEEP_ARCHIVE: ["unknown"]}
    updated = asked(given, standing=replace(US_EAST_1, region="eu-west-1"))
    assert {each.charge for each in updated.kept} == {
        charge for charge, rule in RULES.items() if rule.places[0].service == DEEP_ARCHIVE
    }
    assert updated.prices.prices[Charge.DEEP_ARCHIVE_GB_MONTH].checked == "autumn 2026, eu-west-1"


@pytest.mark.parametrize(
    ("description", "fits"),
    [
        ("$0.50 per GB", True),
        ("$0.4 per 1,000 requests", False),
        ("$500 per 1,000 GB", True),
        ("$500,000 per 1M GB", True),
        ("$.50/GB", True),
        ("Global free tier", True),
        ("$0.50 per million GB", False),
        ("$0.501 per GB", True),
    ],
)
def test_a_description_that_states_a_price_has_to_state_the_same_one(description: str, fits: bool) -> None:
    given = answers(without=[Charge.LOG_GB])
    given["AmazonCloudWatch"].append(priced(Charge.LOG_GB, "0.5", description=description))
    assert (asked(given).kept == ()) is fits


def test_a_region_without_s3_is_told_to_be_none() -> None:
    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    stub = Stubber(client)
    stub.add_response("get_products", {"FormatVersion": "aws_v1", "PriceList": []})
    with stub, pytest.raises(RegionUnknown, match="nowhere-1"):
        update(client, US_EAST_1, "nowhere-1", NOW)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"product": {}}', '{"product": {"attributes": {}}, "terms": []}'])
def test_an_answer_of_another_form_is_an_error_and_no_price(text: str) -> None:
    with pytest.raises(ValueError, match="no product of the Price List"):
        product(text)


# -- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Updated | Exception], None]:
    def have(answer: Updated | Exception) -> None:
        def answered(*_: Any) -> Updated:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(cost_prices, "client", lambda: None)
        monkeypatch.setattr(cost_prices, "update", answered)

    return have


def test_what_has_changed_and_what_stayed_is_shown_and_written(
    answering: Callable[[Updated | Exception], None], tmp_path: Path
) -> None:
    given = answers(without=[Charge.SCHEDULE, Charge.LOG_GB])
    given["AmazonCloudWatch"].append(priced(Charge.LOG_GB, "0.25", description="$0.25 per GB log data ingested"))
    updated = asked(given)
    answering(updated)
    path = tmp_path / "prices.json"
    told = CliRunner().invoke(app, ["cost", "prices", "--update", "--output", str(path)])
    assert told.exit_code == 0, told.output
    assert "1 differ" in told.stdout
    assert "$0.25 per GB log data ingested" in told.stdout
    assert "no such product (looked up under a name from memory)" in told.stdout
    assert parse_prices(path.read_text()) == updated.prices
    shown = CliRunner().invoke(app, ["cost", "prices", "--prices", str(path)]).stdout
    assert "2026-11-22 (1 of them older" in shown
    assert "autumn 2026" in shown
    assert (
        json.loads(CliRunner().invoke(app, ["cost", "prices", "--update", "--json"]).stdout)["checked"] == "2026-11-22"
    )
    assert "--output FILE writes" in CliRunner().invoke(app, ["cost", "prices", "--update"]).stdout
    unwritable = CliRunner().invoke(app, ["cost", "prices", "--update", "--output", str(tmp_path / "no" / "file")])
    assert unwritable.exit_code == 2


def test_without_credentials_or_the_permission_it_says_what_to_do(
    answering: Callable[[Updated | Exception], None],
) -> None:
    answering(NoCredentialsError())
    result = CliRunner().invoke(app, ["cost", "prices", "--update"])
    assert result.exit_code == 3
    assert "aws sso login" in result.output
    denied = "User: x is not authorized to perform: pricing:GetProducts"
    answering(ClientError({"Error": {"Code": "AccessDeniedException", "Message": denied}}, "GetProducts"))
    result = CliRunner().invoke(app, ["cost", "prices", "--update"])
    assert result.exit_code == 3
    assert "pricing:GetProducts" in result.output
    assert "have the action granted" in result.output


def test_a_region_without_update_is_refused() -> None:
    assert CliRunner().invoke(app, ["cost", "prices", "--region", "eu-west-1"]).exit_code == 2
