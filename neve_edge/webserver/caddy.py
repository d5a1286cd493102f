"""Caddy: a file server that passes on what it does not find, and a redirect after it."""

from __future__ import annotations

from neve_edge.webserver.site import HERE, OWN, Site


def configuration(site: Site) -> str:
    """A `handle_path` block, for a site in the Caddyfile."""
    index = f"\n\t\t\tindex {site.index}" if site.index else ""
    folders = (
        f"""\
\t\t# A URL with a slash at its end stands for {site.index}, here as elsewhere.
\t\turi path_regexp "/$" "/{site.index}\""""
        if site.index
        else """\
\t\t# Folders have no key.
\t\t@folder path */
\t\trespond @folder 404"""
    )
    return f"""\
# Files of {site.root} at {site.url}, redirected to {site.to} once they have moved.
# Put it into the site's block in the Caddyfile, or import it there. Then: caddy validate && caddy reload
# Caddy follows links wherever they lead, and has no way not to: keep them out of this folder. It waits for ever where
# a name is a pipe.

handle_path {site.url}* {{
\troute {{
\t\t# What begins with .neve is neve's own, such as the attic; and `..` in whatever form leads nowhere.
\t\t@own path_regexp "{OWN}|/[.][.]?(/|$)"
\t\trespond @own 404

\t\t# Passes on what is not there. Caddy has tried to open the file by then, so one that moves away between a look
\t\t# and the opening is redirected as well.
\t\tfile_server {{
\t\t\troot "{site.root}"
\t\t\tpass_thru{index}
\t\t}}

{folders}

\t\t# Who was sent here by the resolver is not sent back to it.
\t\t@here expression `{{http.request.uri.query}} == "{HERE}"`
\t\trespond @here 404

\t\t# A browser would follow a redirected POST with a GET.
\t\t@written not method GET HEAD
\t\trespond @written 405

\t\t# Where the file is may change with the next upload: nobody is to remember it.
\t\theader Cache-Control no-store
\t\t# The path is as it was sent, percent-encoded, but for `+`, which S3 takes for a space. The query string is
\t\t# kept.
\t\turi path_regexp "[+]" "%2B"
\t\tredir "{site.to.rstrip("/")}{{http.request.uri}}" 302
\t}}
}}
"""
