"""Adapters: the ports of neve.ports on DynamoDB, S3 and SQS."""
