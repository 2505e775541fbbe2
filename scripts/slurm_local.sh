#!/usr/bin/env bash
# A real SLURM on this one machine, for trying sweeps, preemption and requeue (Debian: apt-get install slurm-wlm munge; root).
#
#   scripts/slurm_local.sh start FOLDER && export SLURM_CONF=FOLDER/slurm.conf
#   scripts/slurm_local.sh stop FOLDER
set -eu
folder=$(realpath -m "${2:?usage: slurm_local.sh start|stop FOLDER}")
export SLURM_CONF=$folder/slurm.conf

start() {
  local host port
  host=$(hostname)
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  mkdir -p "$folder/state" "$folder/spool" /run/munge /var/log/munge /var/lib/munge /etc/munge
  if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
    [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom > /etc/munge/munge.key
    chmod 400 /etc/munge/munge.key
    chmod 755 /run/munge
    chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
    su -s /bin/sh munge -c "munged --force"
  fi
  cat > "$SLURM_CONF" <<CONF
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=10
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
MpiDefault=none
MinJobAge=3600
OverTimeLimit=1
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES State=UP OverSubscribe=YES:4
CONF
  slurmctld
  slurmd
  for _ in $(seq 60); do
    if sinfo -h -o %t 2>/dev/null | grep -q '^idle'; then return 0; fi
    sleep 0.5
  done
  echo "SLURM did not come up; see $folder/slurmctld.log and $folder/slurmd.log" >&2
  return 1
}

stop() {
  for name in slurmd slurmctld; do
    [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")"
  done
}

"$1"
