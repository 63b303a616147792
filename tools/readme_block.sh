# readme_block.sh - print a block of code of the README, so that what it says can be run: readme_block.sh HEADING LANGUAGE [N]
#
# The Nth (first) block of that language below the heading, which is written with its #: readme_block.sh "### Python" sh
set -eu
awk -v heading="$1" -v fence="\`\`\`$2" -v n="${3:-1}" '
/^#+ / && !code { here = $0 == heading }
/^```$/ { code = 0 }
here && code == 2 { print; found = 1 }
/^```./ { code = here && $0 == fence && --n == 0 ? 2 : 1 }
END { exit !found }' "$(dirname "$0")/../README.md"
