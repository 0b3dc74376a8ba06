#!/bin/sh
# One-node Slurm on this machine, for tests: slurm.sh start FOLDER | slurm.sh stop FOLDER
# Needs root and Debian's packages slurm-wlm and munge; no database, no control groups.
set -eu
what=$1
folder=$2
host=$(hostname)

start() {
  mkdir -p "$folder/state" "$folder/spool"
  cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobcomp.log
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
DefMemPerCPU=1000
MinJobAge=600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=${SLURM_TEST_MB:-8000} State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  if ! munge -n >/dev/null 2>&1; then
    install -d -o munge -g munge -m 755 /run/munge
    setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged
    touch "$folder/own-munged"
  fi
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld -c
  slurmd
  for _ in $(seq 100); do
    if sinfo --noheader -o %t 2>/dev/null | grep -qx idle; then exit 0; fi
    sleep 0.1
  done
  echo "no idle node after 10 s" >&2
  tail -n 5 "$folder/slurmctld.log" "$folder/slurmd.log" >&2
  exit 1
}

stop() {
  for name in slurmd slurmctld; do
    if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
  done
  if [ -f "$folder/own-munged" ] && [ -f /run/munge/munged.pid ]; then
    kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true
  fi
}

case $what in
  start) start ;;
  stop) stop ;;
  *) echo "usage: slurm.sh start|stop FOLDER" >&2; exit 64 ;;
esac
