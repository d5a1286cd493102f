"""What AWS hands to the function behind a function URL."""

from __future__ import annotations

from typing import Any


def url_event(path: str, *, method: str = "GET", query: str = "") -> dict[str, Any]:
    """The event of a request that CloudFront has signed, `path` as the client sent it.

    Source: Lambda developer guide, "Invoking Lambda function URLs", request payload format.
    """
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {
            "host": "abcdefghijklmnopqrstuvwxyz012345.lambda-url.us-east-1.on.aws",
            "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "x-amzn-tls-version": "TLSv1.3",
            "x-forwarded-for": "192.0.2.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            "via": "2.0 example.cloudfront.net (CloudFront)",
            "user-agent": "Amazon CloudFront",
        },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdefghijklmnopqrstuvwxyz012345",
            "domainName": "abcdefghijklmnopqrstuvwxyz012345.lambda-url.us-east-1.on.aws",
            "domainPrefix": "abcdefghijklmnopqrstuvwxyz012345",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "Amazon CloudFront",
            },
            "requestId": "1f5b2a9d-0000-4000-8000-000000000000",
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Sep/2026:12:00:00 +0000",
            "timeEpoch": 1788264000000,
        },
        "isBase64Encoded": False,
    }
