"""What moto remembers of earlier requests changes none of its answers."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from moto.core.serialize import ResponseSerializer

from neve.aws import clients
from tests.moto_cloud import ARCHIVES, CONTENT, moto_cloud
from tests.moto_quick import pick, pick_quickly


def test_answers_are_the_same() -> None:
    with moto_cloud() as cloud:
        dynamodb, sqs, s3 = clients.dynamodb(), clients.sqs(), clients.s3()
        key: Any = {"pk": {"S": "a"}, "sk": {"S": "b"}}
        values = {"list": {"L": [{"N": "1"}, {"BOOL": True}]}, "map": {"M": {"x": {"B": b"\0"}, "y": {"NULL": True}}}}
        dynamodb.put_item(TableName=ARCHIVES, Item=key | values)
        sqs.send_message(QueueUrl=cloud.urls["collect"], MessageBody="body")
        s3.put_object(Bucket=CONTENT, Key="key", Body=b"body", Tagging="a=b", Metadata={"c": "d"})

        def update() -> Any:
            return dynamodb.update_item(
                TableName=ARCHIVES,
                Key=key,
                UpdateExpression="SET #map.#x = :x, how_many = :n REMOVE nothing",
                ConditionExpression="attribute_not_exists(nothing)",
                ExpressionAttributeNames={"#map": "map", "#x": "x"},
                ExpressionAttributeValues={":x": {"S": "z"}, ":n": {"N": "7"}},
                ReturnValues="ALL_NEW",
            )

        def answers() -> list[Any]:
            received = sqs.receive_message(QueueUrl=cloud.urls["collect"], VisibilityTimeout=0, AttributeNames=["All"])
            for message in received["Messages"]:
                del message["ReceiptHandle"], message["Attributes"]
            made: list[Any] = [
                received,
                update(),
                dynamodb.get_item(TableName=ARCHIVES, Key=key, ReturnConsumedCapacity="TOTAL"),
                dynamodb.query(
                    TableName=ARCHIVES,
                    KeyConditionExpression="pk = :pk",
                    ExpressionAttributeValues={":pk": {"S": "a"}},
                ),
                dynamodb.batch_get_item(RequestItems={ARCHIVES: {"Keys": [key]}}),
                dynamodb.transact_get_items(TransactItems=[{"Get": {"TableName": ARCHIVES, "Key": key}}]),
                dynamodb.describe_table(TableName=ARCHIVES),
                sqs.get_queue_attributes(QueueUrl=cloud.urls["collect"], AttributeNames=["QueueArn", "DelaySeconds"]),
                s3.head_object(Bucket=CONTENT, Key="key"),
                s3.list_object_versions(Bucket=CONTENT),
            ]
            for answer in made:
                del answer["ResponseMetadata"]
            return made

        update()
        assert ResponseSerializer.get_value is pick_quickly
        quick = answers()
        with patch.object(ResponseSerializer, "get_value", pick):
            assert answers() == quick
