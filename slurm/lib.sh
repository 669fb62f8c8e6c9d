# Shared by the job scripts: sourced, not run. What each choice rests on was seen with real daemons (tests/slurm).

say() { printf '%(%F %T)T job %s start %d: %s\n' -1 "$SLURM_JOB_ID" $((${SLURM_RESTART_COUNT:-0} + 1)) "$*"; }

refuse() { echo "error: $*" >&2; exit 2; }

# Open the log, in the first of some folders that lets us: were it named in the script's own #SBATCH line, SLURM would
# end the job without a word where it cannot be written. A log that the user has named stands.
open_log() {
  local name="${SLURM_JOB_NAME:-theworld}-$SLURM_JOB_ID.out" folder
  case $(job_field StdOut) in '' | /dev/null) ;; *) return 0 ;; esac
  for folder in "$SLURM_SUBMIT_DIR/logs" "$SLURM_SUBMIT_DIR" "${HOME:-/}"; do
    { : >> "$folder/$name"; } 2> /dev/null || continue
    exec >> "$folder/$name" 2>&1
    [ "$folder" = "$SLURM_SUBMIT_DIR/logs" ] || scontrol update JobId="$SLURM_JOB_ID" Comment="log: $folder/$name"
    [ "$folder" != "${HOME:-/}" ] || echo "$SLURM_SUBMIT_DIR/logs cannot be written on $(hostname), so the log is here"
    return 0
  done
  scontrol update JobId="$SLURM_JOB_ID" Comment="error: no log can be written in $SLURM_SUBMIT_DIR"
}

# Open the log, see that this is the project's folder, and take over the site's settings.
begin() {
  local root=${1%/slurm}
  open_log
  cd "${SLURM_SUBMIT_DIR:?this script is started with sbatch}" || exit 2
  [ -f recipes/train.py ] || refuse "submitted from $PWD: paths are relative to the project's folder; cd $root and sbatch there"
  # With sbatch --export=NONE srun would give its tasks nothing of what is set here.
  export SLURM_EXPORT_ENV=ALL
  if [ -f slurm/site.env ]; then . slurm/site.env; fi
  export PYTHON=${PYTHON:-.venv/bin/python} PYTHONUNBUFFERED=1
  REQUEUE_PAUSE=${REQUEUE_PAUSE:-300}   # seconds before a job that cannot go on now (exit code 75) is started again
  command -v "$PYTHON" > /dev/null || refuse "$PYTHON: no such Python; run make setup, or set PYTHON in slurm/site.env"
  say "on ${SLURM_JOB_NODELIST:-$(hostname)}"
}

job_field() { scontrol -o show job "$SLURM_JOB_ID" 2> /dev/null | grep -oE " $1=[^ ]+" | head -n 1 | cut -d= -f2; }

# Whether this is still the newest start of the job. After a node was lost, a trainer and its script may live on there
# while SLURM has started the job again elsewhere; what this script asked of SLURM then would hit the new start.
is_newest_start() { local restarts; restarts=$(job_field Restarts); [ "${restarts:-0}" -le "${SLURM_RESTART_COUNT:-0}" ]; }

# Seconds since 1970 at which the job's time is over; nothing if it has no limit.
job_end() { local end; end=$(job_field EndTime); [ -n "$end" ] && date -d "$end" +%s 2> /dev/null; }

# Seconds that the partition gives between the preemption's signal and the kill; at least a minute is assumed.
grace() {
  local text days=0 total=0 part
  text=$(scontrol -o show partition "$SLURM_JOB_PARTITION" 2> /dev/null | grep -oE 'GraceTime=[^ ]+' | cut -d= -f2)
  case $text in *-*) days=${text%%-*}; text=${text#*-} ;; esac
  for part in ${text//:/ }; do total=$((total * 60 + 10#$part)); done
  total=$((total + days * 86400))
  echo $((total > 60 ? total : 60))
}

# Before anything is loaded: as many tasks on each node as ranks, and as many GPUs where the job has any.
check_layout() {
  local ranks=$RANKS_PER_NODE nodes=$SLURM_NNODES tasks=${SLURM_NTASKS:-} per_node gpus
  local layout="--nodes=$nodes --ntasks-per-node=R --gpus-per-node=R, R ranks a node"
  case $ranks in '' | *[!0-9]* | 0) refuse "RANKS_PER_NODE: $ranks is no number of ranks" ;; esac
  [ "${tasks:-$((nodes * ranks))}" -eq $((nodes * ranks)) ] ||
    refuse "$tasks tasks on $nodes nodes are not $nodes x $ranks ranks; submit with $layout"
  per_node=${SLURM_TASKS_PER_NODE:-}
  case $per_node in *,*) refuse "the nodes have $per_node tasks, not the same on each; submit with $layout" ;; esac
  # Of each group of nodes alike: GRES=gpu:2(IDX:0-1), or gpu:a100:2(...).
  for gpus in $(scontrol -o -d show job "$SLURM_JOB_ID" 2> /dev/null | grep -oE 'GRES=[^ ]*gpu[^ ]*\(IDX' | grep -oE '[0-9]+\(IDX' | cut -d'(' -f1); do
    [ "$gpus" -eq "$ranks" ] || refuse "a node of the job has $gpus GPUs for $ranks ranks; submit with $layout"
  done
}

