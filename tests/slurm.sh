#!/usr/bin/env bash
# Proves the cluster profile: installs Debian's SLURM if need be, starts one of a single node, runs a
# profile through it and on this machine without it, in two clones, and compares their tables.
# Needs root: a job finds its cluster by /etc/slurm/slurm.conf alone. Exit code 77: cannot be had here.
#
#   bash tests/slurm.sh [PROFILE]     smoke by default: two smoke runs, about 25 minutes on two cores
set -euo pipefail
PROFILE="${1:-smoke}"
REPO="$(cd "$(dirname "$0")/.." && pwd)"
PATH="$PATH:/usr/sbin"
[ "$(id -u)" = 0 ] || { echo "a SLURM of one node needs root"; exit 77; }
[ ! -e /etc/slurm/slurm.conf ] || { echo "this machine has a SLURM of its own"; exit 77; }
WORK="$(mktemp -d)"

if ! { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null; then
  apt-get install -y --no-install-recommends slurm-wlm munge > "$WORK/apt.log" 2>&1 ||
    { echo "SLURM cannot be installed here: $(tail -1 "$WORK/apt.log")"; exit 77; }
fi

# --- a cluster of one node
mkdir "$WORK/state" "$WORK/spool"
chmod 700 "$WORK"
(umask 077; head -c 1024 /dev/urandom > "$WORK/munge.key")
HOST="$(hostname -s)"
stop() {
  for name in slurmd slurmctld munged; do
    [ -f "$WORK/$name.pid" ] && kill "$(cat "$WORK/$name.pid")" 2> /dev/null || true
  done
  rm -f /etc/slurm/slurm.conf
}
trap stop EXIT
mkdir -p /etc/slurm
cat > /etc/slurm/slurm.conf <<END
ClusterName=one
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=26817
SlurmdPort=26818
AuthType=auth/munge
AuthInfo=socket=$WORK/munge.socket
CredType=cred/munge
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=3600
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1100)}' /proc/meminfo)
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
munged --force --key-file "$WORK/munge.key" --socket "$WORK/munge.socket" --pid-file "$WORK/munged.pid" \
  --log-file "$WORK/munged.log" --seed-file "$WORK/munged.seed"
slurmctld
slurmd
for _ in $(seq 30); do sinfo -h -o %t | grep -q idle && break; sleep 1; done
sinfo

# --- the same run twice
for way in local cluster; do
  git clone -q "$REPO" "$WORK/$way"
  (cd "$WORK/$way" && make .venv/.figures > "$WORK/$way.setup.log" 2>&1)
done
"$WORK/cluster/.venv/bin/python" -m pip install -q --disable-pip-version-check -e "$WORK/cluster[slurm]"
cd "$WORK/cluster"
SECONDS=0
# squeue, since this SLURM has no accounts' database that sacct could ask
.venv/bin/python -m snakemake --workflow-profile profiles/slurm --config "profile=$PROFILE" \
  --slurm-status-command squeue \
  > "$WORK/cluster.log" 2>&1 || { tail -30 "$WORK/cluster.log"; exit 1; }
echo "through SLURM: $SECONDS s"
cd "$WORK/local"
SECONDS=0
.venv/bin/python -m snakemake --config "profile=$PROFILE" > "$WORK/local.log" 2>&1 ||
  { tail -30 "$WORK/local.log"; exit 1; }
echo "without: $SECONDS s"
"$WORK/local/.venv/bin/python" "$REPO/tests/same_tables.py" {"$WORK/local","$WORK/cluster"}"/figures/$PROFILE/tables"
stop
sleep 3 # until the daemons have ended
rm -rf "$WORK"
