"""lighttpd: mod_magnet runs a Lua script on each response, which makes a redirect of what is not found."""

from __future__ import annotations

from neve_edge.webserver.site import HERE, OWN, Site


def script_path(site: Site) -> str:
    """Where lighttpd looks for the script, unless its configuration is told otherwise."""
    return f"/etc/lighttpd/neve-{site.name}.lua"


def configuration(site: Site, script: str | None = None) -> str:
    """A condition for lighttpd.conf. `script` is the path of the Lua script, script_path(site) unless given."""
    index = f'\n    index-file.names = ( "{site.index}" )' if site.index else ""
    return f"""\
# Files of {site.root} at {site.url}, redirected to {site.to} once they have moved.
# Save it as /etc/lighttpd/conf-enabled/90-neve-{site.name}.conf, and beside it the script that the same command prints
# with --script as {script or script_path(site)}. On Debian the module is in lighttpd-modules-lua.
# Needs mod_access, mod_alias and mod_magnet in server.modules (lighty-enable-mod magnet).

$HTTP["url"] =~ "^{site.url_pattern}" {{
    alias.url = ( "{site.url}" => "{site.root}" ){index}

    # Runs twice: when nothing has denied access, and when the answer is known but not sent. lighttpd has tried to open
    # the file by then, so one that moves away between a look and the opening is redirected as well.
    magnet.attract-physical-path-to = ( "{script or script_path(site)}" )
    magnet.attract-response-start-to = ( "{script or script_path(site)}" )

    # Links are not followed: one could lead out of the folder, and none is ever moved. lighttpd looks at the whole path
    # from /, so {site.root} itself must not be reached by one.
    server.follow-symlink = "disable"

    # What begins with .neve is neve's own, such as the attic.
    $HTTP["url"] =~ "{OWN}" {{ url.access-deny = ( "" ) }}
}}

# lighttpd remembers a file for a second or two. Where files are replaced in their place and the new one has to be
# served at once, turn that off for the whole server:
#     server.stat-cache-engine = "disable"
# Names with line ends or bytes that are not UTF-8 are refused by lighttpd itself (server.http-parseopts).
"""


def script(site: Site) -> str:
    """The Lua script that the configuration names. Needs lighttpd 1.4.60 or later."""
    return f"""\
-- Redirects to where a file is that is not in {site.root} any more (neve-{site.name}).
local URL, TO, INDEX = "{site.url}", "{site.to}", "{site.index}"

local request = lighty.r
local asked, status = request.req_attr, request.req_item.http_status
local method, path = asked["request.method"], asked["uri.path"]

-- Called first when the file's path is known: all that may deny access has let the request pass by then.
if status == 0 then
    request.req_env["NEVE"] = "allowed"
    return 0
end

-- Called again when the answer is known. 403 is what lighttpd says of a file that has moved away since it looked, or in
-- the second for which it remembers that it was there.
if request.req_env["NEVE"] == nil or (status ~= 404 and status ~= 403) then return 0 end

-- A browser would follow a redirected POST with a GET.
if method ~= "GET" and method ~= "HEAD" then return 0 end

-- Who was sent here by the resolver is not sent back to it.
if asked["uri.query"] == "{HERE}" then return 0 end

-- lighttpd has decoded and normalized the path, so no `..` is left in it. A folder has no key, unless it stands for the
-- index file in it.
local key = path:sub(#URL + 1)
if key == "" or key:sub(-1) == "/" then
    if INDEX == "" then return 0 end
    key = key .. INDEX
end

-- urlenc encodes all that could mean something in a URL: a `?`, `%`, `+` in a name. The query string is kept.
local query = asked["uri.query"]
request.resp_header["Location"] = TO .. lighty.c.urlenc(key) .. (query and "?" .. query or "")
-- Where the file is may change with the next upload: nobody is to remember it.
request.resp_header["Cache-Control"] = "no-store"
request.resp_body.set("")
return 302
"""
