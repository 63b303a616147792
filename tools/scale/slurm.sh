# slurm.sh - classify a list of images as a Slurm job array, lose a program and a node, and answer every image exactly once.
#
# sh tools/scale/slurm.sh [LIST [MODEL]]: a file of paths, a line each (2,000 links to the samples), and a model file (the
# default one). slurm_job.sh is the recipe. Here a controller and the daemons of two nodes run on this machine, as the user
# who starts this, with ports, keys and files of their own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/../packages.sh" slurm-wlm munge python3
scratch=$(mktemp -d) user=$(id -un) host=$(uname -n) job='' munge='' controller='' worker1='' worker2=''
export SLURM_CONF="$scratch/slurm.conf"
PATH=$PATH:/usr/sbin

stop_all() {
    set +e # some have ended, or never began
    trap '' INT TERM
    if [ -n "$job" ] && scancel "$job"; then
        for _ in $(seq 100); do job_has_ended || sleep 0.1; done
    fi
    for daemon in $worker1 $worker2 $controller $munge; do
        kill "$daemon" && wait "$daemon"
    done
    rm -rf "$scratch"
} 2>/dev/null
trap stop_all EXIT
trap 'exit 130' INT TERM

# A node that was lost is back within seconds here: so soon may its job start again (cred_expire), and so soon is it missed
# (BatchStartTimeout, MessageTimeout).
configure() {
    ports=$("$here/recipe.py" ports 3)
    # shellcheck disable=SC2086 # three words
    set -- $ports
    cat >"$SLURM_CONF" <<END
ClusterName=recipe
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$1
SlurmUser=$user
SlurmdUser=$user
AuthInfo=socket=$scratch/munge.socket,cred_expire=5
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/%n
SlurmctldPidFile=$scratch/controller.pid
SlurmdPidFile=$scratch/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
BatchStartTimeout=1
MessageTimeout=5
NodeName=worker1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$2
NodeName=worker2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$3
PartitionName=all Nodes=worker1,worker2 Default=YES
END
}

start_munge() {
    (umask 077 && head -c 1024 /dev/urandom >"$scratch/munge.key")
    setsid munged --foreground --key-file="$scratch/munge.key" --socket="$scratch/munge.socket" --seed-file="$scratch/munge.seed" \
        --pid-file="$scratch/munge.pid" --log-file="$scratch/munge.log" 2>/dev/null &
    munge=$!
}

# start NAME COMMAND...: in the background, out of reach of a terminal's signals, which would end it before its jobs; with a
# log of its own; its id goes into the variable NAME.
start() {
    name=$1
    shift
    setsid "$@" 2>>"$scratch/$name.log" &
    eval "$name=$!"
}

# until_true SECONDS COMMAND...
until_true() {
    tries=$(($1 * 10))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { tail -n 20 "$scratch"/*.log >&2 && exit 1; }
        sleep 0.1
    done
}

nodes_are_idle() { [ "$(sinfo --noheader --Node --states=idle 2>/dev/null | wc -l)" = 2 ]; }
job_has_ended() { [ -z "$(squeue --noheader --jobs="$job" 2>/dev/null)" ]; }
node_of_task() { squeue --noheader --array --jobs="$job" --states=running --format='%K %N' | sed -n "s/^$1 //p"; }
parent() { ps -o ppid= -p "$1" | tr -d ' '; }
records() { wc -l <"$parts/$1.jsonl"; }
all_are_answered() { [ "$(cat "$parts"/*.jsonl | wc -l)" -ge "$(wc -l <"$list")" ]; }

submit() {
    job=$(sbatch --parsable --array=1-$shards --output="$scratch/task%a.log" "$here/slurm_job.sh" "$list" "$model" "$parts")
}

mkdir "$scratch/state"
chmod 755 "$scratch" # munge's clients must be allowed to look for its socket
start_munge
until_true 10 test -S "$scratch/munge.socket"
configure
start controller slurmctld -D
start worker1 slurmd -D -N worker1
start worker2 slurmd -D -N worker2
until_true 30 nodes_are_idle

list=${1:-$("$here/recipe.py" list "$scratch/input" 2000)} model=${2:-$here/../../models/default.resnet} shards=8
export RESNET_PROGRAM="${RESNET_PROGRAM:-$here/../../build/resnet}"
shard_size=$(($(wc -l <"$list") / shards))
parts=$scratch/parts
mkdir "$parts"
submit
caught=$("$here/recipe.py" catch $((shard_size / 3)) "$parts/1.jsonl" "$parts/2.jsonl")
# shellcheck disable=SC2086 # two words
set -- $caught
kill -KILL "$1"
echo "program of shard 1 killed at image $(records 1) of $shard_size"

# A node that loses its power: its daemon, and what that has started.
node=$(node_of_task 2) script=$(parent "$2")
eval "daemon=\$$node"
kill -KILL "$2" "$script" "$(parent "$script")" "$daemon"
echo "$node, with shard 2, killed at image $(records 2) of $shard_size"
sleep 7 # BatchStartTimeout and MessageTimeout, and one more
start "$node" slurmd -D -N "$node"
until_true 600 job_has_ended
for _ in 1 2 3; do # a node that is back before it was missed may leave its task for ended
    all_are_answered && break
    echo "a task was not requeued: the same array again"
    submit
    until_true 600 job_has_ended
done
echo "Slurm started them again: $(records 1) and $(records 2) of $shard_size"
"$here/recipe.py" check "$list" "$model" "$parts"/*.jsonl
