"""The serving thread: from a URL of the site to where its file is now."""

from __future__ import annotations

from urllib.parse import urlsplit

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import Construct

from neve.config import ResolveConfig
from stacks.functions import allow, allow_objects, allow_sending, function, packed_code
from stacks.outputs import output
from stacks.private import guard, patterns
from stacks.restore import RestoreStack
from stacks.settings import Settings
from stacks.storage import StorageStack

_NEVER = cdk.Duration.seconds(0)

# How long CloudFront remembers that a file was not there: it may arrive the next moment.
_MISSING_FOR = cdk.Duration.seconds(10)

# No file of the application has this key: what is at the root of the distribution is not a listing of the bucket.
_NOTHING = ".neve/nothing"

_ANY_KEY = "The application may call its files as it likes."


class ServeStack(cdk.Stack):
    """Resolve behind the distribution Site, and the distribution Content of the files themselves.

    Neither costs anything while nobody asks.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        storage: StorageStack,
        restore: RestoreStack,
    ) -> None:
        super().__init__(scope, construct_id, description="neve: from a URL to where its file is now")
        self._settings = settings
        self._storage = storage
        self._restore = restore

        content = self._content()
        cdn_urls = settings.cdn_urls.replace(",", " ") or f"https://{content.distribution_domain_name}"
        self.resolve_function = self._resolve(cdn_urls)
        url = self.resolve_function.add_function_url(auth_type=lambda_.FunctionUrlAuthType.AWS_IAM)
        site = self._site(url)

        output(self, "ResolveFunction", self.resolve_function.function_name)
        output(self, "ResolverUrl", url.url)
        output(self, "ContentCdn", cdn_urls)
        output(self, "ContentDistribution", content.distribution_domain_name)
        output(self, "SiteCdn", f"https://{site.distribution_domain_name}")

    def _content(self) -> cloudfront.Distribution:
        settings, storage = self._settings, self._storage
        origin = self._bucket_origin("ContentOrigin", storage.content_bucket)
        if settings.key_layout == "as-is":
            # With the layout `hashed` a file's keys in the two buckets differ: what lies in the uploads bucket under a
            # key of the content bucket would be another file.
            origin = origins.OriginGroup(
                primary_origin=origin,
                fallback_origin=self._bucket_origin("UploadsOrigin", storage.uploads_bucket),
                fallback_status_codes=[403, 404],
            )
        caching = cloudfront.CachePolicy(
            self,
            "ContentCaching",
            comment="A file, as long as it says itself, else as long as the redirect to it",
            min_ttl=_NEVER,
            default_ttl=cdk.Duration.seconds(settings.redirect_max_age_s),
            max_ttl=cdk.Duration.days(365),
            # No query string is part of what is asked of S3, where some would be a request of another kind.
            query_string_behavior=cloudfront.CacheQueryStringBehavior.none(),
            enable_accept_encoding_brotli=True,
            enable_accept_encoding_gzip=True,
        )

        def behavior(
            *, signed_by: cloudfront.IKeyGroup | None = None, guarded_by: cloudfront.Function | None = None
        ) -> cloudfront.BehaviorOptions:
            return cloudfront.BehaviorOptions(
                origin=origin,
                allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD_OPTIONS,
                cache_policy=caching,
                compress=True,
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                trusted_key_groups=[signed_by] if signed_by else None,
                function_associations=[
                    cloudfront.FunctionAssociation(
                        function=guarded_by, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST
                    )
                ]
                if guarded_by
                else None,
            )

        keepers: dict[str, cloudfront.BehaviorOptions] = {}
        guarding: cloudfront.Function | None = None
        if settings.private and settings.signing == "cloudfront":
            group = cloudfront.KeyGroup.from_key_group_id(self, "KeyGroup", settings.cdn_key_group)
            keepers = {f"/{pattern}": behavior(signed_by=group) for pattern in patterns(settings.private)}
            guarding = cloudfront.Function(
                self,
                "Guard",
                comment="Refuses private files under spellings that no path pattern matches",
                runtime=cloudfront.FunctionRuntime.JS_2_0,
                code=cloudfront.FunctionCode.from_inline(guard(settings.private)),
            )
        hosts = [urlsplit(url).hostname or "" for url in settings.cdn_urls.split(",")]
        certificate = settings.cdn_certificate
        made = cloudfront.Distribution(
            self,
            "Content",
            comment=f"{settings.name}: files",
            default_behavior=behavior(guarded_by=guarding),
            additional_behaviors=keepers,
            default_root_object=_NOTHING,
            error_responses=[
                cloudfront.ErrorResponse(http_status=status, ttl=_MISSING_FOR)
                for status in (403, 404, 500, 502, 503, 504)
            ],
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            certificate=acm.Certificate.from_certificate_arn(self, "Certificate", certificate) if certificate else None,
            domain_names=hosts if certificate else None,
        )
        _acknowledge(made, certified=bool(certificate))
        return made

    def _bucket_origin(self, construct_id: str, bucket: s3.IBucket) -> cloudfront.IOrigin:
        """The bucket as an origin that CloudFront signs its requests to.

        It is taken by its name: the policy of a bucket in another stack would have to name the distribution, which
        names the bucket. StorageStack has the policy that lets CloudFront in.
        """
        by_name = s3.Bucket.from_bucket_name(self, construct_id, bucket.bucket_name)
        return origins.S3BucketOrigin.with_origin_access_control(by_name)

    def _resolve(self, cdn_urls: str) -> lambda_.Function:
        settings, storage, restore = self._settings, self._storage, self._restore
        made = function(
            self,
            "Resolve",
            handler="resolve.handler",
            code=packed_code(settings.lambda_platform),
            config=ResolveConfig(
                uploads_bucket=storage.uploads_bucket.bucket_name,
                content_bucket=storage.content_bucket.bucket_name,
                pointers_table=storage.pointers_table.table_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                restores_table=storage.restores_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                requests_queue_url=restore.requests.queue.queue_url,
                key_layout=settings.key_layout,
                cdn_urls=cdn_urls,
                cdn_choice=settings.cdn_choice,
                private_prefixes=settings.private_prefixes,
                signing=settings.signing,
                cdn_key_id=settings.cdn_key_id,
                cdn_key_parameter=settings.cdn_key_parameter,
                archived_answer=settings.archived_answer,
                redirect_max_age_s=settings.redirect_max_age_s,
                upload_url_s=settings.upload_url_s,
                signed_url_s=settings.signed_url_s,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.resolve_timeout_s,
            # Somebody waits for it: with more memory comes more of a processor, above all for the first start.
            memory_mib=1024,
        )
        for bucket in (storage.uploads_bucket, storage.content_bucket):
            # A presigned URL can do what its signer may.
            allow_objects(made, ["s3:GetObject"], bucket, ["*"], reason=_ANY_KEY)
            # Without the right to list, S3 answers 403 for what is not there, and "absent" would read as "denied".
            allow(made, ["s3:ListBucket"], bucket.bucket_arn)
        allow(made, ["dynamodb:GetItem"], storage.pointers_table.table_arn)
        if settings.archived_answer == "restore":
            allow(made, ["dynamodb:Query"], storage.files_table.table_arn)
            allow(made, ["dynamodb:GetItem"], storage.archives_table.table_arn)
            allow(made, ["dynamodb:GetItem", "dynamodb:PutItem"], storage.restores_table.table_arn)
            allow_sending(made, restore.requests.queue, outbox=storage.outbox_table)
        if settings.signing == "cloudfront":
            name = settings.cdn_key_parameter.removeprefix("/")
            allow(
                made,
                ["ssm:GetParameter"],
                self.format_arn(service="ssm", resource="parameter", resource_name=name),
            )
        return made

    def _site(self, url: lambda_.FunctionUrl) -> cloudfront.Distribution:
        made = cloudfront.Distribution(
            self,
            "Site",
            comment=f"{self._settings.name}: where files are",
            default_behavior=cloudfront.BehaviorOptions(
                origin=origins.FunctionUrlOrigin.with_origin_access_control(url),
                allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD_OPTIONS,
                cache_policy=cloudfront.CachePolicy(
                    self,
                    "SiteCaching",
                    comment="An answer of Resolve, for as long as it says itself",
                    min_ttl=_NEVER,
                    default_ttl=_NEVER,
                    max_ttl=cdk.Duration.days(1),
                    # Resolve keeps it in its redirect to the CDN.
                    query_string_behavior=cloudfront.CacheQueryStringBehavior.all(),
                ),
                compress=False,
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
            ),
            # A file that is not there may come; a look-up that failed may succeed the next moment.
            error_responses=[
                cloudfront.ErrorResponse(http_status=status, ttl=_NEVER) for status in (404, 405, 500, 502, 503, 504)
            ],
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
        )
        _acknowledge(made, certified=False)
        return made


def _acknowledge(distribution: cloudfront.Distribution, *, certified: bool) -> None:
    """Tell cdk-nag why the distribution is as it is."""
    reasons = {
        "CFR1": "A site's files are for whom the site is for; a country is for the site's owner to exclude.",
        "CFR2": "A web ACL costs $5 a month at least, and would see requests for files only, without a body; who needs "
        "one attaches it.",
        "CFR3": "Access logs would be as many small objects as neve exists to avoid; who needs them turns on the "
        "standard logs of CloudFront, which the distribution need not know of.",
    }
    if not certified:
        reasons["CFR4"] = "The name cloudfront.net comes with its own certificate and minimum version of TLS."
    for rule, reason in reasons.items():
        cdk.Validations.of(distribution).acknowledge(cdk.Acknowledgment(id=f"AwsSolutions-{rule}", reason=reason))