# Run a command in the background, pass USR1 on to it as SIGNAL, wait for its end whatever interrupts. Sets $status,
# and $interrupted if SLURM has sent a signal.
# TERM is not passed on: SLURM sends it to every process itself, and srun would kill its tasks at once.
run_and_forward() {
  local as=$1; shift
  "$@" &
  local child=$!
  trap 'interrupted=1; kill -'"$as"' '"$child"' 2> /dev/null' USR1
  trap interrupted=1 TERM
  while :; do wait "$child"; status=$?; kill -0 "$child" 2> /dev/null || break; done
  wait "$child"; status=$?
}

# One task is one rank: see that the job is laid out so, and tell the ranks where they meet.
lay_out_ranks() {
  export RANKS_PER_NODE=${RANKS_PER_NODE:-${SLURM_NTASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}}
  check_layout
  export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
  # Another port at each start: the last one may still be closing.
  export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 16 + ${SLURM_RESTART_COUNT:-0}) % 20000))
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  # Since SLURM 22.05 srun does not take this over from sbatch by itself.
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
}

# Run a Python script as ranks, each in a task of its own, passing USR1 on to them as SIGNAL. Sets $status.
run_ranks() {
  local as=$1; shift
  # Each rank is to see all GPUs of its node, of which it takes the one of its number: --gpus-per-task=1 and
  # --gpu-bind=single:1 would show it one.
  unset SLURM_GPUS SLURM_GPUS_PER_TASK SLURM_NTASKS_PER_GPU SLURM_GPU_BIND SLURM_TRES_BIND SLURM_TRES_PER_TASK
  gpus=${SLURM_GPUS_ON_NODE:+--gpus-per-node=$SLURM_GPUS_ON_NODE}
  # --wait: a rank that dies takes the others with it a minute later; without, they would wait for it for an hour.
  # shellcheck disable=SC2086 # nothing where there are no GPUs
  run_and_forward "$as" srun --nodes="$SLURM_NNODES" --ntasks-per-node="$RANKS_PER_NODE" $gpus --wait=60 slurm/rank.sh "$@"
}

# Start again, after a pause of so many seconds (none if SLURM has interrupted what ran: nothing has to be waited for),
# unless the user cancelled the job or SLURM itself starts it again. A job that ends during its grace is not requeued by
# SLURM, and one at its time limit never is. scontrol requeue ends this script, so that it comes last; SLURM's TERM must
# not end what sets the pause.
requeue() {
  local pause=${1:-0} job child
  [ -z "${interrupted:-}" ] || pause=0
  is_newest_start || { say "not requeued: a newer start of the job is at work"; return; }
  job=$(scontrol -o show job "$SLURM_JOB_ID" 2> /dev/null)
  case $job in
    *JobState=RUNNING*|*Reason=TimeLimit*)
      if [ "$pause" -gt 0 ]; then say "requeued, to start in $pause s"; else say "requeued"; fi
      (trap '' TERM
       scontrol requeue "$SLURM_JOB_ID" || exit
       [ "$pause" -eq 0 ] || scontrol update JobId="$SLURM_JOB_ID" StartTime="now+$pause") &
      child=$!
      while kill -0 "$child" 2> /dev/null; do wait "$child"; done
      sleep infinity & wait ;;
    *) say "not requeued: cancelled, or SLURM does it itself" ;;
  esac
}
