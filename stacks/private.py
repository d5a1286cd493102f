"""What is handed out by signed URLs only, as the patterns and the code that keep it so."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

# Two levels of two digits, as neve.domain.layout puts them before a key.
_LEVELS = "??/??/"


def patterns(prefixes: Sequence[str]) -> list[str]:
    """What matches the keys that begin with one of `prefixes`, in both layouts: of a policy's resources, and of paths.

    Both, since files stay where they are when the setting changes.
    """
    return [f"{levels}{prefix}*" for prefix in prefixes for levels in ("", _LEVELS)]


def guard(prefixes: Sequence[str]) -> str:
    """The source of a CloudFront function that refuses the files of `prefixes`, however their path is spelled.

    S3 decodes a path to a key before it looks for it; CloudFront compares patterns with what it was sent, where a slash
    may be written as `%2F`. So what no pattern matched is decoded as S3 does, and looked at once more.
    """
    beginnings = "|".join(re.escape(prefix) for prefix in prefixes)
    private = json.dumps(rf"^/([^]{{2}}/[^]{{2}}/)?({beginnings})")
    return f"""\
const PRIVATE = new RegExp({private});

function handler(event) {{
  let path;
  try {{
    path = decodeURIComponent(event.request.uri);
  }} catch (malformed) {{
    return {{ statusCode: 400, statusDescription: 'Bad Request' }};
  }}
  return PRIVATE.test(path) ? {{ statusCode: 403, statusDescription: 'Forbidden' }} : event.request;
}}
"""
