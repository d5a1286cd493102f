"""What is served of a host's folder, under which URLs, and where the files go that leave it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from neve.domain.layout import Layout
from neve.errors import SettingInvalid
from neve_edge.announcement import RESERVED

OWN = "/" + RESERVED.replace(".", r"\.")
"""What no server hands out, such as attics, as a regular expression for what a path must not hold."""

HERE = "neve-host"
"""The query string of a redirect to the host that alone has a file: it is not to send who asks back again."""

_UNQUOTABLE = re.compile(r"""[\x00-\x1f\x7f"'`\\$%{}*?\[\]]""")
"""What means something in the configuration of one of the servers, even between quotes."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """The files of the folder `root` at URLs that begin with `url`; both end with a slash.

    A file at `url` + name has the key `key_prefix` + name, and `to` + the percent-encoded key is asked for it if it is
    not in the folder. `index` is the file's name that a URL with a slash at its end stands for, or "". Make it by
    site().
    """

    root: str
    url: str
    to: str
    index: str

    @property
    def name(self) -> str:
        """A word for this site that may be part of a file's name, such as `files`."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.url).strip("_") or "all"

    @property
    def url_pattern(self) -> str:
        """`url` as a regular expression."""
        return self.url.replace(".", r"\.")


def site(
    *,
    root: str,
    url: str,
    to: str,
    key_prefix: str = "",
    layout: Layout = Layout.AS_IS,
    straight_to_cdn: bool = False,
    index: str = "",
) -> Site:
    """A site whose every part can be written into the configuration of any of the servers.

    `to` is the base URL of the resolver or, `straight_to_cdn`, of the content itself. Raises SettingInvalid, with the
    remedy, for what cannot be served so.
    """
    if straight_to_cdn and layout is Layout.HASHED:
        raise SettingInvalid(
            "In the layout `hashed` a file's place follows from a SHA-256, which web servers do not compute: redirect "
            "to the resolver instead, which costs one more request for each redirect."
        )
    if not root.startswith("/") or _UNQUOTABLE.search(root):
        raise SettingInvalid(
            f"The folder {root!r} has to be an absolute path without quotes, control characters and any of "
            "\\ $ % { } * ? [ ]. Rename it, or mount it (`mount --bind`) where its path has none."
        )
    if not re.fullmatch(r"/([A-Za-z0-9._~-]+/)*", url if url.endswith("/") else f"{url}/"):
        raise SettingInvalid(
            f"The URLs {url!r} have to begin with a path such as /files/, of letters, digits and . _ ~ - /."
        )
    parts = urlsplit(to)
    if parts.scheme not in ("http", "https") or not re.fullmatch(
        r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?", to
    ):
        raise SettingInvalid(f"{to!r} is no base URL to redirect to, such as https://files.example.com.")
    if key_prefix and (key_prefix.startswith("/") or not key_prefix.endswith("/")):
        raise SettingInvalid(f"The key prefix {key_prefix!r} has to end with a slash and not to begin with one.")
    if "/" in index or _UNQUOTABLE.search(index) or re.search(r"\s", index):
        raise SettingInvalid(f"{index!r} is no name of an index file, such as index.html.")
    return Site(
        root=root.rstrip("/") + "/",
        url=url if url.endswith("/") else f"{url}/",
        to=f"{to.rstrip('/')}/{quote(key_prefix, safe='/')}",
        index=index,
    )
