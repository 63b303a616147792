# packages.sh - install Debian packages that are not there yet: sh tools/packages.sh NAME...
set -eu
missing=
for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
root=$([ "$(id -u)" = 0 ] || echo sudo)
echo "installing:$missing" >&2
$root apt-get update -qq
# shellcheck disable=SC2086 # a list of names
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
