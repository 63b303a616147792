# expect.sh - run a program with the sample pictures on its standard input; its output must match: expect.sh PATTERN COMMAND...
set -eu
samples=$(dirname "$0")/../../models/samples
pattern=$1
shift
output=$(ls "$samples"/*.png | "$@")
echo "$output"
echo "$output" | grep -Eq -e "$pattern"
