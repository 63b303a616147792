# get_model.sh - download torchvision's weights of a ResNet, check them and convert them: sh tools/get_model.sh NAME
#
# usage: sh tools/get_model.sh NAME [-o MODEL] [--from URL] [--file FILE-HASH.pth]
#
# NAME is one of the names below (those that end in -v2 are torchvision's second weights, better and trained longer);
# the model file is NAME.resnet unless told. --from takes the file from another folder than PyTorch's download site,
# --file another file; both are for mirrors and tests. A file's name ends with the first digits of its SHA-256, which
# are checked. Needs curl or wget, and Python with NumPy. Exit status: 0 done, 2 usage, 4 no download, and convert.py's.
set -eu

# name, file, short side of the resize in front of a crop of 224
MODELS='
resnet18            resnet18-f37072fd.pth           256
resnet34            resnet34-b627a593.pth           256
resnet50            resnet50-0676ba61.pth           256
resnet50-v2         resnet50-11ad3fa6.pth           232
resnet101           resnet101-63fe2227.pth          256
resnet101-v2        resnet101-cd907fc2.pth          232
resnet152           resnet152-394f9c45.pth          256
resnet152-v2        resnet152-f82ba261.pth          232
resnext50_32x4d     resnext50_32x4d-7cdf4587.pth    256
resnext50_32x4d-v2  resnext50_32x4d-1a0047aa.pth    232
resnext101_32x8d    resnext101_32x8d-8ba56ff5.pth   256
resnext101_32x8d-v2 resnext101_32x8d-110c445d.pth   232
resnext101_64x4d    resnext101_64x4d-173b62eb.pth   232
wide_resnet50_2     wide_resnet50_2-95faca4d.pth    256
wide_resnet50_2-v2  wide_resnet50_2-9ba9bcbe.pth    232
wide_resnet101_2    wide_resnet101_2-32ee1156.pth   256
wide_resnet101_2-v2 wide_resnet101_2-d733dc28.pth   232
'
here=$(dirname "$0")

fail() {
    status=$1
    shift
    echo "get_model: $*" >&2
    exit "$status"
}

column() { # NUMBER: that column of the line that begins with $name
    echo "$MODELS" | while read -r known file resize; do
        [ "$known" = "$name" ] && [ -n "$known" ] && echo "$known $file $resize" | cut -d ' ' -f "$1"
    done || true
}

download() { # URL FILE
    if command -v curl >/dev/null; then
        curl --fail --location --silent --show-error --max-time 3600 --output "$2" "$1"
    elif command -v wget >/dev/null; then
        wget --quiet --tries 1 --output-document "$2" "$1"
    else
        fail 4 "neither curl nor wget is installed"
    fi
}

sha256() { # FILE
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -c 1-64
}

find_python() { # one with NumPy: of several Pythons only the system's may have it
    for candidate in python3 /usr/bin/python3; do
        "$candidate" -c "import numpy" 2>/dev/null && echo "$candidate" && return
    done
    fail 4 "no Python with NumPy is installed"
}

name='' output='' from=https://download.pytorch.org/models file=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
        echo "$MODELS" | cut -d ' ' -f 1
        exit 0
        ;;
    -o | --from | --file)
        [ $# -gt 1 ] || fail 2 "$1 wants a value (see --help)"
        case $1 in -o) output=$2 ;; --from) from=$2 ;; --file) file=$2 ;; esac
        shift
        ;;
    -*) fail 2 "no option $1 (see --help)" ;;
    *)
        [ -z "$name" ] || fail 2 "two names, $name and $1"
        name=$1
        ;;
    esac
    shift
done
[ -n "$name" ] || fail 2 "which network? (see --help)"
resize=$(column 3)
[ -n "$file" ] || file=$(column 2)
[ -n "$file" ] || fail 2 "no network $name (see --help)"
digits=$(echo "$file" | sed -n 's/^[A-Za-z0-9_]*-\([0-9a-f]\{8,64\}\)\.pth$/\1/p')
[ -n "$digits" ] || fail 2 "$file: expected NAME-HASH.pth"
output=${output:-$name.resnet}

python=$(find_python)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM HUP
download "$from/$file" "$folder/$file" || fail 4 "$from/$file: cannot be downloaded"
case $(sha256 "$folder/$file") in
"$digits"*) ;;
*) fail 4 "$from/$file: its SHA-256 does not begin with $digits: it is damaged, or another file" ;;
esac
"$python" "$here/convert.py" "$folder/$file" -o "$output" --resize "${resize:-256}"
