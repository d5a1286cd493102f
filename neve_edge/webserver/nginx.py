"""nginx: what it cannot open goes to a named location, which redirects."""

from __future__ import annotations

from neve_edge.webserver.site import HERE, OWN, Site


def configuration(site: Site) -> str:
    """Two locations, for a `server` block."""
    local_index = (
        f"""
    # A URL with a slash at its end stands for this file, here as elsewhere.
    rewrite "(?s)^(.*/)\\z" "$1{site.index}" last;
"""
        if site.index
        else ""
    )
    return f"""\
# Files of {site.root} at {site.url}, redirected to {site.to} once they have moved.
# Save it as /etc/nginx/snippets/neve-{site.name}.conf and include it in the server block:
#     include snippets/neve-{site.name}.conf;
# Then: nginx -t && nginx -s reload

# ^~ so that no location with a regular expression, such as one for *.jpg, takes these URLs away.
location ^~ {site.url} {{
    alias "{site.root}";

    # What begins with .neve is neve's own, such as the attic.
    if ($uri ~ "{OWN}") {{ return 404; }}
{local_index}
    # What cannot be found is looked for elsewhere. error_page rather than try_files: nginx opens the file and then
    # decides, so a file that moves away between a look and the opening is redirected as well.
    error_page 404 = @neve_{site.name};
    log_not_found off;

    # Links are not followed: one could lead out of the folder, and none is ever moved.
    disable_symlinks on "from={site.root}";

    # A cache would remember a file as missing that has just been put here.
    open_file_cache off;
    autoindex off;
}}

location @neve_{site.name} {{
    # A browser would follow a redirected POST with a GET.
    if ($request_method !~ "^(GET|HEAD)$") {{ return 405; }}
    # Who was sent here by the resolver is not sent back to it.
    if ($args = "{HERE}") {{ return 404; }}
    # Folders have no key, and neve's own files none either.
    if ($uri ~ "/\\z|{OWN}") {{ return 404; }}

    # The name becomes arguments for a moment: nginx percent-encodes what it puts there (a `?`, `%`, `+` or line end in
    # a name would lead elsewhere). $uri is decoded and normalized, so no `..` is left in it. The query string is kept.
    set $neve_query $is_args$args;
    rewrite "(?s)^{site.url_pattern}(.*)\\z" "/?$1?";

    # Where the file is may change with the next upload: nobody is to remember it.
    add_header Cache-Control "no-store" always;
    return 302 "{site.to}$args$neve_query";
}}
"""
