"""Apache: an ErrorDocument that is a URL makes a redirect of a 404; mod_rewrite encodes the name for it."""

from __future__ import annotations

from neve_edge.webserver.site import HERE, OWN, Site


def configuration(site: Site) -> str:
    """Directives for a <VirtualHost>."""
    folders = (
        f"""
# A URL with a slash at its end stands for {site.index}, here as elsewhere.
RewriteRule "^{site.url_pattern}(.*/)?$" "-" [E=NEVE_INDEX:{site.index}]"""
        if site.index
        else ""
    )
    directory_index = f"\n    DirectoryIndex {site.index}" if site.index else ""
    keyless = OWN if site.index else f"/$|{OWN}"
    asked = f"%{{REQUEST_METHOD}} in {{ 'GET', 'HEAD' }} && %{{QUERY_STRING}} != '{HERE}'"
    gone = f'"{site.to}%{{req:Neve-Moved}}"'
    return f"""\
# Files of {site.root} at {site.url}, redirected to {site.to} once they have moved.
# Save it as /etc/apache2/neve-{site.name}.conf and include it in the <VirtualHost>:
#     Include neve-{site.name}.conf
# Then: a2enmod alias rewrite headers && apachectl configtest && apachectl graceful

Alias "{site.url}" "{site.root}"
<Directory "{site.root}">
    Require all granted
    # No listings; and links are not followed: one could lead out of the folder, and none is ever moved.
    Options None
    AllowOverride None{directory_index}
</Directory>

# The name as it goes into a redirect: decoded and normalized by Apache, so no `..` is left in it, and percent-encoded
# again. int:escape leaves `+` alone, which S3 takes for a space, so a loop encodes each. Nothing is rewritten.
RewriteEngine On
RewriteMap neve_escape "int:escape"
RewriteCond "%{{ENV:NEVE_KEY}}" "^$"
RewriteRule "(?s)^{site.url_pattern}(.+)" "-" [E=NEVE_KEY:${{neve_escape:$1}}]
RewriteCond "%{{ENV:NEVE_KEY}}" "^([^+]*)[+](.*)"
RewriteRule "^" "-" [E=NEVE_KEY:%1\\%2B%2,N=2000]{folders}
# The query string is kept.
RewriteCond "%{{QUERY_STRING}}" "."
RewriteRule "^{site.url_pattern}" "-" [E=NEVE_QUERY:?%{{QUERY_STRING}}]

<Location "{site.url}">
    # A browser would follow a redirected POST with a GET. Who was sent here by the resolver is not sent back to it.
    <If "{asked} && %{{REQUEST_URI}} !~ m#{keyless}#">
        # An error document that is a URL is sent as 302. Apache has tried to open the file by then, so one that moves
        # away between a look and the opening is redirected as well: that is what it answers 403 to. RequestHeader acts
        # when all that may deny access has let the request pass: what is denied is redirected to no key, which is 404.
        RequestHeader set Neve-Moved "expr=%{{reqenv:NEVE_KEY}}%{{reqenv:NEVE_INDEX}}%{{reqenv:NEVE_QUERY}}"
        ErrorDocument 404 {gone}
        ErrorDocument 403 {gone}
        # Where the file is may change with the next upload: nobody is to remember it.
        Header always set Cache-Control "no-store" "expr=%{{REQUEST_STATUS}} -eq 302"
    </If>
</Location>

# What begins with .neve is neve's own, such as the attic.
<LocationMatch "(?s)^{site.url_pattern.rstrip("/")}(/.*)?{OWN}">
    Require all denied
</LocationMatch>
"""
