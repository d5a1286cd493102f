"""Configurations of web servers that serve a folder's files, and redirect to the resolver for those that have moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from neve_edge.webserver import apache, caddy, lighttpd, nginx
from neve_edge.webserver.site import Site

_CONFIGURATIONS: Mapping[str, Callable[[Site], str]] = {
    "nginx": nginx.configuration,
    "lighttpd": lighttpd.configuration,
    "apache": apache.configuration,
    "caddy": caddy.configuration,
}
SERVERS = tuple(_CONFIGURATIONS)


def webserver_config(server: str, site: Site) -> str:
    """What to put into the configuration of `server`, one of SERVERS; each line says why it is there.

    lighttpd needs lighttpd.script(site) beside it.

    GET and HEAD of a file that is not there are redirected by 302 to where it is; all other answers are the server's
    own. Whether a file is there is decided by opening it, so none can vanish between a look and the answer. Names are
    decoded, normalized and encoded again: what is asked for elsewhere is exactly what was looked for here.
    """
    return _CONFIGURATIONS[server](site)
