# check_deb.sh - install the Debian package in a bare Debian of its own, and classify a sample there. As root:
#
#   sh tools/package/check_deb.sh BUILD-FOLDER
#
# Fetches that Debian (some 60 MB) by debootstrap into a temporary folder. Nothing but dpkg and the package goes into it.
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
sh tools/packages.sh debootstrap
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cmake --build "$build" --parallel "$(nproc)" >/dev/null
(cd "$build" && rm -f ./*.deb && cpack -G DEB >/dev/null)
debootstrap --variant=minbase stable "$root" >"$root.log" || { cat "$root.log" && exit 1; }
rm "$root.log"
cp "$build"/resnet_*.deb models/samples/golf_ball.png "$root/tmp"
chroot "$root" sh -ec 'dpkg -i /tmp/resnet_*.deb; resnet classify /tmp/golf_ball.png' | tee "$root/tmp/answer"
[ "$(sed -n 's/.*% *[^a-z]* //p' "$root/tmp/answer" | head -n 1)" = "golf ball" ]
